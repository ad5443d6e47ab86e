//! The usual lists of steps, by name.

use super::{Outside, Scale, Shrink, Transform, Transforms};
use crate::named::find_named;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A list of steps by its name.
///
/// ```
/// use tadformer::data::{Recipe, Transform};
/// let recipe: Recipe = "pascal".parse()?;
/// assert!(matches!(recipe.train((448, 448))?.steps()[0], Transform::Flip { probability: 0.5 }));
/// assert!("voc".parse::<Recipe>().unwrap_err().to_string().contains("pascal, nyud, own"));
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Recipe {
    /// The released code's for PASCAL-Context: flip, turn by up to 20 degrees, scale of 0.75 to 1.25. What a warp leaves outside is
    /// class 0, as there; the image is rounded as there.
    Pascal,
    /// The released code's for NYUD-v2: flip, scale of 1, 1.2 or 1.5; otherwise as [`Recipe::Pascal`].
    Nyud,
    /// For data of one's own: flip, turn by up to 10 degrees, scale of 0.75 to 1.25, mild changes of colour; smooth when images are
    /// made smaller, and what a warp leaves outside is ignored.
    Own,
}

impl Recipe {
    /// All recipes.
    pub const ALL: &'static [Self] = &[Self::Pascal, Self::Nyud, Self::Own];

    /// The name in configurations and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pascal => "pascal",
            Self::Nyud => "nyud",
            Self::Own => "own",
        }
    }

    /// The steps of training, which end in this height and width.
    ///
    /// # Errors
    /// A side of 0, or more pixels than are ever read.
    pub fn train(self, size: (usize, usize)) -> Result<Transforms> {
        let flip = Transform::Flip { probability: 0.5 };
        let warp = |degrees, scale, outside| Transform::Warp { degrees, scale, outside };
        let steps = match self {
            Self::Pascal => {
                vec![flip, warp([-20.0, 20.0], Scale::Between(0.75, 1.25), Outside::Zero), self.resize(size)]
            }
            Self::Nyud => {
                vec![flip, warp([0.0, 0.0], Scale::OneOf(vec![1.0, 1.2, 1.5]), Outside::Zero), self.resize(size)]
            }
            // The warp comes after the resize: people's photos may be large.
            Self::Own => {
                let (brightness, contrast, saturation, hue) = (0.2, 0.2, 0.2, 0.02);
                let colours = Transform::ColourJitter { brightness, contrast, saturation, hue };
                let warp = warp([-10.0, 10.0], Scale::Between(0.75, 1.25), Outside::Ignore);
                vec![flip, self.resize(size), colours, warp, Transform::UnitNormals]
            }
        };
        Transforms::new([steps, self.last_steps()].concat())
    }

    /// The steps of validation, which draw nothing and end in this height and width.
    ///
    /// # Errors
    /// As [`Recipe::train`].
    pub fn validation(self, size: (usize, usize)) -> Result<Transforms> {
        Transforms::new([vec![self.resize(size)], self.last_steps()].concat())
    }

    fn resize(self, (height, width): (usize, usize)) -> Transform {
        let shrink = if self == Self::Own { Shrink::Smooth } else { Shrink::Sharp };
        Transform::Resize { height, width, shrink }
    }

    /// What follows the steps that move pixels.
    fn last_steps(self) -> Vec<Transform> {
        match self {
            Self::Pascal | Self::Nyud => vec![Transform::IgnoreAbsentParts, Transform::Truncate],
            Self::Own => vec![Transform::IgnoreAbsentParts],
        }
    }
}

impl FromStr for Recipe {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        find_named("recipe", Self::ALL, Self::name, name, "`own` is for data of your own")
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
