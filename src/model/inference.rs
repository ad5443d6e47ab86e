//! The model for inference alone.

use super::{Outputs, TADFormer, TADFormerConfig};
use crate::layers::{Merge, Mode};
use crate::ops;
use crate::tad::StageView;
use candle_core::{DType, Device, Result, Tensor};

/// A [`TADFormer`] whose shared low-rank paths are folded into the frozen weights, and the patch mergings' reductions into the
/// decoders' projections.
///
/// `W x + s B A x` is one product with `W + s B A`, and `P R n` one with `P R`. A task-adapting block's tasks read the frozen products
/// alone, so its projection and MLP stay apart. (BatchNorm is folded, and a decoder's first convolution applied at each
/// stage's own resolution, in every evaluation; they need no merging.)
///
/// The kept weights stand beside the folded ones, for [`InferenceModel::unmerge`].
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use tadformer::{SwinConfig, TADFormer};
/// let small = SwinConfig { embed_dim: 16, num_heads: vec![1, 2, 4, 8], image_size: 64, ..SwinConfig::tiny() };
/// let model = TADFormer::builder(small).tasks("depth=1".parse()?).rank(4).build()?.merge()?;
/// let outputs = model.forward(&Tensor::zeros((1, 3, 64, 64), DType::F32, &Device::Cpu)?)?;
/// assert_eq!(outputs.get("depth").map(|map| map.dims().to_vec()), Some(vec![1, 1, 64, 64]));
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Debug)]
pub struct InferenceModel {
    model: TADFormer,
}

impl TADFormer {
    /// Folds what is linear, for inference alone: less work, the same outputs to rounding.
    ///
    /// What comes back predicts and is not saved: save the adapter of this model, which [`InferenceModel::unmerge`] gives back.
    ///
    /// # Errors
    /// Devices that run out of memory: the folded weights stand beside the kept ones.
    pub fn merge(mut self) -> Result<InferenceModel> {
        self.fold(Merge::Fold)?;
        Ok(InferenceModel { model: self })
    }
}

impl InferenceModel {
    /// Images `[B, 3, H, W]` to each task's outputs `[B, n, H, W]`, which belong to no graph: nothing is kept for a backward pass.
    ///
    /// # Errors
    /// As [`TADFormer::forward`].
    pub fn forward(&self, images: &Tensor) -> Result<Outputs> {
        ops::without_graph(|| self.model.forward(images, Mode::Eval))
    }

    /// What each stage looks at, as [`TADFormer::inspect`] tells.
    ///
    /// # Errors
    /// As there.
    pub fn inspect(&self, images: &Tensor) -> Result<Vec<StageView>> {
        self.model.inspect(images)
    }

    /// The configuration.
    pub fn config(&self) -> &TADFormerConfig {
        self.model.config()
    }

    /// Where the weights live and the products are made.
    pub fn device(&self) -> &Device {
        self.model.ledger().device()
    }

    /// The float type of images and outputs.
    pub fn dtype(&self) -> DType {
        self.model.ledger().dtype()
    }

    /// The model as it was, bit for bit: the folded weights are dropped.
    ///
    /// # Errors
    /// None in practice; what makes new tensors can fail.
    pub fn unmerge(mut self) -> Result<TADFormer> {
        self.model.fold(Merge::Restore)?;
        Ok(self.model)
    }
}
