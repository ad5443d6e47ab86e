//! Names that are safe in a path and in an address.

use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// A model on the hub: `OWNER/NAME`, or `OWNER/NAME@REVISION` with a branch, tag or commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelId {
    name: String,
    revision: Option<String>,
}

impl ModelId {
    /// `OWNER/NAME`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The branch, tag or commit; `main` where none is named.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// The revision where it is a whole commit.
    pub(super) fn commit(&self) -> Option<String> {
        self.revision.clone().filter(|revision| is_commit(revision))
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

impl FromStr for ModelId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, revision) = text.split_once('@').map_or((text, None), |(name, revision)| (name, Some(revision)));
        let parts: Vec<&str> = name.split('/').collect();
        if parts.len() > 2 || name.len() > 192 || !parts.iter().all(|part| is_part(part)) {
            let cure = "an id such as microsoft/swin-tiny-patch4-window7-224, or a path that exists";
            return Err(Error::config("model", "OWNER/NAME, with @REVISION where it matters", shown(text), cure));
        }
        if let Some(revision) = revision
            && !is_path(revision)
        {
            let cure = "a name such as main or refs/pr/1";
            return Err(Error::config("revision", "a branch, a tag or a commit", shown(revision), cure));
        }
        Ok(Self { name: name.to_owned(), revision: revision.map(str::to_owned) })
    }
}

/// Forty hexadecimal digits.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Refuses a file name that could leave the model's folder.
pub(super) fn check_file(name: &str) -> Result<()> {
    if is_path(name) {
        return Ok(());
    }
    Err(Error::config("file", "the name of a file in the model", shown(name), "a name such as model.safetensors"))
}

/// What the hub takes as an owner or a name; `--` separates them in the cache.
fn is_part(part: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let inside = |end: char| part.starts_with(end) || part.ends_with(end);
    !part.is_empty()
        && part.bytes().all(allowed)
        && !part.contains("--")
        && !part.contains("..")
        && !inside('-')
        && !inside('.')
}

/// A path downwards, the same on every system.
fn is_path(path: &str) -> bool {
    let allowed = |c: char| !c.is_control() && !"\\:*?\"<>|".contains(c);
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.len() <= 255 && path.chars().all(allowed) && path.split('/').all(part)
}

/// A text of someone else's, cut short and without control characters.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    if text.chars().nth(200).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_with_and_without_a_revision() {
        for (text, name, revision) in [
            ("microsoft/swin-tiny-patch4-window7-224", "microsoft/swin-tiny-patch4-window7-224", "main"),
            (
                "timm/swin_base_patch4_window12_384.ms_in22k_ft_in1k@v1",
                "timm/swin_base_patch4_window12_384.ms_in22k_ft_in1k",
                "v1",
            ),
            ("gpt2@refs/pr/1", "gpt2", "refs/pr/1"),
        ] {
            let id: ModelId = text.parse().unwrap();
            assert_eq!((id.name(), id.revision(), id.to_string().as_str()), (name, revision, text));
            assert_eq!(id.commit(), None);
        }
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(format!("a/b@{commit}").parse::<ModelId>().unwrap().commit().as_deref(), Some(commit));
    }

    #[test]
    fn names_that_leave_their_folder_are_refused() {
        for text in [
            "", "a/b/c", "../b", "a/..", "a--b/c", "a/b c", "a/.b", "/b", "a/", "a\\b", "a/b\n", "a/b@../c", "a/b@",
            "a/b@/c",
        ] {
            assert!(text.parse::<ModelId>().is_err(), "{text:?}");
        }
        for name in ["../x", "a/../../x", "/etc/passwd", "a//b", "", ".", "C:x", "a\\..\\x", "a\0b"] {
            let message = check_file(name).unwrap_err().to_string();
            assert!(message.starts_with("`file`"), "{message}");
        }
        assert!(check_file("folder/model.safetensors").is_ok());
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(shown("a\x1b[0m"), "a [0m");
        assert_eq!(shown(&"a".repeat(1000)).len(), 203);
    }
}
