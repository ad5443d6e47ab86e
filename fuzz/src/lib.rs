//! What the targets share: a file of the input's bytes, and everything that is done with a checkpoint.

use std::path::PathBuf;
use tadformer::candle_core::{DType, Device};
use tadformer::checkpoint::Checkpoint;
use tadformer::swin::{SwinConfig, names};

/// The input as a file: the crate reads files.
pub fn file(ending: &str, bytes: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tadformer-fuzz-{}.{ending}", std::process::id()));
    std::fs::write(&path, bytes).expect("the folder for temporary files is writable");
    path
}

/// Opens a checkpoint, recognises its family, reads its sizes off, and reads every tensor.
pub fn read(path: &PathBuf) {
    let Ok(checkpoint) = Checkpoint::open(path) else { return };
    let _ = checkpoint.metadata("tadformer");
    let _ = SwinConfig::of_checkpoint(path);
    let names: Vec<String> = checkpoint.names().map(str::to_owned).collect();
    for name in names.iter().take(50) {
        if let Ok(tensor) = checkpoint.load(name, DType::F32, &Device::Cpu) {
            assert_eq!(Some(tensor.dims().to_vec()), checkpoint.shape(name));
        }
    }
    let _ = names::canonical(checkpoint);
}

/// A folder of one image of 4 x 4 pixels, and of two folders of labels.
pub fn folder_with_an_image() -> PathBuf {
    let root = std::env::temp_dir().join(format!("tadformer-fuzz-{}", std::process::id()));
    for folder in ["images", "a", "b"] {
        std::fs::create_dir_all(root.join(folder)).expect("the folder for temporary files is writable");
    }
    let image = root.join("images/a.png");
    if !image.exists() {
        tadformer::image::RgbImage::new(4, 4).save(image).expect("the folder for temporary files is writable");
    }
    root
}
