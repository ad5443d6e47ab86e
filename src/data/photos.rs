//! Finding and reading photos.

use super::PIXEL_LIMIT;
use super::pixel_limit::{LONGEST_SIDE, check_size};
use crate::files::open_regular;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::{Path, PathBuf};

/// What to do about a file that is none.
const CURE: &str = "give a PNG or JPEG file";
/// Bytes of colour profiles, comments and whatever else a file holds beside its pixels.
const METADATA: u64 = 64 << 20;
/// Bytes of a pixel of four channels of 16 bits.
const LARGEST_PIXEL: u64 = 8;

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

/// Reads a PNG or JPEG file of at most [`PIXEL_LIMIT`] pixels, recognised by its content, turned the way up that the camera noted.
///
/// # Errors
/// A file that cannot be read or is no image, or a larger one.
pub fn read_photo(path: impl AsRef<Path>) -> Result<DynamicImage> {
    read_photo_within(path, PIXEL_LIMIT)
}

/// [`read_photo`] within another limit on the pixels.
///
/// # Errors
/// A file that cannot be read or is no image; one whose header announces more pixels, of which none is decoded then.
///
/// ```
/// use tadformer::data::read_photo_within;
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("photo.png");
/// tadformer::image::RgbImage::new(40, 30).save(&path).unwrap();
/// assert_eq!(read_photo_within(&path, 1200)?.width(), 40);
/// assert!(read_photo_within(&path, 1199).unwrap_err().to_string().contains("40 x 30 pixels"));
/// # Ok::<(), tadformer::Error>(())
/// ```
pub fn read_photo_within(path: impl AsRef<Path>, pixels: u64) -> Result<DynamicImage> {
    let (mut photo, orientation) = decode_photo(path.as_ref(), pixels)?;
    photo.apply_orientation(orientation);
    Ok(photo)
}

/// [`read_photo`] of a file's content, as a server gets it.
///
/// # Errors
/// As there.
///
/// ```
/// use tadformer::image::{ImageFormat, RgbImage};
/// let mut upload = std::io::Cursor::new(Vec::new());
/// RgbImage::new(40, 30).write_to(&mut upload, ImageFormat::Png)?;
/// assert_eq!(tadformer::data::read_photo_bytes(upload.get_ref())?.width(), 40);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_photo_bytes(bytes: &[u8]) -> Result<DynamicImage> {
    read_photo_bytes_within(bytes, PIXEL_LIMIT)
}

/// [`read_photo_bytes`] within another limit on the pixels.
///
/// # Errors
/// As [`read_photo_within`].
pub fn read_photo_bytes_within(bytes: &[u8], pixels: u64) -> Result<DynamicImage> {
    let (mut photo, orientation) = decode_photo_bytes(bytes, pixels)?;
    photo.apply_orientation(orientation);
    Ok(photo)
}

/// A photo as its file stores it, and how it is to be turned; who reduces it first turns fewer pixels.
pub(crate) fn decode_photo(path: &Path, pixels: u64) -> Result<(DynamicImage, Orientation)> {
    let file = open_regular(path)?;
    let length = file.metadata().map_err(Error::io(path, "read"))?.len();
    decode(path, BufReader::new(file), length, pixels)
}

/// [`decode_photo`] of a file's content.
pub(crate) fn decode_photo_bytes(bytes: &[u8], pixels: u64) -> Result<(DynamicImage, Orientation)> {
    decode(Path::new("a photo in memory"), Cursor::new(bytes), bytes.len() as u64, pixels)
}

/// `path` tells in errors what was read.
fn decode(path: &Path, content: impl BufRead + Seek, length: u64, pixels: u64) -> Result<(DynamicImage, Orientation)> {
    check_length(path, length, pixels)?;
    let mut reader = ImageReader::new(content).with_guessed_format().map_err(Error::io(path, "read"))?;
    // A program may have built `image` with readers of further formats, whose memory nobody has looked at.
    if !matches!(reader.format(), Some(ImageFormat::Png | ImageFormat::Jpeg)) {
        return Err(Error::file(path, "no image: neither PNG nor JPEG", CURE));
    }
    reader.limits(limits());
    let mut decoder = reader.into_decoder().map_err(no_image(path))?;
    check_size(path, decoder.dimensions(), pixels)?;
    let orientation = decoder.orientation().map_err(no_image(path))?;
    Ok((DynamicImage::from_decoder(decoder).map_err(no_image(path))?, orientation))
}

/// On what a decoder holds beside the pixels.
fn limits() -> Limits {
    let mut limits = Limits::no_limits();
    (limits.max_image_width, limits.max_image_height) = (Some(LONGEST_SIDE), Some(LONGEST_SIDE));
    limits.max_alloc = Some(METADATA);
    limits
}

fn no_image(path: &Path) -> impl Fn(ImageError) -> Error {
    |error| match error {
        ImageError::Limits(_) => {
            let problem =
                format!("a side of more than {LONGEST_SIDE} pixels, or over {} MiB beside them", METADATA >> 20);
            Error::file(path, problem, "cut it into pieces, or save it without its metadata")
        }
        error => Error::file(path, format!("no image: {error}"), CURE),
    }
}

/// Refuses a file that is longer than its pixels can make it: the JPEG decoder reads it whole.
fn check_length(path: &Path, length: u64, pixels: u64) -> Result<()> {
    let most = pixels.saturating_mul(LARGEST_PIXEL).saturating_add(METADATA);
    if length <= most {
        return Ok(());
    }
    let problem = format!("{length} bytes, more than the {most} of an image of {pixels} pixels");
    Err(Error::file(path, problem, "give a PNG or JPEG file, or raise the limit: read_photo_within"))
}

/// A photo as [`Sample::image`](crate::Sample::image) holds it.
///
/// # Shapes
/// `[3, H, W]` f32 on the CPU: red, green, blue from 0 to 1. Alpha is dropped, greys become three equal channels.
///
/// # Errors
/// An image without a pixel; one of floats that are no numbers.
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
    Ok((byte_image(photo)?.to_dtype(DType::F32)? * (1.0 / 255.0))?)
}

/// [`image_tensor`] in bytes: `[3, H, W]` u8 from 0 to 255, a quarter of the memory.
///
/// # Errors
/// As there.
pub fn byte_image(photo: &DynamicImage) -> Result<Tensor> {
    check_photo(photo)?;
    let (w, h) = (photo.width() as usize, photo.height() as usize);
    let pixels = Tensor::from_vec(photo.to_rgb8().into_raw(), (h, w, 3), &Device::Cpu)?;
    Ok(pixels.permute((2, 0, 1))?.contiguous()?)
}

/// Refuses a photo without a pixel, and one that a program made of floats with NaN or infinity among them: a byte can be neither.
pub(crate) fn check_photo(photo: &DynamicImage) -> Result<()> {
    let (w, h) = (photo.width() as usize, photo.height() as usize);
    if w == 0 || h == 0 {
        let expected = "[3, H, W], H and W at least 1".into();
        return Err(Error::Shape { what: "photo".into(), expected, got: vec![3, h, w] });
    }
    let floats = photo.as_flat_samples_f32();
    match floats.and_then(|photo| photo.samples.iter().copied().find(|value| !value.is_finite())) {
        Some(wrong) => Err(Error::config("photo", "numbers from 0 to 1", wrong, "look at what computed the photo")),
        None => Ok(()),
    }
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
    use std::fs::File;

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
        for wrong in [f32::NAN, f32::INFINITY] {
            let computed = image::Rgb32FImage::from_pixel(2, 1, image::Rgb([0.5, wrong, 1.0]));
            let message = image_tensor(&computed.into()).unwrap_err().to_string();
            assert!(message.contains(&format!("`photo`: expected numbers from 0 to 1, got {wrong}")), "{message}");
        }
        Ok(())
    }

    /// What a header announces was believed: 1,140 bytes took 5 GB.
    #[test]
    fn sizes_above_the_limit_are_refused_before_a_pixel_is_decoded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("photo");
        let refused = |bytes: &[u8], pixels: u64| {
            std::fs::write(&path, bytes).unwrap();
            read_photo_within(&path, pixels).unwrap_err().to_string()
        };
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let mut bytes = std::io::Cursor::new(Vec::new());
            image::GrayImage::new(50, 40).write_to(&mut bytes, format).unwrap();
            let message = refused(bytes.get_ref(), 1999);
            let words = ["50 x 40 pixels, more than the limit of 1999", "raise the limit: read_photo_within"];
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
            assert_eq!(read_photo_within(&path, 2000).unwrap().height(), 40);
            // Bytes after its end, as some cameras leave: a few are nothing, more than any image of so many pixels has are refused.
            File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
            assert_eq!(read_photo_within(&path, 2000).unwrap().height(), 40);
            File::options().write(true).open(&path).unwrap().set_len(1 << 33).unwrap();
            let message = read_photo_within(&path, 2000).unwrap_err().to_string();
            assert!(message.contains("8589934592 bytes, more than"), "{message}");
        }
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::GrayImage::new((1 << 20) + 1, 1).write_to(&mut bytes, ImageFormat::Png).unwrap();
        assert!(refused(bytes.get_ref(), PIXEL_LIMIT).contains("a side of more than 1048576 pixels"));
    }

    #[test]
    fn files_of_other_formats_are_none() {
        let path = tempfile::tempdir().unwrap().keep().join("photo.png");
        std::fs::write(&path, b"GIF89a\x01\0\x01\0\0\0\0").unwrap();
        let message = read_photo(&path).unwrap_err().to_string();
        assert!(message.contains("neither PNG nor JPEG"), "{message}");
    }

    #[test]
    fn a_file_that_is_no_image_is_named() {
        let path = tempfile::tempdir().unwrap().keep().join("notes.png");
        std::fs::write(&path, b"plain text").unwrap();
        let message = read_photo(&path).unwrap_err().to_string();
        assert!(message.contains("notes.png") && message.contains("no image"), "{message}");
    }
}
