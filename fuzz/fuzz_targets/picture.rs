//! A picture of any bytes as a photo, and as the label of every kind of task.
#![no_main]

use tadformer::Task;
use tadformer::data::{image_tensor, read_label_within, read_photo_within};

/// Few enough that a run is quick, whatever a header announces.
const PIXELS: u64 = 1 << 14;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = tadformer_fuzz::file("png", bytes);
    if let Ok(photo) = read_photo_within(&path, PIXELS) {
        assert!(u64::from(photo.width()) * u64::from(photo.height()) <= PIXELS);
        let image = image_tensor(&photo).expect("a photo that was decoded");
        assert_eq!(image.dims(), [3, photo.height() as usize, photo.width() as usize]);
    }
    for task in ["semseg=21", "human_parts=7", "sal=1", "edge=1", "normals=3", "depth=1"] {
        let task: Task = task.parse().expect("a task");
        let Ok(label) = read_label_within(&path, &task, PIXELS) else { continue };
        let (width, height) = label.dimensions();
        let tensor = label.tensor().expect("a label that was read");
        assert_eq!(tensor.dims(), [task.kind().label_channels(), height as usize, width as usize]);
        let part = label.crop(width / 2, height / 2, width - width / 2, height - height / 2).expect("a part of it");
        assert_eq!(part.resize(3, 2).expect("two sides").dimensions(), (3, 2));
    }
});
