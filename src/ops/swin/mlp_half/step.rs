//! The second half of a block: norm, perceptron, residual.

use crate::ops;
use crate::ops::graph::{OnTensor, Step, apply, only};
use crate::ops::layer_norm::LayerNorm;
use crate::ops::low_rank::LowRankMap;
use crate::ops::low_rank::kernel::UseOfW;
use crate::ops::shapes::Shapes;
use crate::ops::swin::halves::scale_images;
use candle_core::{Result, Tensor};

/// `y = x + k fc2(GELU(fc1(norm(x))))`.
///
/// # Shapes
/// `x` `[B, N, C]`.
#[derive(Clone, Debug)]
pub struct MlpHalf {
    /// x.
    pub x: Tensor,
    /// The norm before the perceptron.
    pub norm: LayerNorm,
    /// `[C]` to `[hidden]`.
    pub fc1: LowRankMap,
    /// `[hidden]` to `[C]`.
    pub fc2: LowRankMap,
    /// k: each image's factor of drop-path; `None` for 1.
    pub drop_path: Option<Vec<f64>>,
}

/// The frozen products of a block's perceptron, which the tasks' paths build on.
#[derive(Clone, Debug)]
pub struct MlpIntermediates {
    /// `W1 n + b1`, n the normed tokens: `[B, N, hidden]`.
    pub pre: Tensor,
    /// `W2 h + b2`, h the shared hidden values: `[B, N, C]`.
    pub post: Tensor,
}

impl MlpHalf {
    /// y, `[B, N, C]`.
    ///
    /// On the CPU in f32 or f64 one step of the graph, elsewhere candle's primitives.
    ///
    /// # Errors
    /// Tensors whose shapes or float types do not fit; factors of drop-path for another number of images.
    pub fn forward(self) -> Result<Tensor> {
        only(apply(MlpStep { half: self, use_of_w: UseOfW::WithPath })?)
    }

    /// y and the frozen products.
    ///
    /// # Errors
    /// As [`MlpHalf::forward`].
    pub fn forward_intermediates(self) -> Result<(Tensor, MlpIntermediates)> {
        let outputs = apply(MlpStep { half: self, use_of_w: UseOfW::Alone })?;
        let Ok([y, pre, post]) = <[Tensor; 3]>::try_from(outputs) else { candle_core::bail!("mlp-half: no products") };
        Ok((y, MlpIntermediates { pre, post }))
    }
}

/// The half as a step, which gives the frozen products where somebody reads them alone.
#[derive(Clone)]
pub(super) struct MlpStep {
    pub(super) half: MlpHalf,
    pub(super) use_of_w: UseOfW,
}

impl Step for MlpStep {
    fn name(&self) -> &'static str {
        "mlp-half"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        let MlpHalf { x, norm, fc1, fc2, drop_path } = &self.half;
        let (x, norm, fc1, fc2, drop_path) = (f(x)?, norm.map(f)?, fc1.map(f)?, fc2.map(f)?, drop_path.clone());
        Ok(Self { half: MlpHalf { x, norm, fc1, fc2, drop_path }, ..*self })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let MlpHalf { x, norm, fc1, fc2, drop_path } = &self.half;
        let [images, _, c] = shapes.sizes("x", x)?;
        let hidden = shapes.matrix("fc1's weight", &fc1.weight, c)?;
        norm.check(shapes, c)?;
        fc1.check(shapes, "fc1", c, hidden)?;
        fc2.check(shapes, "fc2", hidden, c)?;
        shapes.drop_path(drop_path.as_deref(), images)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let MlpHalf { x, norm, fc1, fc2, drop_path } = &self.half;
        let normed = norm.forward(x)?;
        let pre = fc1.pretrained(&normed)?;
        let hidden = ops::gelu(&fc1.add_path(&pre, &fc1.dropped(&normed)?)?)?;
        let post = fc2.pretrained(&hidden)?;
        let update = fc2.add_path(&post, &fc2.dropped(&hidden)?)?;
        let y = (x + scale_images(&update, drop_path.as_deref())?)?;
        Ok(if self.use_of_w == UseOfW::Alone { vec![y, pre, post] } else { vec![y] })
    }
}
