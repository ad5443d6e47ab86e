//! A model's files: the adapter, which holds what was trained, and the full export.
//!
//! Both are one safetensors file whose metadata holds, under [`ModelFile::KEY`], a JSON document; `docs/adapter-format.md` tells all of it.

use super::differences::differences;
use super::location::Location;
use crate::checkpoint::Checkpoint;
use crate::files::write_tensors;
#[cfg(feature = "hub")]
use crate::hub::{Hub, HubModel};
use crate::model::{BackboneFile, BaseModel, Origin, TADFormer, TADFormerBuilder, TADFormerConfig};
use crate::params::{Entry, Ledger, Release, Role, SourceDigest, Weights, random_source};
use crate::swin::Swin;
use crate::swin::names::Naming;
use crate::{Error, Result};
use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The version of the format that this crate writes.
const FORMAT: u32 = 1;
/// An adapter's name in a folder, and in a model of the Hugging Face hub.
pub(crate) const ADAPTER: &str = "adapter.safetensors";

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
    /// The model of the hub that it came from.
    #[cfg(feature = "hub")]
    home: Option<HubModel>,
}

/// How to make a model of a file.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The backbone, where it neither lies beside the adapter nor is published: a checkpoint's path, or a model's id on the
    /// Hugging Face hub. For a full export, the backbone that its training started from: an adapter can then be saved of it.
    pub backbone: Option<PathBuf>,
    /// The float type of weights and activations.
    pub dtype: DType,
    /// The float type in which the frozen matrices are stored; `None` for `dtype`.
    pub frozen_dtype: Option<DType>,
    /// Where the weights live.
    pub device: Device,
    /// Where adapters and backbones of the Hugging Face hub come from.
    #[cfg(feature = "hub")]
    pub hub: Hub,
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
    pub(in crate::model) const KEY: &str = "tadformer";

    /// Opens an adapter or a full export; in a folder, its `adapter.safetensors`.
    ///
    /// # Errors
    /// A file that cannot be read, that this crate did not write, or that a newer version of it wrote in another format.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let path = if path.is_dir() { path.join(ADAPTER) } else { path.to_owned() };
        let tensors = Checkpoint::open_file(&path)?;
        let foreign = || Error::file(&path, "no tadformer adapter", "a backbone alone is given with `pretrained`");
        let text = tensors.metadata(Self::KEY).ok_or_else(foreign)?;
        let version: Version = serde_json::from_str(text).map_err(|_| foreign())?;
        if version.format != FORMAT {
            let problem = format!("format {} of tadformer {:.40}", version.format, version.crate_version);
            return Err(Error::file(&path, problem, format!("this version reads format {FORMAT}: upgrade tadformer")));
        }
        let damaged = |e: serde_json::Error| {
            let cure =
                format!("take another copy, or upgrade tadformer to {:.40}, which wrote it", version.crate_version);
            Error::file(&path, format!("damaged metadata: {e}"), cure)
        };
        let metadata: Metadata = serde_json::from_str(text).map_err(damaged)?;
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
        Ok(Self {
            path,
            metadata,
            tensors,
            #[cfg(feature = "hub")]
            home: None,
        })
    }

    /// Opens `adapter.safetensors` of a model on the Hugging Face hub; its backbone is looked for there as well.
    ///
    /// ```no_run
    /// use tadformer::{hub::Hub, model::ModelFile};
    /// let file = ModelFile::from_hub("OWNER/NAME", &Hub::default())?;
    /// println!("{} on {}", file.config().tasks, file.config().swin);
    /// # Ok::<(), tadformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// Whatever keeps the file from being had, as [`crate::HubProblem`] tells apart; as [`ModelFile::open`].
    #[cfg(feature = "hub")]
    pub fn from_hub(id: &str, hub: &Hub) -> Result<Self> {
        let home = hub.model(id)?;
        let file = Self::open(home.file(ADAPTER)?)?;
        Ok(Self { home: Some(home), ..file })
    }

    /// Opens what a path or an id of the hub names.
    fn of(source: &Path, options: &OpenOptions) -> Result<Self> {
        match Location::of(source) {
            Location::Path(path) => Self::open(path),
            Location::Id(id) => Self::by_id(id, options),
        }
    }

    #[cfg(feature = "hub")]
    fn by_id(id: &str, options: &OpenOptions) -> Result<Self> {
        Self::from_hub(id, &options.hub)
    }

    #[cfg(not(feature = "hub"))]
    fn by_id(id: &str, _: &OpenOptions) -> Result<Self> {
        super::location::no_hub(id)
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
        let backbone = self.backbone(options)?;
        let mut builder = TADFormerBuilder::from_config(self.metadata.config.clone())
            .dtype(options.dtype)
            .device(&options.device)
            .pretrained(&backbone);
        if let Some(dtype) = options.frozen_dtype {
            builder = builder.frozen_dtype(dtype);
        }
        let model = builder.build()?;
        match (self.metadata.stored, &options.backbone) {
            (Stored::Full, None) => model.restore(&self.tensors)?,
            (Stored::Full, Some(_)) | (Stored::Adapter, _) => self.apply(&model)?,
        }
        Ok(model.with_origin(self.metadata.base))
    }

    /// Makes the model on the backbone that another model holds: see [`TADFormer::with_adapter`].
    ///
    /// # Errors
    /// As there.
    pub fn onto(self, model: &TADFormer) -> Result<TADFormer> {
        let mismatch =
            |difference: String| Error::AdapterMismatch { path: self.path.clone(), differences: vec![difference] };
        if let Some(difference) = self.other_weights(model) {
            return Err(mismatch(difference));
        }
        let made = model.sharing(self.metadata.config.clone(), 0).map_err(|e| mismatch(e.to_string()))?;
        made.restore(&self.tensors)?;
        Ok(made)
    }

    /// The file that holds the frozen weights.
    fn backbone(&self, options: &OpenOptions) -> Result<PathBuf> {
        let had = match (&options.backbone, self.metadata.stored) {
            (Some(source), _) => weights_of(source, options),
            (None, Stored::Full) => return Ok(self.path.clone()),
            (None, Stored::Adapter) => self.recorded_backbone(options),
        };
        had.map_err(|source| Error::Backbone {
            adapter: self.path.clone(),
            wanted: format!("{} with weights {}", self.metadata.config.swin, self.metadata.base),
            source: Box::new(source),
        })
    }

    /// Beside the adapter, or on the hub.
    fn recorded_backbone(&self, options: &OpenOptions) -> Result<PathBuf> {
        let base = &self.metadata.base;
        let beside = self.path.with_file_name(base.file_name());
        if beside.exists() {
            return Ok(beside);
        }
        if let Some((id, commit)) = base.origin.published() {
            return weights_by_id(&format!("{id}@{commit}"), options);
        }
        #[cfg(feature = "hub")]
        if let Some(home) = &self.home {
            return home.file(&base.file_name());
        }
        let named = base.origin.file_name().map(|name| self.path.with_file_name(name));
        if let Some(named) = named.filter(|path| path.exists()) {
            return Ok(named);
        }
        let other = base.origin.file_name().map_or(String::new(), |name| format!(" or `{name}`"));
        let cure =
            format!("put the backbone{other} there, or give its checkpoint: `OpenOptions::backbone`, `--backbone`");
        Err(Error::file(&beside, "no such file", cure))
    }

    /// Sets a model's trained weights and statistics from the file.
    ///
    /// # Errors
    /// Another backbone, other tasks or another configuration: every difference is named.
    fn apply(&self, model: &TADFormer) -> Result<()> {
        let differences = self.differences(model)?;
        if !differences.is_empty() {
            return Err(Error::AdapterMismatch { path: self.path.clone(), differences });
        }
        model.restore(&self.tensors)
    }

    fn differences(&self, model: &TADFormer) -> Result<Vec<String>> {
        let mut found = differences(self.config(), model.config())?;
        found.extend(self.other_weights(model));
        Ok(found)
    }

    /// Where a model's backbone is not the one that the adapter was made for: both, in words.
    fn other_weights(&self, model: &TADFormer) -> Option<String> {
        let (base, held) = (&self.metadata.base, model.base());
        (base.digest != held.digest).then(|| format!("backbone weights: the adapter has {base}, the model {held}"))
    }
}

/// The checkpoint that a path or an id of the hub names.
pub(in crate::model) fn weights_of(source: &Path, options: &OpenOptions) -> Result<PathBuf> {
    match Location::of(source) {
        Location::Path(path) => Ok(path.to_owned()),
        Location::Id(id) => weights_by_id(id, options),
    }
}

#[cfg(feature = "hub")]
fn weights_by_id(id: &str, options: &OpenOptions) -> Result<PathBuf> {
    super::pretrained::weights(&options.hub.model(id)?)
}

#[cfg(not(feature = "hub"))]
fn weights_by_id(id: &str, _: &OpenOptions) -> Result<PathBuf> {
    super::location::no_hub(id)
}

/// What every version of the format has had.
#[derive(Deserialize)]
struct Version {
    format: u32,
    crate_version: String,
}

pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|e| e.to_string())
}

impl TADFormer {
    /// Opens an adapter or a full export with its backbone: a file, a folder with `adapter.safetensors`, or the id of a model on
    /// the Hugging Face hub that holds it.
    ///
    /// The backbone is, in this order: the one given; the file beside the adapter, named with its digest; the hub's model at the
    /// commit that the adapter records; for an adapter of the hub without one, a file in the adapter's own model; for any other,
    /// the file beside it with the name that the adapter records. Whichever it is, its weights must have the recorded digest.
    ///
    /// # Errors
    /// As [`ModelFile::open`] and [`ModelFile::into_model`].
    pub fn open(source: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        ModelFile::of(source.as_ref(), options)?.into_model(options)
    }

    /// Opens an adapter with the backbone that it names, both fetched where they are not there: [`TADFormer::open`] with nothing
    /// said otherwise.
    ///
    /// ```no_run
    /// use tadformer::TADFormer;
    /// let mine = TADFormer::from_adapter("runs/finetune/adapter.safetensors")?;
    /// let theirs = TADFormer::from_adapter("OWNER/NAME")?; // on the Hugging Face hub, as its card says
    /// # Ok::<(), tadformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`TADFormer::open`].
    pub fn from_adapter(source: impl AsRef<Path>) -> Result<Self> {
        Self::open(source, &OpenOptions::default())
    }

    /// Writes what was trained. A backbone that was drawn at random, or read from a file, is written beside it, named with its
    /// digest; one of the Hugging Face hub, or of the hub's cache, is [published](Origin::published), and recorded alone.
    ///
    /// # Errors
    /// A backbone to be written that its file no longer holds as training started from it, such as that of a full export (give it as
    /// [`OpenOptions::backbone`]); a folder or disk that cannot be written to. Nothing is left half-written then.
    pub fn save_adapter(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        // First, so that no adapter is left without its backbone.
        let beside = path.with_file_name(self.base().file_name());
        match &self.base().origin {
            _ if beside.is_file() => {}
            Origin::Random { seed } => self.save_random_backbone(*seed, &beside)?,
            Origin::File { .. } => self.copy_backbone(&beside)?,
            Origin::Hub { .. } => {}
        }
        self.save(path, Stored::Adapter, |entry| !matches!(entry.role, Role::Frozen(_)))
    }

    /// Writes every weight, under timm's names for the backbone and the crate's own for the rest.
    ///
    /// # Errors
    /// A folder or disk that cannot be written to; nothing is left half-written then.
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

    /// Opens another adapter, by its path or its id on the hub, on the backbone that this model holds: a second model, whose
    /// frozen tensors are this one's.
    ///
    /// It takes the memory of its own weights alone, with tasks, rank and decoders of its own; both models stay as they are
    /// whatever is done to the other, and one changes from one to the other by calling the other. [`TADFormer::merge`] gives a
    /// model folded weights, which are its own.
    ///
    /// ```no_run
    /// use tadformer::TADFormer;
    /// let rooms = TADFormer::from_adapter("rooms.safetensors")?;
    /// let people = rooms.with_adapter("people.safetensors")?;
    /// # Ok::<(), tadformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`ModelFile::open`]; an adapter made for another backbone, or one that keeps frozen what this model trained.
    pub fn with_adapter(&self, source: impl AsRef<Path>) -> Result<Self> {
        ModelFile::of(source.as_ref(), &OpenOptions::default())?.onto(self)
    }

    /// Sets every trained weight and statistic from a checkpoint under the crate's names.
    ///
    /// # Errors
    /// The first tensor that is missing or misshapen; the model is unchanged then.
    pub fn restore(&self, checkpoint: &Checkpoint) -> Result<()> {
        let place = checkpoint.path();
        let mut values = Vec::new();
        for entry in self.ledger().entries() {
            let (Role::Trained(var) | Role::Held(var) | Role::Statistics(var)) = entry.role else { continue };
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

    /// The backbone once more from where it was read: a model holds what it trained of it in its later values alone.
    fn copy_backbone(&self, to: &Path) -> Result<()> {
        let Some(report) = self.load_report() else {
            return Err(Error::file(to, "the backbone was read from no file", "write a full export instead"));
        };
        let file = BackboneFile::open(&report.path)?;
        if file.digest()? != self.base().digest {
            let problem = format!("its backbone is not the one that training started from, {}", self.base());
            let cure = "give that one as `OpenOptions::backbone` (`--backbone`) when the model is opened, or write a full export";
            return Err(Error::file(&report.path, problem, cure));
        }
        file.save(to, Naming::Own).map(drop)
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
