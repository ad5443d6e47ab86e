//! The released transforms with given parameters, step by step. Errors are the largest differences, in grey levels for images, or
//! shares of values that are off, as each row says.

use super::golden::Golden;
use super::row::Row;
use crate::data::{Outside, Scale, Shrink, Transform, Transforms};
use crate::sample::{IGNORE, IMAGENET_MEAN, IMAGENET_STD};
use crate::{Result, Sample, TaskSet};
use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use std::collections::BTreeMap;

/// Grey levels by which a cubic may differ from OpenCV's, which computes in single precision; 1e-5 of a warp's are a sample's own
/// rounding, whose floats go from 0 to 1.
const WARPED: f64 = 3e-5;
const RESIZED: f64 = 2e-4;
/// Normals likewise; short vectors are stretched to length 1.
const NORMALS_WARPED: f64 = 2e-7;
const NORMALS_RESIZED: f64 = 6e-5;
const DEPTH: f64 = 2e-7;
/// What takes whole pixels is equal.
const EQUAL: f64 = 1e-9;
/// Shares of values: one grey level off, truncated at whole numbers; normals by more than 1e-4.
const TRUNCATED_OFF: f64 = 0.007;
const NORMALS_OFF: f64 = 0.002;

pub(super) fn compare(golden: &Golden) -> Result<Vec<Row>> {
    let cases: BTreeMap<String, BTreeMap<String, Vec<Value>>> = golden.json("cases")?;
    let mut rows = Vec::new();
    for (set, cases) in &cases {
        for (case, steps) in cases {
            rows.extend(Case { golden, set, name: case, steps }.compare()?);
        }
    }
    Ok(rows)
}

/// A sample and what became of it.
struct Case<'a> {
    golden: &'a Golden,
    set: &'a str,
    name: &'a str,
    steps: &'a [Value],
}

impl Case<'_> {
    fn compare(&self) -> Result<Vec<Row>> {
        let tasks: TaskSet = match self.set {
            "nyud" => "semseg=40,normals=3,edge=1,depth=1".parse()?,
            _ => "semseg=21,human_parts=7,sal=1,normals=3,edge=1".parse()?,
        };
        let transforms =
            Transforms::new(self.steps.iter().map(|step| self.step(step)).collect::<Result<Vec<_>>>()?.concat())?;
        let got = transforms.apply(self.sample(&tasks)?, &tasks, 0)?;
        let mut rows = if self.ends_with("finish") { self.finished_image(&got)? } else { vec![self.image(&got)?] };
        for (task, label) in &got.labels {
            rows.push(self.label(task, label)?);
        }
        Ok(rows)
    }

    /// A step of the file as the crate's: what is drawn at random there is given here.
    fn step(&self, step: &Value) -> Result<Vec<Transform>> {
        let number = |at: usize| step[at].as_f64().ok_or_else(|| self.golden.foreign("a step without its numbers"));
        Ok(match step[0].as_str() {
            Some("flip") => vec![Transform::Flip { probability: 1.0 }],
            Some("warp") => {
                let (degrees, scale) = (number(1)?, number(2)?);
                let scale = Scale::Between(scale, scale);
                vec![Transform::Warp { degrees: [degrees; 2], scale, outside: Outside::Zero }]
            }
            Some("resize") => {
                let (height, width) = (number(1)? as usize, number(2)? as usize);
                vec![Transform::Resize { height, width, shrink: Shrink::Sharp }]
            }
            Some("finish") => vec![Transform::IgnoreAbsentParts, Transform::Truncate],
            _ => return Err(self.golden.foreign(&format!("a step `{}` of no known name", step[0]))),
        })
    }

    fn ends_with(&self, name: &str) -> bool {
        self.steps.last().is_some_and(|step| step[0] == name)
    }

    fn contains(&self, name: &str) -> bool {
        self.steps.iter().any(|step| step[0] == name)
    }

    /// The tensor of a case, `[c, H, W]` f32; unknown normals and depths are zero before the last step, and [`IGNORE`] here.
    fn tensor(&self, case: &str, what: &str) -> Result<Tensor> {
        let stored = match what {
            "normals" | "depth" => DType::F32,
            "image" if case != "input" => DType::F32,
            _ => DType::U8,
        };
        let name = format!("{}.{case}.{what}", self.set);
        let map = self.golden.tensors.load(&name, stored, &Device::Cpu)?.to_dtype(DType::F32)?;
        let map = match map.dims() {
            [_, _] => map.unsqueeze(0)?,
            [_, _, 3] => map.permute((2, 0, 1))?,
            _ => map,
        };
        if !matches!(what, "normals" | "depth") {
            return Ok(map.contiguous()?);
        }
        let unknown = map.abs()?.sum_keepdim(0)?.eq(0.0)?.broadcast_as(map.shape())?;
        Ok(unknown.where_cond(&(map.ones_like()? * f64::from(IGNORE))?, &map)?.contiguous()?)
    }

    fn sample(&self, tasks: &TaskSet) -> Result<Sample> {
        let label = |name: &str| -> Result<(String, Tensor)> {
            let dtype = if matches!(name, "normals" | "depth") { DType::F32 } else { DType::U8 };
            Ok((name.to_owned(), self.tensor("input", name)?.to_dtype(dtype)?))
        };
        let labels = tasks.iter().map(|task| label(task.name())).collect::<Result<Vec<_>>>()?;
        Sample::new(self.tensor("input", "image")?.to_dtype(DType::U8)?, labels)
    }

    /// An image between two steps, on a scale of 0 to 255; beyond it a sample holds nothing.
    fn image(&self, got: &Sample) -> Result<Row> {
        let want = self.tensor(self.name, "image")?.clamp(0.0, 255.0)?;
        let got = (got.float_image()?.to_dtype(DType::F64)? * 255.0)?;
        let limit = if self.contains("resize") { RESIZED } else { WARPED };
        Ok(self.row("image", largest(&differences(&got, &want)?), limit))
    }

    /// A normalised image; values that the released code wraps round are left out.
    fn finished_image(&self, got: &Sample) -> Result<Vec<Row>> {
        let want = self.tensor(self.name, "image")?.to_dtype(DType::F64)?;
        let channel = |values: [f32; 3]| -> Result<Tensor> {
            Ok(Tensor::new(&values, want.device())?.to_dtype(DType::F64)?.reshape((3, 1, 1))?)
        };
        let (mean, std) = (channel(IMAGENET_MEAN)?, channel(IMAGENET_STD)?);
        let want = (want.broadcast_mul(&std)?.broadcast_add(&mean)? * 255.0)?;
        let off = differences(&(got.float_image()? * 255.0)?, &want)?;
        let wrapped = self.tensor(self.name, "wrapped")?.flatten_all()?.to_vec1::<f32>()?;
        let off: Vec<f64> =
            off.into_iter().zip(wrapped).filter(|(_, wrapped)| *wrapped == 0.0).map(|(off, _)| off).collect();
        Ok(vec![
            self.row("image, share of values off", share(&off, 1e-4), TRUNCATED_OFF),
            self.row("image", largest(&off), 1.0001),
        ])
    }

    fn label(&self, task: &str, got: &Tensor) -> Result<Row> {
        let off = differences(got, &self.tensor(self.name, task)?)?;
        Ok(match task {
            // Cases of several steps stretch what the first left short, whatever its direction.
            "normals" if self.steps.len() > 2 => {
                self.row("normals, share of values off", share(&off, 1e-4), NORMALS_OFF)
            }
            "normals" if self.contains("resize") => self.row(task, largest(&off), NORMALS_RESIZED),
            "normals" => self.row(task, largest(&off), NORMALS_WARPED),
            "depth" => self.row(task, largest(&off), DEPTH),
            _ => self.row(task, largest(&off), EQUAL),
        })
    }

    fn row(&self, what: &str, error: f64, limit: f64) -> Row {
        Row { name: format!("{}.{}.{what}", self.set, self.name), error, torch: None, limit }
    }
}

/// Infinite for another shape.
fn differences(got: &Tensor, want: &Tensor) -> Result<Vec<f64>> {
    if got.dims() != want.dims() {
        return Ok(vec![f64::INFINITY]);
    }
    let off = (got.to_dtype(DType::F64)? - want.to_dtype(DType::F64)?)?.abs()?;
    Ok(off.flatten_all()?.to_vec1()?)
}

fn largest(off: &[f64]) -> f64 {
    off.iter().copied().fold(0.0, f64::max)
}

fn share(off: &[f64], by: f64) -> f64 {
    off.iter().filter(|off| **off > by).count() as f64 / off.len() as f64
}
