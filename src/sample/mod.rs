//! One image with its labels, and several stacked: what data makes and training takes.

mod padded;

pub use padded::PaddedBatch;

use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;

/// The label value that means "ignore this pixel" in every task.
pub const IGNORE: f32 = 255.0;

/// Mean of ImageNet's pixels, red, green, blue, on a scale of 0 to 1.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of ImageNet's pixels on the same scale.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// One image and the labels known for it, on the CPU.
///
/// # Shapes
/// `image` `[3, H, W]` f32, red, green, blue from 0 to 1; each label `[c, H, W]` f32 with c = 3 for
/// normals and 1 otherwise, [`IGNORE`] where nothing is known. Labels are keyed by task name.
#[derive(Clone, Debug)]
pub struct Sample {
    /// `[3, H, W]`, from 0 to 1.
    pub image: Tensor,
    /// `[c, H, W]` by task name.
    pub labels: BTreeMap<String, Tensor>,
}

impl Sample {
    /// An image without labels, to predict.
    pub fn of_image(image: Tensor) -> Self {
        Self { image, labels: BTreeMap::new() }
    }
}

/// Several samples of one size, ready for a model; [`PaddedBatch`] makes one of several sizes.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[B, 3, H, W]`, normalised by ImageNet's mean and standard deviation.
    pub images: Tensor,
    /// `[B, c, H, W]` f32 by task name.
    pub labels: BTreeMap<String, Tensor>,
}

impl Batch {
    /// Stacks samples, normalises the images to `dtype` and moves all to `device`; labels stay f32.
    ///
    /// # Errors
    /// No sample at all, samples of different sizes, a label that one sample has and another lacks.
    pub fn stack(samples: &[Sample], dtype: DType, device: &Device) -> Result<Self> {
        let first = samples
            .first()
            .ok_or_else(|| Error::config("batch", "at least one sample", "none", "use a batch size of 1 or more"))?;
        for sample in samples {
            if sample.image.dims() != first.image.dims() {
                let expected =
                    format!("{:?}, the first sample's (resize them, or pad them: PaddedBatch)", first.image.dims());
                return Err(Error::Shape {
                    what: "image of a batch".into(),
                    expected,
                    got: sample.image.dims().into(),
                });
            }
        }
        let images: Vec<&Tensor> = samples.iter().map(|sample| &sample.image).collect();
        let images = normalise(&Tensor::stack(&images, 0)?.to_device(device)?.to_dtype(dtype)?)?;
        let stack = |name: &String| -> Result<(String, Tensor)> {
            let maps = samples.iter().map(|sample| {
                sample.labels.get(name).ok_or_else(|| {
                    let cure = "fill it with 255 where nothing is known";
                    Error::config(
                        "label",
                        format!("`{name}` in every sample of the batch"),
                        "a sample without it",
                        cure,
                    )
                })
            });
            Ok((name.clone(), Tensor::stack(&maps.collect::<Result<Vec<_>>>()?, 0)?.to_device(device)?))
        };
        let labels = first.labels.keys().map(stack).collect::<Result<_>>()?;
        Ok(Self { images, labels })
    }

    /// How many samples it holds.
    pub fn len(&self) -> usize {
        self.images.dims()[0]
    }

    /// Whether it holds none; never true of a batch made by [`Batch::stack`].
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Subtracts ImageNet's mean and divides by its standard deviation: `[B, 3, H, W]` from 0 to 1 to what Swin expects.
///
/// # Errors
/// Images that are not `[B, 3, H, W]`, or not of floats.
pub fn normalise(images: &Tensor) -> candle_core::Result<Tensor> {
    let constant =
        |values: &[f32; 3]| Tensor::new(values, images.device())?.reshape((1, 3, 1, 1))?.to_dtype(images.dtype());
    images.broadcast_sub(&constant(&IMAGENET_MEAN)?)?.broadcast_div(&constant(&IMAGENET_STD)?)
}
