//! A folder of any `dataset.toml` and any label: the input's text ends at the first zero byte, and the label's file follows it, an array
//! where it begins as one.
#![no_main]

use std::path::Path;
use tadformer::data::{Dataset, Folder, FolderDescription, inspect};

/// The label of the only image, for either task, and no other.
fn write_labels(root: &Path, label: &[u8]) {
    let endings = if label.first() == Some(&0x93) { ["npy", "png"] } else { ["png", "npy"] };
    for task in ["a", "b"] {
        let [this, other] = endings.map(|ending| root.join(task).join("a").with_extension(ending));
        std::fs::write(this, label).expect("a folder that can be written to");
        let _ = std::fs::remove_file(other);
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (text, label) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    let root = tadformer_fuzz::folder_with_an_image();
    std::fs::write(root.join("dataset.toml"), text).expect("a folder that can be written to");
    write_labels(&root, label);
    if let Ok(Some(description)) = FolderDescription::read(&root) {
        let again = FolderDescription::parse(&description.to_toml().expect("a description that was read"));
        assert_eq!(again.expect("what was written"), description);
        if let Ok(folder) = Folder::described(&root, description.clone()) {
            let inspection = inspect(&folder, &mut |_| ());
            assert_eq!(inspection.is_sound(), folder.get(0).is_ok() && folder.faults().is_empty());
            assert!(description.splits.keys().all(|split| folder.split(split).map_or(true, |split| split.len() == 1)));
        }
    }
    if let Ok(description) = FolderDescription::infer(&root) {
        Folder::described(&root, description).expect("what was found there");
    }
});
