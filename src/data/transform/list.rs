//! Steps one after the other.

use super::Transform;
use super::canvas::Canvas;
use crate::{Error, Result, Sample, TaskSet};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

/// Steps on a sample, in order; checked when made or read.
///
/// ```
/// use tadformer::candle_core::{DType, Device, Tensor};
/// use tadformer::data::{Transform, Transforms};
/// use tadformer::Sample;
/// let steps: Transforms = serde_json::from_str(r#"[{"kind": "flip", "probability": 1.0}, {"kind": "pad", "height": 2, "width": 4}]"#)?;
/// let label = Tensor::new(&[[[0u8, 1, 2]]], &Device::Cpu)?;
/// let sample = Sample::new(Tensor::zeros((3, 1, 3), DType::U8, &Device::Cpu)?, [("semseg", label)])?;
/// let sample = steps.apply(sample, &"semseg=3".parse()?, 0)?;
/// assert_eq!(sample.labels["semseg"].to_vec3::<u8>()?, [[[2, 1, 0, 255], [255; 4]]]);
/// assert!(Transforms::new(vec![Transform::Flip { probability: 1.5 }]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Transform>", into = "Vec<Transform>")]
pub struct Transforms(Vec<Transform>);

const MOST_STEPS: usize = 64;

impl Transforms {
    /// Checks a list of steps; an empty one changes nothing.
    ///
    /// # Errors
    /// The first number that cannot work, by its step and field; more than 64 steps.
    pub fn new(steps: Vec<Transform>) -> Result<Self> {
        if steps.len() > MOST_STEPS {
            let cure = "leave out what undoes itself";
            return Err(Error::config("transforms", format!("at most {MOST_STEPS} steps"), steps.len(), cure));
        }
        for (i, step) in steps.iter().enumerate() {
            step.check(&format!("transforms[{i}]"))?;
        }
        Ok(Self(steps))
    }

    /// The steps in order.
    pub fn steps(&self) -> &[Transform] {
        &self.0
    }

    /// The sample after all steps; the seed settles what they draw.
    ///
    /// # Shapes
    /// The image `[3, H, W]` is u8 where it was and no step computed new colours, or the last one that did was [`Transform::Truncate`],
    /// and f32 from 0 to 1 otherwise. Labels stay u8 or f32, of normals and depth always f32; one that the sample lacks stays missing.
    ///
    /// # Errors
    /// A sample that is not what [`Sample`] says, a label of none of the tasks or with other channels than its kind has, an image that
    /// is smaller than what is to be cut out of it.
    pub fn apply(&self, sample: Sample, tasks: &TaskSet, seed: u64) -> Result<Sample> {
        let mut canvas = Canvas::of(sample, tasks)?;
        let mut rng = StdRng::seed_from_u64(seed);
        for step in &self.0 {
            step.apply(&mut canvas, &mut rng)?;
        }
        canvas.into_sample()
    }
}

impl TryFrom<Vec<Transform>> for Transforms {
    type Error = Error;

    fn try_from(steps: Vec<Transform>) -> Result<Self> {
        Self::new(steps)
    }
}

impl From<Transforms> for Vec<Transform> {
    fn from(transforms: Transforms) -> Self {
        transforms.0
    }
}
