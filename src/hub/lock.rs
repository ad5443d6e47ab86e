//! One process downloads a file while others wait for it, for as long as it gets on.

use super::regular;
use crate::error::HubProblem;
use crate::{Error, Result};
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a lock that another process holds is tried.
const POLL: Duration = Duration::from_millis(50);

/// What came of asking for a lock.
pub(super) enum Taken {
    /// It is held until this is dropped; a process that ends gives it back, however it ends.
    Lock(#[expect(dead_code, reason = "held, not read")] File),
    /// Another process holds it, and did nothing for as long as was waited.
    ByAnother(HubProblem),
}

/// Waits for a lock, as long as its holder's download grows; `patience` is how long it may stand still.
pub(super) fn take(path: &Path, download: &Path, patience: Duration) -> Result<Taken> {
    let mut file = regular::open_or_make(path)?;
    let start = Instant::now();
    let (mut grown, mut since) = (state(download), start);
    loop {
        match file.try_lock() {
            Ok(()) => {
                sign(&mut file);
                return Ok(Taken::Lock(file));
            }
            // Some network drives have no locks; the digest then finds what two writers made of one file.
            Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => return Ok(Taken::Lock(file)),
            Err(TryLockError::Error(e)) => return Err(Error::io(path, "lock")(e)),
            Err(TryLockError::WouldBlock) => {}
        }
        let now = state(download);
        if now != grown {
            (grown, since) = (now, Instant::now());
        }
        if since.elapsed() >= patience {
            let (lock, holder, waited) = (path.to_owned(), holder(&mut file), start.elapsed());
            return Ok(Taken::ByAnother(HubProblem::Locked { lock, holder, waited }));
        }
        std::thread::sleep(POLL.min(patience));
    }
}

/// How far a download is.
fn state(download: &Path) -> Option<u64> {
    download.symlink_metadata().ok().map(|found| found.len())
}

/// Says in the lock whose it is. It is for people: where it cannot be written, the lock holds all the same.
fn sign(file: &mut File) {
    let program = std::env::current_exe().ok();
    let name = program.as_deref().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let text = format!("process {} ({name})\n", std::process::id());
    let _ = file.set_len(0).and_then(|()| file.write_all(text.as_bytes()));
}

/// Whose a lock is, by what its holder wrote there.
fn holder(file: &mut File) -> String {
    let mut text = Vec::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(200).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    match read {
        Ok(1..) if !line.is_empty() => super::id::shown(line),
        _ => "a process that left no name".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(200);

    #[test]
    fn a_lock_whose_holder_does_nothing_is_given_up_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let (lock, download) = (folder.path().join("lock"), folder.path().join("download"));
        let first = take(&lock, &download, PATIENCE).unwrap();
        assert!(matches!(first, Taken::Lock(_)));
        let start = Instant::now();
        let Taken::ByAnother(HubProblem::Locked { lock: named, holder, waited }) =
            take(&lock, &download, PATIENCE).unwrap()
        else {
            panic!("two hold one lock")
        };
        assert!(start.elapsed() < 10 * PATIENCE && waited >= PATIENCE);
        assert!(named == lock && holder.starts_with(&format!("process {} (", std::process::id())), "{holder}");
        drop(first);
        assert!(matches!(take(&lock, &download, PATIENCE).unwrap(), Taken::Lock(_)));
    }

    #[test]
    fn a_lock_whose_holder_gets_on_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (lock, download) = (folder.path().join("lock"), folder.path().join("download"));
        let held = take(&lock, &download, PATIENCE).unwrap();
        let grows = download.clone();
        let holder = std::thread::spawn(move || {
            for length in 1..30 {
                std::fs::write(&grows, vec![0; length]).unwrap();
                std::thread::sleep(PATIENCE / 10);
            }
            drop(held);
        });
        assert!(matches!(take(&lock, &download, PATIENCE).unwrap(), Taken::Lock(_)));
        holder.join().unwrap();
    }

    #[test]
    fn what_a_lock_says_of_its_holder_is_cut_and_printable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        for (text, want) in [
            (&b""[..], "a process that left no name"),
            (b"\n\n", "a process that left no name"),
            (b"a\x1b[2Jb\nc", "a [2Jb"),
            (&[b'x'; 1000], &"x".repeat(200)),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(holder(&mut File::open(&path).unwrap()), want);
        }
    }
}
