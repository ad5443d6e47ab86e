//! Finding and reading photos.

use crate::{Error, Result};
use image::{DynamicImage, ImageDecoder};
use std::path::{Path, PathBuf};

/// The photos among these paths: files as they are, and of each folder its PNG and JPEG files, by name.
///
/// # Errors
/// A path that does not exist, a folder without a photo.
pub fn photos(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut photos = Vec::new();
    for path in paths {
        if path.is_dir() {
            photos.extend(in_folder(path)?);
        } else if path.exists() {
            photos.push(path.clone());
        } else {
            return Err(Error::file(path, "no such file or folder", "give PNG or JPEG files, or folders of them"));
        }
    }
    Ok(photos)
}

/// Reads a PNG or JPEG file, recognised by its content, turned the way up that the camera noted.
///
/// # Errors
/// A file that cannot be read or is no image.
pub fn read_photo(path: &Path) -> Result<DynamicImage> {
    let reader = image::ImageReader::open(path).map_err(Error::io(path, "read"))?;
    let reader = reader.with_guessed_format().map_err(Error::io(path, "read"))?;
    let decoded = reader.into_decoder().and_then(|mut decoder| {
        let orientation = decoder.orientation()?;
        let mut photo = DynamicImage::from_decoder(decoder)?;
        photo.apply_orientation(orientation);
        Ok(photo)
    });
    decoded.map_err(|e| Error::file(path, format!("no image: {e}"), "give a PNG or JPEG file"))
}

fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder, "read"))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>();
    let is_photo = |path: &PathBuf| {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
        ["png", "jpg", "jpeg"].contains(&ending.as_str())
    };
    let mut photos: Vec<PathBuf> = paths.map_err(Error::io(folder, "read"))?.into_iter().filter(is_photo).collect();
    photos.sort();
    if photos.is_empty() {
        return Err(Error::file(folder, "a folder without PNG or JPEG files", "give a folder of photos, or the files"));
    }
    Ok(photos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_give_their_photos_in_order_and_empty_ones_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let all = || photos(&[folder.path().to_owned()]);
        assert!(all().unwrap_err().to_string().contains("without PNG or JPEG"));
        for name in ["b.JPG", "a.png", "notes.txt"] {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        let names: Vec<_> = all().unwrap().iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["a.png", "b.JPG"]);
        let missing = photos(&[folder.path().join("c.png")]).unwrap_err().to_string();
        assert!(missing.contains("no such file"), "{missing}");
    }

    /// A JPEG, black on the left and white on the right, whose camera was held upright: orientation 6, a quarter turn clockwise.
    #[test]
    fn photos_are_turned_as_the_camera_noted() -> Result<()> {
        let (folder, mut jpeg) = (tempfile::tempdir().unwrap(), std::io::Cursor::new(Vec::new()));
        let picture = image::RgbImage::from_fn(16, 8, |x, _| image::Rgb([if x < 8 { 0 } else { 255 }; 3]));
        picture.write_to(&mut jpeg, image::ImageFormat::Jpeg).unwrap();
        let mut bytes = jpeg.into_inner();
        // An Exif segment after the first marker: little-endian TIFF with one entry, tag 0x0112 of type SHORT.
        let tiff = b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let mut exif = vec![0xff, 0xe1];
        exif.extend(((2 + 6 + tiff.len()) as u16).to_be_bytes());
        exif.extend(b"Exif\0\0");
        exif.extend(tiff);
        bytes.splice(2..2, exif);
        let path = folder.path().join("upright.jpg");
        std::fs::write(&path, bytes).unwrap();
        let photo = read_photo(&path)?.to_rgb8();
        assert_eq!(photo.dimensions(), (8, 16));
        assert!(photo.get_pixel(4, 2)[0] < 30 && photo.get_pixel(4, 13)[0] > 225, "what was left is on top");
        Ok(())
    }

    #[test]
    fn a_file_that_is_no_image_is_named() {
        let path = tempfile::tempdir().unwrap().keep().join("notes.png");
        std::fs::write(&path, b"plain text").unwrap();
        let message = read_photo(&path).unwrap_err().to_string();
        assert!(message.contains("notes.png") && message.contains("no image"), "{message}");
    }
}
