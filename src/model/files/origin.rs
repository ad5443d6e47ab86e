//! Where a backbone's weights came from: what helps whoever has the adapter, and nothing of this machine's folders.

use crate::Printable;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::path::Path;

/// The files of a published model's weights, the first that is there.
pub(in crate::model) const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];
/// Longer than the name of any file.
const MOST_NAME: usize = 255;

/// Where a backbone's weights came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Origin {
    /// Drawn with a seed.
    Random {
        /// The seed.
        seed: u64,
    },
    /// A checkpoint that is published nowhere.
    File {
        /// Its name, without its folders.
        #[serde(deserialize_with = "name_alone")]
        name: String,
    },
    /// A model on the Hugging Face hub.
    Hub {
        /// `OWNER/NAME`.
        id: String,
        /// The commit.
        revision: String,
    },
}

/// What is written as a name may lead anywhere.
fn name_alone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(|path| file_name(&path))
}

/// The last part of a path, of whichever system, on one line.
fn file_name(path: &str) -> String {
    let name = path.rsplit(['/', '\\']).find(|part| !part.is_empty()).unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).take(MOST_NAME).collect();
    if [".", ".."].contains(&name.as_str()) { String::new() } else { name }
}

impl Default for Origin {
    fn default() -> Self {
        Self::Random { seed: 0 }
    }
}

impl Origin {
    /// What a checkpoint's path says: the model and commit where it lies in the hub's cache, `.../models--OWNER--NAME/snapshots/COMMIT`,
    /// and its name elsewhere.
    pub fn of_path(path: &Path) -> Self {
        match in_hub_cache(path) {
            Some((id, revision)) => Self::Hub { id, revision },
            None => Self::File { name: file_name(&path.to_string_lossy()) },
        }
    }

    /// The id and commit of a backbone that is published: everybody can have it again from the hub.
    pub fn published(&self) -> Option<(String, String)> {
        match self {
            Self::Hub { id, revision } => Some((id.clone(), revision.clone())),
            Self::File { .. } | Self::Random { .. } => None,
        }
    }

    /// The name of the file that the backbone was read from, where it was one.
    pub(in crate::model) fn file_name(&self) -> Option<&str> {
        match self {
            Self::File { name } => Some(name.as_str()).filter(|name| !name.is_empty()),
            Self::Hub { .. } | Self::Random { .. } => None,
        }
    }
}

fn in_hub_cache(path: &Path) -> Option<(String, String)> {
    let is_commit = |text: &str| text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let snapshot = if WEIGHTS.iter().any(|name| path.ends_with(name)) { path.parent()? } else { path };
    let mut parts = snapshot.iter().rev().map(|part| part.to_str());
    let (commit, snapshots, folder) = (parts.next()??, parts.next()??, parts.next()??);
    let id = folder.strip_prefix("models--")?.replacen("--", "/", 1);
    (snapshots == "snapshots" && is_commit(commit)).then(|| (id, commit.to_owned()))
}

/// The backbone that a model's adapters were made for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseModel {
    /// Where its weights came from.
    pub origin: Origin,
    /// SHA-256 of its weights, in hexadecimal.
    pub digest: String,
}

impl BaseModel {
    /// The first twelve digits of the digest: enough to tell backbones apart.
    pub fn short_digest(&self) -> &str {
        self.digest.get(..12).unwrap_or(&self.digest)
    }

    /// The name of a backbone's file beside its adapters.
    pub fn file_name(&self) -> String {
        format!("backbone-{}.safetensors", self.short_digest())
    }
}

impl fmt::Display for BaseModel {
    /// The digest's start, and where everybody can have the weights, or the name of the file that they were read from.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Printable(self.short_digest()))?;
        match (self.origin.published(), self.origin.file_name()) {
            (Some((id, commit)), _) => {
                write!(f, " ({})", Printable(format_args!("{id:.200} at commit {commit:.200}")))
            }
            (None, Some(name)) => write!(f, " (read from `{}`)", Printable(name)),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> Origin {
        Origin::of_path(Path::new(path))
    }

    #[test]
    fn a_path_in_the_hubs_cache_tells_id_and_commit() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let want = Some(("microsoft/swin-tiny".to_owned(), commit.to_owned()));
        let snapshot = format!("/cache/models--microsoft--swin-tiny/snapshots/{commit}");
        assert_eq!(of(&snapshot).published(), want);
        assert_eq!(of(&format!("{snapshot}/model.safetensors")).published(), want);
        let other = format!("{snapshot}/original.pth");
        for other in
            [&other, "/c/models--a--b/snapshots/main/x", "/models--a--b/model.safetensors", "models--a--b/snapshots"]
        {
            assert_eq!(of(other).published(), None);
        }
    }

    #[test]
    fn a_file_is_its_name_and_no_folder() {
        for (path, name) in [
            ("/home/somebody/secret project/swin.pth", "swin.pth"),
            (r"C:\Users\somebody\swin.pth", "swin.pth"),
            ("swin.pth", "swin.pth"),
            ("folder/", "folder"),
            ("..", ""),
            ("/", ""),
            ("a/sw\u{1b}[2Jin.pth", "sw[2Jin.pth"),
        ] {
            assert_eq!(of(path), Origin::File { name: name.into() }, "{path}");
        }
    }

    #[test]
    fn an_origin_survives_json_and_a_name_that_is_a_path_loses_its_folders() {
        let read = |text: &str| serde_json::from_str::<Origin>(text).unwrap();
        let file = Origin::File { name: "swin.pth".into() };
        assert_eq!(read(r#"{"kind": "file", "name": "/home/somebody/swin.pth"}"#), file);
        assert_eq!(read(r#"{"kind": "file", "name": "../../swin.pth"}"#), file);
        assert_eq!(serde_json::to_string(&file).unwrap(), r#"{"kind":"file","name":"swin.pth"}"#);
        let hub = Origin::Hub { id: "a/b".into(), revision: "0".repeat(40) };
        for whole in [Origin::Random { seed: u64::MAX }, file, hub] {
            assert_eq!(read(&serde_json::to_string(&whole).unwrap()), whole);
        }
    }
}
