//! Window attention with its pretrained weights, and prompts before the tokens of every window.

use super::{BlockConfig, Tokens};
use crate::layers::{LowRankLinear, Mode};
use crate::ops::{self, WindowGrid};
use crate::params::Weights;
use candle_core::{Result, Tensor};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Attention of a block inside its windows, before the output projection.
#[derive(Debug)]
pub struct WindowAttention {
    qkv: LowRankLinear,
    /// The output projection.
    pub proj: LowRankLinear,
    bias_table: Tensor,
    /// `[M⁴]`: which row of the table each pair of positions reads.
    position_index: Tensor,
    window: usize,
    shifted: bool,
    masks: MaskCache,
}

/// What attention leaves in each window.
pub struct Attended {
    /// How the map was cut.
    pub grid: WindowGrid,
    /// `[B*nW, P+N, C]`: the prompts' rows first.
    pub tokens: Tensor,
    /// `[B*nW, nH, P, N]`: unscaled scores of prompts with patches; `None` without prompts.
    pub prompt_scores: Option<Tensor>,
}

impl WindowAttention {
    /// From `weights` at `attn`.
    pub fn new(config: &BlockConfig, weights: &Weights) -> Result<Self> {
        let (c, m) = (config.channels, config.window);
        let position_index = Tensor::from_vec(ops::relative_position_index(m), m * m * m * m, weights.device())?;
        Ok(Self {
            qkv: LowRankLinear::new(c, 3 * c, config.low_rank.qkv, &weights.pp("qkv"))?,
            proj: LowRankLinear::new(c, c, config.low_rank.proj, &weights.pp("proj"))?,
            bias_table: weights.position_bias(m, config.heads)?,
            position_index,
            window: m,
            shifted: config.shifted,
            masks: MaskCache::default(),
        })
    }

    /// Attends within windows; patches and prompts come normed.
    pub fn forward(&self, normed: &Tokens, mode: Mode) -> Result<Attended> {
        let grid = WindowGrid::new(normed.size, self.window, self.shifted);
        let patches = grid.partition(&normed.patches)?;
        let windows = match &normed.prompts {
            None => patches,
            Some(prompts) => Tensor::cat(&[&in_every_window(prompts, grid.windows())?, &patches], 1)?,
        };
        let qkv = self.qkv.forward(&windows, mode)?;
        let mask = self.masks.get(&grid, qkv.device())?;
        let ops::Attention { tokens, prompt_scores } = ops::window_attention(&qkv, &self.bias()?, mask.as_ref())?;
        Ok(Attended { grid, tokens, prompt_scores })
    }

    /// `[nH, N, N]` from the table.
    fn bias(&self) -> Result<Tensor> {
        let n = self.window * self.window;
        self.bias_table.index_select(&self.position_index, 0)?.t()?.contiguous()?.reshape(((), n, n))
    }
}

/// `[B, P, C]` to `[B*nW, P, C]`.
fn in_every_window(prompts: &Tensor, windows: usize) -> Result<Tensor> {
    let (b, p, c) = prompts.dims3()?;
    prompts.unsqueeze(1)?.broadcast_as((b, windows, p, c))?.reshape((b * windows, p, c))
}

/// The shift masks of the sizes seen lately.
#[derive(Debug, Default)]
struct MaskCache(Mutex<HashMap<WindowGrid, Option<Tensor>>>);

impl MaskCache {
    /// Sizes kept before the cache starts anew: enough for any training, bounded for a server of odd photos.
    const SIZES: usize = 16;

    fn get(&self, grid: &WindowGrid, device: &candle_core::Device) -> Result<Option<Tensor>> {
        let mut masks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mask) = masks.get(grid) {
            return Ok(mask.clone());
        }
        if masks.len() >= Self::SIZES {
            masks.clear();
        }
        let mask = ops::shift_mask(grid, device)?;
        masks.insert(*grid, mask.clone());
        Ok(mask)
    }
}
