//! Window attention with its pretrained weights, and prompts before the tokens of every window.

use super::{BlockConfig, Tokens};
use crate::layers::{Fold, LayerNorm, LowRankLinear, Mode};
use crate::ops;
use crate::ops::{AttentionHalf, WindowGrid};
use crate::params::Weights;
use candle_core::{DType, Device, Result, Tensor};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The window attention of a block: queries, keys and values, position biases, and the output projection.
#[derive(Clone, Debug)]
pub struct WindowAttention {
    /// Queries, keys and values.
    pub(crate) qkv: LowRankLinear,
    /// The output projection.
    pub proj: LowRankLinear,
    bias_table: Tensor,
    /// `[M⁴]`: which row of the table each pair of positions reads; made when it is first read, since what is only counted or
    /// refused needs none.
    position_index: OnceLock<Tensor>,
    window: usize,
    shifted: bool,
    masks: MaskCache,
}

impl WindowAttention {
    /// From `weights` at `attn`.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice.
    pub fn new(config: &BlockConfig, weights: &Weights) -> Result<Self> {
        let (c, m) = (config.channels, config.window);
        Ok(Self {
            qkv: LowRankLinear::new(c, 3 * c, config.low_rank.qkv, &weights.pp("qkv"))?,
            proj: LowRankLinear::new(c, c, config.low_rank.proj, &weights.pp("proj"))?,
            bias_table: weights.position_bias(m, config.heads)?,
            position_index: OnceLock::new(),
            window: m,
            shifted: config.shifted,
            masks: MaskCache::default(),
        })
    }

    /// The first half of a block with its tokens, still to be run: `x + k proj(attention(norm(x)))`, k each image's factor of drop-path.
    pub(super) fn half(
        &self,
        x: &Tokens,
        norm: &LayerNorm,
        drop_path: Option<Vec<f64>>,
        mode: Mode,
    ) -> Result<AttentionHalf> {
        let grid = self.grid(x.size)?;
        Ok(AttentionHalf {
            patches: x.patches.clone(),
            prompts: x.prompts.clone(),
            grid,
            norm: norm.clone(),
            qkv: self.qkv.map(mode),
            bias: self.bias()?,
            mask: self.masks.get(&grid, x.patches.device(), x.patches.dtype())?,
            proj: self.proj.map(mode),
            drop_path,
        })
    }

    /// As [`LowRankLinear::fold`], both linears.
    ///
    /// # Errors
    /// As [`LowRankLinear::fold`].
    pub fn fold(&mut self, how: Fold) -> Result<()> {
        self.qkv.fold(how)?;
        self.proj.fold(how)
    }

    /// How a map of this size is cut.
    ///
    /// # Errors
    /// As [`WindowGrid::new`].
    pub fn grid(&self, size: (usize, usize)) -> Result<WindowGrid> {
        WindowGrid::new(size, self.window, self.shifted)
    }

    /// `[nH, N, N]` from the table.
    fn bias(&self) -> Result<Tensor> {
        let n = self.window * self.window;
        self.bias_table.index_select(&self.position_index()?, 0)?.t()?.contiguous()?.reshape(((), n, n))
    }

    fn position_index(&self) -> Result<Tensor> {
        if let Some(index) = self.position_index.get() {
            return Ok(index.clone());
        }
        let index = ops::relative_position_index(self.window)?;
        let index = Tensor::from_vec(index, self.window.pow(4), self.bias_table.device())?;
        Ok(self.position_index.get_or_init(|| index).clone())
    }
}

/// The shift masks of the sizes seen lately.
#[derive(Clone, Debug, Default)]
struct MaskCache(Arc<Mutex<Masks>>);

/// For each map and float type, the mask, where its windows need one.
type Masks = HashMap<(WindowGrid, DType), Option<Tensor>>;

impl MaskCache {
    /// Sizes kept before the cache starts anew: enough for any training, bounded for a server of odd photos.
    const SIZES: usize = 16;

    pub(super) fn get(&self, grid: &WindowGrid, device: &Device, dtype: DType) -> Result<Option<Tensor>> {
        let mut masks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mask) = masks.get(&(*grid, dtype)) {
            return Ok(mask.clone());
        }
        if masks.len() >= Self::SIZES {
            masks.clear();
        }
        let mask = ops::shift_mask(grid, device)?.map(|mask| mask.to_dtype(dtype)).transpose()?;
        masks.insert((*grid, dtype), mask.clone());
        Ok(mask)
    }
}
