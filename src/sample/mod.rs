//! One image with its labels, and several stacked: what data makes and training takes.

mod classes;
mod dataset;
mod fault;
mod padded;
#[cfg(any(feature = "data", feature = "scenes"))]
mod seed;

pub use classes::{Classes, class_colour};
pub use dataset::Dataset;
pub use fault::{Examined, Fault, FaultKind};
pub use padded::PaddedBatch;
#[cfg(any(feature = "data", feature = "scenes"))]
pub(crate) use seed::scatter;

use crate::finite::is_finite;
use crate::{Error, Result};
use candle_core::{DType, Device, Result as CandleResult, Tensor};
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
/// `image` `[3, H, W]`, red, green, blue: f32 from 0 to 1, or u8 from 0 to 255. Each label `[c, H, W]` with c = 3 for normals and 1
/// otherwise, f32, or u8 where it is small enough (classes, masks), and [`IGNORE`] where nothing is known. Labels are keyed by task
/// name; a task without one is unknown everywhere.
#[derive(Clone, Debug)]
pub struct Sample {
    /// `[3, H, W]`, f32 from 0 to 1 or u8 from 0 to 255.
    pub image: Tensor,
    /// `[c, H, W]` by task name, f32 or u8.
    pub labels: BTreeMap<String, Tensor>,
}

impl Sample {
    /// An image and its labels by task name, checked.
    ///
    /// ```
    /// use tadformer::candle_core::{DType, Device, Tensor};
    /// let map = |c| Tensor::zeros((c, 4, 6), DType::F32, &Device::Cpu);
    /// let sample = tadformer::Sample::new(map(3)?, [("semseg", map(1)?), ("normals", map(3)?)])?;
    /// assert_eq!(sample.labels.len(), 2);
    /// # Ok::<(), tadformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// An image that is not `[3, H, W]`, a label that is not `[c, H, W]` of the image's height and width, either of another type
    /// than f32 or u8, or with a value that is NaN or infinite.
    pub fn new(image: Tensor, labels: impl IntoIterator<Item = (impl Into<String>, Tensor)>) -> Result<Self> {
        let labels = labels.into_iter().map(|(name, label)| (name.into(), label)).collect();
        Self { image, labels }.checked()
    }

    /// The sample, if it is what its fields say.
    pub(crate) fn checked(self) -> Result<Self> {
        self.size()?;
        let cure = "an image is f32 from 0 to 1, as data::image_tensor makes it, or u8 from 0 to 255";
        check_type("image", &self.image, cure)?;
        for (name, label) in &self.labels {
            check_type(&format!("label `{name}`"), label, "turn it with to_dtype(DType::F32)")?;
        }
        self.check_numbers("")?;
        Ok(self)
    }

    /// Refuses NaN and infinity; `place` tells which sample of several it is.
    fn check_numbers(&self, place: &str) -> Result<()> {
        check_numbers(&format!("image{place}"), &self.image, "an image is f32 from 0 to 1")?;
        let cure = "mark pixels of which nothing is known 255";
        self.labels.iter().try_for_each(|(name, label)| check_numbers(&format!("label `{name}`{place}"), label, cure))
    }

    /// The image's height and width, which its labels share.
    pub(crate) fn size(&self) -> Result<(usize, usize)> {
        let &[3, h, w] = self.image.dims() else {
            let got = self.image.dims().to_vec();
            return Err(Error::Shape { what: "image".into(), expected: "[3, H, W]".into(), got });
        };
        match self.labels.iter().find(|(_, label)| !matches!(label.dims(), [_, y, x] if (*y, *x) == (h, w))) {
            None => Ok((h, w)),
            Some((name, label)) => {
                let (what, expected) = (format!("label `{name}`"), format!("[c, {h}, {w}], as its image"));
                Err(Error::Shape { what, expected, got: label.dims().into() })
            }
        }
    }

    /// The image as floats from 0 to 1, whatever it is stored as.
    ///
    /// # Errors
    /// None in practice; candle's are passed on.
    pub fn float_image(&self) -> Result<Tensor> {
        match self.image.dtype() {
            DType::U8 => Ok((self.image.to_dtype(DType::F32)? / 255.0)?),
            _ => Ok(self.image.clone()),
        }
    }

    /// An image without labels, to predict.
    pub fn of_image(image: Tensor) -> Self {
        Self { image, labels: BTreeMap::new() }
    }
}

fn check_type(what: &str, tensor: &Tensor, cure: &str) -> Result<()> {
    if matches!(tensor.dtype(), DType::F32 | DType::U8) {
        return Ok(());
    }
    Err(Error::config(what, "f32 or u8", tensor.dtype().as_str(), cure))
}

/// Refuses a map with a value that is NaN or infinite, and tells where the first one is.
fn check_numbers(what: &str, map: &Tensor, cure: &str) -> Result<()> {
    if is_finite(map)? {
        return Ok(());
    }
    let values = map.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let wrong = values.iter().enumerate().find(|(_, value)| !value.is_finite());
    let got = match (map.dims(), wrong) {
        (&[.., h, w], Some((at, value))) => {
            format!("{value} in channel {}, row {}, column {}", at / (h * w), at / w % h, at % w)
        }
        _ => "NaN or infinity".to_owned(),
    };
    Err(Error::config(what, "numbers", got, cure))
}

/// A label of which nothing is known, `[c, h, w]`: u8 but for the kinds that are measured in floats.
#[cfg(feature = "data")]
pub(crate) fn unknown(kind: crate::TaskKind, (h, w): (usize, usize)) -> Result<Tensor> {
    let dtype = if matches!(kind, crate::TaskKind::Normals | crate::TaskKind::Depth) { DType::F32 } else { DType::U8 };
    Ok(Tensor::full(IGNORE, (kind.label_channels(), h, w), &Device::Cpu)?.to_dtype(dtype)?)
}

/// Several samples of one size, ready for a model; [`PaddedBatch`] makes a batch of samples of several sizes.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[B, 3, H, W]`, normalised by ImageNet's mean and standard deviation.
    pub images: Tensor,
    /// `[B, c, H, W]` by task name, f32 or u8 as the samples'.
    pub labels: BTreeMap<String, Tensor>,
}

impl Batch {
    /// Stacks samples, normalises the images to `dtype` and moves all to `device`; labels stay f32 or u8, f32 where samples differ. A
    /// label that one sample has and another lacks is [`IGNORE`] everywhere for the other, in whichever order they come.
    ///
    /// # Errors
    /// No sample at all, samples of different sizes, images that are no floats, values that are NaN or infinite, labels of one name and
    /// different shapes.
    pub fn stack(samples: &[Sample], dtype: DType, device: &Device) -> Result<Self> {
        for (i, sample) in samples.iter().enumerate() {
            sample.check_numbers(&format!(" of sample {i} of a batch"))?;
        }
        Self::of_checked(samples, dtype, device)
    }

    /// [`Batch::stack`] of samples whose values have been looked at.
    pub(crate) fn of_checked(samples: &[Sample], dtype: DType, device: &Device) -> Result<Self> {
        let first = samples
            .first()
            .ok_or_else(|| Error::config("batch", "at least one sample", "none", "use a batch size of 1 or more"))?;
        for sample in samples {
            if !sample.image.dtype().is_float() && sample.image.dtype() != DType::U8 {
                let cure = "an image is f32 from 0 to 1, as data::image_tensor makes it, or u8 from 0 to 255";
                let got = sample.image.dtype().as_str();
                return Err(Error::config("image of a batch", "floats or bytes", got, cure));
            }
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
        let images: Vec<Tensor> = samples.iter().map(Sample::float_image).collect::<Result<_>>()?;
        let images = normalise(&Tensor::stack(&images, 0)?.to_device(device)?.to_dtype(dtype)?)?;
        Ok(Self { images, labels: stack_labels(samples, device)? })
    }

    /// The batch as a model takes it: images of its float type, images and labels on its device.
    ///
    /// ```
    /// # use tadformer::candle_core::{DType, Device, Tensor};
    /// # use tadformer::{Batch, Sample};
    /// # let sample = Sample::of_image(Tensor::zeros((3, 8, 8), DType::F32, &Device::Cpu)?);
    /// let batch = Batch::stack(&[sample], DType::F32, &Device::Cpu)?.to(DType::F64, &Device::Cpu)?;
    /// assert_eq!(batch.images.dtype(), DType::F64);
    /// # Ok::<(), tadformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// Images that are no floats; a device without room.
    pub fn to(&self, dtype: DType, device: &Device) -> Result<Self> {
        let images = self.images_to(dtype, device)?;
        let label = |(name, map): (&String, &Tensor)| Ok((name.clone(), map.to_device(device)?));
        Ok(Self { images, labels: self.labels.iter().map(label).collect::<Result<_>>()? })
    }

    /// [`Batch::to`] without the labels.
    pub(crate) fn images_to(&self, dtype: DType, device: &Device) -> Result<Tensor> {
        if !self.images.dtype().is_float() {
            let cure = "stack samples with Batch::stack, which normalises them";
            let got = self.images.dtype().as_str();
            return Err(Error::config("images of a batch", "floats, normalised", got, cure));
        }
        Ok(self.images.to_device(device)?.to_dtype(dtype)?)
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

/// The labels that any of the samples has, `[B, c, H, W]` by task name.
fn stack_labels(samples: &[Sample], device: &Device) -> Result<BTreeMap<String, Tensor>> {
    let mut known = BTreeMap::new();
    for (name, label) in samples.iter().flat_map(|sample| &sample.labels) {
        known.entry(name).or_insert(label);
    }
    let stack = |(name, one): (&String, &Tensor)| -> Result<(String, Tensor)> {
        let unknown = Tensor::full(IGNORE, one.shape(), one.device())?.to_dtype(one.dtype())?;
        let labels: Vec<&Tensor> = samples.iter().map(|sample| sample.labels.get(name).unwrap_or(&unknown)).collect();
        let dtype = if labels.iter().all(|label| label.dtype() == one.dtype()) { one.dtype() } else { DType::F32 };
        if let Some(other) = labels.iter().find(|label| label.dims() != one.dims()) {
            let (what, expected) =
                (format!("label `{name}` of a batch"), format!("{:?}, as in the others", one.dims()));
            return Err(Error::Shape { what, expected, got: other.dims().into() });
        }
        let labels: Vec<Tensor> = labels.iter().map(|label| label.to_dtype(dtype)).collect::<CandleResult<_>>()?;
        Ok((name.clone(), Tensor::stack(&labels, 0)?.to_device(device)?))
    };
    known.into_iter().map(stack).collect()
}

/// Subtracts ImageNet's mean and divides by its standard deviation: `[B, 3, H, W]` from 0 to 1 to what Swin expects.
///
/// # Errors
/// Images that are not `[B, 3, H, W]`, or not of floats.
pub fn normalise(images: &Tensor) -> CandleResult<Tensor> {
    if !images.dtype().is_float() || !matches!(images.dims(), [_, 3, _, _]) {
        candle_core::bail!(
            "images: expected floats [B, 3, H, W] from 0 to 1, got {} {:?} (divide bytes by 255; RGB, the channels first)",
            images.dtype().as_str(),
            images.dims()
        )
    }
    let constant =
        |values: &[f32; 3]| Tensor::new(values, images.device())?.reshape((1, 3, 1, 1))?.to_dtype(images.dtype());
    images.broadcast_sub(&constant(&IMAGENET_MEAN)?)?.broadcast_div(&constant(&IMAGENET_STD)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(c: usize, h: usize, dtype: DType) -> Tensor {
        Tensor::zeros((c, h, 6), dtype, &Device::Cpu).unwrap()
    }

    #[test]
    fn a_sample_is_checked_and_the_label_named() {
        let f32 = DType::F32;
        let new = |image, label| Sample::new(image, [("rooms".to_owned(), label)]).map(drop);
        assert!(new(map(3, 4, f32), map(1, 4, f32)).is_ok());
        for (image, label, words) in [
            (map(3, 4, DType::I64), map(1, 4, f32), ["`image`: expected f32 or u8, got i64", "image_tensor"]),
            (map(1, 4, f32), map(1, 4, f32), ["image: expected shape [3, H, W]", "[1, 4, 6]"]),
            (map(3, 4, f32).unsqueeze(0).unwrap(), map(1, 4, f32), ["[3, H, W]", "[1, 3, 4, 6]"]),
            (map(3, 4, f32), map(1, 5, f32), ["label `rooms`: expected shape [c, 4, 6]", "[1, 5, 6]"]),
            (map(3, 4, f32), map(1, 4, f32).squeeze(0).unwrap(), ["label `rooms`", "got [4, 6]"]),
            (map(3, 4, f32), map(1, 4, DType::I64), ["label `rooms`", "got i64"]),
        ] {
            let message = new(image, label).unwrap_err().to_string();
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
        }
    }

    /// Through the decoders' ReLU an image of NaN came out as numbers, and a NaN in a mask was taken for 0.
    #[test]
    fn values_that_are_no_numbers_are_refused_with_their_place() -> Result<()> {
        let with = |c: usize, at: usize, value: f32| -> Result<Tensor> {
            let mut values = vec![0f32; c * 24];
            values[at] = value;
            Ok(Tensor::from_vec(values, (c, 4, 6), &Device::Cpu)?)
        };
        let good = map(1, 4, DType::F32);
        for (image, label, words) in [
            (
                with(3, 24 + 6 + 2, f32::NAN)?,
                good.clone(),
                "`image`: expected numbers, got NaN in channel 1, row 1, column 2",
            ),
            (
                with(3, 0, 0.0)?,
                with(1, 23, f32::INFINITY)?,
                "`label `rooms``: expected numbers, got inf in channel 0, row 3, column 5",
            ),
        ] {
            let message = Sample::new(image.clone(), [("rooms", label.clone())]).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
            let whole = Sample::new(map(3, 4, DType::F32), [("rooms", good.clone())])?;
            let wrong = Sample { image, labels: [("rooms".to_owned(), label)].into() };
            let message = Batch::stack(&[whole, wrong], DType::F32, &Device::Cpu).unwrap_err().to_string();
            assert!(message.contains("of sample 1 of a batch`: expected numbers, got"), "{message}");
        }
        Ok(())
    }

    /// Was dropped in silence where the first sample lacked it, and refused in the other order.
    #[test]
    fn a_label_that_one_sample_lacks_is_unknown_there_in_either_order() -> Result<()> {
        let depth = Tensor::full(2f32, (1, 4, 6), &Device::Cpu)?;
        let with = Sample::new(map(3, 4, DType::F32), [("depth", depth)])?;
        let without = Sample::of_image(map(3, 4, DType::F32));
        for (samples, want) in [([&with, &without], [2.0, IGNORE]), ([&without, &with], [IGNORE, 2.0])] {
            let batch = Batch::stack(&samples.map(Sample::clone), DType::F32, &Device::Cpu)?;
            assert_eq!(batch.labels["depth"].dims(), [2, 1, 4, 6]);
            let values = batch.labels["depth"].flatten_from(1)?.to_vec2::<f32>()?;
            assert!(values.iter().zip(want).all(|(label, want)| label.iter().all(|v| *v == want)), "{values:?}");
        }
        let other = Sample { labels: [("depth".to_owned(), map(3, 4, DType::F32))].into(), ..without };
        let message = Batch::stack(&[with, other], DType::F32, &Device::Cpu).unwrap_err().to_string();
        assert!(
            message.contains("label `depth` of a batch: expected shape [1, 4, 6], as in the others, got [3, 4, 6]")
        );
        Ok(())
    }

    #[test]
    fn bytes_become_floats_in_a_batch_and_are_refused_by_normalise() -> Result<()> {
        let bytes = Tensor::full(51u8, (3, 4, 6), &Device::Cpu)?;
        let [of_bytes, of_floats] = [bytes.clone(), (bytes.to_dtype(DType::F32)? / 255.0)?].map(|image| {
            let images = Batch::stack(&[Sample::of_image(image)], DType::F32, &Device::Cpu)?.images;
            Result::Ok(images.flatten_all()?.to_vec1::<f32>()?)
        });
        assert_eq!(of_bytes?, of_floats?);
        let stack = |dtype| Batch::stack(&[Sample::of_image(map(3, 4, dtype))], DType::F32, &Device::Cpu);
        let message = stack(DType::I64).unwrap_err().to_string();
        assert!(message.contains("floats or bytes, got i64") && message.contains("from 0 to 255"), "{message}");
        assert!(stack(DType::F64).is_ok());
        for (images, got) in [((2, 3, 4, 6), "got u8 [2, 3, 4, 6]"), ((2, 4, 3, 6), "got u8 [2, 4, 3, 6]")] {
            let images = Tensor::zeros(images, DType::U8, &Device::Cpu).unwrap();
            let message = normalise(&images).unwrap_err().to_string();
            assert!(message.contains(got) && message.contains("divide bytes by 255"), "{message}");
        }
        let grey = Tensor::zeros((2, 1, 4, 6), DType::F32, &Device::Cpu).unwrap();
        assert!(normalise(&grey).unwrap_err().to_string().contains("got f32 [2, 1, 4, 6]"));
        Ok(())
    }

    #[test]
    fn labels_of_bytes_and_floats_share_a_batch() -> Result<()> {
        let label = |dtype| Tensor::full(2f32, (1, 4, 6), &Device::Cpu)?.to_dtype(dtype);
        let sample = |dtype| Sample::new(map(3, 4, DType::F32), [("semseg", label(dtype)?)]);
        let stacked = |samples: &[Sample]| Batch::stack(samples, DType::F32, &Device::Cpu);
        let without = Sample::of_image(map(3, 4, DType::F32));
        let bytes = stacked(&[sample(DType::U8)?, without])?.labels["semseg"].clone();
        assert_eq!((bytes.dtype(), bytes.max_all()?.to_scalar::<u8>()?), (DType::U8, 255));
        let mixed = stacked(&[sample(DType::U8)?, sample(DType::F32)?])?.labels["semseg"].clone();
        assert_eq!(mixed.flatten_all()?.to_vec1::<f32>()?, [2.0; 48]);
        Ok(())
    }

    #[test]
    fn a_batch_goes_to_a_models_float_type_and_bytes_do_not() -> Result<()> {
        let sample = Sample::new(map(3, 4, DType::F32), [("depth", map(1, 4, DType::F32))])?;
        let batch = Batch::stack(&[sample], DType::F32, &Device::Cpu)?;
        let moved = batch.to(DType::BF16, &Device::Cpu)?;
        assert_eq!((moved.images.dtype(), moved.labels["depth"].dtype()), (DType::BF16, DType::F32));
        let bytes = Batch { images: batch.images.to_dtype(DType::U8)?, ..batch };
        let message = bytes.to(DType::F32, &Device::Cpu).unwrap_err().to_string();
        assert!(message.contains("`images of a batch`: expected floats, normalised, got u8"), "{message}");
        Ok(())
    }
}
