//! What is added to the backbone: a closed choice of parts, with the paper's as defaults.

mod linears;
mod task_paths;

pub use linears::{AdaptedLinear, LinearAdapter, LowRank};
pub(crate) use task_paths::MOST_PROMPTS;
pub use task_paths::{Gate, PerTask, Prompts, TaskFilterKind, TaskPaths};

use crate::Result;
use crate::swin::{BlockLowRank, SwinConfig};
use serde::{Deserialize, Serialize};

/// A method of fine-tuning: what the linears carry, and what makes the tasks' tokens differ. The default is the paper's at rank 64.
///
/// | part | choices |
/// | --- | --- |
/// | [`linears`](Self::linears) | [low-rank paths](LowRank), or nothing |
/// | [`task_paths`](Self::task_paths) | [for each task](PerTask): a task filter, and prompts with their gate; or shared |
///
/// Choices that mean nothing without another are parts of it: there are no prompts without task paths, and no gate without prompts.
///
/// ```
/// use tadformer::tad::{LowRank, Method, PerTask, Prompts, TaskFilterKind, TaskPaths};
/// let wide = Method::tadformer(16).task_paths(PerTask::default().filter(TaskFilterKind::Dynamic { kernel: 5 }));
/// let low_rank = Method::none().linears(LowRank::new(16).dropout(0.0));
/// assert_eq!((&wide.linears, &low_rank.task_paths), (&LowRank::new(16).into(), &TaskPaths::Shared));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Method {
    /// What the linears of every block carry.
    pub linears: LinearAdapter,
    /// Whether tasks have tokens of their own, and of what.
    pub task_paths: TaskPaths,
}

impl Default for Method {
    fn default() -> Self {
        Self::tadformer(64)
    }
}

impl Method {
    /// The paper's: low-rank paths of this rank, and for each task prompts and a dynamic filter.
    pub fn tadformer(rank: usize) -> Self {
        Self { linears: LowRank::new(rank).into(), task_paths: PerTask::default().into() }
    }

    /// Shared low-rank paths alone.
    pub fn low_rank(rank: usize) -> Self {
        Self { task_paths: TaskPaths::Shared, ..Self::tadformer(rank) }
    }

    /// Nothing at all: the backbone's features as they are.
    pub fn none() -> Self {
        Self { linears: LinearAdapter::None, task_paths: TaskPaths::Shared }
    }

    /// With other adapters of the linears.
    pub fn linears(self, linears: impl Into<LinearAdapter>) -> Self {
        Self { linears: linears.into(), ..self }
    }

    /// With other task paths.
    pub fn task_paths(self, task_paths: impl Into<TaskPaths>) -> Self {
        Self { task_paths: task_paths.into(), ..self }
    }

    /// With low-rank paths of this rank at every stage; what else was said of them stays.
    pub fn rank(self, rank: usize) -> Self {
        Self { linears: self.linears.with_rank(rank), ..self }
    }

    /// The rank of stage `i`; 0 without low-rank paths.
    pub fn stage_rank(&self, i: usize) -> usize {
        self.linears.stage_rank(i)
    }

    /// The low-rank paths of a block of stage `i`.
    pub fn block_low_rank(&self, i: usize) -> BlockLowRank {
        self.linears.block_low_rank(i)
    }

    /// The prompts; none where tasks have no paths for them to condition.
    pub fn prompts(&self) -> Prompts {
        self.task_paths.prompts()
    }

    /// Checks every field once, for a backbone; nothing after it checks again.
    ///
    /// ```
    /// use tadformer::{SwinConfig, tad::Method};
    /// Method::tadformer(16).check(&SwinConfig::tiny())?;
    /// let none = Method::tadformer(0).check(&SwinConfig::tiny());
    /// assert!(none.unwrap_err().to_string().starts_with("`rank`"));
    /// # Ok::<(), tadformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// The first field that cannot work, with the cure.
    pub fn check(&self, swin: &SwinConfig) -> Result<()> {
        self.linears.check(swin)?;
        self.task_paths.check(self.linears.is_on_task_paths())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(method: &Method) -> String {
        method.check(&SwinConfig::tiny()).unwrap_err().to_string()
    }

    #[test]
    fn each_bad_field_is_named_with_a_cure() {
        let paper = || Method::tadformer(16);
        let low_rank = |low_rank: LowRank| paper().linears(low_rank);
        let paths = |paths: PerTask| paper().task_paths(paths);
        for (start, method) in [
            ("`rank`: expected at least 1", paper().rank(0)),
            ("`rank`: expected one value, or one for each of 4 stages", low_rank(LowRank::new(8).ranks([8, 8]))),
            ("`rank`: expected one value", low_rank(LowRank::new(8).ranks([]))),
            ("`rank`: expected at most 768, the channels of stage 3, got 5000", paper().rank(5000)),
            ("`rank`: expected at most 96, the channels of stage 0", low_rank(LowRank::new(8).ranks([97, 8, 8, 8]))),
            ("`linears.on`: expected at least one linear", low_rank(LowRank::new(8).on([]))),
            ("`dropout`", low_rank(LowRank::new(8).dropout(1.0))),
            ("`filter.kernel`", paths(PerTask::default().filter(TaskFilterKind::Dynamic { kernel: 4 }))),
            ("`filter.kernel`", paths(PerTask::default().filter(TaskFilterKind::Static { kernel: 1 }))),
            ("`prompts.per_task`: expected 1 to 512", paths(PerTask::default().prompts(Prompts::learned(0)))),
            ("`prompts.per_task`: expected 1 to 512", paths(PerTask::default().prompts(Prompts::learned(513)))),
        ] {
            let message = refusal(&method);
            assert!(message.starts_with(start), "{message}");
        }
        for scale in [0.0, f64::INFINITY, f64::NAN, 1e308, -1e5, 1e-320] {
            let message = refusal(&low_rank(LowRank::new(8).scale(scale)));
            assert!(message.starts_with("`scale`: expected a number from 0.0001 to 10000.0"), "{message}");
        }
        for method in [Method::none(), Method::low_rank(4), low_rank(LowRank::new(8).ranks([96, 192, 384, 768]))] {
            method.check(&SwinConfig::tiny()).unwrap();
        }
    }

    #[test]
    fn task_paths_that_no_adapted_linear_lies_on_have_no_filter_and_need_prompts() {
        let unfiltered = || PerTask::default().filter(TaskFilterKind::None);
        for linears in [LinearAdapter::None, LowRank::new(8).on([AdaptedLinear::Qkv]).into()] {
            let method = |paths: PerTask| Method::none().linears(linears.clone()).task_paths(paths);
            assert!(refusal(&method(PerTask::default())).starts_with("`filter`: expected none"));
            assert!(refusal(&method(unfiltered().prompts(Prompts::None))).starts_with("`task_paths`: expected shared"));
            method(unfiltered()).check(&SwinConfig::tiny()).unwrap();
        }
    }

    #[test]
    fn a_method_survives_json() {
        let gates = [
            Gate::Learned { reading: crate::ops::TpcReading::Swapped },
            Gate::Average { reading: crate::ops::TpcReading::Positions },
            Gate::None,
        ];
        let prompts = gates.map(|gate| Prompts::Learned { per_task: 2, gate });
        let filters =
            [TaskFilterKind::Static { kernel: 5 }, TaskFilterKind::Dynamic { kernel: 3 }, TaskFilterKind::None];
        let paths = filters.into_iter().zip(prompts).map(|(filter, prompts)| PerTask { filter, prompts });
        let methods = paths.map(|paths| Method::tadformer(2).task_paths(paths));
        let ranks = Method::none().linears(LowRank::new(4).ranks([1, 2, 3, 4]).on([AdaptedLinear::Fc2]));
        let bare = Method::tadformer(2).task_paths(PerTask::default().prompts(Prompts::None));
        for method in methods.chain([ranks, bare, Method::none()]) {
            let json = serde_json::to_string(&method).unwrap();
            assert_eq!(serde_json::from_str::<Method>(&json).unwrap(), method, "{json}");
        }
    }

    /// Every object of a document, by its place.
    fn objects(value: &serde_json::Value, place: &str, found: &mut Vec<String>) {
        let Some(fields) = value.as_object() else { return };
        found.push(place.to_owned());
        fields.iter().for_each(|(key, value)| objects(value, &format!("{place}/{key}"), found));
    }

    #[test]
    fn fields_that_a_kind_does_not_have_are_refused_and_those_it_has_must_be_there() {
        let plain = PerTask { filter: TaskFilterKind::None, prompts: Prompts::None };
        let ungated = PerTask::default().prompts(Prompts::Learned { per_task: 1, gate: Gate::None });
        let methods = [
            Method::default(),
            Method::none(),
            Method::tadformer(2).task_paths(plain),
            Method::tadformer(2).task_paths(ungated),
        ];
        for method in methods {
            let whole = serde_json::to_value(&method).unwrap();
            let mut places = Vec::new();
            objects(&whole, "", &mut places);
            for place in places {
                let mut changed = whole.clone();
                let fields = changed.pointer_mut(&place).unwrap().as_object_mut().unwrap();
                fields.insert("other".into(), 1.into());
                let message = serde_json::from_value::<Method>(changed).unwrap_err().to_string();
                assert!(message.contains("unknown field `other`"), "{place}: {message}");
                for key in whole.pointer(&place).unwrap().as_object().unwrap().keys() {
                    let mut changed = whole.clone();
                    changed.pointer_mut(&place).unwrap().as_object_mut().unwrap().remove(key);
                    let message = serde_json::from_value::<Method>(changed).unwrap_err().to_string();
                    assert!(message.contains(&format!("missing field `{key}`")), "{place}: {message}");
                }
            }
        }
    }
}
