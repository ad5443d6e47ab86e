//! The sizes of a Swin, its presets, and what they imply for each stage.

use crate::layers::LowRankConfig;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The sizes of a Swin Transformer.
///
/// `image_size` fixes each stage's window, `min(window, map side)`, and so the sizes of the bias tables; the images
/// themselves may have any size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SwinConfig {
    /// Side of the images the model is made for, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Channels of the first stage; each further stage doubles them.
    pub embed_dim: usize,
    /// Blocks of each stage.
    pub depths: Vec<usize>,
    /// Attention heads of each stage.
    pub num_heads: Vec<usize>,
    /// Side of a window, in tokens.
    pub window: usize,
    /// Hidden channels of an MLP over its channels.
    pub mlp_ratio: f64,
    /// Drop-path of the last block; the others rise to it linearly from 0.
    pub drop_path: f64,
}

impl SwinConfig {
    /// How many stages there are.
    pub fn stages(&self) -> usize {
        self.depths.len()
    }

    /// Channels inside stage `i`.
    pub fn channels(&self, i: usize) -> usize {
        self.embed_dim.saturating_mul(halvings(i))
    }

    /// Channels that leave each stage, after its patch merging: the widths a decoder reads.
    pub fn widths(&self) -> Vec<usize> {
        (0..self.stages()).map(|i| self.channels((i + 1).min(self.stages() - 1))).collect()
    }

    /// Window of stage `i`: no larger than its map at the configured image size.
    pub fn stage_window(&self, i: usize) -> usize {
        self.window.min(self.image_size.checked_div(self.patch_size).unwrap_or(0) / halvings(i))
    }

    /// Drop-path of block `j` of stage `i`, rising linearly over all blocks; `None` where there is no such block.
    pub fn block_drop_path(&self, i: usize, j: usize) -> Option<f64> {
        self.depths.get(i).filter(|depth| j < **depth)?;
        let blocks = |depths: &[usize]| depths.iter().map(|depth| *depth as f64).sum::<f64>();
        let (before, all) = (blocks(&self.depths[..i]) + j as f64, blocks(&self.depths));
        Some(if all < 2.0 { 0.0 } else { self.drop_path * before / (all - 1.0) })
    }

    /// Checks every field once, and what they multiply to; nothing after it checks again.
    ///
    /// # Errors
    /// The first field that cannot work, with what was expected; sizes that together ask for more than any model does, such as the
    /// patches of an image times the channels of an MLP.
    pub fn check(&self) -> Result<()> {
        // The upper ends leave room for any network that fits a machine, and keep a damaged file from asking for more.
        check_range("patch_size", self.patch_size, 256)?;
        check_range("embed_dim", self.embed_dim, 8192)?;
        check_range("window", self.window, 64)?;
        check_range("depths", self.stages(), 8)?;
        self.depths.iter().try_for_each(|depth| check_range("depths", *depth, 256))?;
        if self.num_heads.len() != self.stages() {
            let expected = format!("one number for each of {} stages", self.stages());
            return Err(Error::config("num_heads", expected, self.num_heads.len(), "as many as `depths`"));
        }
        for (i, heads) in self.num_heads.iter().enumerate() {
            if *heads == 0 || !self.channels(i).is_multiple_of(*heads) {
                let expected = format!("a divisor of stage {i}'s {} channels", self.channels(i));
                return Err(Error::config("num_heads", expected, heads, "Swin uses 32 channels a head"));
            }
        }
        let smallest = self.patch_size << (self.stages() - 1);
        if !(smallest..=MOST_SIDE).contains(&self.image_size) {
            let cure = "use images that fit, fewer stages or smaller patches";
            return Err(Error::config("image_size", format!("{smallest} to {MOST_SIDE}"), self.image_size, cure));
        }
        if !(self.mlp_ratio <= 64.0 && self.mlp_ratio * self.embed_dim as f64 >= 1.0) {
            return Err(Error::config("mlp_ratio", "a positive number, at most 64", self.mlp_ratio, "Swin uses 4"));
        }
        if !(0.0..1.0).contains(&self.drop_path) {
            return Err(Error::config(
                "drop_path",
                "from 0 up to, not including, 1",
                self.drop_path,
                "Swin-T uses 0.2",
            ));
        }
        self.check_extent(0)
    }
}

/// Longer than the sides of any images that a model is made for: a predictor brings every photo to this size.
const MOST_SIDE: usize = 4096;

/// By what a map's side has been divided, and its channels multiplied, when it comes to stage `i`.
fn halvings(i: usize) -> usize {
    u32::try_from(i).ok().and_then(|i| 1usize.checked_shl(i)).unwrap_or(usize::MAX)
}

fn check_range(field: &str, value: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::config(field, format!("1 to {most}"), value, "see the presets for usual values"))
}

/// Which linears of a block carry a low-rank path, and how large.
#[derive(Clone, Copy, Debug, Default)]
pub struct BlockLowRank {
    /// Queries, keys and values.
    pub qkv: Option<LowRankConfig>,
    /// Attention's output.
    pub proj: Option<LowRankConfig>,
    /// The MLP's first layer.
    pub fc1: Option<LowRankConfig>,
    /// The MLP's second layer.
    pub fc2: Option<LowRankConfig>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_follow_from_the_sizes() {
        let config = SwinConfig { image_size: 128, ..SwinConfig::tiny() };
        assert_eq!(config.widths(), [192, 384, 768, 768]);
        assert_eq!((0..4).map(|i| config.stage_window(i)).collect::<Vec<_>>(), [7, 7, 7, 4]);
        assert_eq!(config.block_drop_path(0, 0), Some(0.0));
        assert!((config.block_drop_path(3, 1).unwrap() - 0.2).abs() < 1e-12);
    }

    /// A stage that is not there was a panic, and a block that is not there had a drop-path.
    #[test]
    fn a_block_that_is_not_there_has_no_drop_path() {
        let config = SwinConfig::tiny();
        for (i, j) in [(0, 2), (3, 2), (4, 0), (usize::MAX, usize::MAX)] {
            assert_eq!(config.block_drop_path(i, j), None, "{i} {j}");
        }
        let endless = SwinConfig { depths: vec![usize::MAX; 2], ..config };
        assert!(endless.block_drop_path(1, 0).is_some());
    }

    #[test]
    fn sizes_that_cannot_work_are_told_without_a_panic() {
        let config = SwinConfig { patch_size: 0, ..SwinConfig::tiny() };
        assert_eq!((config.stage_window(0), config.stage_window(70), config.channels(70)), (0, 0, usize::MAX));
        assert_eq!(SwinConfig { depths: vec![], ..config }.widths(), [0; 0]);
    }

    #[test]
    fn each_bad_field_is_named() {
        let bad = |field: &str, change: fn(&mut SwinConfig)| {
            let mut config = SwinConfig::tiny();
            change(&mut config);
            let message = config.check().unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{field}`")), "{message}");
        };
        bad("patch_size", |c| c.patch_size = 0);
        bad("embed_dim", |c| c.embed_dim = 0);
        bad("embed_dim", |c| c.embed_dim = usize::MAX);
        bad("depths", |c| c.depths = vec![1; 64]);
        bad("image_size", |c| c.image_size = usize::MAX);
        bad("window", |c| c.window = 0);
        bad("depths", |c| c.depths.clear());
        bad("depths", |c| c.depths[1] = 0);
        bad("num_heads", |c| c.num_heads.truncate(2));
        bad("num_heads", |c| c.num_heads[0] = 5);
        bad("image_size", |c| c.image_size = 31);
        bad("mlp_ratio", |c| c.mlp_ratio = f64::NAN);
        bad("drop_path", |c| c.drop_path = 1.0);
    }
}
