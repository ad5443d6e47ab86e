//! What pictures cost: photos and labels a few bytes a pixel, and nothing where their headers announce too many.
//!
//! Every test here counts what all threads hold, so none of them does anything else.
#![allow(clippy::unwrap_used)]
#![cfg(feature = "data")]

mod common;
#[path = "common/counting.rs"]
mod counting;

use counting::{Counting, alone};
use tadformer::Predictor;
use tadformer::data::{read_label, read_photo};
use tadformer::image::{GrayImage, Luma, Rgb, RgbImage};

#[global_allocator]
static COUNTING: Counting = Counting;

/// A PNG's or JPEG's header of this size and little else.
mod headers {
    pub fn png(width: u32, height: u32, bits: u8) -> Vec<u8> {
        let chunk = |name: &[u8], content: &[u8]| {
            let named = [name, content].concat();
            [&(content.len() as u32).to_be_bytes()[..], &named, &crc(&named).to_be_bytes()].concat()
        };
        let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
        let header = chunk(b"IHDR", &[&size[..], &[bits, 0, 0, 0, 0]].concat());
        // Zeros, as zlib keeps them.
        let content = chunk(b"IDAT", b"\x78\x9c\x63\x60\x00\x00\x00\x01\x00\x01");
        [b"\x89PNG\r\n\x1a\n", &header[..], &content, &chunk(b"IEND", b"")].concat()
    }

    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
        })
    }

    pub fn jpeg(width: u16, height: u16) -> Vec<u8> {
        let (w, h) = (width.to_be_bytes(), height.to_be_bytes());
        let table = [&b"\xff\xdb\x00\x43\x00"[..], &[1; 64]].concat();
        let frame = [&b"\xff\xc0\x00\x0b\x08"[..], &h, &w, b"\x01\x01\x11\x00"].concat();
        let codes = |class: u8| [&[0xff, 0xc4, 0, 20, class, 0, 1][..], &[0; 15]].concat();
        let scan = [&b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"[..], &[0; 1000], b"\xff\xd9"].concat();
        [&b"\xff\xd8"[..], &table, &frame, &codes(0), &codes(16), &scan].concat()
    }
}

/// 1,140 bytes of a JPEG, and 49 kB of a PNG, took over 5 GB.
#[test]
fn sizes_that_a_header_announces_are_not_made_room_for() {
    let alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb");
    let is_refused = |(result, peak): (tadformer::Result<()>, usize)| {
        let message = result.unwrap_err().to_string();
        assert!(
            message.contains("more than the limit of 100000000") || message.contains("a side of more"),
            "{message}"
        );
        assert!(peak < 1_000_000, "{peak} bytes");
    };
    for bytes in [headers::jpeg(12_000, 12_000), headers::png(20_000, 20_000, 1), headers::png(1 << 30, 1 << 30, 16)] {
        std::fs::write(&path, &bytes).unwrap();
        is_refused(alone.peak_of(|| read_photo(&path).map(drop)));
    }
    for task in ["sal=1", "depth=1"].map(|task| task.parse().unwrap()) {
        is_refused(alone.peak_of(|| read_label(&path, &task).map(drop)));
    }
    // The same headers with fewer pixels are read, or at least begun.
    std::fs::write(&path, headers::jpeg(120, 120)).unwrap();
    assert_eq!(read_photo(&path).unwrap().width(), 120);
}

/// The maps of six tasks at the photo's own size took 40 bytes a pixel and more, all at once: 15 are 1.5 GB for 100 megapixels.
#[test]
fn a_photo_takes_a_few_bytes_a_pixel_and_its_maps_none() {
    let alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let photo = RgbImage::from_fn(2000, 1500, |x, y| Rgb([(x ^ y) as u8, (x * y) as u8, x as u8]));
    photo.save(path("photo.png")).unwrap();
    photo.save(path("photo.jpg")).unwrap();
    let predictor = Predictor::new(common::builder().build().unwrap()).unwrap();
    for name in ["photo.png", "photo.jpg"] {
        let ((), peak) = alone.peak_of(|| {
            for prediction in predictor.predict_file(path(name)).unwrap() {
                prediction.save_picture(path("map.png")).unwrap();
                prediction.save_npy(path("map.npy")).unwrap();
            }
        });
        assert!(peak < 15 * 3_000_000, "{name}: {peak}");
    }
}

#[test]
fn a_label_takes_its_own_bytes_until_it_is_small() {
    let alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("label.png");
    GrayImage::from_fn(2000, 1500, |x, y| Luma([((x / 100 + y / 100) % 7) as u8])).save(&path).unwrap();
    let task = "semseg=7".parse().unwrap();
    let (label, peak) =
        alone.peak_of(|| read_label(&path, &task).unwrap().crop(100, 0, 1800, 1500).unwrap().resize(200, 200).unwrap());
    assert!(peak < 7_000_000, "{peak} bytes");
    assert_eq!(label.tensor().unwrap().dims(), [1, 200, 200]);
}
