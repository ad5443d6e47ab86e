//! Photos in, maps out.

use super::npy;
use crate::data::{PIXEL_LIMIT, check_photo, decode_photo, decode_photo_bytes, image_tensor};
use crate::decode::Readout;
use crate::files::write_atomically;
use crate::model::{InferenceModel, OpenOptions, TADFormer};
use crate::picture::{DepthRange, MapColours, encode_png, write_png};
use crate::sample::normalise;
use crate::tad::StageView;
use crate::task::{Task, TaskKind};
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{DynamicImage, GenericImageView, RgbImage};
use std::convert::Infallible;
use std::io::{self, Write};
use std::path::Path;

/// A model that takes photos of any size.
///
/// A photo is brought, its shape kept, to about as many pixels as the model was made for; maps come back at the photo's size.
///
/// ```no_run
/// use tadformer::Predictor;
/// let predictor = Predictor::open("runs/finetune/adapter.safetensors", &Default::default())?;
/// for prediction in predictor.predict_file("photo.jpg")? {
///     prediction.save_picture(format!("photo-{}.png", prediction.task().name()))?;
/// }
/// # Ok::<(), tadformer::Error>(())
/// ```
///
/// A photo's own pixels are held until it has been made smaller, and no longer; its size costs nothing after that but in what is asked
/// of a [`Prediction`].
#[derive(Debug)]
pub struct Predictor {
    model: InferenceModel,
    pixel_limit: u64,
}

/// One task's map of one photo.
///
/// It holds the model's outputs, which are small. A map, an array or a picture of the photo's size is made when it is asked for; to a
/// file it goes a strip at a time.
#[derive(Clone, Debug)]
pub struct Prediction {
    task: Task,
    outputs: Readout,
    /// Of the photo.
    width: u32,
    height: u32,
}

impl Predictor {
    /// Predicts with this model, merged for inference.
    ///
    /// # Errors
    /// As [`TADFormer::merge`].
    pub fn new(model: TADFormer) -> Result<Self> {
        Ok(Self { model: model.merge()?, pixel_limit: PIXEL_LIMIT })
    }

    /// Opens an adapter or a full export with its backbone.
    ///
    /// # Errors
    /// As [`TADFormer::open`].
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        Self::new(TADFormer::open(path, options)?)
    }

    /// Reads files of at most so many pixels, where [`PIXEL_LIMIT`] would be the limit.
    pub fn with_pixel_limit(self, pixels: u64) -> Self {
        Self { pixel_limit: pixels, ..self }
    }

    /// The model.
    pub fn model(&self) -> &InferenceModel {
        &self.model
    }

    /// Every task's map of a photo in a PNG or JPEG file.
    ///
    /// # Errors
    /// A file that cannot be read or is no image, or one of more pixels than the limit; outputs that are no numbers.
    pub fn predict_file(&self, path: impl AsRef<Path>) -> Result<Vec<Prediction>> {
        self.of_decoded(decode_photo(path.as_ref(), self.pixel_limit)?)
    }

    /// Every task's map of a photo in the content of a PNG or JPEG file, as a server gets it.
    ///
    /// ```no_run
    /// # fn serve(predictor: &tadformer::Predictor, upload: &[u8]) -> tadformer::Result<Vec<u8>> {
    /// let predictions = predictor.predict_bytes(upload)?;
    /// let mut png = Vec::new();
    /// predictions[0].write_picture(&mut png)?;
    /// # Ok(png) }
    /// ```
    ///
    /// # Errors
    /// As [`Predictor::predict_file`].
    pub fn predict_bytes(&self, bytes: &[u8]) -> Result<Vec<Prediction>> {
        self.of_decoded(decode_photo_bytes(bytes, self.pixel_limit)?)
    }

    /// Every task's map of a photo as its file stores it, at the size that it has when it is turned.
    fn of_decoded(&self, (photo, orientation): (DynamicImage, Orientation)) -> Result<Vec<Prediction>> {
        let size = turned(photo.dimensions(), orientation);
        let mut small = self.reduced(&photo)?;
        drop(photo);
        small.apply_orientation(orientation);
        self.of_reduced(&small, size)
    }

    /// Every task's map of a photo, in the tasks' order.
    ///
    /// # Errors
    /// A photo without a pixel, or of floats that are no numbers; one for which the model's device has no room; outputs that are no
    /// numbers.
    pub fn predict(&self, photo: &DynamicImage) -> Result<Vec<Prediction>> {
        self.of_reduced(&self.reduced(photo)?, photo.dimensions())
    }

    /// What each stage of the model looks at on a photo, in the size that it works at; as [`TADFormer::inspect`] tells.
    ///
    /// # Errors
    /// As [`Predictor::predict`]; tasks without paths of their own, which look at nothing.
    pub fn inspect(&self, photo: &DynamicImage) -> Result<Vec<StageView>> {
        Ok(self.model.inspect(&self.input(&self.reduced(photo)?)?)?)
    }

    /// The photo in the size that the model works at.
    fn reduced(&self, photo: &DynamicImage) -> Result<DynamicImage> {
        check_photo(photo)?;
        let swin = &self.model.config().swin;
        let (w, h) = working_size(photo.dimensions(), swin.image_size as u32, swin.patch_size as u32);
        Ok(photo.resize_exact(w, h, FilterType::CatmullRom))
    }

    /// Every task's map at the size of the photo that has been reduced.
    fn of_reduced(&self, small: &DynamicImage, (width, height): (u32, u32)) -> Result<Vec<Prediction>> {
        let outputs = self.model.forward(&self.input(small)?)?;
        let prediction = |(task, outputs): (&Task, &Tensor)| {
            let outputs = Readout::new(task, &outputs.squeeze(0)?)?;
            Ok(Prediction { task: task.clone(), outputs, width, height })
        };
        outputs.iter().map(prediction).collect()
    }

    /// `[1, 3, h, w]`, normalised, in the model's float type and place.
    fn input(&self, photo: &DynamicImage) -> Result<Tensor> {
        let image = image_tensor(photo)?.unsqueeze(0)?.to_device(self.model.device())?;
        Ok(normalise(&image.to_dtype(self.model.dtype())?)?)
    }
}

impl Prediction {
    /// The task.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// The map in label form, `[c, H, W]` f32: class indices, unit normals, probabilities or depths.
    ///
    /// # Errors
    /// None in practice; candle's are passed on.
    pub fn map(&self) -> Result<Tensor> {
        self.outputs.map(self.size())
    }

    /// The map as an array of its natural type: `[H, W]` u8 for classes, `[3, H, W]` f32 for normals, `[H, W]` f32 otherwise.
    ///
    /// # Errors
    /// As [`Prediction::map`].
    pub fn array(&self) -> Result<Tensor> {
        let map = self.map()?;
        let array = if map.dim(0)? == 1 { map.squeeze(0)? } else { map };
        Ok(if self.task.kind.is_classes() { array.to_dtype(DType::U8)? } else { array })
    }

    /// The map as a picture, in the colours of [`picture`](crate::picture::picture).
    pub fn picture(&self) -> RgbImage {
        let mut picture = RgbImage::new(self.width, self.height);
        let mut rest: &mut [u8] = &mut picture;
        let Ok(()) = self.colours(|strip| {
            let (rows, below) = std::mem::take(&mut rest).split_at_mut(strip.len());
            rows.copy_from_slice(strip);
            rest = below;
            Ok::<(), Infallible>(())
        });
        picture
    }

    /// Writes the picture as a PNG file.
    ///
    /// # Errors
    /// A folder or disk that cannot be written to.
    pub fn save_picture(&self, path: impl AsRef<Path>) -> Result<()> {
        write_png(path.as_ref(), (self.width, self.height), |pixels| self.colours(|strip| pixels.write_all(strip)))
    }

    /// Writes the picture as a PNG to anything that takes bytes, a strip of rows at a time.
    ///
    /// # Errors
    /// A writer that fails.
    pub fn write_picture(&self, mut to: impl Write) -> Result<()> {
        let written =
            encode_png(&mut to, (self.width, self.height), |pixels| self.colours(|strip| pixels.write_all(strip)));
        written.map_err(Error::io(Path::new("the picture"), "write"))
    }

    /// Writes the array in NumPy's format.
    ///
    /// # Errors
    /// A folder or disk that cannot be written to.
    pub fn save_npy(&self, path: impl AsRef<Path>) -> Result<()> {
        write_atomically(path.as_ref(), |file| self.npy(file))
    }

    /// Writes the array in NumPy's format to anything that takes bytes, a strip of rows at a time.
    ///
    /// # Errors
    /// A writer that fails.
    pub fn write_npy(&self, mut to: impl Write) -> Result<()> {
        self.npy(&mut to).map_err(Error::io(Path::new("the array"), "write"))
    }

    fn npy(&self, to: &mut dyn Write) -> io::Result<()> {
        let (height, width) = self.size();
        if self.task.kind.is_classes() {
            to.write_all(&npy::header::<u8>(&[height, width]))?;
            let write = |at: usize, pixel: [f32; 3], row: &mut [u8]| row[at] = pixel[0] as u8;
            return self.outputs.strips((height, width), 1, write, |strip| to.write_all(strip));
        }
        let channels = self.task.kind.label_channels();
        let shape = [channels, height, width];
        to.write_all(&npy::header::<f32>(if channels == 1 { &shape[1..] } else { &shape }))?;
        (0..channels).try_for_each(|c| {
            let write = |at: usize, pixel: [f32; 3], row: &mut [u8]| {
                row[4 * at..][..4].copy_from_slice(&pixel[c].to_le_bytes());
            };
            self.outputs.strips((height, width), 4, write, |strip| to.write_all(strip))
        })
    }

    /// Height and width.
    fn size(&self) -> (usize, usize) {
        (self.height as usize, self.width as usize)
    }

    /// Red, green and blue of the picture's pixels, a strip of rows at a time.
    fn colours<E>(&self, take: impl FnMut(&[u8]) -> std::result::Result<(), E>) -> std::result::Result<(), E> {
        let (colours, depths) = (MapColours::of(self.task.kind), self.depths());
        let write = |at: usize, pixel: [f32; 3], row: &mut [u8]| {
            row[3 * at..][..3].copy_from_slice(&colours.colour(pixel, depths));
        };
        self.outputs.strips(self.size(), 3, write, take)
    }

    /// Which depths get the nearest and the farthest colour: the map's own.
    fn depths(&self) -> DepthRange {
        let mut depths = DepthRange::NONE;
        if self.task.kind == TaskKind::Depth {
            let write = |at: usize, pixel: [f32; 3], row: &mut [f32]| row[at] = pixel[0];
            let Ok(()) = self.outputs.strips(self.size(), 1, write, |strip| {
                depths = depths.and(strip);
                Ok::<(), Infallible>(())
            });
        }
        depths.or_unit()
    }
}

/// Width and height of a photo turned so.
fn turned((width, height): (u32, u32), how: Orientation) -> (u32, u32) {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    let lies = matches!(how, Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH);
    if lies { (height, width) } else { (width, height) }
}

/// A photo's size brought to about `side` x `side` pixels, its shape kept, in whole patches; one that would be less than a patch wide
/// or high is made wider, and gets no more pixels for it.
fn working_size((width, height): (u32, u32), side: u32, patch: u32) -> (u32, u32) {
    let scale = f64::from(side) / (f64::from(width) * f64::from(height)).sqrt() / f64::from(patch);
    let most = (f64::from(side) / f64::from(patch)).powi(2).max(1.0);
    let whole = |pixels: u32| (f64::from(pixels) * scale).round().clamp(1.0, most) as u32 * patch;
    (whole(width), whole(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_sizes_keep_the_shape_in_whole_patches() {
        assert_eq!(working_size((448, 448), 448, 4), (448, 448));
        assert_eq!(working_size((4000, 3000), 448, 4), (516, 388));
        assert_eq!(working_size((1, 200), 64, 4), (4, 904));
    }

    /// A photo of one row and a million columns was worked at in 78 times as many pixels as any other.
    #[test]
    fn no_shape_buys_more_pixels() {
        assert_eq!(working_size((1, 5000), 64, 4), (4, 1024));
        assert_eq!(working_size((1 << 20, 1), 224, 4), (12544, 4));
        assert_eq!(working_size((1, 1 << 20), 2, 4), (4, 4));
    }
}
