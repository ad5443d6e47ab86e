//! What the tensors of the released code tell of its tasks, adapters and decoders.

use super::config::ReleasedConfig;
use crate::checkpoint::Checkpoint;
use crate::heads::HrNetConfig;
use crate::swin::SwinConfig;
use crate::tad::{AdaptedLinear, Gate, LinearAdapter, LowRank, Method, PerTask, Prompts, TaskFilterKind, TpcReading};
use crate::task::{Task, TaskSet};
use crate::{Error, Result};
use std::path::Path;

/// The linears of a block under timm's names.
const LINEARS: [(AdaptedLinear, &str); 4] = [
    (AdaptedLinear::Qkv, "attn.qkv"),
    (AdaptedLinear::Proj, "attn.proj"),
    (AdaptedLinear::Fc1, "mlp.fc1"),
    (AdaptedLinear::Fc2, "mlp.fc2"),
];

/// Whether the order of the tasks shows in the weights.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum Order {
    /// Each task has its rows of the prompts.
    Matters,
    /// Every weight of a task goes by its name.
    Free,
}

/// The tasks that are decoded: those given, else in the config's order.
pub(in crate::model) fn tasks(
    tensors: &Checkpoint,
    config: &ReleasedConfig,
    given: Option<&TaskSet>,
    order: Order,
) -> Result<TaskSet> {
    let path = tensors.path();
    let outputs = |name: &str| tensors.shape(&format!("heads.{name}.output.weight"))?.first().copied();
    let named = |name: &str| name.strip_prefix("heads.")?.strip_suffix(".output.weight").map(str::to_owned);
    let decoded: Vec<String> = tensors.names().filter_map(named).collect();
    if decoded.is_empty() {
        let cure = "give a whole model of the released code; a backbone alone is given with `pretrained`";
        return Err(Error::file(path, "no decoder as HRNet's, `decoders.decoders.TASK.last_layer`", cure));
    }
    let said = &config.tasks;
    let names: Vec<String> = match given {
        Some(given) => given.iter().map(|task| task.name.clone()).collect(),
        None if !said.is_empty() => said.clone(),
        None if order == Order::Free || decoded.len() == 1 => decoded.clone(),
        None => {
            let problem = format!("no configuration tells the order of its tasks, {}", decoded.join(", "));
            let cure = "give the tasks in the order of training, such as semseg=21,normals=3";
            return Err(Error::file(path, problem, cure));
        }
    };
    let same = |a: &[String]| {
        let (mut a, mut b) = (a.to_vec(), decoded.clone());
        a.sort();
        b.sort();
        a == b
    };
    if !same(&names) || given.is_some() && order == Order::Matters && !said.is_empty() && *said != names {
        let expected = if said.is_empty() { &decoded } else { said }.join(", ");
        return Err(Error::config("tasks", expected, names.join(", "), "name the tasks of the file in its order"));
    }
    let task = |name: &String| match given.and_then(|given| given.get(name)) {
        Some(task) if Some(task.outputs) != outputs(name) => {
            let expected = format!("{} outputs", outputs(name).unwrap_or_default());
            Err(Error::config(format!("task {name}"), expected, task.outputs, "the decoder in the file has as many"))
        }
        Some(task) => Ok(task.clone()),
        None => Ok(Task { name: name.clone(), kind: name.parse()?, outputs: outputs(name).unwrap_or_default() }),
    };
    TaskSet::new(names.iter().map(task).collect::<Result<_>>()?)
}

/// The channels to which the first task's stages are projected.
pub(in crate::model) fn head(tensors: &Checkpoint, tasks: &TaskSet, stages: usize) -> Result<HrNetConfig> {
    let task = tasks.iter().next().map_or("", |task| task.name.as_str());
    let channels = |i| tensors.shape(&format!("heads.{task}.projections.{i}.weight"))?.first().copied();
    let missing = || {
        let problem = format!("no projections of each stage for the task {task}, `downsampler.{task}.downsample_I`");
        Error::file(tensors.path(), problem, "only MODEL.PER_TASK_DOWNSAMPLER is built here")
    };
    Ok(HrNetConfig::new((0..stages).map(channels).collect::<Option<Vec<_>>>().ok_or_else(missing)?))
}

/// Prompts, low-rank paths and filters.
pub(in crate::model) fn method(
    tensors: &Checkpoint,
    swin: &SwinConfig,
    config: &ReleasedConfig,
    tasks: usize,
) -> Result<Method> {
    let rows = tensors.shape("prompts.table").and_then(|shape| shape.first().copied()).unwrap_or_default();
    if !rows.is_multiple_of(tasks) {
        return Err(no_multiple(tensors.path(), rows, tasks));
    }
    let linears = linears(tensors, swin, config);
    let filter = filter(tensors, swin, linears.as_ref().map_or(1, |low_rank| low_rank.stage_rank(0)));
    let prompts = Prompts::Learned { per_task: rows / tasks, gate: gate(tensors, config, filter) };
    let paths = PerTask::default().filter(filter).prompts(prompts);
    Ok(Method::none().linears(linears.map_or(LinearAdapter::None, LinearAdapter::LowRank)).task_paths(paths))
}

/// The low-rank paths that stand in the first block of each stage.
fn linears(tensors: &Checkpoint, swin: &SwinConfig, config: &ReleasedConfig) -> Option<LowRank> {
    let low_rank = |i: usize, place: &str| tensors.shape(&format!("layers.{i}.blocks.0.{place}.low_rank.a"));
    let adapted: Vec<_> = LINEARS.into_iter().filter(|(_, place)| low_rank(0, place).is_some()).collect();
    let rank_of = |i| adapted.iter().find_map(|(_, place)| low_rank(i, place)?.first().copied());
    let ranks: Vec<usize> = (0..swin.stages()).filter_map(rank_of).collect();
    let first = *ranks.first()?;
    let ranks = if ranks.iter().all(|rank| *rank == first) { vec![first] } else { ranks };
    let on = adapted.into_iter().map(|(linear, _)| linear);
    Some(LowRank::new(first).ranks(ranks).on(on).scale(config.scale()).dropout(config.dropout()))
}

/// How the stages mix the TPC feature in. The code that has the paper's filter is the corrected one.
fn gate(tensors: &Checkpoint, config: &ReleasedConfig, filter: TaskFilterKind) -> Gate {
    let corrected = matches!(filter, TaskFilterKind::Dynamic { .. });
    let reading = if corrected { TpcReading::Positions } else { TpcReading::Swapped };
    match tensors.shape("layers.0.gate") {
        _ if !config.mixes() => Gate::None,
        Some(_) if config.gates() => Gate::Learned { reading },
        _ => Gate::Average { reading },
    }
}

fn no_multiple(path: &Path, rows: usize, tasks: usize) -> Error {
    let problem = format!("{rows} prompts, which are no multiple of its {tasks} tasks");
    Error::file(path, problem, "the file is damaged or of another model")
}

/// The task filter of the first stage's last block.
fn filter(tensors: &Checkpoint, swin: &SwinConfig, rank: usize) -> TaskFilterKind {
    let block = format!("layers.0.blocks.{}.", swin.depths.first().map_or(0, |depth| depth.saturating_sub(1)));
    let weight = |name: &str| {
        let (_, filter) = name.strip_prefix(&block)?.split_once(".filter.")?;
        filter.ends_with("weight").then_some(filter == "conv.weight")
    };
    let found = tensors.names().find_map(|name| Some((weight(name)?, tensors.shape(name)?)));
    match found {
        Some((true, shape)) => {
            let taps = shape.first().map_or(0, |taps| taps / rank.max(1));
            TaskFilterKind::Dynamic { kernel: taps.isqrt() }
        }
        Some((false, shape)) => TaskFilterKind::Static { kernel: shape.last().copied().unwrap_or_default() },
        None => TaskFilterKind::None,
    }
}
