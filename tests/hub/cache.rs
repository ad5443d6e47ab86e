//! What lies in the cache when somebody else was there: damaged content, links that lead out, FIFOs, locks that nobody gives back.

use crate::server::{Fault, Server, git_id, sha256};
use crate::{ID, child, hub_of, start, transformers, tree, weights};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tadformer::hub::Hub;
use tadformer::{Error, HubProblem};
use tempfile::TempDir;

const FILE: &str = "model.safetensors";

/// A cache that was filled, and the paths in it.
struct Filled {
    server: Server,
    cache: TempDir,
    hub: Hub,
    entry: PathBuf,
    blob: PathBuf,
}

fn filled() -> Filled {
    let (server, cache, hub) = start(transformers());
    let entry = hub.model(ID).unwrap().file(FILE).unwrap();
    let blob = cache.path().join("models--someone--swin-small/blobs").join(sha256(&weights()));
    server.requests();
    Filled { server, cache, hub, entry, blob }
}

fn file(hub: &Hub) -> Result<PathBuf, Error> {
    hub.model(ID).and_then(|model| model.file(FILE))
}

fn incomplete(blob: &Path) -> PathBuf {
    let (size, digest) = (weights().len(), sha256(&weights()));
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n");
    blob.with_file_name(format!("{}.incomplete", git_id(pointer.as_bytes())))
}

fn lock(filled: &Filled) -> PathBuf {
    let name = incomplete(&filled.blob).with_extension("lock");
    filled.cache.path().join(".locks/models--someone--swin-small").join(name.file_name().unwrap())
}

/// Other bytes, as many as before.
fn overwrite(path: &Path) {
    let mut file = File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(1000)).unwrap();
    file.write_all(&[0x55; 64]).unwrap();
}

fn cut_short(path: &Path) {
    File::options().write(true).open(path).unwrap().set_len(1000).unwrap();
}

#[test]
fn a_blob_that_is_not_what_its_name_says_is_downloaded_anew() {
    for damage in [overwrite, cut_short] {
        for without_link in [false, true] {
            let filled = filled();
            damage(&filled.blob);
            if without_link {
                std::fs::remove_file(&filled.entry).unwrap();
            }
            let path = file(&filled.hub).unwrap();
            assert!(std::fs::read(path).unwrap() == weights() && std::fs::read(&filled.blob).unwrap() == weights());
            assert!(filled.server.requests().iter().any(|request| request.path.starts_with("/cdn/")));
            file(&filled.hub).unwrap();
            assert!(filled.server.requests().is_empty());
        }
    }
}

#[test]
fn a_damaged_blob_is_named_where_the_hub_cannot_be_asked() {
    let Filled { server, cache: _cache, hub, entry, blob } = filled();
    overwrite(&blob);
    drop(server);
    for (hub, why) in [(hub.clone().offline(), "offline mode is on"), (hub, "refused")] {
        let message = file(&hub).unwrap_err().to_string();
        assert!(message.starts_with(entry.to_str().unwrap()), "{message}");
        assert!(message.contains("not what its digest says") && message.contains(why) && message.contains("remove it"));
        assert!(blob.exists(), "it stays for whoever changed it");
    }
}

#[test]
fn a_damaged_blob_of_a_small_file_is_found_too() {
    let filled = filled();
    let path = filled.hub.model(ID).unwrap().file("config.json").unwrap();
    let text = std::fs::read(&path).unwrap();
    overwrite(&path);
    assert!(std::fs::read(filled.hub.model(ID).unwrap().file("config.json").unwrap()).unwrap() == text);
}

/// As on systems where links take privileges.
#[test]
fn a_copy_is_compared_with_the_blob_that_it_is_of() {
    let filled = filled();
    std::fs::remove_file(&filled.entry).unwrap();
    std::fs::copy(&filled.blob, &filled.entry).unwrap();
    let offline = filled.hub.clone().offline();
    assert!(file(&offline).is_ok());
    overwrite(&filled.entry);
    assert!(file(&offline).unwrap_err().to_string().contains("not what its digest says"));
    assert!(std::fs::read(file(&filled.hub).unwrap()).unwrap() == weights());
    // A copy whose blob was moved away can be compared with nothing.
    std::fs::remove_file(&filled.entry).unwrap();
    std::fs::rename(&filled.blob, &filled.entry).unwrap();
    assert!(file(&offline).is_ok());
}

#[test]
#[cfg(unix)]
fn a_link_out_of_the_models_folder_is_refused() {
    let filled = filled();
    let victim = tempfile::NamedTempFile::new().unwrap();
    let other = filled.cache.path().join("models--other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("file"), "x").unwrap();
    for target in [victim.path(), Path::new("/etc/passwd"), Path::new("../../../models--other/file")] {
        std::fs::remove_file(&filled.entry).unwrap();
        std::os::unix::fs::symlink(target, &filled.entry).unwrap();
        for hub in [filled.hub.clone(), filled.hub.clone().offline()] {
            let message = file(&hub).unwrap_err().to_string();
            assert!(message.contains("a link out of this model's part of the cache"), "{message}");
        }
    }
    // One that leads nowhere is as good as none.
    std::fs::remove_file(&filled.entry).unwrap();
    std::os::unix::fs::symlink("../../blobs/none", &filled.entry).unwrap();
    assert!(std::fs::read(file(&filled.hub).unwrap()).unwrap() == weights());
}

#[test]
#[cfg(unix)]
fn nothing_is_written_through_a_folder_that_leads_out() {
    let model = "models--someone--swin-small";
    for place in ["blobs", "refs", "snapshots", "locks"] {
        let (_server, cache, hub) = start(transformers());
        let outside = tempfile::tempdir().unwrap();
        let at = cache.path().join(if place == "locks" { ".locks".into() } else { format!("{model}/{place}") });
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(outside.path(), &at).unwrap();
        let message = file(&hub).unwrap_err().to_string();
        assert!(message.contains("a link out of "), "{place}: {message}");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "{place}");
    }
    // A whole model that somebody keeps on another disk is one that is meant.
    let (_server, cache, hub) = start(transformers());
    let disk = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(disk.path(), cache.path().join(model)).unwrap();
    assert!(std::fs::read(file(&hub).unwrap()).unwrap() == weights());
    assert!(file(&hub.offline()).is_ok());
}

/// Where the cache keeps a file.
#[cfg(unix)]
type Place = fn(&Filled) -> PathBuf;

/// Puts something into a path's place.
#[cfg(unix)]
type Put = fn(&Path);

#[cfg(unix)]
fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[cfg(unix)]
fn folder(path: &Path) {
    std::fs::create_dir(path).unwrap();
}

#[test]
#[cfg(unix)]
fn what_is_no_file_is_refused_by_name_wherever_the_cache_keeps_one() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    let places: [(&str, Place); 5] = [
        ("download", |filled| incomplete(&filled.blob)),
        ("lock", lock),
        ("reference", |filled| filled.cache.path().join("models--someone--swin-small/refs/main")),
        ("entry", |filled| filled.entry.clone()),
        ("blob", |filled| filled.blob.clone()),
    ];
    for (place, path) in places {
        for (kind, put) in [("a FIFO", fifo as Put), ("a folder", folder)] {
            let filled = filled();
            if ["download", "lock"].contains(&place) {
                std::fs::remove_file(&filled.entry).unwrap();
                std::fs::remove_file(&filled.blob).unwrap();
            }
            let path = path(&filled);
            let _ = std::fs::remove_file(&path);
            put(&path);
            let start = Instant::now();
            let message = file(&filled.hub).unwrap_err().to_string();
            assert!(start.elapsed() < Duration::from_secs(2), "{place}, {kind}");
            assert!(message.contains(&format!("{kind} lies where")), "{place}, {kind}: {message}");
        }
    }
    // A link is refused where it would be written through, and where the cache has none of its own.
    for (place, path) in &places[..3] {
        let filled = filled();
        std::fs::remove_file(&filled.entry).unwrap();
        std::fs::remove_file(&filled.blob).unwrap();
        let path = path(&filled);
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        let message = file(&filled.hub).unwrap_err().to_string();
        assert!(message.contains("a link lies where"), "{place}: {message}");
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }
}

#[test]
fn a_reference_that_is_no_commit_is_asked_for_again() {
    let filled = filled();
    let reference = filled.cache.path().join("models--someone--swin-small/refs/main");
    let commit = std::fs::read_to_string(&reference).unwrap();
    for text in [&b"../../../../../../../../../../../../../x"[..], b"", b"\xff\xfe", &[b'a'; 1 << 20]] {
        std::fs::write(&reference, text).unwrap();
        file(&filled.hub).unwrap();
        assert_eq!(std::fs::read_to_string(&reference).unwrap(), commit);
    }
}

#[test]
fn a_lock_that_is_held_and_not_used_is_given_up_with_its_holder_named() {
    let filled = filled();
    std::fs::remove_file(&filled.entry).unwrap();
    std::fs::remove_file(&filled.blob).unwrap();
    let mut held = File::options().create(true).truncate(false).write(true).open(lock(&filled)).unwrap();
    held.lock().unwrap();
    held.set_len(0).unwrap();
    held.write_all(b"process 4242 (someone else)\n").unwrap();
    let start = Instant::now();
    let error = file(&filled.hub.clone().patience(Duration::from_millis(50))).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(3));
    let message = error.to_string();
    assert!(matches!(error, Error::Hub { problem: HubProblem::Locked { .. }, .. }), "{message}");
    assert!(message.contains("process 4242 (someone else) holds ") && message.contains(".lock"), "{message}");
    held.unlock().unwrap();
    assert!(file(&filled.hub).is_ok());
    let signed = std::fs::read_to_string(lock(&filled)).unwrap();
    assert!(signed.starts_with(&format!("process {} (", std::process::id())), "{signed}");
}

#[test]
fn of_two_processes_one_is_killed_and_the_other_goes_on() {
    for round in 0..6u32 {
        let (server, cache, _) = start(transformers());
        server.fail("/cdn/", Fault::Pieces(60_000, Duration::from_millis(20)), 100);
        let hub = hub_of(&server.endpoint(), &cache);
        let mut processes = [child(&hub, &[]), child(&hub, &[])];
        std::thread::sleep(Duration::from_millis(30 + 50 * u64::from(round)));
        let [killed, other] = &mut processes;
        let (killed, other) = if round % 2 == 0 { (killed, other) } else { (other, killed) };
        killed.kill().unwrap();
        killed.wait().unwrap();
        assert!(other.wait().unwrap().success(), "round {round}");
        let left = tree(cache.path());
        assert!(!left.iter().any(|file| file.contains("incomplete")), "round {round}: {left:?}");
        let blob = cache.path().join("models--someone--swin-small/blobs").join(sha256(&weights()));
        assert!(std::fs::read(blob).unwrap() == weights());
    }
}

#[test]
fn nothing_is_written_outside_the_cache() {
    let (server, cache, _) = start(transformers());
    let home = tempfile::tempdir().unwrap();
    let hub = hub_of(&server.endpoint(), &cache);
    let own = home.path().to_str().unwrap();
    let places: Vec<(&str, &str)> = ["HOME", "HF_HOME", "XDG_CACHE_HOME", "TMPDIR"].map(|name| (name, own)).to_vec();
    assert!(child(&hub, &places).wait().unwrap().success());
    assert_eq!(tree(home.path()), Vec::<String>::new());
    let wrong = |path: &String| !path.starts_with(".locks/models--") && !path.starts_with("models--someone--");
    assert_eq!(tree(cache.path()).into_iter().filter(wrong).collect::<Vec<_>>(), Vec::<String>::new());
    // What the hub hears of the machine is what it needs to answer.
    for request in server.requests() {
        let allowed = ["accept", "accept-encoding", "content-length", "content-type", "host", "range", "user-agent"];
        assert!(request.headers.keys().all(|name| allowed.contains(&name.as_str())), "{:?}", request.headers);
        assert_eq!(request.headers["user-agent"], concat!("tadformer/", env!("CARGO_PKG_VERSION")));
        assert_eq!(request.headers["accept-encoding"], "identity");
    }
}
