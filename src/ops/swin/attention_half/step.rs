//! The first half of a block: norm, window attention with prompts, projection, residual.

use crate::ops::graph::{OnTensor, Step, apply};
use crate::ops::layer_norm::LayerNorm;
use crate::ops::low_rank::LowRankMap;
use crate::ops::shapes::Shapes;
use crate::ops::swin::halves::{WithParts, scale_images};
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
    pub keep: Option<Vec<f64>>,
    /// Which intermediate values come out as well.
    pub parts: WithParts,
}

/// What [`AttentionHalf::forward`] gives.
#[derive(Clone, Debug)]
pub struct Attended {
    /// y, `[B, H*W, C]`.
    pub patches: Tensor,
    /// The prompts' attended and projected rows, averaged over the windows: `[B, P, C]`.
    pub prompts: Option<Tensor>,
    /// The intermediate values, where they were asked for.
    pub parts: Option<AttendedParts>,
}

/// Intermediate values of a block's first half, window by window.
#[derive(Clone, Debug)]
pub struct AttendedParts {
    /// The attended patches as the projection's low-rank path reads them: `[B*nW, N, C]`.
    pub attended: Tensor,
    /// `W a + b` of the projection for the patches: `[B*nW, N, C]`.
    pub projected: Tensor,
    /// Unscaled scores of prompts with patches: `[B*nW, nH, P, N]`.
    pub prompt_scores: Option<Tensor>,
}

impl AttentionHalf {
    /// On the CPU in f32 or f64 one segment of the graph, elsewhere candle's primitives.
    ///
    /// # Errors
    /// Tensors whose shapes or float types do not fit; factors of drop-path for another number of images.
    pub fn forward(self) -> Result<Attended> {
        let (has_prompts, parts) = (self.prompts.is_some(), self.parts);
        let mut outputs = apply(self)?.into_iter();
        let mut next = || outputs.next().ok_or_else(|| candle_core::Error::Msg("an output is missing".into()));
        let patches = next()?;
        let prompts = if has_prompts { Some(next()?) } else { None };
        let parts = match parts {
            WithParts::No => None,
            WithParts::Yes => Some(AttendedParts {
                attended: next()?,
                projected: next()?,
                prompt_scores: if has_prompts { Some(next()?) } else { None },
            }),
        };
        Ok(Attended { patches, prompts, parts })
    }

    /// Rows of a window, prompts and patches.
    pub(super) fn length(&self) -> Result<usize> {
        let p = self.prompts.as_ref().map_or(Ok(0), |prompts| prompts.dim(1))?;
        Ok(p + self.grid.window() * self.grid.window())
    }
}

/// `[B, P, C]` to `[B*nW, P, C]`.
fn in_every_window(prompts: &Tensor, windows: usize) -> Result<Tensor> {
    let (b, p, c) = prompts.dims3()?;
    prompts.unsqueeze(1)?.broadcast_as((b, windows, p, c))?.reshape((b * windows, p, c))
}

impl Step for AttentionHalf {
    fn name(&self) -> &'static str {
        "attention-half"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self {
            patches: f(&self.patches)?,
            prompts: self.prompts.as_ref().map(&mut *f).transpose()?,
            norm: self.norm.map(f)?,
            qkv: self.qkv.map(f)?,
            bias: f(&self.bias)?,
            proj: self.proj.map(f)?,
            ..self.clone()
        })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let ([images, _, c], n) = (shapes.sizes("patches", &self.patches)?, self.grid.window() * self.grid.window());
        shapes.expect("patches", &self.patches, &[images, self.grid.tokens(), c])?;
        if let Some(prompts) = &self.prompts {
            let [_, p, _] = shapes.sizes("prompts", prompts)?;
            shapes.expect("prompts", prompts, &[images, p, c])?;
        }
        self.norm.check(shapes, c)?;
        self.qkv.check(shapes, "qkv", c, 3 * c)?;
        self.proj.check(shapes, "proj", c, c)?;
        let [heads, _, _] = shapes.sizes("a bias", &self.bias)?;
        shapes.times("channels", c, heads)?;
        shapes.expect("a bias", &self.bias, &[heads, n, n])?;
        if let Some(mask) = &self.mask {
            shapes.stored("a mask", mask, &[self.grid.windows(), n, n])?;
        }
        shapes.keep(self.keep.as_deref(), images)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let patches = self.grid.partition(&self.norm.forward(&self.patches)?)?;
        let windows = match &self.prompts {
            None => patches,
            Some(prompts) => {
                let prompts = in_every_window(&self.norm.forward(prompts)?, self.grid.windows())?;
                Tensor::cat(&[&prompts, &patches], 1)?
            }
        };
        let attention = window_attention(&self.qkv.forward(&windows)?, &self.bias, self.mask.as_ref())?;
        let frozen = self.proj.pretrained(&attention.tokens)?;
        let dropped = self.proj.dropped(&attention.tokens)?;
        let projected = self.proj.add_path(&frozen, &dropped)?;

        let n = self.grid.window() * self.grid.window();
        let p = projected.dim(1)? - n;
        let update = self.grid.reverse(&projected.narrow(1, p, n)?)?;
        let mut outputs = vec![(&self.patches + scale_images(&update, self.keep.as_deref())?)?];
        if let Some(prompts) = &self.prompts {
            let (b, p, c) = prompts.dims3()?;
            outputs.push(projected.narrow(1, 0, p)?.reshape((b, (), p, c))?.mean(1)?);
        }
        if self.parts == WithParts::Yes {
            outputs.extend([dropped.narrow(1, p, n)?, frozen.narrow(1, p, n)?]);
            outputs.extend(attention.prompt_scores);
        }
        Ok(outputs)
    }
}
