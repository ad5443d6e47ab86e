//! Building a model step by step: what is not said has the paper's value.

use super::{BaseModel, LoadReport, Origin, TADFormer, TADFormerConfig, Tuning};
use crate::checkpoint::Checkpoint;
use crate::heads::HeadConfig;
use crate::params::{Ledger, Release, SourceDigest, Weights, checkpoint_source, random_source};
use crate::swin::{SwinConfig, names};
use crate::tad::Method;
use crate::task::TaskSet;
use crate::{Error, Result};
use candle_core::{DType, Device};
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl TADFormer {
    /// Starts a model on this backbone: see [`TADFormerBuilder`] for the choices and their defaults.
    pub fn builder(swin: SwinConfig) -> TADFormerBuilder {
        TADFormerBuilder::new(swin)
    }
}

/// The choices that make a [`TADFormer`].
///
/// | choice | default |
/// | --- | --- |
/// | tasks | the four of PASCAL-Context |
/// | what is added | prompts, low-rank paths of rank 64, dynamic filters |
/// | what is released | norms, position biases, patch embedding |
/// | decoders | HRNet's of the paper's sizes for every task |
/// | backbone weights | drawn at random with the seed |
/// | seed, float type (of frozen matrices: the same), device | 0, f32, CPU |
#[derive(Clone, Debug)]
pub struct TADFormerBuilder {
    config: TADFormerConfig,
    backbone: Backbone,
    seed: u64,
    dtype: DType,
    frozen_dtype: Option<DType>,
    device: Device,
}

#[derive(Clone, Debug)]
enum Backbone {
    Random,
    /// A checkpoint, and where it came from where its path does not say so.
    Checkpoint(PathBuf, Option<Origin>),
}

impl TADFormerBuilder {
    pub(super) fn new(swin: SwinConfig) -> Self {
        Self::from_config(TADFormerConfig::new(swin))
    }

    /// Starts from a whole configuration.
    pub fn from_config(config: TADFormerConfig) -> Self {
        Self { config, backbone: Backbone::Random, seed: 0, dtype: DType::F32, frozen_dtype: None, device: Device::Cpu }
    }

    /// The tasks, in the order of their prompts and outputs.
    pub fn tasks(mut self, tasks: TaskSet) -> Self {
        self.config.tasks = tasks;
        self
    }

    /// The rank of every stage's low-rank paths, as [`Method::rank`] sets it.
    pub fn rank(mut self, rank: usize) -> Self {
        self.config.method = self.config.method.rank(rank);
        self
    }

    /// Everything that is added to the backbone.
    pub fn method(mut self, method: Method) -> Self {
        self.config.method = method;
        self
    }

    /// One of the usual answers to "what trains": sets what is added, at this rank, and what is released.
    pub fn tuning(mut self, tuning: Tuning, rank: usize) -> Self {
        (self.config.method, self.config.release) = tuning.settings(rank);
        self
    }

    /// Which pretrained groups train as well.
    pub fn release(mut self, release: Release) -> Self {
        self.config.release = release;
        self
    }

    /// The decoder of every task that has none of its own: its sizes, or by name `"aspp".parse::<HeadConfig>()?`.
    pub fn head(mut self, head: impl Into<HeadConfig>) -> Self {
        self.config.head = head.into();
        self
    }

    /// The decoder of one task.
    ///
    /// ```
    /// use tadformer::{TADFormer, SwinConfig, heads::HrNetConfig};
    /// let builder = TADFormer::builder(SwinConfig::tiny()).tasks("semseg=21,depth=1".parse()?);
    /// let builder = builder.own_head("depth", HrNetConfig::new([8, 16, 32, 64]));
    /// assert_eq!(builder.config().head_of("depth").channels(4), 120);
    /// # Ok::<(), tadformer::Error>(())
    /// ```
    pub fn own_head(mut self, task: &str, head: impl Into<HeadConfig>) -> Self {
        self.config.own_heads.insert(task.to_owned(), head.into());
        self
    }

    /// Takes the backbone's weights from a checkpoint: a file or folder of transformers, timm, torchvision or the original
    /// code.
    pub fn pretrained(mut self, path: impl AsRef<Path>) -> Self {
        self.backbone = Backbone::Checkpoint(path.as_ref().to_owned(), None);
        self
    }

    /// [`TADFormerBuilder::pretrained`] for a checkpoint that came from elsewhere.
    #[cfg(feature = "hub")]
    pub(super) fn pretrained_from(mut self, path: PathBuf, origin: Origin) -> Self {
        self.backbone = Backbone::Checkpoint(path, Some(origin));
        self
    }

    /// Side of the images that the model is made for, in pixels: it fixes the windows of small maps.
    pub fn image_size(mut self, pixels: usize) -> Self {
        self.config.swin.image_size = pixels;
        self
    }

    /// Drop-path of the backbone's last block; a published configuration says what it was pretrained with, the paper takes 0.2.
    pub fn drop_path(mut self, rate: f64) -> Self {
        self.config.swin.drop_path = rate;
        self
    }

    /// The seed of all values that no checkpoint holds.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The float type of weights and activations.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// The float type in which the frozen matrices are stored: with [`DType::BF16`] or [`DType::F16`] they take half the
    /// memory, and products are made in the float type of the activations.
    pub fn frozen_dtype(mut self, dtype: DType) -> Self {
        self.frozen_dtype = Some(dtype);
        self
    }

    /// Where the weights live and the products are made; a GPU by [`parse_device`](crate::runtime::parse_device), whose devices serve
    /// several threads.
    pub fn device(mut self, device: &Device) -> Self {
        self.device = device.clone();
        self
    }

    /// The configuration as it stands.
    pub fn config(&self) -> &TADFormerConfig {
        &self.config
    }

    /// The checkpoint that the backbone's weights are taken from, downloaded where it came from the hub; `None` where they are drawn.
    pub fn checkpoint(&self) -> Option<&Path> {
        match &self.backbone {
            Backbone::Random => None,
            Backbone::Checkpoint(path, _) => Some(path),
        }
    }

    /// Checks the configuration, loads the backbone and makes what is added.
    ///
    /// # Errors
    /// A configuration that cannot work; a checkpoint that cannot be read, is no Swin, or lacks a tensor.
    pub fn build(self) -> Result<TADFormer> {
        self.check()?;
        match &self.backbone {
            Backbone::Random => self.build_random(),
            Backbone::Checkpoint(path, origin) => self.build_of(Checkpoint::open(path)?, origin.clone()),
        }
    }

    fn check(&self) -> Result<()> {
        self.config.check()?;
        for (field, dtype) in [("dtype", Some(self.dtype)), ("frozen_dtype", self.frozen_dtype)] {
            if let Some(dtype) = dtype.filter(|dtype| !dtype.is_float()) {
                return Err(Error::config(field, "f32, bf16, f16 or f64", format!("{dtype:?}"), "f32 is the default"));
            }
        }
        Ok(())
    }

    fn build_random(&self) -> Result<TADFormer> {
        let digest = SourceDigest::default();
        let source = digest.watch(random_source(self.seed, self.dtype, &self.device));
        let model = self.assemble(source)?;
        let base = BaseModel { origin: Origin::Random { seed: self.seed }, digest: digest.hex() };
        Ok(model.with_base(base, None))
    }

    /// [`TADFormerBuilder::build`] with the backbone's weights from a checkpoint that is already open.
    ///
    /// # Errors
    /// As there.
    pub fn build_on(&self, checkpoint: Checkpoint) -> Result<TADFormer> {
        self.check()?;
        self.build_of(checkpoint, None)
    }

    fn build_of(&self, checkpoint: Checkpoint, origin: Option<Origin>) -> Result<TADFormer> {
        let origin = origin.unwrap_or_else(|| Origin::of_path(checkpoint.path()));
        let (family, checkpoint, unused) = names::canonical(checkpoint)?;
        // Nothing is read, nor resized, before every shape is known to fit.
        let report = LoadReport::compare(family, &checkpoint, unused, &TADFormer::shapes(&self.config)?);
        report.check()?;
        tracing::info!(%report, "the backbone");
        let digest = SourceDigest::default();
        let source = digest.watch(checkpoint_source(Arc::new(checkpoint), self.dtype, &self.device));
        let model = self.assemble(source)?;
        let base = BaseModel { origin, digest: digest.hex() };
        Ok(model.with_base(base, Some(report)))
    }

    fn assemble(&self, source: candle_nn::VarBuilder<'static>) -> Result<TADFormer> {
        let ledger = Ledger::seeded(self.seed, self.dtype, &self.device);
        let mut weights = Weights::new(source, ledger.clone(), self.config.release.clone());
        if let Some(storage) = self.frozen_dtype {
            weights = weights.with_storage(storage);
        }
        Ok(TADFormer::assemble(self.config.clone(), &weights, ledger)?)
    }
}
