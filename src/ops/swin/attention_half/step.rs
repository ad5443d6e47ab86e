//! The first half of a block: norm, window attention with prompts, projection, residual.

use crate::ops::graph::{OnTensor, Step, apply};
use crate::ops::layer_norm::LayerNorm;
use crate::ops::low_rank::LowRankMap;
use crate::ops::low_rank::kernel::UseOfW;
use crate::ops::shapes::Shapes;
use crate::ops::swin::halves::scale_images;
use crate::ops::swin::window::WindowGrid;
use crate::ops::window_attention;
use candle_core::{Result, Tensor};

/// `y = x + k proj(attention(norm(x)))`, and what the prompts attended to.
///
/// # Shapes
/// `patches` `[B, H*W, C]`, `prompts` `[B, P, C]`, `bias` `[nH, N, N]`, `mask` `[nW, N, N]`; N = M*M, windows of `grid`.
#[derive(Clone, Debug)]
pub struct AttentionHalf {
    /// x.
    pub patches: Tensor,
    /// The prompts that attend in every window.
    pub prompts: Option<Tensor>,
    /// How the map is cut.
    pub grid: WindowGrid,
    /// The norm before attention.
    pub norm: LayerNorm,
    /// Queries, keys and values.
    pub qkv: LowRankMap,
    /// Relative position bias.
    pub bias: Tensor,
    /// What keeps apart the tokens that the shift brought together.
    pub mask: Option<Tensor>,
    /// The output projection.
    pub proj: LowRankMap,
    /// k: each image's factor of drop-path; `None` for 1.
    pub drop_path: Option<Vec<f64>>,
}

/// What [`AttentionHalf::forward`] gives.
#[derive(Clone, Debug)]
pub struct Attended {
    /// y, `[B, H*W, C]`.
    pub patches: Tensor,
    /// The prompts' attended and projected rows, averaged over the windows: `[B, P, C]`.
    pub prompts: Option<Tensor>,
}

/// What the tasks' paths build on of a block's first half, window by window.
#[derive(Clone, Debug)]
pub struct AttentionIntermediates {
    /// The attended patches as the projection's low-rank path reads them: `[B*nW, N, C]`.
    pub attended: Tensor,
    /// `W a + b` of the projection for the patches: `[B*nW, N, C]`.
    pub projected: Tensor,
    /// Unscaled scores of prompts with patches: `[B*nW, nH, P, N]`.
    pub prompt_scores: Option<Tensor>,
}

impl AttentionHalf {
    /// On the CPU in f32 or f64 one step of the graph, elsewhere candle's primitives.
    ///
    /// # Errors
    /// Tensors whose shapes or float types do not fit; factors of drop-path for another number of images.
    pub fn forward(self) -> Result<Attended> {
        let mut outputs = apply(AttentionStep { half: self, use_of_w: UseOfW::WithPath })?.into_iter();
        Ok(Attended { patches: next(&mut outputs)?, prompts: outputs.next() })
    }

    /// The same, and the intermediate values.
    ///
    /// # Errors
    /// As [`AttentionHalf::forward`].
    pub fn forward_intermediates(self) -> Result<(Attended, AttentionIntermediates)> {
        let has_prompts = self.prompts.is_some();
        let mut outputs = apply(AttentionStep { half: self, use_of_w: UseOfW::Alone })?.into_iter();
        let patches = next(&mut outputs)?;
        let prompts = if has_prompts { Some(next(&mut outputs)?) } else { None };
        let (attended, projected) = (next(&mut outputs)?, next(&mut outputs)?);
        let intermediates = AttentionIntermediates { attended, projected, prompt_scores: outputs.next() };
        Ok((Attended { patches, prompts }, intermediates))
    }

    /// Rows of a window, prompts and patches.
    pub(super) fn length(&self) -> Result<usize> {
        let p = self.prompts.as_ref().map_or(Ok(0), |prompts| prompts.dim(1))?;
        Ok(p + self.grid.window() * self.grid.window())
    }
}

fn next(outputs: &mut impl Iterator<Item = Tensor>) -> Result<Tensor> {
    outputs.next().ok_or_else(|| candle_core::Error::Msg("attention-half: an output is missing".into()))
}

/// The half as a step, which gives the intermediate values where somebody reads the frozen product alone.
///
/// Its outputs, in this order: patches; prompts, where there are any; and with [`UseOfW::Alone`] the attended values, what the frozen
/// weight makes of them, and the prompts' scores, where there are any.
#[derive(Clone)]
pub(super) struct AttentionStep {
    pub(super) half: AttentionHalf,
    pub(super) use_of_w: UseOfW,
}

/// `[B, P, C]` to `[B*nW, P, C]`.
fn in_every_window(prompts: &Tensor, windows: usize) -> Result<Tensor> {
    let (b, p, c) = prompts.dims3()?;
    prompts.unsqueeze(1)?.broadcast_as((b, windows, p, c))?.reshape((b * windows, p, c))
}

impl Step for AttentionStep {
    fn name(&self) -> &'static str {
        "attention-half"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        let half = &self.half;
        let half = AttentionHalf {
            patches: f(&half.patches)?,
            prompts: half.prompts.as_ref().map(&mut *f).transpose()?,
            norm: half.norm.map(f)?,
            qkv: half.qkv.map(f)?,
            bias: f(&half.bias)?,
            proj: half.proj.map(f)?,
            ..half.clone()
        };
        Ok(Self { half, ..*self })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let half = &self.half;
        let ([images, _, c], n) = (shapes.sizes("patches", &half.patches)?, half.grid.window() * half.grid.window());
        shapes.expect("patches", &half.patches, &[images, half.grid.tokens(), c])?;
        if let Some(prompts) = &half.prompts {
            let [_, p, _] = shapes.sizes("prompts", prompts)?;
            shapes.expect("prompts", prompts, &[images, p, c])?;
        }
        half.norm.check(shapes, c)?;
        half.qkv.check(shapes, "qkv", c, 3 * c)?;
        half.proj.check(shapes, "proj", c, c)?;
        let [heads, _, _] = shapes.sizes("a bias", &half.bias)?;
        shapes.times("channels", c, heads)?;
        shapes.expect("a bias", &half.bias, &[heads, n, n])?;
        if let Some(mask) = &half.mask {
            shapes.stored("a mask", mask, &[half.grid.windows(), n, n])?;
        }
        shapes.drop_path(half.drop_path.as_deref(), images)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let half = &self.half;
        let patches = half.grid.partition(&half.norm.forward(&half.patches)?)?;
        let windows = match &half.prompts {
            None => patches,
            Some(prompts) => {
                let prompts = in_every_window(&half.norm.forward(prompts)?, half.grid.windows())?;
                Tensor::cat(&[&prompts, &patches], 1)?
            }
        };
        let attention = window_attention(&half.qkv.forward(&windows)?, &half.bias, half.mask.as_ref())?;
        let frozen = half.proj.pretrained(&attention.tokens)?;
        let dropped = half.proj.dropped(&attention.tokens)?;
        let projected = half.proj.add_path(&frozen, &dropped)?;

        let n = half.grid.window() * half.grid.window();
        let p = projected.dim(1)? - n;
        let update = half.grid.reverse(&projected.narrow(1, p, n)?)?;
        let mut outputs = vec![(&half.patches + scale_images(&update, half.drop_path.as_deref())?)?];
        if let Some(prompts) = &half.prompts {
            let (b, p, c) = prompts.dims3()?;
            outputs.push(projected.narrow(1, 0, p)?.reshape((b, (), p, c))?.mean(1)?);
        }
        if self.use_of_w == UseOfW::Alone {
            outputs.extend([dropped.narrow(1, p, n)?, frozen.narrow(1, p, n)?]);
            outputs.extend(attention.prompt_scores);
        }
        Ok(outputs)
    }
}
