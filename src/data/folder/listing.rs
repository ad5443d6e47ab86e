//! Which files a folder holds, by the name before their ending.

use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// The names of files without their endings, with the whole names.
pub(super) type Listing = BTreeMap<String, String>;

/// The folder of the images.
pub(in crate::data) const IMAGES: &str = "images";
/// The endings of images.
pub(super) const OF_IMAGES: &[&str] = &["jpg", "jpeg", "png"];
/// The endings of labels.
pub(super) const OF_LABELS: &[&str] = &["png", "npy"];

/// Whether a label's file is an array rather than a picture.
pub(super) fn is_array(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npy"))
}

/// The files with one of these endings, whatever its case; hidden files and others are passed over.
///
/// # Errors
/// A folder that cannot be read; a name that is no text; two files of one name.
pub(super) fn list(folder: &Path, endings: &[&str]) -> Result<Listing> {
    let mut listing = Listing::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder, "read"))? {
        let name = entry.map_err(Error::io(folder, "read"))?.file_name();
        let shown = name.to_string_lossy();
        let Some(stem) = stem(&shown, endings) else { continue };
        let Some(whole) = name.to_str() else {
            let problem = format!("{shown}: a name that is no UTF-8");
            return Err(Error::file(folder, problem, "rename the file"));
        };
        if let Some(other) = listing.insert(stem.to_owned(), whole.to_owned()) {
            let problem = format!("two files of the name {stem}: {other} and {whole}");
            return Err(Error::file(folder, problem, "an image has one file, and one label of each task: remove one"));
        }
    }
    Ok(listing)
}

/// The name before the ending, if the ending is one of these.
fn stem<'a>(name: &'a str, endings: &[&str]) -> Option<&'a str> {
    let (stem, ending) = name.rsplit_once('.')?;
    let wanted = !stem.is_empty() && !stem.starts_with('.') && endings.contains(&ending.to_lowercase().as_str());
    wanted.then_some(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_their_endings_and_doubles_are_named() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.JPG", "a.png", "c.d.jpeg", ".hidden.png", ".png", "notes.txt", "none"] {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        let names = |listing: Listing| listing.into_iter().collect::<Vec<_>>();
        let found = names(list(folder.path(), OF_IMAGES).unwrap());
        assert_eq!(found, [("a", "a.png"), ("b", "b.JPG"), ("c.d", "c.d.jpeg")].map(|(a, b)| (a.into(), b.into())));
        assert_eq!(names(list(folder.path(), OF_LABELS).unwrap()).len(), 1);
        std::fs::write(folder.path().join("a.jpg"), b"").unwrap();
        let message = list(folder.path(), OF_IMAGES).unwrap_err().to_string();
        assert!(message.contains("two files of the name a") && message.contains("a.jpg"), "{message}");
        assert!(list(&folder.path().join("none"), OF_IMAGES).unwrap_err().to_string().contains("cannot read"));
    }
}
