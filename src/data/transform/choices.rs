//! What a step leaves open, and what it may be told.

use crate::{Error, Result};
use rand::Rng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

/// How much larger things become.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Anything from the first to the second, 0.1 to 10.
    Between(f64, f64),
    /// One of these, each as often, 0.1 to 10.
    OneOf(Vec<f64>),
}

/// What is known of pixels that a warp takes from outside the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outside {
    /// Nothing: they are ignored.
    #[default]
    Ignore,
    /// As the released code has it: class 0, not salient, no edge, all trained on.
    Zero,
}

/// How an image is made smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shrink {
    /// Each pixel from all that it covers.
    #[default]
    Smooth,
    /// Each pixel from the 16 nearest ones, as OpenCV and the released code do: fine patterns flicker.
    Sharp,
}

/// Where a part lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Anywhere.
    Random,
    /// In the middle.
    Centre,
}

impl Scale {
    pub(super) fn check(&self, place: &str) -> Result<()> {
        const BOUNDS: [f64; 2] = [0.1, 10.0];
        match self {
            Self::Between(from, to) => check_range(place, "scale.between", [*from, *to], BOUNDS),
            Self::OneOf(scales) if scales.is_empty() || scales.len() > MOST_SCALES => {
                let expected = format!("1 to {MOST_SCALES} scales");
                let cure = "use `between` for a range, or leave the step out";
                Err(Error::config(format!("{place}.scale.one_of"), expected, scales.len(), cure))
            }
            Self::OneOf(scales) => scales.iter().try_for_each(|scale| within(place, "scale.one_of", *scale, BOUNDS)),
        }
    }

    pub(super) fn draw(&self, rng: &mut StdRng) -> f64 {
        match self {
            Self::Between(from, to) => between([*from, *to], rng),
            Self::OneOf(scales) => scales[rng.random_range(0..scales.len())],
        }
    }
}

const MOST_SCALES: usize = 64;

/// A number from the first to the second, which may be the same.
pub(super) fn between([from, to]: [f64; 2], rng: &mut StdRng) -> f64 {
    from + (to - from) * rng.random::<f64>()
}

/// Refuses a number out of its range, and one that is none.
pub(super) fn within(place: &str, field: &str, value: f64, [least, most]: [f64; 2]) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let cure = "choose a number of this range, or leave the step out";
    Err(Error::config(format!("{place}.{field}"), format!("{least} to {most}"), value, cure))
}

/// Refuses ends of a range that lie out of theirs, or stand in the wrong order.
pub(super) fn check_range(place: &str, field: &str, [from, to]: [f64; 2], bounds: [f64; 2]) -> Result<()> {
    within(place, field, from, bounds)?;
    within(place, field, to, bounds)?;
    if from <= to {
        return Ok(());
    }
    let got = format!("{from} before {to}");
    Err(Error::config(format!("{place}.{field}"), "the smaller number first", got, "exchange them"))
}
