//! The file of a pretrained Swin: checked whole, and written under the names of any library.

use super::pretrained::CONFIG;
use crate::checkpoint::Checkpoint;
use crate::files::{write_atomically, write_tensors};
use crate::model::LoadReport;
use crate::params::{Ledger, Release, SourceDigest, Weights, checkpoint_source, shape_source};
use crate::swin::names::Naming;
use crate::swin::{Published, Swin, SwinConfig, names};
use crate::{Error, Result};
use candle_core::{DType, Device};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A pretrained Swin's checkpoint whose every tensor was found in the shape that it must have.
///
/// ```no_run
/// use tadformer::model::BackboneFile;
/// use tadformer::swin::names::Naming;
/// let file = BackboneFile::open("swin_tiny_patch4_window7_224.pth")?;
/// println!("{}: {}", file.config(), file.report());
/// file.save("model.safetensors", Naming::Transformers)?;
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BackboneFile {
    config: SwinConfig,
    /// Under timm's names.
    tensors: Arc<Checkpoint>,
    report: LoadReport,
}

impl BackboneFile {
    /// Opens a file or folder of transformers, timm, torchvision, the original code, the released TADFormer or MTLoRA.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`names::canonical`]; a Swin that lacks a tensor or has one in another shape.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::of(Checkpoint::open(path)?)
    }

    /// [`BackboneFile::open`] for a checkpoint that is already open.
    ///
    /// # Errors
    /// As there.
    pub fn of(checkpoint: Checkpoint) -> Result<Self> {
        let (family, tensors, unused) = names::canonical(checkpoint)?;
        let (config, ledger) = (SwinConfig::of_tensors(&tensors)?, Ledger::counting());
        Swin::new(&config, &Weights::new(shape_source(DType::F32), ledger.clone(), Release::none()))?;
        let report = LoadReport::compare(family, &tensors, unused, &ledger);
        report.check()?;
        Ok(Self { config, tensors: Arc::new(tensors), report })
    }

    /// The sizes, as [`SwinConfig::of_checkpoint`] finds them.
    pub fn config(&self) -> &SwinConfig {
        &self.config
    }

    /// What was found.
    pub fn report(&self) -> &LoadReport {
        &self.report
    }

    /// The plain network, in this float type on this device.
    ///
    /// # Errors
    /// A file that can no longer be read.
    pub fn swin(&self, dtype: DType, device: &Device) -> Result<Swin> {
        let source = checkpoint_source(self.tensors.clone(), dtype, device);
        let ledger = Ledger::seeded(0, dtype, device);
        Ok(Swin::new(&self.config, &Weights::new(source, ledger, Release::none()))?)
    }

    /// With the image size and drop-path of a configuration, which no tensor tells.
    ///
    /// # Errors
    /// A configuration whose other sizes are not those of the tensors.
    pub fn with_config(self, config: &SwinConfig) -> Result<Self> {
        config.check()?;
        let (said, found) = (fixed_sizes(config), fixed_sizes(&self.config));
        if said != found {
            let problem = format!("its tensors have {found}; its configuration says {said}");
            return Err(Error::file(&self.report.path, problem, "give the checkpoint's file alone"));
        }
        Ok(Self { config: config.clone(), ..self })
    }

    /// The digest by which adapters know the backbone, as [`BaseModel::digest`](super::BaseModel::digest).
    ///
    /// # Errors
    /// A file that can no longer be read; values that are no numbers or infinite.
    pub fn digest(&self) -> Result<String> {
        let (digest, ledger) = (SourceDigest::default(), Ledger::seeded(0, DType::F32, &Device::Cpu));
        let source = digest.watch(checkpoint_source(self.tensors.clone(), DType::F32, &Device::Cpu));
        Swin::new(&self.config, &Weights::new(source, ledger, Release::none()))?;
        Ok(digest.hex())
    }

    /// Writes the backbone as safetensors of f32 under these names; biases that it was made without are left out.
    ///
    /// # Errors
    /// A folder or disk that cannot be written to: nothing is left half-written then.
    pub fn save(&self, path: impl AsRef<Path>, naming: Naming) -> Result<WrittenBackbone> {
        let used = self.report.loaded.iter().map(String::as_str);
        let carried: Vec<&str> = self.tensors.names().filter(|name| naming.carries(name)).collect();
        let written = |name| names::written(&self.tensors, name, naming);
        let tensors = used.chain(carried.iter().copied()).map(written).collect::<Result<Vec<_>>>()?;
        let tensors: Vec<_> = tensors.into_iter().flatten().collect();
        let mut names: Vec<String> = tensors.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        // What transformers asks of a file before it reads it.
        write_tensors(path.as_ref(), tensors, Some(("format", "pt".to_owned())))?;
        let taken: Vec<&str> = carried.iter().filter_map(|name| self.tensors.source(name)).collect();
        let left = self.report.unused.iter().filter(|name| !taken.contains(&name.as_str()));
        Ok(WrittenBackbone { names, unused: left.cloned().collect() })
    }
}

/// What became of a configuration beside a backbone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigFile {
    /// It was written to this path.
    Written(PathBuf),
    /// One was there that says the same, and stays.
    Kept(PathBuf),
    /// The crate's own names need none.
    None,
}

impl BackboneFile {
    /// Writes the `config.json` with which transformers or timm read a backbone that is [saved](BackboneFile::save) under their
    /// names, into the folder of those weights.
    ///
    /// # Errors
    /// Another `config.json` in that folder, which is not overwritten; windows that differ from stage to stage, for transformers; a
    /// folder or disk that cannot be written to.
    pub fn save_config(&self, weights: impl AsRef<Path>, naming: Naming) -> Result<ConfigFile> {
        let path = weights.as_ref().with_file_name(CONFIG);
        let classes = self.tensors.shape("head.fc.weight").and_then(|shape| shape.first().copied());
        let published = Published { config: self.config.clone(), classes, qkv_bias: self.report.zeros.is_empty() };
        let Some(document) = published.document(naming)? else { return Ok(ConfigFile::None) };
        if path.exists() {
            return if says(&path, naming, &published) { Ok(ConfigFile::Kept(path)) } else { Err(other_config(&path)) };
        }
        let text =
            serde_json::to_string_pretty(&document).map_err(|e| Error::file(&path, e, "report this as a bug"))?;
        write_atomically(&path, |file| writeln!(file, "{text}"))?;
        Ok(ConfigFile::Written(path))
    }
}

/// Whether a configuration says of these weights what would be written.
fn says(path: &Path, naming: Naming, published: &Published) -> bool {
    Published::read(path).is_ok_and(|(library, said)| {
        library == naming
            && fixed_sizes(&said.config) == fixed_sizes(&published.config)
            && said.qkv_bias == published.qkv_bias
            && (published.classes.is_none() || said.classes == published.classes)
    })
}

/// The sizes that tensors tell: all but the image's, of which the windows remain, and drop-path.
fn fixed_sizes(config: &SwinConfig) -> String {
    let windows: Vec<usize> = (0..config.stages()).map(|i| config.stage_window(i)).collect();
    format!(
        "patches of {}, {} channels, depths {:?}, heads {:?}, windows {windows:?}, MLPs of {}",
        config.patch_size, config.embed_dim, config.depths, config.num_heads, config.mlp_ratio
    )
}

fn other_config(path: &Path) -> Error {
    let problem = "a configuration that says otherwise than the weights that would stand beside it";
    Error::file(path, problem, "it is not overwritten: write to another folder, or remove it")
}

/// What was written of a checkpoint, and what was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenBackbone {
    /// The names in the new file, in order.
    pub names: Vec<String>,
    /// The tensors of the source that nothing of the new file is made of, by their names in the source.
    pub unused: Vec<String>,
}
