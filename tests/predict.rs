//! Photos of any size to maps of the same size.
#![cfg(feature = "data")]
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Device, Tensor};
use common::{builder, distance};
use image::codecs::png::PngEncoder;
use image::{DynamicImage, ImageEncoder, Rgb, RgbImage};
use tadformer::picture::picture;
use tadformer::{Predictor, TADFormer};

fn photo(width: u32, height: u32) -> DynamicImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(x * 7 % 256) as u8, (y * 5 % 256) as u8, ((x + y) % 256) as u8]))
        .into()
}

fn predictor() -> Predictor {
    Predictor::new(builder().build().unwrap()).unwrap()
}

#[test]
fn every_map_has_the_photos_size_and_its_own_range() {
    let predictor = predictor();
    for (width, height) in [(64, 64), (301, 97), (1, 1), (17, 400)] {
        for prediction in predictor.predict(&photo(width, height)).unwrap() {
            let (task, map) = (prediction.task(), prediction.map().unwrap());
            assert_eq!(map.dims(), [task.kind().label_channels(), height as usize, width as usize]);
            assert_eq!(prediction.picture().dimensions(), (width, height));
            let values = map.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let fits = |v: &f32| match task.name() {
                "semseg" | "human_parts" => v.fract() == 0.0 && (0.0..7.0).contains(v),
                "normals" => (-1.0..=1.0).contains(v),
                "depth" => *v >= 0.0,
                _ => (0.0..=1.0).contains(v),
            };
            assert!(values.iter().all(fits), "{task}");
            if task.name() == "normals" {
                let lengths = map.sqr().unwrap().sum(0).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert!(lengths.iter().all(|length| (length - 1.0).abs() < 1e-5));
            }
        }
    }
}

#[test]
fn files_are_recognised_by_content_and_bad_ones_named() {
    let (folder, predictor) = (tempfile::tempdir().unwrap(), predictor());
    let path = |name: &str| folder.path().join(name);
    photo(40, 30).save(path("a.png")).unwrap();
    photo(40, 30).save(path("b.jpg")).unwrap();
    std::fs::copy(path("b.jpg"), path("jpeg-named.png")).unwrap();
    for name in ["a.png", "b.jpg", "jpeg-named.png"] {
        assert_eq!(predictor.predict_file(path(name)).unwrap().len(), 6);
    }
    let whole = std::fs::read(path("a.png")).unwrap();
    std::fs::write(path("cut.png"), &whole[..whole.len() / 2]).unwrap();
    for (name, words) in [("cut.png", "no image"), ("none.png", "cannot read")] {
        let message = predictor.predict_file(path(name)).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(words), "{message}");
    }
}

#[test]
fn pictures_and_arrays_are_written_whole() {
    let (folder, predictor) = (tempfile::tempdir().unwrap(), predictor());
    for prediction in predictor.predict(&photo(40, 30)).unwrap() {
        let name = prediction.task().name().to_owned();
        let (png, npy) = (folder.path().join(format!("{name}.png")), folder.path().join(format!("{name}.npy")));
        prediction.save_picture(&png).unwrap();
        prediction.save_npy(&npy).unwrap();
        let drawn = picture(prediction.task().kind(), &prediction.map().unwrap(), None).unwrap();
        assert!(prediction.picture() == drawn && image::open(&png).unwrap().to_rgb8() == drawn, "{name}");
        let array = Tensor::read_npy(&npy).unwrap();
        let want = prediction.array().unwrap();
        assert_eq!((array.dtype(), array.dims()), (want.dtype(), want.dims()));
        assert_eq!(want.dtype() == DType::U8, name == "semseg" || name == "human_parts");
        assert_eq!(distance(&array, &want).unwrap(), 0.0);
        assert!(prediction.save_picture(folder.path().join("missing/x.png")).is_err());
    }
}

#[test]
fn what_is_written_to_memory_is_what_is_saved() {
    let (folder, predictor) = (tempfile::tempdir().unwrap(), predictor());
    let path = folder.path().join("saved");
    for prediction in predictor.predict(&photo(40, 30)).unwrap() {
        let (mut png, mut npy) = (Vec::new(), Vec::new());
        prediction.write_picture(&mut png).unwrap();
        prediction.write_npy(&mut npy).unwrap();
        prediction.save_picture(&path).unwrap();
        assert_eq!(png, std::fs::read(&path).unwrap());
        prediction.save_npy(&path).unwrap();
        assert_eq!(npy, std::fs::read(&path).unwrap());
        let mut short = [0; 20];
        let message = prediction.write_picture(&mut short[..]).unwrap_err().to_string();
        assert!(message.starts_with("the picture: cannot write: "), "{message}");
        let message = prediction.write_npy(&mut short[..]).unwrap_err().to_string();
        assert!(message.starts_with("the array: cannot write: "), "{message}");
    }
}

#[test]
fn photos_beyond_the_limit_are_refused_and_the_caller_sets_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("photo.png");
    photo(40, 30).save(&path).unwrap();
    let predictor = predictor().with_pixel_limit(1199);
    let message = predictor.predict_file(&path).unwrap_err().to_string();
    assert!(message.contains("more than the limit of 1199") && message.contains("with_pixel_limit"), "{message}");
    let bytes = std::fs::read(&path).unwrap();
    let message = predictor.predict_bytes(&bytes).unwrap_err().to_string();
    assert!(message.starts_with("a photo in memory: 40 x 30 pixels, more than the limit of 1199"), "{message}");
    let message = predictor.predict_bytes(&bytes[1..]).unwrap_err().to_string();
    assert!(message.starts_with("a photo in memory: no image"), "{message}");
    assert_eq!(predictor.with_pixel_limit(1200).predict_file(&path).unwrap().len(), 6);
}

/// A photo is made smaller before it is turned; what comes of it is what comes of the turned photo.
#[test]
fn maps_of_a_photo_that_its_camera_turned_stand_upright() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turned.png");
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut encoder = PngEncoder::new(&mut bytes);
    // TIFF of one entry: orientation 6, a quarter turn clockwise.
    let exif = b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    encoder.set_exif_metadata(exif.to_vec()).unwrap();
    photo(90, 50).write_with_encoder(encoder).unwrap();
    std::fs::write(&path, bytes.get_ref()).unwrap();
    let predictor = predictor();
    let (of_file, of_photo) =
        (predictor.predict_file(&path).unwrap(), predictor.predict(&photo(90, 50).rotate90()).unwrap());
    let mut compared = 0;
    // Classes of a model drawn at random change where scores are all but equal.
    for (a, b) in of_file.iter().zip(&of_photo).filter(|(a, _)| a.task().outputs() != 7) {
        let (a, b) = (a.map().unwrap(), b.map().unwrap());
        assert_eq!(a.dims()[1..], [90, 50]);
        assert!(distance(&a, &b).unwrap() < 0.02);
        compared += 1;
    }
    assert_eq!(compared, 4);
    let of_bytes = predictor.predict_bytes(bytes.get_ref()).unwrap();
    assert!(of_bytes.iter().zip(&of_file).all(|(a, b)| a.picture() == b.picture()));
    let read = tadformer::data::read_photo_bytes(bytes.get_ref()).unwrap();
    assert!(read == photo(90, 50).rotate90());
}

#[test]
fn a_photo_of_floats_that_are_no_numbers_is_refused() {
    let wrong = image::Rgb32FImage::from_pixel(40, 30, Rgb([0.5, f32::NAN, 0.5]));
    let message = predictor().predict(&wrong.into()).unwrap_err().to_string();
    assert!(message.contains("`photo`: expected numbers from 0 to 1, got NaN"), "{message}");
    let message = predictor().predict(&DynamicImage::new_rgb8(0, 3)).unwrap_err().to_string();
    assert!(message.contains("photo: expected shape [3, H, W]"), "{message}");
}

#[test]
fn an_opened_adapter_predicts_what_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let model: TADFormer = builder().build().unwrap();
    model.save_adapter(folder.path().join("adapter.safetensors")).unwrap();
    let opened = Predictor::open(folder.path().join("adapter.safetensors"), &Default::default()).unwrap();
    let (a, b) =
        (Predictor::new(model).unwrap().predict(&photo(50, 70)).unwrap(), opened.predict(&photo(50, 70)).unwrap());
    for (a, b) in a.iter().zip(&b) {
        assert_eq!(distance(&a.map().unwrap(), &b.map().unwrap()).unwrap(), 0.0);
    }
    assert!(opened.model().device().same_device(&Device::Cpu));
}
