//! The model card: what stands beside an adapter, for whoever finds it.

use crate::files::{read_start, write_atomically};
use crate::metrics::Score;
use crate::model::ADAPTER;
use crate::model::{BaseModel, Origin, TADFormer, TADFormerConfig};
use crate::params::ParameterTable;
use crate::task::TaskKind;
use crate::{Printable, Result};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::{Path, PathBuf};

/// The name by which people, and the Hugging Face hub, look for a card.
const FILE: &str = "README.md";
/// More than any card that is written here; what is longer is somebody's own.
const MOST_BYTES: u64 = 1 << 20;
/// What starts the last line of a card that was written here; the digest of the text above it follows.
const MARK: &str = "<!-- tadformer card; a card with another text than this digest's is kept: ";

/// What became of a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CardFile {
    /// It was written to this path.
    Written(PathBuf),
    /// Somebody had written another text there, which stays as it is.
    Kept(PathBuf),
}

/// A model card: backbone, tasks, parameters, figures, licence, how to load the adapter and how to publish it.
///
/// It prints as Markdown under the YAML header that the Hugging Face hub reads.
///
/// ```
/// use tadformer::{TADFormer, report::ModelCard, swin::SwinConfig};
/// let small = SwinConfig { embed_dim: 16, num_heads: vec![1, 2, 4, 8], image_size: 64, ..SwinConfig::tiny() };
/// let model = TADFormer::builder(small).tasks("semseg=21,depth=1".parse()?).rank(4).build()?;
/// let card = ModelCard::of(&model).title("Rooms").license("mit").to_string();
/// assert!(card.starts_with("---\nlicense: \"mit\"\nlibrary_name: tadformer\n"));
/// assert!(card.contains("# Rooms") && card.contains("| `depth` | depth | 1 |"));
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ModelCard {
    config: TADFormerConfig,
    base: BaseModel,
    parameters: ParameterTable,
    adapter: String,
    title: String,
    license: String,
    /// Each task's figures, by the task's name.
    scores: Vec<(String, Score)>,
}

impl ModelCard {
    /// What a model tells of itself: no figures, and a licence that is `unknown` until one is given.
    pub fn of(model: &TADFormer) -> Self {
        Self {
            config: model.config().clone(),
            base: model.base().clone(),
            parameters: model.parameters(),
            adapter: ADAPTER.into(),
            title: format!("TADFormer adapter for {}", kinds(model.config())),
            license: "unknown".into(),
            scores: Vec::new(),
        }
    }

    /// The card's heading.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// The adapter's licence, as the hub spells it: `mit`, `apache-2.0`, `cc-by-4.0`, `other`.
    pub fn license(mut self, license: impl Into<String>) -> Self {
        self.license = license.into();
        self
    }

    /// Adds figures, each with its task's name; those without a value are left out.
    pub fn scores(mut self, scores: impl IntoIterator<Item = (String, Score)>) -> Self {
        self.scores.extend(scores);
        self
    }

    /// Writes the card as `README.md` into the adapter's folder.
    ///
    /// A card is replaced where its text is as it was written: its last line, which Markdown does not show, holds the text's
    /// digest. Any other `README.md` is somebody's own and stays.
    ///
    /// # Errors
    /// A folder that cannot be read or written to.
    pub fn write_beside(&self, adapter: impl AsRef<Path>) -> Result<CardFile> {
        let (adapter, path) = (adapter.as_ref(), adapter.as_ref().with_file_name(FILE));
        if path.exists() && !is_as_written(&read_start(&path, MOST_BYTES)?) {
            return Ok(CardFile::Kept(path));
        }
        let name = adapter.file_name().map_or_else(|| self.adapter.clone(), |name| name.to_string_lossy().into());
        let text = Self { adapter: name, ..self.clone() }.to_string();
        let mark = format!("{MARK}{} -->\n", digest(text.as_bytes()));
        write_atomically(&path, |file| file.write_all(text.as_bytes()).and_then(|()| file.write_all(mark.as_bytes())))?;
        Ok(CardFile::Written(path))
    }

    fn header(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "---\nlicense: {}\nlibrary_name: tadformer", quoted(&self.license))?;
        if let Some((id, _)) = self.base.origin.published() {
            writeln!(f, "base_model: {}\nbase_model_relation: adapter", quoted(&id))?;
        }
        writeln!(f, "pipeline_tag: {}\ntags:", pipeline(&self.config))?;
        let kinds =
            TaskKind::ALL.iter().copied().filter(|kind| self.config.tasks.iter().any(|task| task.kind == *kind));
        let tags = ["tadformer", "swin", "multi-task", "dense-prediction"].into_iter().chain(kinds.map(TaskKind::name));
        tags.into_iter().try_for_each(|tag| writeln!(f, "- {tag}"))?;
        writeln!(f, "---")
    }

    fn backbone(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.base.file_name();
        writeln!(
            f,
            "\n## Backbone\n{}, frozen, made for images of {}.",
            self.config.swin, self.config.swin.image_size
        )?;
        match (self.base.origin.published(), &self.base.origin) {
            (Some((id, commit)), _) => {
                writeln!(f, "Its weights are {} at commit {} of the Hugging Face hub.", code(&id), code(&commit))?;
            }
            (None, Origin::Random { seed }) => {
                writeln!(f, "Its weights were drawn at random with the seed {seed}; they are in {}.", code(&file))?;
            }
            (None, _) => writeln!(f, "Its weights are in {}.", code(&file))?,
        }
        writeln!(f, "SHA-256 of the weights: {}.", code(&self.base.digest))
    }

    fn tables(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n## Tasks\n| task | kind | outputs | decoder |\n| --- | --- | --- | --- |")?;
        for task in self.config.tasks.iter() {
            let decoder = self.config.head_of(&task.name).name();
            writeln!(f, "| {} | {} | {} | {decoder} |", code(&task.name), task.kind.name(), task.outputs)?;
        }
        writeln!(f, "\n## Parameters\n| group | trained | frozen |\n| --- | --- | --- |")?;
        for (group, count) in self.parameters.groups() {
            writeln!(f, "| {} | {} | {} |", group.name(), count.trained, count.frozen)?;
        }
        writeln!(f, "| total | {} | {} |", self.parameters.trained(), self.parameters.frozen())?;
        let figures = || self.scores.iter().filter_map(|(task, score)| Some((task, score, score.value?)));
        if figures().next().is_none() {
            return Ok(());
        }
        writeln!(f, "\n## Figures\n| task | metric | value |\n| --- | --- | --- |")?;
        figures().try_for_each(|(task, score, value)| {
            writeln!(f, "| {} | {} {} | {value:.4} |", code(task), code(&score.name), score.arrow())
        })
    }

    fn load(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = quoted(&self.adapter);
        writeln!(f, "\n## Load")?;
        writeln!(f, "With the crate `tadformer`, which fetches the backbone as well:")?;
        writeln!(f, "```rust\nuse tadformer::TADFormer;\n")?;
        writeln!(f, "let model = TADFormer::from_adapter(\"OWNER/NAME\")?; // from the Hugging Face hub")?;
        writeln!(f, "let model = TADFormer::from_adapter({name})?; // from a file\n```")
    }

    fn publish(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n## Publish\nState a licence in the first lines of this file, then, in its folder:")?;
        writeln!(f, "```sh\nhf auth login")?;
        let beside = self.base.origin.published().is_none().then(|| self.base.file_name());
        writeln!(f, "hf upload OWNER/NAME {FILE}\nhf upload OWNER/NAME {} {ADAPTER}", shell(&self.adapter))?;
        beside.iter().try_for_each(|file| writeln!(f, "hf upload OWNER/NAME {}", shell(file)))?;
        writeln!(f, "```")
    }
}

impl fmt::Display for ModelCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.header(f)?;
        writeln!(f, "\n# {}", one_line(&self.title))?;
        writeln!(f, "An adapter for one frozen Swin Transformer and several dense tasks (arXiv 2501.04293).")?;
        self.backbone(f)?;
        self.tables(f)?;
        self.load(f)?;
        self.publish(f)
    }
}

/// The kinds of a configuration's tasks, in words.
fn kinds(config: &TADFormerConfig) -> String {
    let names: Vec<&str> = config.tasks.iter().map(|task| task.name.as_str()).collect();
    names.join(", ")
}

/// The one of the hub's categories that fits all tasks.
fn pipeline(config: &TADFormerConfig) -> &'static str {
    let all = |kind| config.tasks.iter().all(|task| task.kind == kind);
    match () {
        () if all(TaskKind::Depth) => "depth-estimation",
        () if all(TaskKind::Normals) => "image-to-image",
        () => "image-segmentation",
    }
}

fn digest(text: &[u8]) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a file is a card as it was written here.
fn is_as_written(file: &[u8]) -> bool {
    let Some(at) = file.windows(MARK.len()).rposition(|window| window == MARK.as_bytes()) else { return false };
    let (text, mark) = file.split_at(at);
    mark == format!("{MARK}{} -->\n", digest(text)).as_bytes()
}

fn one_line(text: &str) -> String {
    Printable(text.replace(char::is_whitespace, " ")).to_string()
}

/// As code in Markdown: nothing in it is markup, nor the end of a table's cell.
fn code(text: &str) -> String {
    format!("`{}`", one_line(text).replace('`', "'").replace('|', "/"))
}

/// A string of YAML, and of Rust.
fn quoted(text: &str) -> String {
    format!("\"{}\"", one_line(text).replace('\\', "\\\\").replace('"', "\\\""))
}

/// One word of a shell.
fn shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", one_line(text).replace('\'', r"'\''")) }
}
