//! Checkpoints of the released TADFormer code, and of MTLoRA, from which it came, as models of this crate.

use super::config::ReleasedConfig;
use super::sizes;
use super::sizes::Order;
use crate::checkpoint::Checkpoint;
use crate::model::files::weights_of;
use crate::model::{LoadReport, OpenOptions, TADFormer, TADFormerBuilder, TADFormerConfig, Tuning};
use crate::params::Role;
use crate::swin::names::Family;
use crate::swin::{SwinConfig, names};
use crate::task::TaskSet;
use crate::{Error, Result};
use candle_core::{DType, Device};
use std::path::Path;

/// Which code wrote a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleasedCode {
    /// TADFormer's: everything is taken.
    TADFormer,
    /// MTLoRA's: the backbone and the decoders are taken, the low-rank paths are not.
    MTLoRA,
}

/// A checkpoint of the released TADFormer code or of MTLoRA, opened and understood but not yet made into a model.
///
/// The released code differs from the paper in two places, so its weights are imported with the variants that predict as they were
/// trained: [`Static`](crate::tad::TaskFilterKind::Static) filters, and
/// [`Swapped`](crate::tad::TpcReading::Swapped) reading of the conditioned features. Sizes are read off the tensors. What no
/// tensor tells (the tasks' order, the image size, the scale of the low-rank paths) is in the configuration beside the weights of a
/// `.pth`; without one it is the released code's default, and the tasks have to be given.
///
/// ```no_run
/// use tadformer::model::{OpenOptions, ReleasedFile};
/// let file = ReleasedFile::open("ckpt_epoch_299.pth", None)?;
/// println!("{}: {}", file.config().tasks, file.report());
/// let model = file.into_model(&OpenOptions::default())?;
/// model.save_adapter("adapter.safetensors")?;
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Debug)]
pub struct ReleasedFile {
    code: ReleasedCode,
    config: TADFormerConfig,
    /// Under the file's names.
    checkpoint: Checkpoint,
    /// Under the crate's.
    tensors: Checkpoint,
    report: LoadReport,
}

impl ReleasedFile {
    /// Opens a checkpoint: one of `torch.save`, or its weights as safetensors. `tasks` are given for a file without a configuration.
    ///
    /// # Errors
    /// A file that cannot be read, is of other code, or holds what this crate does not compute; tasks that are not the file's, or
    /// whose order nothing tells.
    pub fn open(path: impl AsRef<Path>, tasks: Option<&TaskSet>) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let config = ReleasedConfig::of(&checkpoint)?;
        let (family, tensors, unused) = names::canonical(checkpoint.clone())?;
        if family != Family::Released {
            let cure = "give a Swin alone with `pretrained`";
            return Err(Error::file(checkpoint.path(), "no checkpoint of the released TADFormer or of MTLoRA", cure));
        }
        let code =
            if tensors.shape("prompts.table").is_some() { ReleasedCode::TADFormer } else { ReleasedCode::MTLoRA };
        let config = configuration(code, &tensors, &config, tasks)?;
        config.check()?;
        let report = LoadReport::compare(family, &tensors, unused, &TADFormer::shapes(&config)?);
        report.check()?;
        let file = Self { code, config, checkpoint, tensors, report };
        file.refuse_lost_terms()?;
        Ok(file)
    }

    /// Which code wrote it.
    pub fn code(&self) -> ReleasedCode {
        self.code
    }

    /// The configuration of the model that it becomes.
    pub fn config(&self) -> &TADFormerConfig {
        &self.config
    }

    /// What was found, and what is left unused.
    pub fn report(&self) -> &LoadReport {
        &self.report
    }

    /// Makes the model: of TADFormer one that predicts as the released code does, of MTLoRA one of backbone and decoders.
    ///
    /// Its backbone is the checkpoint's own, norms and biases as they were trained. With [`OpenOptions::backbone`] it is the
    /// pretrained Swin that the training started from, so that an adapter saved from the model needs no other.
    ///
    /// # Errors
    /// A tensor that is missing or misshapen; a given backbone whose frozen weights are not those of the checkpoint.
    pub fn into_model(self, options: &OpenOptions) -> Result<TADFormer> {
        let mut builder =
            TADFormerBuilder::from_config(self.config.clone()).dtype(options.dtype).device(&options.device);
        if let Some(dtype) = options.frozen_dtype {
            builder = builder.frozen_dtype(dtype);
        }
        let model = match &options.backbone {
            None => builder.build_on(self.checkpoint.clone())?,
            Some(source) => {
                let model = builder.pretrained(weights_of(source, options)?).build()?;
                self.refuse_other_backbone(&model)?;
                model
            }
        };
        model.restore(&self.tensors)?;
        Ok(model)
    }

    /// Refuses a TADFormer with weights in its blocks that would be missed in every prediction.
    fn refuse_lost_terms(&self) -> Result<()> {
        const FIRST: &str = "patch_embed.proj.weight";
        let root = self.tensors.source(FIRST).and_then(|name| name.strip_suffix(FIRST)).unwrap_or_default();
        let lost = |name: &&String| name.strip_prefix(root).is_some_and(|name| name.starts_with("layers."));
        match self.report.unused.iter().find(lost) {
            Some(name) if self.code == ReleasedCode::TADFormer => {
                let cure = "its predictions would not be those it was trained for";
                Err(Error::file(self.checkpoint.path(), format!("`{name}`, which this crate does not compute"), cure))
            }
            _ => Ok(()),
        }
    }

    fn refuse_other_backbone(&self, model: &TADFormer) -> Result<()> {
        let mut unlike = Vec::new();
        for entry in model.ledger().entries() {
            let Role::Frozen(held) = &entry.role else { continue };
            let own = self.tensors.load(&entry.name, held.dtype(), held.device())?;
            if own.dims() != held.dims() || values(&own)? != values(held)? {
                unlike.push(entry.name);
            }
        }
        let Some(first) = unlike.first() else { return Ok(()) };
        let difference =
            format!("frozen weights: the backbone has other values, first in `{first}` ({} in all)", unlike.len());
        Err(Error::AdapterMismatch { path: self.checkpoint.path().to_owned(), differences: vec![difference] })
    }
}

fn values(tensor: &candle_core::Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

fn configuration(
    code: ReleasedCode,
    tensors: &Checkpoint,
    config: &ReleasedConfig,
    given: Option<&TaskSet>,
) -> Result<TADFormerConfig> {
    let found = SwinConfig::of_tensors(tensors)?;
    let image_size = config.image_size().unwrap_or(found.image_size);
    let swin = SwinConfig { image_size, drop_path: config.drop_path(), ..found };
    let order = if code == ReleasedCode::TADFormer { Order::Matters } else { Order::Free };
    let tasks = sizes::tasks(tensors, config, given, order)?;
    let head = sizes::head(tensors, &tasks, swin.stages())?;
    let (method, release) = match code {
        ReleasedCode::TADFormer => (sizes::method(tensors, &swin, config, tasks.len())?, config.release()),
        ReleasedCode::MTLoRA => Tuning::DecodersOnly.settings(0),
    };
    Ok(TADFormerConfig { method, tasks, head: head.into(), release, ..TADFormerConfig::new(swin) })
}
