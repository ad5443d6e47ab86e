//! A whole model beside the reference's stages, outputs and gradients.

use super::golden::{Golden, output_row, relative_error, rms};
use super::row::{GRADIENT_LIMIT, Row};
use crate::heads::HrNetConfig;
use crate::layers::{Mode, TrainingPass};
use crate::model::{Outputs, TADFormer, TADFormerBuilder, TADFormerConfig};
use crate::swin::{SwinConfig, names};
use crate::tad::{Gate, LowRank, Method, PerTask, Prompts, TaskFilterKind, TpcReading};
use crate::{Result, Task, TaskSet};
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use std::collections::HashMap;

/// The reference's own configuration.
#[derive(Deserialize)]
struct ReferenceConfig {
    #[serde(deserialize_with = "in_order")]
    tasks: Vec<(String, usize)>,
    image_size: usize,
    patch_size: usize,
    embed_dim: usize,
    depths: Vec<usize>,
    num_heads: Vec<usize>,
    window: usize,
    mlp_ratio: f64,
    rank: usize,
    scale: f64,
    prompts_per_task: usize,
    dtf_kernel: usize,
    decoder_channels: Vec<usize>,
}

pub(super) fn compare(golden: &Golden, dtype: DType) -> Result<Vec<Row>> {
    let model = build(golden, dtype)?;
    let images = golden.get("input")?.to_dtype(dtype)?;
    let torch: HashMap<String, f64> = match golden.tensors.metadata("torch_f32_error") {
        Some(_) => golden.json("torch_f32_error")?,
        None => HashMap::new(),
    };
    let mut rows = outputs(golden, "output", &model.forward(&images, Mode::Eval)?, &torch)?;
    rows.extend(stages(golden, &model, &images, &torch)?);
    if golden.under("grad.").next().is_some() {
        let trained = model.forward(&images, Mode::Train(&TrainingPass::seeded(0)))?;
        rows.extend(outputs(golden, "train.output", &trained, &torch)?);
        rows.extend(gradients(golden, &model, &trained, &torch)?);
    }
    Ok(rows)
}

/// The model of the file: every dropout off, so that training is as exact as evaluation.
fn build(golden: &Golden, dtype: DType) -> Result<TADFormer> {
    let reference: ReferenceConfig = golden.json("config")?;
    let tasks = reference.tasks.iter().map(|(name, outputs)| Task::new(name.parse()?, *outputs));
    let released = golden.tensors.metadata("variant").is_some_and(|variant| variant == "released");
    let kernel = reference.dtf_kernel;
    let (filter, reading) = if released {
        (TaskFilterKind::Static { kernel }, TpcReading::Swapped)
    } else {
        (TaskFilterKind::Dynamic { kernel }, TpcReading::Positions)
    };
    let prompts = Prompts::Learned { per_task: reference.prompts_per_task, gate: Gate::Learned { reading } };
    let swin = SwinConfig {
        image_size: reference.image_size,
        patch_size: reference.patch_size,
        embed_dim: reference.embed_dim,
        depths: reference.depths,
        num_heads: reference.num_heads,
        window: reference.window,
        mlp_ratio: reference.mlp_ratio,
        drop_path: 0.0,
    };
    let method = Method::none()
        .linears(LowRank::new(reference.rank).scale(reference.scale).dropout(0.0))
        .task_paths(PerTask::default().filter(filter).prompts(prompts));
    let head = HrNetConfig::new(reference.decoder_channels).into();
    let tasks = TaskSet::new(tasks.collect::<Result<_>>()?)?;
    let config = TADFormerConfig { method, tasks, head, ..TADFormerConfig::new(swin) };
    let model = TADFormerBuilder::from_config(config).dtype(dtype).build_on(golden.tensors.under("state."))?;
    let (_, checkpoint, _) = names::canonical(golden.tensors.under("state."))?;
    model.restore(&checkpoint)?;
    Ok(model)
}

fn outputs(golden: &Golden, kind: &str, outputs: &Outputs, torch: &HashMap<String, f64>) -> Result<Vec<Row>> {
    let row = |(task, got): (&Task, &Tensor)| {
        let name = format!("{kind}.{}", task.name);
        let want = golden.get(&name)?;
        let torch = torch.get(&name).copied();
        output_row(name, got, &want, torch)
    };
    outputs.iter().map(row).collect()
}

fn stages(golden: &Golden, model: &TADFormer, images: &Tensor, torch: &HashMap<String, f64>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (i, stage) in model.stages(images, Mode::Eval)?.iter().enumerate() {
        let mut add = |part: String, got: &Tensor| -> Result<()> {
            let name = format!("stage.{i}.{part}");
            if golden.tensors.shape(&name).is_some() {
                rows.push(output_row(name.clone(), got, &golden.get(&name)?, torch.get(&name).copied())?);
            }
            Ok(())
        };
        add("shared".into(), &stage.shared.tokens)?;
        if let Some(prompts) = &stage.prompts {
            add("prompts".into(), prompts)?;
        }
        for (t, task) in model.config().tasks.iter().enumerate() {
            add(format!("task.{}", task.name), &stage.task(t).features()?.tokens)?;
        }
    }
    Ok(rows)
}

/// Gradients of the sum over tasks of mean(output²). Some are zero but for rounding, so that an error is taken relative to no less
/// than a tenth of the largest gradient of the same block or head.
fn gradients(golden: &Golden, model: &TADFormer, outputs: &Outputs, torch: &HashMap<String, f64>) -> Result<Vec<Row>> {
    let losses = outputs.iter().map(|(_, output)| output.sqr()?.mean_all()).collect::<candle_core::Result<Vec<_>>>()?;
    let store = Tensor::stack(&losses, 0)?.sum_all()?.backward()?;
    let wanted = names::of_released(golden.tensors.under("grad."))?;
    let entries: HashMap<String, Tensor> =
        model.ledger().trained().into_iter().map(|entry| (entry.name.clone(), entry.tensor().clone())).collect();
    let group = |name: &str| name.split('.').take(6).collect::<Vec<_>>().join(".");
    let mut largest = HashMap::<String, f64>::new();
    for name in golden.tensors.names().filter(|name| name.starts_with("grad.")) {
        let of_group = largest.entry(group(name)).or_default();
        *of_group = of_group.max(rms(&golden.get(name)?)?);
    }
    let mut rows = Vec::new();
    for name in wanted.names() {
        let source = wanted.source(name).unwrap_or_default();
        let want = wanted.load(name, DType::F32, &Device::Cpu)?;
        let floor = 0.1 * largest.get(&group(source)).copied().unwrap_or_default();
        let error = match entries.get(name).and_then(|tensor| store.get(tensor)) {
            Some(got) => relative_error(got, &want, floor)?,
            None => f64::INFINITY,
        };
        let torch = torch.get(source).copied();
        let limit = GRADIENT_LIMIT.max(3.0 * torch.unwrap_or_default());
        rows.push(Row { name: source.to_owned(), error, torch, limit });
    }
    Ok(rows)
}

/// A JSON object in the order in which it is written: the tasks' order is the prompts'.
fn in_order<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<(String, usize)>, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(String, usize)>;

        fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            f.write_str("an object of tasks and outputs")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }
    deserializer.deserialize_map(Pairs)
}
