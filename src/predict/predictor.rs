//! Photos in, maps out.

use super::decode;
use crate::data::{image_tensor, read_photo};
use crate::files::write_atomically;
use crate::model::{InferenceModel, OpenOptions, TADFormer};
use crate::picture::{picture, save_png};
use crate::sample::normalise;
use crate::task::Task;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use image::imageops::FilterType;
use image::{DynamicImage, RgbImage};
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
#[derive(Debug)]
pub struct Predictor {
    model: InferenceModel,
}

/// One task's map of one photo.
#[derive(Clone, Debug)]
pub struct Prediction {
    task: Task,
    map: Tensor,
}

impl Predictor {
    /// Predicts with this model, merged for inference.
    ///
    /// # Errors
    /// As [`TADFormer::merge`].
    pub fn new(model: TADFormer) -> Result<Self> {
        Ok(Self { model: model.merge()? })
    }

    /// Opens an adapter or a full export with its backbone.
    ///
    /// # Errors
    /// As [`TADFormer::open`].
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        Self::new(TADFormer::open(path, options)?)
    }

    /// The model.
    pub fn model(&self) -> &InferenceModel {
        &self.model
    }

    /// Every task's map of a photo in a PNG or JPEG file.
    ///
    /// # Errors
    /// A file that cannot be read or is no image.
    pub fn predict_file(&self, path: impl AsRef<Path>) -> Result<Vec<Prediction>> {
        self.predict(&read_photo(path.as_ref())?)
    }

    /// Every task's map of a photo, in the tasks' order.
    ///
    /// # Errors
    /// A photo for which the model's device has no room.
    pub fn predict(&self, photo: &DynamicImage) -> Result<Vec<Prediction>> {
        let (width, height) = (photo.width(), photo.height());
        let swin = &self.model.config().swin;
        let (w, h) = working_size((width, height), swin.image_size as u32, swin.patch_size as u32);
        let small = photo.resize_exact(w, h, FilterType::CatmullRom);
        let outputs = self.model.forward(&self.input(&small)?)?;
        let size = (height as usize, width as usize);
        let read = |(task, map): (&Task, &Tensor)| {
            Ok(Prediction { task: task.clone(), map: decode(task, &map.squeeze(0)?, size)? })
        };
        outputs.iter().map(read).collect()
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
    pub fn map(&self) -> &Tensor {
        &self.map
    }

    /// The map as an array of its natural type: `[H, W]` u8 for classes, `[3, H, W]` f32 for normals, `[H, W]` f32 otherwise.
    ///
    /// # Errors
    /// None on a map that a predictor made; it passes candle's on.
    pub fn array(&self) -> Result<Tensor> {
        let array = if self.map.dim(0)? == 1 { self.map.squeeze(0)? } else { self.map.clone() };
        Ok(if self.task.kind.is_classes() { array.to_dtype(DType::U8)? } else { array })
    }

    /// The map as a picture.
    ///
    /// # Errors
    /// As [`picture`]: none on a map that a predictor made.
    pub fn picture(&self) -> Result<RgbImage> {
        picture(self.task.kind, &self.map, None)
    }

    /// Writes the picture as a PNG file.
    ///
    /// # Errors
    /// A folder or disk that cannot be written to.
    pub fn save_picture(&self, path: impl AsRef<Path>) -> Result<()> {
        save_png(&self.picture()?, path.as_ref())
    }

    /// Writes the array in NumPy's format.
    ///
    /// # Errors
    /// A folder or disk that cannot be written to.
    pub fn save_npy(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let folder = tempfile::tempdir().map_err(Error::io(path, "make a temporary folder for"))?;
        let whole = folder.path().join("array.npy");
        self.array()?.write_npy(&whole)?;
        let bytes = std::fs::read(&whole).map_err(Error::io(&whole, "read"))?;
        write_atomically(path, |file| file.write_all(&bytes))
    }
}

/// A photo's size brought to about `side` x `side` pixels, its shape kept, in whole patches. One that would be narrower than a patch is
/// a patch wide, and no longer than that leaves room for.
fn working_size((width, height): (u32, u32), side: u32, patch: u32) -> (u32, u32) {
    let scale = f64::from(side) / (f64::from(width) * f64::from(height)).sqrt();
    let longest = (side / patch).pow(2).max(1);
    let whole = |pixels: u32| ((f64::from(pixels) * scale / f64::from(patch)).round() as u32).clamp(1, longest) * patch;
    (whole(width), whole(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_sizes_keep_the_shape_in_whole_patches() {
        assert_eq!(working_size((448, 448), 448, 4), (448, 448));
        assert_eq!(working_size((4000, 3000), 448, 4), (516, 388));
        // No more patches than of a square photo, where its shape would ask for twenty times as many.
        assert_eq!(working_size((1, 5000), 64, 4), (4, 1024));
        assert_eq!(working_size((100_000_000, 1), 2048, 4), (1 << 20, 4));
    }
}
