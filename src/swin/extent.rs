//! What one image of the configured size asks of each stage: products of the sizes, bounded.

use super::SwinConfig;
use crate::Result;
use crate::bounds::{Factor, MOST_VALUES, check_product};

/// Scores of one stage's attention in a pass, seconds of work: eight times what the largest Swin has at images of 2048.
const MOST_SCORES: usize = 1 << 33;
/// Multiply-adds of one stage's frozen linears in a pass, a minute of work: twice what the largest Swin has at images of 2048.
const MOST_PRODUCTS: usize = 1 << 42;

impl SwinConfig {
    /// Patches along a side of stage `i`'s map.
    fn side(&self, i: usize) -> usize {
        self.image_size.div_ceil(self.patch_size).div_ceil(1 << i)
    }

    /// Patches of stage `i`'s map.
    pub(crate) fn patches(&self, i: usize) -> usize {
        self.side(i).pow(2)
    }

    /// Hidden channels of stage `i`'s MLPs.
    pub(crate) fn hidden(&self, i: usize) -> usize {
        (self.channels(i) as f64 * self.mlp_ratio) as usize
    }

    /// Refuses sizes that together ask for more than any model does, with this many prompts in every window.
    ///
    /// # Errors
    /// The first product that is too large, by its stage and factors.
    pub(crate) fn check_extent(&self, prompts: usize) -> Result<()> {
        (0..self.stages()).try_for_each(|i| self.check_stage(i, prompts))
    }

    fn check_stage(&self, i: usize, prompts: usize) -> Result<()> {
        let (c, hidden, window) = (self.channels(i), self.hidden(i), self.stage_window(i).pow(2));
        let windows = ("windows", self.side(i).div_ceil(self.stage_window(i)).pow(2));
        let (patches, channels, depth) = (("patches", self.patches(i)), ("channels", c), ("blocks", self.depths[i]));
        let (heads, inside, own) = (("heads", self.num_heads[i]), ("window²", window), ("prompts", prompts));
        let tokens = ("tokens of a window", window + prompts);
        let weights = ("weights of a block", c * (4 * c + 2 * hidden));
        let values: [&[Factor]; 5] = [
            &[patches, ("hidden channels", hidden)],
            &[windows, tokens, channels],
            &[windows, heads, own, inside], // the prompts' scores, which tasks are conditioned by
            &[heads, tokens, tokens],       // position biases of all pairs
            &[depth, windows, inside, inside], // shift masks
        ];
        let check = |factors: &[Factor], most: usize, counts: &str| {
            let cure = "use smaller images, windows or networks, larger patches or fewer prompts";
            check_product(&format!("stage {i}: "), factors, most, counts, cure)
        };
        values.iter().try_for_each(|factors| check(factors, MOST_VALUES, "values"))?;
        check(&[depth, windows, heads, tokens, tokens], MOST_SCORES, "scores")?;
        check(&[depth, windows, tokens, weights], MOST_PRODUCTS, "products")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swin::Preset;

    #[test]
    fn every_published_size_passes_at_images_of_2048_with_windows_of_12_and_a_hundred_prompts() {
        for preset in Preset::ALL {
            SwinConfig { image_size: 2048, window: 12, ..preset.config() }.check_extent(100).unwrap();
        }
        SwinConfig { image_size: 1024, window: 32, ..SwinConfig::large() }.check_extent(100).unwrap();
    }

    #[test]
    fn each_product_of_sizes_within_their_bounds_is_refused_by_its_factors() {
        let small = SwinConfig { embed_dim: 1, num_heads: vec![1], depths: vec![1], window: 1, ..SwinConfig::tiny() };
        let refused = |factors: &str, prompts: usize, config: SwinConfig| {
            let message = config.check_extent(prompts).unwrap_err().to_string();
            assert!(message.starts_with(&format!("`stage 0: {factors}`: expected at most ")), "{factors}: {message}");
        };
        let side = |image_size| SwinConfig { image_size, patch_size: 1, ..small.clone() };
        refused("patches x hidden channels", 0, SwinConfig { embed_dim: 16, ..side(4096) });
        refused("windows x tokens of a window x channels", 1000, SwinConfig { mlp_ratio: 1.0, ..side(1024) });
        refused(
            "windows x heads x prompts x window²",
            100,
            SwinConfig { window: 4, embed_dim: 32, num_heads: vec![32], ..side(1024) },
        );
        let wide = SwinConfig { window: 64, embed_dim: 64, num_heads: vec![64], ..side(64) };
        refused("heads x tokens of a window x tokens of a window", 0, wide);
        refused("blocks x windows x window² x window²", 0, SwinConfig { window: 32, depths: vec![200], ..side(2048) });
        let attended = SwinConfig { embed_dim: 16, num_heads: vec![16], depths: vec![256], ..side(128) };
        refused("blocks x windows x heads x tokens of a window x tokens of a window", 500, attended);
        let deep = SwinConfig { embed_dim: 2048, depths: vec![256], window: 7, ..side(64) };
        refused("blocks x windows x tokens of a window x weights of a block", 0, deep);
    }
}
