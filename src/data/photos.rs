//! Finding and reading photos.

use crate::files::open_regular;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use image::{DynamicImage, ImageDecoder};
use std::io::BufReader;
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
pub fn read_photo(path: impl AsRef<Path>) -> Result<DynamicImage> {
    let path = path.as_ref();
    let reader = image::ImageReader::new(BufReader::new(open_regular(path)?));
    let reader = reader.with_guessed_format().map_err(Error::io(path, "read"))?;
    let decoded = reader.into_decoder().and_then(|mut decoder| {
        let orientation = decoder.orientation()?;
        let mut photo = DynamicImage::from_decoder(decoder)?;
        photo.apply_orientation(orientation);
        Ok(photo)
    });
    decoded.map_err(|e| Error::file(path, format!("no image: {e}"), "give a PNG or JPEG file"))
}

/// A photo as [`Sample::image`](crate::Sample::image) holds it.
///
/// # Shapes
/// `[3, H, W]` f32 on the CPU: red, green, blue from 0 to 1. Alpha is dropped, greys become three equal channels.
///
/// # Errors
/// An image without a pixel.
///
/// ```
/// use tadformer::image::{DynamicImage, Rgb, RgbImage};
/// let photo: DynamicImage = RgbImage::from_pixel(6, 4, Rgb([255, 0, 51])).into();
/// let image = tadformer::data::image_tensor(&photo)?;
/// assert_eq!(image.dims(), [3, 4, 6]);
/// assert!((image.to_vec3::<f32>()?[2][0][0] - 0.2).abs() < 1e-6);
/// # Ok::<(), tadformer::Error>(())
/// ```
pub fn image_tensor(photo: &DynamicImage) -> Result<Tensor> {
    let (w, h) = (photo.width() as usize, photo.height() as usize);
    if w == 0 || h == 0 {
        let expected = "[3, H, W], H and W at least 1".into();
        return Err(Error::Shape { what: "photo".into(), expected, got: vec![3, h, w] });
    }
    let pixels = Tensor::from_vec(photo.to_rgb8().into_raw(), (h, w, 3), &Device::Cpu)?;
    Ok((pixels.permute((2, 0, 1))?.to_dtype(DType::F32)? * (1.0 / 255.0))?)
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
    fn photos_become_channels_of_0_to_1_whatever_they_were() -> Result<()> {
        let rgb = image::RgbImage::from_fn(3, 2, |x, y| image::Rgb([x as u8 * 100, y as u8 * 255, 51]));
        let of_rgb = image_tensor(&rgb.clone().into())?;
        assert_eq!((of_rgb.dims(), of_rgb.dtype()), (&[3, 2, 3][..], DType::F32));
        let want = [0., 100., 200., 0., 100., 200., 0., 0., 0., 255., 255., 255., 51., 51., 51., 51., 51., 51.];
        let close = |got: &Tensor, want: &[f32]| -> Result<bool> {
            let got = got.flatten_all()?.to_vec1::<f32>()?;
            Ok(got.len() == want.len() && got.iter().zip(want).all(|(a, b)| (a - b / 255.0).abs() < 1e-6))
        };
        assert!(close(&of_rgb, &want)?);
        assert!(close(&image_tensor(&DynamicImage::from(rgb).to_rgba8().into())?, &want)?, "alpha is dropped");
        assert!(close(&image_tensor(&image::GrayImage::from_raw(1, 1, vec![7]).unwrap().into())?, &[7.; 3])?);
        let message = image_tensor(&DynamicImage::new_rgb8(0, 4)).unwrap_err().to_string();
        assert!(message.contains("at least 1") && message.contains("[3, 4, 0]"), "{message}");
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
