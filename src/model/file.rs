//! A model's files: the adapter, which holds what was trained, and the full export.
//!
//! Both are one safetensors file whose metadata holds, under [`ModelFile::KEY`], a JSON document: the format's version, the crate's, what is
//! stored, the whole configuration and the backbone's digest.

use super::{BackboneFile, BaseModel, Origin, TADFormer, TADFormerBuilder, TADFormerConfig};
use crate::files::write_tensors;
use crate::params::{Checkpoint, Entry, Ledger, Release, Role, SourceDigest, Weights, random_source};
use crate::swin::Swin;
use crate::swin::names::Naming;
use crate::{Error, Result};
use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The version of the format that this crate writes.
const FORMAT: u32 = 1;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stored {
    /// What was trained, and running statistics.
    Adapter,
    /// Every weight.
    Full,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Metadata {
    format: u32,
    crate_version: String,
    stored: Stored,
    config: TADFormerConfig,
    base: BaseModel,
}

/// An adapter or a full export, opened and checked but not yet made into a model.
#[derive(Debug)]
pub struct ModelFile {
    path: PathBuf,
    metadata: Metadata,
    tensors: Checkpoint,
}

/// How to make a model of a file.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The backbone's checkpoint, where it lies neither beside the adapter nor where it was taken from.
    pub backbone: Option<PathBuf>,
    /// The float type of weights and activations.
    pub dtype: DType,
    /// The float type in which the frozen matrices are stored; `None` for `dtype`.
    pub frozen_dtype: Option<DType>,
    /// Where the weights live.
    pub device: Device,
    /// Where a backbone of the Hugging Face hub comes from.
    #[cfg(feature = "hub")]
    pub hub: crate::hub::Hub,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            backbone: None,
            dtype: DType::F32,
            frozen_dtype: None,
            device: Device::Cpu,
            #[cfg(feature = "hub")]
            hub: Default::default(),
        }
    }
}

impl ModelFile {
    /// The metadata key of the JSON document.
    pub(super) const KEY: &str = "tadformer";

    /// Opens an adapter or a full export.
    ///
    /// # Errors
    /// A file that cannot be read, was not written by this crate, or by a newer version of it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let tensors = Checkpoint::open(&path)?;
        let foreign = || Error::file(&path, "no tadformer adapter", "a backbone alone is given with `pretrained`");
        let text = tensors.metadata()?.remove(Self::KEY).ok_or_else(foreign)?;
        let version: Version = serde_json::from_str(&text).map_err(|_| foreign())?;
        if version.format != FORMAT {
            let problem = format!("format {} of tadformer {}", version.format, version.crate_version);
            return Err(Error::file(&path, problem, format!("this version reads format {FORMAT}: upgrade tadformer")));
        }
        let damaged = |e: serde_json::Error| Error::file(&path, format!("damaged metadata: {e}"), "take another copy");
        let metadata: Metadata = serde_json::from_str(&text).map_err(damaged)?;
        if metadata.base.digest.len() != 64 || !metadata.base.digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Error::file(&path, "damaged metadata: a digest that is none", "take another copy"));
        }
        let needed = TADFormer::count(&metadata.config)?.trained();
        let held: usize =
            tensors.names().filter_map(|name| tensors.shape(name)).map(|s| s.iter().product::<usize>()).sum();
        if needed > held {
            let problem = format!("{held} values, fewer than the {needed} of its configuration");
            return Err(Error::file(&path, problem, "take another copy"));
        }
        Ok(Self { path, metadata, tensors })
    }

    /// The configuration of the model that wrote it.
    pub fn config(&self) -> &TADFormerConfig {
        &self.metadata.config
    }

    /// The backbone it was made for.
    pub fn base(&self) -> &BaseModel {
        &self.metadata.base
    }

    /// Whether it holds an adapter or everything.
    pub fn stored(&self) -> Stored {
        self.metadata.stored
    }

    /// Makes the model: backbone and adapter.
    ///
    /// # Errors
    /// A backbone that is not found or not the one the adapter was made for; a tensor that is missing or misshapen.
    pub fn into_model(self, options: &OpenOptions) -> Result<TADFormer> {
        let mut builder = TADFormerBuilder::from_config(self.metadata.config.clone())
            .dtype(options.dtype)
            .device(&options.device)
            .pretrained(self.backbone(options)?);
        if let Some(dtype) = options.frozen_dtype {
            builder = builder.frozen_dtype(dtype);
        }
        let model = builder.build()?;
        match self.metadata.stored {
            Stored::Full => model.restore(&self.tensors)?,
            Stored::Adapter => self.apply(&model)?,
        }
        Ok(model.with_origin(self.metadata.base))
    }

    /// Makes the model on the backbone that another model holds: see [`TADFormer::with_adapter`].
    ///
    /// # Errors
    /// As there.
    pub fn onto(self, model: &TADFormer) -> Result<TADFormer> {
        let (its, held) = (self.metadata.base.short_digest(), model.base().short_digest());
        let mismatch =
            |difference: String| Error::AdapterMismatch { path: self.path.clone(), differences: vec![difference] };
        if self.metadata.base.digest != model.base().digest {
            return Err(mismatch(format!("backbone weights: the adapter has {its}, the model {held}")));
        }
        let made = model.sharing(self.metadata.config.clone(), 0).map_err(|e| mismatch(e.to_string()))?;
        made.restore(&self.tensors)?;
        Ok(made)
    }

    /// The file that holds the frozen weights.
    fn backbone(&self, options: &OpenOptions) -> Result<PathBuf> {
        if self.metadata.stored == Stored::Full {
            return Ok(self.path.clone());
        }
        if let Some(path) = &options.backbone {
            return Ok(path.clone());
        }
        let beside = self.path.with_file_name(self.metadata.base.file_name());
        let recorded = match &self.metadata.base.origin {
            Origin::File { path } => Some(PathBuf::from(path)),
            Origin::Random { .. } | Origin::Hub { .. } => None,
        };
        if let Some(path) = [Some(beside.clone()), recorded].into_iter().flatten().find(|path| path.exists()) {
            return Ok(path);
        }
        if let Some((id, commit)) = self.metadata.base.origin.published() {
            return self.published_backbone(options, &id, &commit);
        }
        let problem = format!("its backbone {} is not beside it", beside.display());
        Err(Error::file(&self.path, problem, "put it there, or give the backbone's checkpoint"))
    }

    #[cfg(feature = "hub")]
    fn published_backbone(&self, options: &OpenOptions, id: &str, commit: &str) -> Result<PathBuf> {
        super::pretrained::weights(&options.hub.model(&format!("{id}@{commit}"))?)
    }

    #[cfg(not(feature = "hub"))]
    fn published_backbone(&self, _: &OpenOptions, id: &str, commit: &str) -> Result<PathBuf> {
        let problem = format!("its backbone is {id} at commit {commit} of the Hugging Face hub");
        Err(Error::file(&self.path, problem, "build with the feature `hub`, or give the backbone's checkpoint"))
    }

    /// Sets a model's trained weights and statistics from the file.
    ///
    /// # Errors
    /// Another backbone, other tasks or another configuration: every difference is named.
    fn apply(&self, model: &TADFormer) -> Result<()> {
        let differences = self.differences(model);
        if !differences.is_empty() {
            return Err(Error::AdapterMismatch { path: self.path.clone(), differences });
        }
        model.restore(&self.tensors)
    }

    fn differences(&self, model: &TADFormer) -> Vec<String> {
        let (mine, its) = (&self.metadata.config, model.config());
        let compare = |what: &str, same: bool, adapter: String, model: String| {
            (!same).then(|| format!("{what}: the adapter has {adapter}, the model {model}"))
        };
        let (base, model_base) = (&self.metadata.base, model.base());
        [
            compare("tasks", mine.tasks == its.tasks, mine.tasks.to_string(), its.tasks.to_string()),
            compare("backbone", mine.swin == its.swin, mine.swin.to_string(), its.swin.to_string()),
            compare(
                "backbone weights",
                base.digest == model_base.digest,
                base.short_digest().into(),
                model_base.short_digest().into(),
            ),
            compare("adapters", mine.tad == its.tad, json(&mine.tad), json(&its.tad)),
            compare("heads", mine.head == its.head, json(&mine.head), json(&its.head)),
            compare("released weights", mine.release == its.release, json(&mine.release), json(&its.release)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// What every version of the format has had.
#[derive(Deserialize)]
struct Version {
    format: u32,
    crate_version: String,
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|e| e.to_string())
}

impl TADFormer {
    /// Opens an adapter or a full export with its backbone.
    ///
    /// # Errors
    /// As [`ModelFile::open`] and [`ModelFile::into_model`].
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        ModelFile::open(path)?.into_model(options)
    }

    /// Writes what was trained. A backbone that was drawn at random, or read from a file, is written beside it, named with its
    /// digest; one of the Hugging Face hub, or of the hub's cache, is [published](Origin::published), and recorded alone.
    ///
    /// # Errors
    /// A folder or disk that cannot be written to; nothing is left half-written then.
    pub fn save_adapter(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        self.save(path, Stored::Adapter, |entry| !matches!(entry.role, Role::Frozen(_)))?;
        let beside = path.with_file_name(self.base().file_name());
        match &self.base().origin {
            origin if beside.exists() || origin.published().is_some() => Ok(()),
            Origin::Random { seed } => self.save_random_backbone(*seed, &beside),
            Origin::File { path } => BackboneFile::open(path)?.save(beside, Naming::Own).map(drop),
            Origin::Hub { .. } => Ok(()),
        }
    }

    /// Writes every weight, under timm's names for the backbone and the crate's own for the rest.
    ///
    /// # Errors
    /// As [`TADFormer::save_adapter`].
    pub fn save_full(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save(path.as_ref(), Stored::Full, |_| true)
    }

    /// Loads an adapter onto this model: its trained weights change, the backbone stays.
    ///
    /// # Errors
    /// An adapter made for another backbone, other tasks or another configuration; the model is unchanged then.
    pub fn load_adapter(&self, path: impl AsRef<Path>) -> Result<()> {
        ModelFile::open(path)?.apply(self)
    }

    /// Opens another adapter on the backbone that this model holds: a second model, whose frozen tensors are this one's.
    ///
    /// It takes the memory of its own weights alone, with tasks, rank and decoders of its own; both models stay as they are
    /// whatever is done to the other, and one changes from one to the other by calling the other. [`TADFormer::merge`] gives a
    /// model folded weights, which are its own.
    ///
    /// ```no_run
    /// use tadformer::TADFormer;
    /// let rooms = TADFormer::open("rooms.safetensors", &Default::default())?;
    /// let people = rooms.with_adapter("people.safetensors")?;
    /// # Ok::<(), tadformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`ModelFile::open`]; an adapter made for another backbone, or one that keeps frozen what this model trained.
    pub fn with_adapter(&self, path: impl AsRef<Path>) -> Result<Self> {
        ModelFile::open(path)?.onto(self)
    }

    /// Sets every trained weight and statistic from a checkpoint under the crate's names.
    ///
    /// # Errors
    /// The first tensor that is missing or misshapen; the model is unchanged then.
    pub fn restore(&self, checkpoint: &Checkpoint) -> Result<()> {
        let place = checkpoint.path();
        let mut values = Vec::new();
        for entry in self.ledger().entries() {
            let (Role::Trained(var) | Role::Statistics(var)) = entry.role else { continue };
            let (name, want) = (&entry.name, var.dims());
            let wrong = |what: String| {
                Error::file(place, format!("tensor `{name}` {what}"), "the file is damaged or of another model")
            };
            match checkpoint.shape(name) {
                None => return Err(wrong("is missing".into())),
                Some(got) if got != want => return Err(wrong(format!("has shape {got:?}, expected {want:?}"))),
                Some(_) => values.push((var.clone(), checkpoint.load(name, var.dtype(), var.device())?)),
            }
        }
        for (var, value) in values {
            var.set(&value)?;
        }
        Ok(())
    }

    fn save(&self, path: &Path, stored: Stored, keep: impl Fn(&Entry) -> bool) -> Result<()> {
        let entries: Vec<Entry> = self.ledger().entries().into_iter().filter(keep).collect();
        let metadata = Metadata {
            format: FORMAT,
            crate_version: env!("CARGO_PKG_VERSION").to_owned(),
            stored,
            config: self.config().clone(),
            base: self.base().clone(),
        };
        let tensors = entries.into_iter().map(|entry| (entry.name.clone(), entry.tensor().clone())).collect();
        write_tensors(path, tensors, Some((ModelFile::KEY, json(&metadata))))
    }

    /// The seed gives the values that the backbone had before anything of it was trained.
    fn save_random_backbone(&self, seed: u64, path: &Path) -> Result<()> {
        let (ledger, digest) = (Ledger::seeded(seed, DType::F32, &Device::Cpu), SourceDigest::default());
        let source = digest.watch(random_source(seed, DType::F32, &Device::Cpu));
        Swin::new(&self.config().swin, &Weights::new(source, ledger.clone(), Release::none()))?;
        if digest.hex() != self.base().digest {
            let problem = "this version draws other values from the backbone's seed";
            return Err(Error::file(path, problem, "write a full export instead"));
        }
        let tensors = ledger.entries().into_iter().map(|entry| (entry.name.clone(), entry.tensor().clone())).collect();
        write_tensors(path, tensors, None)
    }
}
