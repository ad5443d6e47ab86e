//! The model: one frozen backbone, several dense tasks.

use super::held::Held;
use super::{BaseModel, LoadReport, Outputs, TADFormerConfig};
use crate::finite::is_finite;
#[cfg(feature = "train")]
use crate::finite::{Finite, look};
use crate::heads::Head;
use crate::layers::{Merge, Mode};
use crate::ops;
use crate::params::{Ledger, ParameterTable, Weights, own_source, shape_source};
use crate::runtime::device_name;
use crate::tad::{Encoder, StageOutput, StageView, TaskPaths};
use crate::task::Task;
use candle_core::{DType, Device, Result, Tensor};
use tracing::trace_span;

/// One frozen Swin, fine-tuned for several dense tasks with few trained parameters.
///
/// # Shapes
/// Images `[B, 3, H, W]`, normalised by ImageNet's mean and deviation ([`crate::sample::normalise`]), any size of at least one
/// patch; outputs `[B, n, H, W]` for each task.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use tadformer::layers::Mode;
/// use tadformer::swin::SwinConfig;
/// use tadformer::TADFormer;
/// let small = SwinConfig { embed_dim: 16, num_heads: vec![1, 2, 4, 8], image_size: 64, ..SwinConfig::tiny() };
/// let model = TADFormer::builder(small).tasks("semseg=21,depth=1".parse()?).rank(4).build()?;
/// let outputs = model.forward(&Tensor::zeros((1, 3, 64, 96), DType::F32, &Device::Cpu)?, Mode::Eval)?;
/// assert_eq!(outputs.get("semseg").map(|map| map.dims().to_vec()), Some(vec![1, 21, 64, 96]));
/// println!("{}", model.parameters());
/// # Ok::<(), tadformer::Error>(())
/// ```
///
/// A forward pass is `Send + Sync`: one model serves many threads; on a GPU where its device is one of
/// [`parse_device`](crate::runtime::parse_device), which all threads share a stream of.
///
/// Source: arXiv 2501.04293, with the two corrections to its released code that the crate's page names.
#[derive(Debug)]
pub struct TADFormer {
    config: TADFormerConfig,
    encoder: Encoder,
    heads: Vec<Box<dyn Head>>,
    ledger: Ledger,
    held: Held,
    base: BaseModel,
    report: Option<LoadReport>,
}

impl TADFormer {
    /// Counts the parameters of a configuration without making its frozen weights.
    ///
    /// # Errors
    /// A configuration that cannot work.
    pub fn count(config: &TADFormerConfig) -> crate::Result<ParameterTable> {
        config.check()?;
        Ok(ParameterTable::of(&Self::shapes(config)?))
    }

    /// The weights of a configuration that was checked: shapes without memory.
    pub(super) fn shapes(config: &TADFormerConfig) -> crate::Result<Ledger> {
        let ledger = Ledger::counting();
        let weights = Weights::new(shape_source(DType::F32), ledger.clone(), config.release.clone());
        Self::parts(config, &weights, &Held::default())?;
        Ok(ledger)
    }

    /// The encoder and one decoder for each task, all weights asked of `weights`, without what is held of them training.
    pub(super) fn parts(
        config: &TADFormerConfig,
        weights: &Weights,
        held: &Held,
    ) -> Result<(Encoder, Vec<Box<dyn Head>>)> {
        let weights = weights.clone().holding(held.groups());
        let encoder = Encoder::new(&config.swin, &config.method, &config.tasks, &weights)?;
        let (widths, places) = (config.swin.widths(), weights.pp("heads"));
        let head = |task: &Task| {
            let place = places.pp(&task.name);
            let place = if held.head(task) { place.held() } else { place };
            config.head_of(&task.name).build(&widths, task.outputs, &place)
        };
        Ok((encoder, config.tasks.iter().map(head).collect::<Result<_>>()?))
    }

    pub(super) fn assemble(config: TADFormerConfig, weights: &Weights, ledger: Ledger) -> Result<Self> {
        let held = Held::default();
        let (encoder, heads) = Self::parts(&config, weights, &held)?;
        Ok(Self { config, encoder, heads, ledger, held, base: BaseModel::default(), report: None })
    }

    pub(super) fn with_base(self, base: BaseModel, report: Option<LoadReport>) -> Self {
        Self { base, report, ..self }
    }

    /// The same model under the name its file knows the backbone by.
    pub(super) fn with_origin(self, base: BaseModel) -> Self {
        Self { base, ..self }
    }

    /// The same model of the same tensors, with this held.
    pub(super) fn hold(&mut self, held: Held) -> Result<()> {
        let weights = Weights::over(own_source(&self.ledger)).with_release(self.config.release.clone());
        let (encoder, heads) = Self::parts(&self.config, &weights, &held)?;
        (self.encoder, self.heads, self.ledger, self.held) = (encoder, heads, weights.ledger().clone(), held);
        Ok(())
    }

    /// What is held of it.
    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// Images `[B, 3, H, W]` to each task's outputs `[B, n, H, W]`.
    ///
    /// # Errors
    /// Images of another shape, float type or device than the model takes, smaller than one patch, or that hold NaN or infinity: the
    /// decoders' ReLU would make numbers of them.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Result<Outputs> {
        self.check_images(images)?;
        check_numbers(is_finite(images)?)?;
        self.outputs(images, mode)
    }

    /// [`TADFormer::forward`], and what tells whether the images on a device hold numbers alone: the device is not waited for.
    #[cfg(feature = "train")]
    pub(crate) fn forward_unread(&self, images: &Tensor, mode: Mode) -> Result<(Outputs, Option<Tensor>)> {
        self.check_images(images)?;
        let unread = match look(images)? {
            Finite::Known(finite) => check_numbers(finite).map(|()| None)?,
            Finite::Unread(zero) => Some(zero),
        };
        Ok((self.outputs(images, mode)?, unread))
    }

    fn outputs(&self, images: &Tensor, mode: Mode) -> Result<Outputs> {
        let (_, _, h, w) = images.dims4()?;
        let scores = match mode {
            Mode::Train(_) => ops::recorded(mode.gradient_checkpointing(), || self.scores(images, mode))?,
            Mode::Eval => self.scores(images, mode)?,
        };
        let resize =
            |scores| trace_span!(target: "tadformer::model", "outputs").in_scope(|| ops::bilinear(scores, (h, w)));
        Ok(Outputs::new(&self.config.tasks, scores.iter().map(resize).collect::<Result<_>>()?))
    }

    /// What each task's decoder gives, at its own resolution.
    fn scores(&self, images: &Tensor, mode: Mode) -> Result<Vec<Tensor>> {
        let stages = self.encoder.forward(images, mode)?;
        let decode = |(t, head): (usize, &dyn Head)| {
            let maps: Vec<_> = stages.iter().map(|stage| stage.task(t)).collect();
            trace_span!(target: "tadformer::model", "heads").in_scope(|| head.forward(&maps, mode))
        };
        self.heads.iter().map(Box::as_ref).enumerate().map(decode).collect()
    }

    /// What the encoder gives at every stage, before the decoders.
    ///
    /// # Errors
    /// As [`TADFormer::forward`].
    pub fn stages(&self, images: &Tensor, mode: Mode) -> Result<Vec<StageOutput>> {
        self.check_images(images)?;
        check_numbers(is_finite(images)?)?;
        self.encoder.forward(images, mode)
    }

    /// What the task-adapting block of each stage looks at on images `[B, 3, H, W]`, in evaluation: the prompts' attention, the filters,
    /// the gate. It takes two forward passes.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use tadformer::{SwinConfig, TADFormer};
    /// let small = SwinConfig { embed_dim: 16, num_heads: vec![1, 2, 4, 8], image_size: 64, ..SwinConfig::tiny() };
    /// let model = TADFormer::builder(small).tasks("semseg=21,depth=1".parse()?).rank(4).build()?;
    /// let stages = model.inspect(&Tensor::zeros((1, 3, 64, 96), DType::F32, &Device::Cpu)?)?;
    /// let attention = stages[0].attention.as_ref().map(|maps| maps.dims().to_vec());
    /// assert_eq!(attention, Some(vec![2, 1, 1, 16, 24])); // tasks, images, heads, height, width
    /// println!("{}", stages[0].filters[0].distances()?); // between the tasks' filters at the attention's output
    /// # Ok::<(), tadformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`TADFormer::forward`]; tasks without paths of their own, which look at nothing.
    pub fn inspect(&self, images: &Tensor) -> Result<Vec<StageView>> {
        if self.config.method.task_paths == TaskPaths::Shared {
            candle_core::bail!(
                "inspect: expected tasks with paths of their own, got tasks that share every token (open a model of TADFormer's method, \
                 such as Tuning::TADFormer)"
            )
        }
        self.check_images(images)?;
        check_numbers(is_finite(images)?)?;
        ops::without_graph(|| self.encoder.inspect(images))
    }

    /// Every weight with its name, group, and whether it trains.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The parameters by group; prints as a table.
    pub fn parameters(&self) -> ParameterTable {
        ParameterTable::of(&self.ledger)
    }

    /// The configuration.
    pub fn config(&self) -> &TADFormerConfig {
        &self.config
    }

    /// Where the frozen weights came from.
    pub fn base(&self) -> &BaseModel {
        &self.base
    }

    /// What loading the backbone's checkpoint found; `None` for a backbone drawn at random.
    pub fn load_report(&self) -> Option<&LoadReport> {
        self.report.as_ref()
    }

    pub(super) fn fold(&mut self, how: Merge) -> Result<()> {
        self.encoder.merge(how)?;
        let mergings = self.encoder.task_mergings();
        self.heads.iter_mut().try_for_each(|head| head.merge(how, &mergings))
    }

    /// Shape, float type and device: candle's own words for these come from deep inside.
    fn check_images(&self, images: &Tensor) -> Result<()> {
        let patch = self.config.swin.patch_size;
        if !matches!(images.dims(), &[b, 3, h, w] if b > 0 && h.min(w) >= patch) {
            let got = images.dims();
            candle_core::bail!(
                "images: expected [B, 3, H, W] with B at least 1 and sides of at least one patch ({patch}), got {got:?} \
                 (stack normalised RGB images; enlarge those smaller than a patch)"
            )
        }
        self.check_place(images)
    }

    /// Float type and device are those of the weights.
    fn check_place(&self, images: &Tensor) -> Result<()> {
        let (dtype, device) = (self.ledger.dtype(), self.ledger.device());
        if images.dtype() == dtype && images.device().same_device(device) {
            return Ok(());
        }
        let place = |dtype: DType, device: &Device| format!("{} on {}", dtype.as_str(), device_name(device));
        let cure = if images.dtype().is_float() {
            "turn them with to_dtype, move them with to_device; Batch::to does both"
        } else {
            "divide bytes by 255, then sample::normalise"
        };
        candle_core::bail!(
            "images: expected {}, where the model's weights are, got {} ({cure})",
            place(dtype, device),
            place(images.dtype(), images.device())
        )
    }
}

fn check_numbers(finite: bool) -> Result<()> {
    if !finite {
        candle_core::bail!("images: expected numbers, got NaN or infinity (Sample::new names the pixel)")
    }
    Ok(())
}
