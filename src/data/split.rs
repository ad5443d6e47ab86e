//! Splits of a published data set: lists of its images' names.

use crate::files::read_start;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// Bytes of the longest list that is read: a million names.
const LONGEST_LIST: u64 = 32 << 20;

/// The images that `FOLDER/SPLIT.txt` names, one a line.
///
/// # Errors
/// No such list, in a message with those that there are; a list without a name; a line that is no name of a file.
pub(super) fn read_split(folder: &Path, split: &str) -> Result<Vec<String>> {
    let path = folder.join(format!("{split}.txt"));
    if !is_name(split) || !path.exists() {
        return Err(no_split(folder, split));
    }
    let bytes = read_start(&path, LONGEST_LIST + 1)?;
    if bytes.len() as u64 > LONGEST_LIST {
        return Err(Error::file(
            &path,
            format!("a list of over {LONGEST_LIST} bytes"),
            "give a list of names, one a line",
        ));
    }
    let text = String::from_utf8_lossy(&bytes);
    let mut ids = Vec::new();
    for (line, id) in text.lines().map(str::trim).enumerate().filter(|(_, id)| !id.is_empty()) {
        if !is_name(id) {
            let problem = format!("line {}: expected an image's name, got {id:.80}", line + 1);
            return Err(Error::file(&path, problem, "names have letters, digits, `_`, `-` and `.`, and no ending"));
        }
        ids.push(id.to_owned());
    }
    match ids.is_empty() {
        true => Err(Error::file(&path, "a list without a name", "name the split's images, one a line")),
        false => Ok(ids),
    }
}

fn no_split(folder: &Path, split: &str) -> Error {
    let mut lists: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".txt")?.to_owned()))
        .collect();
    lists.sort();
    lists.truncate(20);
    let cure = match lists.is_empty() {
        true => format!("put the published lists there, such as {}", folder.join("train.txt").display()),
        false => format!("there are {}", lists.join(", ")),
    };
    Error::file(folder, format!("no list of the split `{split:.80}`"), cure)
}

/// The name of the image of this index.
///
/// # Errors
/// An index beyond the end.
pub(super) fn id_at(ids: &[String], index: usize) -> Result<&str> {
    let expected = || format!("below {}, the number of images", ids.len());
    let past = || Error::config("index", expected(), index, "indices count from 0");
    ids.get(index).map(String::as_str).ok_or_else(past)
}

/// Whether it can only be a file in its folder.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (1..=100).contains(&name.len()) && !name.starts_with('.') && name.chars().all(plain)
}

/// `ROOT/FOLDER`, which must be a folder.
///
/// # Errors
/// Where it is none, with the cure that the data set's own layout gives.
pub(super) fn folder_in(root: &Path, folder: &str, cure: &str) -> Result<PathBuf> {
    let path = root.join(folder);
    match path.is_dir() {
        true => Ok(path),
        false => Err(Error::file(&path, "no such folder", cure)),
    }
}

/// The first of these files that there is.
pub(super) fn first_of(paths: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    // A link to nowhere is there, and reading it says what is wrong.
    paths.into_iter().find(|path| path.symlink_metadata().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_names_one_a_line_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: &[u8]| {
            std::fs::write(folder.path().join("train.txt"), text).unwrap();
            read_split(folder.path(), "train")
        };
        assert_eq!(read(b"2008_000003\r\n\n  0007 \na.b-c").unwrap(), ["2008_000003", "0007", "a.b-c"]);
        for (text, words) in [
            (&b"\n \n"[..], "a list without a name"),
            (b"0001\n../../etc/passwd\n", "line 2: expected an image's name, got ../../etc/passwd"),
            (b"0001 1\n", "line 1"),
            (b".hidden\n", "line 1"),
            (b"\xff\xfe\n", "line 1"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains("train.txt") && message.contains(words), "{message}");
        }
        read(b"0001").unwrap();
        for split in ["val", "../train", ""] {
            let message = read_split(folder.path(), split).unwrap_err().to_string();
            assert!(message.contains("no list of the split") && message.contains("there are train"), "{message}");
        }
        let message = read_split(&folder.path().join("none"), "val").unwrap_err().to_string();
        assert!(message.contains("train.txt"), "{message}");
    }
}
