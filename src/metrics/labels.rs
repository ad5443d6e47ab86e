//! Maps read from tensors once, and checked before anything is counted.

use crate::sample::IGNORE;
use crate::task::Task;
use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// The values of a map of this shape.
pub(super) fn read(what: String, map: &Tensor, dims: [usize; 4]) -> Result<Vec<f32>> {
    if map.dims() != dims {
        return Err(Error::Shape { what, expected: format!("{dims:?}"), got: map.dims().into() });
    }
    Ok(map.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

/// The values of a task's label of `[B, H, W]`: whole classes, or numbers, or [`IGNORE`].
pub(super) fn read_label(task: &Task, label: &Tensor, [b, h, w]: [usize; 3]) -> Result<Vec<f32>> {
    let what = format!("label of {}", task.name);
    let values = read(what.clone(), label, [b, task.kind.label_channels(), h, w])?;
    let classes = task.kind.is_classes();
    let fits = |v: f32| if classes { v >= 0.0 && v < task.outputs as f32 && v.fract() == 0.0 } else { v.is_finite() };
    let Some(wrong) = values.iter().find(|v| **v != IGNORE && !fits(**v)) else { return Ok(values) };
    let expected =
        if classes { format!("classes 0 to {} or 255", task.outputs - 1) } else { "numbers or 255".to_owned() };
    Err(Error::config(what, expected, wrong, "mark pixels of which nothing is known 255"))
}
