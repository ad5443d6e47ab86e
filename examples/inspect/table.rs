//! What is printed: gates and distances.

use candle_core::DType;
use std::fmt::Write;
use tadformer::tad::{FilterView, StageView};
use tadformer::{Result, TaskSet};

/// The gate of each stage.
pub fn gates(stages: &[StageView]) -> Result<String> {
    let gate = |(i, stage): (usize, &StageView)| match &stage.gate {
        Some(gate) => Ok(format!("stage {}: {:.3}", i + 1, gate.to_dtype(DType::F64)?.squeeze(0)?.to_scalar::<f64>()?)),
        None => Ok(format!("stage {}: none", i + 1)),
    };
    let gates = stages.iter().enumerate().map(gate).collect::<Result<Vec<_>>>()?.join(", ");
    Ok(format!("share of what the prompts look at in the tasks' maps (a gate starts at 0.5): {gates}"))
}

/// Between tasks, the mean over all filters of all stages; `None` without filters.
pub fn distances(stages: &[StageView]) -> Result<Option<Vec<Vec<f64>>>> {
    let filters: Vec<&FilterView> = stages.iter().flat_map(|stage| &stage.filters).collect();
    mean(&filters)
}

fn mean(filters: &[&FilterView]) -> Result<Option<Vec<Vec<f64>>>> {
    let all =
        filters.iter().map(|filter| filter.distances()?.to_vec2::<f64>()).collect::<candle_core::Result<Vec<_>>>()?;
    let Some(tasks) = all.first().map(Vec::len) else { return Ok(None) };
    let mean = |a: usize, b: usize| all.iter().map(|one| one[a][b]).sum::<f64>() / all.len() as f64;
    Ok(Some((0..tasks).map(|a| (0..tasks).map(|b| mean(a, b)).collect()).collect()))
}

/// The distances under and beside the tasks' names.
pub fn matrix(distances: &[Vec<f64>], tasks: &TaskSet) -> String {
    let mut text = format!("{:<14}", "1000 x");
    tasks.iter().for_each(|task| text += &format!("{:>13}", task.name()));
    for (task, row) in tasks.iter().zip(distances) {
        let _ = write!(text, "\n{:<14}", task.name());
        row.iter().for_each(|distance| text += &format!("{:>13.2}", 1000.0 * distance));
    }
    text + "\n(distance: 1 - cosine between two tasks' filters; 0 the same direction, 1 nothing in common, 2 opposite)\n"
}

/// Each linear's mean distance between two different tasks.
pub fn by_stage(stages: &[StageView]) -> Result<String> {
    let mut text = String::new();
    for (i, stage) in stages.iter().enumerate() {
        let _ = write!(text, "\nstage {}:", i + 1);
        for filter in &stage.filters {
            let distances = filter.distances()?.to_vec2::<f64>()?;
            let pairs = (distances.len() * (distances.len() - 1)).max(1) as f64;
            let _ = write!(
                text,
                "  {} {:.2}",
                filter.linear.name(),
                1000.0 * distances.iter().flatten().sum::<f64>() / pairs
            );
        }
    }
    Ok(format!("1000 x mean distance between two tasks, by stage and linear:{text}"))
}
