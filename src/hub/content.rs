//! What content is called: by its SHA-256, or by git's ids.

use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::io::Read;

/// The digests of content that comes piece by piece, whose size is known before.
pub(super) struct Digests {
    len: u64,
    sha256: Sha256,
    git: Sha1,
}

impl Digests {
    pub(super) fn of_size(size: u64) -> Self {
        Self { len: 0, sha256: Sha256::new(), git: git_header(size) }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        self.sha256.update(bytes);
        self.git.update(bytes);
    }

    /// How many bytes came.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// What a blob of this content is called; `None` where it is not that of git's object `oid`.
    pub(super) fn name_of(&self, oid: &str) -> Option<String> {
        let (git, sha256) = (hex(&self.git.clone().finalize()), hex(&self.sha256.clone().finalize()));
        let of_pointer = || (pointer_id(&sha256, self.len) == *oid).then(|| sha256.clone());
        if git == *oid { Some(git) } else { of_pointer() }
    }
}

/// Whether a name is a digest, as a blob's is.
pub(super) fn is_digest(name: &str) -> bool {
    [SHA256_DIGITS, SHA1_DIGITS].contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether content of `size` bytes is what a digest says: a SHA-256, git's id, or the plain SHA-1 by which some mirrors name.
pub(super) fn is_called(content: impl Read, size: u64, digest: &str) -> std::io::Result<bool> {
    if digest.len() == SHA256_DIGITS {
        let mut sha256 = Sha256::new();
        each_piece(content, |bytes| sha256.update(bytes))?;
        return Ok(hex(&sha256.finalize()) == digest);
    }
    let (mut git, mut plain) = (git_header(size), Sha1::new());
    each_piece(content, |bytes| {
        git.update(bytes);
        plain.update(bytes);
    })?;
    Ok([git, plain].into_iter().any(|sha1| hex(&sha1.finalize()) == digest))
}

/// Git's id of the pointer that stands for a large file: it fixes the SHA-256 and the size.
pub(super) fn pointer_id(sha256: &str, size: u64) -> String {
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n");
    let mut hash = git_header(pointer.len() as u64);
    hash.update(pointer);
    hex(&hash.finalize())
}

/// Hands over a content's bytes, a piece at a time.
pub(super) fn each_piece(mut content: impl Read, mut take: impl FnMut(&[u8])) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match content.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => take(&buffer[..read]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

const SHA256_DIGITS: usize = 64;
const SHA1_DIGITS: usize = 40;

/// The start of git's id of a file.
fn git_header(size: u64) -> Sha1 {
    Sha1::new_with_prefix(format!("blob {size}\0"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointers_id_is_the_one_that_the_hub_lists() {
        // ggml-tiny.bin of ggerganov/whisper.cpp, as the hub lists it.
        let sha256 = "be07e048e1e599ad46341c8d2a135645097a538221678b7acdd1b1919c6e1b21";
        assert_eq!(pointer_id(sha256, 77_691_713), "d144f735b005ae8cbfa04a49e22fe40faa24dbec");
    }

    #[test]
    fn an_empty_files_id_is_gits() {
        assert_eq!(hex(&git_header(0).finalize()), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    }

    #[test]
    fn content_is_known_by_each_of_its_names_and_by_no_other() {
        // `printf abc | sha256sum`, `| git hash-object --stdin`, `| sha1sum`.
        let names = [
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f",
            "a9993e364706816aba3e25717850c26c9cd0d89d",
        ];
        for name in names {
            assert!(is_digest(name));
            assert!(is_called(&b"abc"[..], 3, name).unwrap(), "{name}");
            assert!(!is_called(&b"abd"[..], 3, name).unwrap(), "{name}");
        }
        assert!(!is_digest("model.safetensors") && !is_digest(&"g".repeat(64)) && !is_digest("abc"));
    }
}
