//! A folder of any `dataset.toml` and any label: the input's text ends at the first zero byte, and the label's file follows it.
#![no_main]

use tadformer::data::{Dataset, Folder, FolderDescription, inspect};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (text, label) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    let root = tadformer_fuzz::folder_with_an_image();
    std::fs::write(root.join("dataset.toml"), text).expect("a folder that can be written to");
    for task in ["a", "b"] {
        std::fs::write(root.join(task).join("a.png"), label).expect("a folder that can be written to");
    }
    if let Ok(Some(description)) = FolderDescription::read(&root) {
        let again = FolderDescription::parse(&description.to_toml().expect("a description that was read"));
        assert_eq!(again.expect("what was written"), description);
        for folder in Folder::described(&root, description.clone()) {
            let inspection = inspect(&folder, &mut |_| ());
            assert_eq!(inspection.is_sound(), folder.get(0).is_ok() && folder.faults().is_empty());
            assert!(description.splits.keys().all(|split| folder.split(split).map_or(true, |split| split.len() == 1)));
        }
    }
    if let Ok(description) = FolderDescription::infer(&root) {
        Folder::described(&root, description).expect("what was found there");
    }
});
