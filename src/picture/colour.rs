//! Colours for numbers.

/// Colours for numbers from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ramp {
    /// Matplotlib's: dark violet over green to yellow, even in lightness.
    Viridis,
    /// Google's rainbow: dark blue over green to dark red.
    Turbo,
    /// Matplotlib's: black over red to pale yellow.
    Inferno,
    /// Black to white.
    Grey,
    /// For numbers of either sign, 0 at the middle: blue over white to red.
    Signed,
}

impl Ramp {
    /// The colour of `t`; what lies outside 0 to 1 has the colour of the end that is nearer.
    pub fn colour(self, t: f32) -> [u8; 3] {
        let (gradient, t) = match self {
            Self::Viridis => (colorous::VIRIDIS, t),
            Self::Turbo => (colorous::TURBO, t),
            Self::Inferno => (colorous::INFERNO, t),
            Self::Grey => return [unit_to_byte(t); 3],
            Self::Signed => (colorous::RED_BLUE, 1.0 - t),
        };
        gradient.eval_continuous(f64::from(t)).as_array()
    }
}

pub(super) fn unit_to_byte(v: f32) -> u8 {
    (v.clamp(0.0, 1.0) * 255.0).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The six stops that were joined by lines were up to 20 levels off.
    #[test]
    fn viridis_and_inferno_are_matplotlibs_to_two_levels() {
        // Of matplotlib's tables of 256: every 32nd entry, and the last.
        let viridis = [
            [68, 1, 84],
            [71, 44, 122],
            [59, 81, 139],
            [44, 113, 142],
            [33, 144, 141],
            [39, 173, 129],
            [92, 200, 99],
            [170, 220, 50],
            [253, 231, 37],
        ];
        for (i, want) in viridis.into_iter().enumerate() {
            let got = Ramp::Viridis.colour(i as f32 / 8.0);
            assert!(got.iter().zip(want).all(|(got, want)| got.abs_diff(want) <= 2), "{i}: {got:?} for {want:?}");
        }
        assert_eq!(Ramp::Inferno.colour(0.0), [0, 0, 4]);
        assert_eq!(Ramp::Inferno.colour(1.0), [252, 255, 164]);
    }

    #[test]
    fn ramps_run_the_way_that_they_say() {
        let [low, high] = [0.1, 0.9].map(|t| Ramp::Turbo.colour(t));
        assert!(low[2] > low[0] && high[0] > high[2], "{low:?} to {high:?}");
        let [negative, zero, positive] = [0.1, 0.5, 0.9].map(|t| Ramp::Signed.colour(t));
        assert!(negative[2] > negative[0] && positive[0] > positive[2] && zero.iter().all(|v| *v > 230));
        assert_eq!([-1.0, 2.0].map(|t| Ramp::Grey.colour(t)), [[0; 3], [255; 3]]);
    }
}
