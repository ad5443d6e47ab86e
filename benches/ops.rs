//! Each step by its fused kernel and by candle's primitives, forward and backward, at the sizes of two stages of Swin-T at 224
//! with four tasks: `op/path/pass/parameters`.
#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Result, Tensor, Var};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use tadformer::TaskKind;
use tadformer::loss::task_loss;
use tadformer::ops::{
    self, AttentionHalf, BatchNorm, Conv1x1, Definition, FeatureMap, LayerNorm, LowRankMap, LowRankPath, MlpHalf,
    MomentsOf, MultiScaleHead, TaskCondition, TaskPath, TpcReading, WindowGrid,
};
use tadformer::params::{Group, Ledger};
use tadformer::train::{AdamW, AdamWConfig, Gradients};

const TASKS: usize = 4;
const WINDOW: usize = 7;
const N: usize = WINDOW * WINDOW;
const IMAGE: usize = 224;

/// A stage's sizes.
#[derive(Clone, Copy)]
struct Stage {
    index: usize,
    side: usize,
    channels: usize,
    heads: usize,
    rank: usize,
}

const STAGES: [Stage; 2] = [
    Stage { index: 0, side: 56, channels: 96, heads: 3, rank: 64 },
    Stage { index: 2, side: 14, channels: 384, heads: 12, rank: 64 },
];

impl Stage {
    fn id(self) -> String {
        format!("stage{}_rank{}", self.index, self.rank)
    }

    fn tokens(self) -> usize {
        self.side * self.side
    }

    fn windows(self) -> usize {
        self.tokens() / N
    }

    fn hidden(self) -> usize {
        4 * self.channels
    }
}

fn normal(dims: &[usize]) -> Tensor {
    Tensor::randn(0f32, 0.5, dims, &Device::Cpu).unwrap()
}

/// A decoder's steps after projection, for maps of 18 and 36 channels and 21 outputs, in training.
fn decoder() -> MultiScaleHead {
    let conv = |n_in: usize, n_out: usize| Conv1x1 { weight: normal(&[n_out, n_in]), bias: normal(&[n_out]) };
    let norm = BatchNorm { weight: normal(&[216]), bias: normal(&[216]), moments: MomentsOf::Batch, eps: 1e-5 };
    MultiScaleHead { maps: Vec::new(), hidden: conv(54, 216), norm, dropped: None, output: conv(216, 21) }
}

/// A step with the inputs that get gradients.
struct Case {
    op: &'static str,
    inputs: Vec<Tensor>,
    forward: Step,
}

type Step = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// A step on inputs of these shapes.
fn case(op: &'static str, shapes: &[&[usize]], forward: impl Fn(&[Tensor]) -> Result<Tensor> + 'static) -> Case {
    Case { op, inputs: shapes.iter().map(|dims| normal(dims)).collect(), forward: Box::new(forward) }
}

fn path(a: &Tensor, b: &Tensor) -> LowRankPath {
    LowRankPath { a: a.clone(), b: b.clone(), scale: 4.0, dropout: None }
}

/// A linear map whose path trains.
fn task_path(a: &Tensor, b: &Tensor) -> TaskPath {
    TaskPath { a: a.clone().into(), b: b.clone().into(), scale: 4.0 }
}

fn map(weight: &Tensor, a: &Tensor, b: &Tensor) -> LowRankMap {
    LowRankMap { weight: weight.clone(), bias: None, path: Some(path(a, b)) }
}

fn norm(c: usize) -> LayerNorm {
    LayerNorm::new(normal(&[c]), normal(&[c]))
}

/// The steps that a plain backbone has as well.
fn shared(s: Stage) -> Vec<Case> {
    let Stage { channels: c, heads, rank: r, side, .. } = s;
    let (n, windows, hidden) = (s.tokens(), s.windows(), s.hidden());
    let [up, qkv, proj, down] = [[hidden, c], [3 * c, c], [c, c], [c, hidden]].map(|dims| normal(&dims));
    let (frozen, half_norm, mlp_norm) = (up.clone(), norm(c), norm(c));
    let grid = WindowGrid::new((side, side), WINDOW, false).unwrap();
    vec![
        case("layer-norm", &[&[TASKS, n, c], &[c], &[c]], |v| {
            LayerNorm::new(v[1].clone(), v[2].clone()).forward(&v[0])
        }),
        case("gelu", &[&[1, n, hidden]], |v| ops::gelu(&v[0])),
        case("frozen-linear", &[&[1, n, c]], move |v| ops::linear(&v[0], &frozen, None)),
        case("window-attention", &[&[windows, TASKS + N, 3 * c], &[heads, N, N]], |v| {
            Ok(ops::window_attention(&v[0], &v[1], None)?.tokens)
        }),
        case(
            "attention-half",
            &[&[1, n, c], &[1, TASKS, c], &[heads, N, N], &[r, c], &[3 * c, r], &[r, c], &[c, r]],
            move |v| {
                let half = AttentionHalf {
                    patches: v[0].clone(),
                    prompts: Some(v[1].clone()),
                    grid,
                    norm: half_norm.clone(),
                    qkv: map(&qkv, &v[3], &v[4]),
                    bias: v[2].clone(),
                    mask: None,
                    proj: map(&proj, &v[5], &v[6]),
                    drop_path: None,
                };
                Ok(half.forward()?.patches)
            },
        ),
        case("mlp-half", &[&[1, n, c], &[r, c], &[hidden, r], &[r, hidden], &[c, r]], move |v| {
            let (fc1, fc2) = (map(&up, &v[1], &v[2]), map(&down, &v[3], &v[4]));
            let half = MlpHalf { x: v[0].clone(), norm: mlp_norm.clone(), fc1, fc2, drop_path: None };
            half.forward()
        }),
    ]
}

/// The steps that work on every task's tokens, and the decoders'.
fn of_tasks(s: Stage) -> Vec<Case> {
    let Stage { channels: c, heads, rank: r, side, .. } = s;
    let (n, windows, hidden) = (s.tokens(), s.windows(), s.hidden());
    let (tokens, thin): ([usize; 3], [usize; 3]) = ([TASKS, n, c], [TASKS, n, r]);
    let grid = WindowGrid::new((side, side), WINDOW, false).unwrap();
    let (down_norm, conditioned_norm, merged_norm, decoder) = (norm(c), norm(c), norm(4 * c), decoder());
    let condition = |attended: &Tensor, scores: &Tensor| TaskCondition {
        attended: attended.clone(),
        scores: scores.clone(),
        tasks: TASKS,
    };
    vec![
        case("norm-down", &[&tokens, &[r, c]], move |v| ops::norm_down(&v[0], &down_norm, &v[1].clone().into())),
        case("conditioned-down", &[&[windows, N, c], &[windows, heads, TASKS, N], &[r, c]], move |v| {
            ops::conditioned_down(&condition(&v[0], &v[1]), &conditioned_norm, &v[2].clone().into())
        }),
        case(
            "task-projection",
            &[&[1, n, c], &[windows, N, c], &[TASKS * windows, N, r], &[r, c], &[c, r]],
            move |v| ops::task_projection(&v[0], &v[1], &v[2], &task_path(&v[3], &v[4]), &grid, None),
        ),
        case("task-hidden", &[&[1, n, hidden], &thin, &[r, c], &[hidden, r], &[r, hidden], &[c, r]], |v| {
            ops::task_hidden(&v[0], &v[1], &task_path(&v[2], &v[3]), &task_path(&v[4], &v[5]))
        }),
        case("task-update", &[&tokens, &[1, n, c], &thin, &[r, hidden], &[c, r]], |v| {
            ops::task_update(&v[0], &v[1], &v[2], &task_path(&v[3], &v[4]), None)
        }),
        case("task-mix", &[&tokens, &[windows, N, c], &[windows, heads, TASKS, N], &[1]], move |v| {
            let mixed = ops::task_mix(&v[0], &condition(&v[1], &v[2]), &v[3], &grid, TpcReading::Positions)?;
            Tensor::cat(&mixed, 0)
        }),
        case("merge-linear", &[&[1, n, c], &[2 * c, 4 * c]], move |v| {
            ops::merge_linear(&v[0], (side, side), &merged_norm, &v[1])
        }),
        case("depthwise-filter", &[&[TASKS, side, side, r], &[TASKS, 9, r]], |v| ops::depthwise_filter(&v[0], &v[1])),
        case("multi-scale-head", &[&[1, n, 18], &[1, n / 4, 36]], move |v| {
            let maps = vec![
                FeatureMap { tokens: v[0].clone(), size: (side, side) },
                FeatureMap { tokens: v[1].clone(), size: (side / 2, side / 2) },
            ];
            Ok(MultiScaleHead { maps, ..decoder.clone() }.forward()?.0)
        }),
        case("bilinear", &[&[1, 21, side, side]], |v| ops::bilinear(&v[0], (IMAGE, IMAGE))),
    ]
}

/// The losses at the size of an image.
fn losses() -> Vec<Case> {
    let label = |channels: usize| Tensor::zeros((1, channels, IMAGE, IMAGE), DType::F32, &Device::Cpu).unwrap();
    let loss = |op, kind, outputs: usize, label: Tensor| {
        case(op, &[&[1, outputs, IMAGE, IMAGE]], move |v| task_loss(kind, &v[0], &label))
    };
    vec![
        loss("cross-entropy", TaskKind::Semseg, 21, label(1)),
        loss("balanced-bce", TaskKind::Sal, 1, label(1)),
        loss("normals-l1", TaskKind::Normals, 3, label(3)),
        loss("l1", TaskKind::Depth, 1, label(1)),
    ]
}

fn both_ways(c: &mut Criterion, case: &Case, parameters: &str) {
    for definition in Definition::ALL {
        let mut group = c.benchmark_group(format!("{}/{}", case.op, definition.name()));
        group.sample_size(10);
        let forward = |inputs: &[Tensor]| definition.run(|| (case.forward)(inputs)).unwrap();
        group.bench_function(BenchmarkId::new("forward", parameters), |bench| {
            bench.iter(|| black_box(forward(&case.inputs)));
        });
        let vars: Vec<Var> = case.inputs.iter().map(|input| Var::from_tensor(input).unwrap()).collect();
        let tracked: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        group.bench_function(BenchmarkId::new("backward", parameters), |bench| {
            bench.iter_batched_ref(|| forward(&tracked), |y| y.backward().unwrap(), BatchSize::PerIteration);
        });
        group.finish();
    }
}

fn stages(c: &mut Criterion) {
    for stage in STAGES {
        let cases = shared(stage).into_iter().chain(of_tasks(stage));
        cases.for_each(|case| both_ways(c, &case, &stage.id()));
    }
}

fn images(c: &mut Criterion) {
    losses().iter().for_each(|case| both_ways(c, case, &format!("image{IMAGE}")));
}

/// What follows backward, on one weight.
fn updates(c: &mut Criterion) {
    for stage in STAGES {
        let ledger = Ledger::seeded(0, DType::F32, &Device::Cpu);
        let weight = ledger.builder(Group::Heads).get((stage.hidden(), stage.channels), "weight").unwrap();
        let store = weight.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let mut gradients = Gradients::of(&ledger, &store);
        let mut optimizer = AdamW::new(&ledger, AdamWConfig::default()).unwrap();
        let parameters = format!("weight{}x{}", stage.hidden(), stage.channels);
        for definition in Definition::ALL {
            let mut group = c.benchmark_group(format!("adamw-step/{}", definition.name()));
            group.bench_function(BenchmarkId::new("update", &parameters), |bench| {
                bench.iter(|| definition.run(|| optimizer.step(&gradients, 1e-4)).unwrap());
            });
            group.finish();
            let mut group = c.benchmark_group(format!("square-sum/{}", definition.name()));
            group.bench_function(BenchmarkId::new("update", &parameters), |bench| {
                bench.iter(|| definition.run(|| gradients.clip(f64::MAX, 0)).unwrap());
            });
            group.finish();
        }
    }
}

criterion_group!(benches, stages, images, updates);
criterion_main!(benches);
