//! Everything that settles a model but its weights.

use crate::heads::{HeadConfig, SharedHidden};
use crate::named::find_named;
use crate::params::Release;
use crate::swin::SwinConfig;
use crate::tad::Method;
use crate::task::TaskSet;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::str::FromStr;

/// A model's whole configuration, as it stands in its files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TADFormerConfig {
    /// The backbone.
    pub swin: SwinConfig,
    /// What is added to it.
    pub method: Method,
    /// The tasks, in the order of their prompts.
    pub tasks: TaskSet,
    /// The decoder of every task that has none of its own.
    pub head: HeadConfig,
    /// Decoders of single tasks, by the tasks' names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub own_heads: BTreeMap<String, HeadConfig>,
    /// Which pretrained weights train as well.
    pub release: Release,
}

impl TADFormerConfig {
    /// The paper's method and decoders for the four tasks of PASCAL-Context, on this backbone.
    pub fn new(swin: SwinConfig) -> Self {
        Self {
            swin,
            method: Method::default(),
            tasks: TaskSet::pascal(),
            head: HeadConfig::default(),
            own_heads: BTreeMap::new(),
            release: Release::default(),
        }
    }

    /// The decoder of the task of this name.
    pub fn head_of(&self, task: &str) -> &HeadConfig {
        self.own_heads.get(task).unwrap_or(&self.head)
    }

    /// Every choice of a decoder with its place.
    pub(super) fn heads(&self) -> impl Iterator<Item = (String, &HeadConfig)> {
        let own = self.own_heads.iter().map(|(task, head)| (format!("own_heads.{task}"), head));
        std::iter::once(("head".to_owned(), &self.head)).chain(own)
    }

    /// Checks every field once, and what they multiply to; nothing after it checks again.
    ///
    /// # Errors
    /// The first field that cannot work, with what was expected and the cure; sizes that together ask for more than any model does,
    /// such as prompts times tasks, or over two billion parameters.
    pub fn check(&self) -> Result<()> {
        self.swin.check()?;
        self.method.check(&self.swin)?;
        if let Some(name) = self.own_heads.keys().find(|name| self.tasks.get(name).is_none()) {
            let cure = "a decoder of its own goes by its task's name";
            return Err(Error::config("own_heads", format!("names of {}", self.tasks), name, cure));
        }
        self.heads().try_for_each(|(place, head)| head.check(&place, self.swin.stages()))?;
        self.check_shared()?;
        self.check_extent()
    }

    /// Whether decoders that share a layer can: they have the same sizes, and no task has the layer's name.
    fn check_shared(&self) -> Result<()> {
        let mut sharing = self.heads().filter_map(|(place, head)| Some((place, &head.shared()?.channels)));
        let Some((first, channels)) = sharing.next() else { return Ok(()) };
        if let Some((place, other)) = sharing.find(|(_, other)| *other != channels) {
            let expected = format!("{channels:?}, as `{first}.channels` has");
            let cure = "decoders that share a layer are of one size; another size goes with the kind hrnet";
            return Err(Error::config(format!("{place}.channels"), expected, format!("{other:?}"), cure));
        }
        if self.tasks.get(SharedHidden::NAME).is_some() {
            let expected = format!("no task named `{}`", SharedHidden::NAME);
            let cure = "the layer that decoders share has that name; give the task another";
            return Err(Error::config("tasks", expected, &self.tasks, cure));
        }
        Ok(())
    }
}

/// The usual answers to "what trains": each sets what is added and what is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tuning {
    /// The decoders alone, on plain Swin's features.
    DecodersOnly,
    /// BitFit ([arXiv 2106.10199](https://arxiv.org/abs/2106.10199)): decoders and every bias of the backbone, those of qkv, proj, fc1,
    /// fc2 and the patch embedding and the norms' shifts; nothing added. Position biases are tables, and stay.
    BitFit,
    /// Decoders and shared low-rank paths; the pretrained weights stay.
    LowRankOnly,
    /// The paper's: prompts, low-rank paths, filters, decoders, and the pretrained norms, position biases and patch embedding.
    TADFormer,
    /// Full fine-tuning: decoders and every pretrained weight, nothing added.
    Everything,
}

impl Tuning {
    /// All of them.
    pub const ALL: &'static [Self] =
        &[Self::DecodersOnly, Self::BitFit, Self::LowRankOnly, Self::TADFormer, Self::Everything];

    /// As written on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::DecodersOnly => "decoders-only",
            Self::BitFit => "bitfit",
            Self::LowRankOnly => "low-rank-only",
            Self::TADFormer => "tadformer",
            Self::Everything => "everything",
        }
    }

    /// What is added at this rank, and what is released.
    pub fn settings(self, rank: usize) -> (Method, Release) {
        match self {
            Self::DecodersOnly => (Method::none(), Release::none()),
            Self::BitFit => (Method::none(), Release::biases()),
            Self::LowRankOnly => (Method::low_rank(rank), Release::none()),
            Self::TADFormer => (Method::tadformer(rank), Release::tadformer()),
            Self::Everything => (Method::none(), Release::everything()),
        }
    }
}

impl FromStr for Tuning {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        find_named("tuning", Self::ALL, Self::name, name, "tadformer is the paper's")
    }
}
