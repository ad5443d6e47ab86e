//! The task-adapting block beside the plain one, at the stages of Swin-T at 224 with four tasks: `op/path/pass/parameters`.
#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Result, Tensor, Var};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use tadformer::layers::{LayerNorm, Mode, TrainingPass};
use tadformer::ops::Definition;
use tadformer::params::{Group, Ledger, Release, Weights};
use tadformer::swin::{BlockLowRank, StagePlan, SwinBlock, Tokens};
use tadformer::tad::{LowRank, Method, PerTask};
use tadformer::{SwinConfig, TADBlock, TaskSet};

const IMAGE: usize = 224;
const RANK: usize = 64;

fn swin() -> SwinConfig {
    SwinConfig { image_size: IMAGE, drop_path: 0.0, ..SwinConfig::tiny() }
}

fn weights() -> (Weights, Ledger) {
    let weights = Weights::random(0, DType::F32, &Device::Cpu).with_release(Release::tadformer());
    let ledger = weights.ledger().clone();
    (weights, ledger)
}

/// Tokens of a stage that lead to variables, so that backward goes down to them.
fn tokens(stage: usize, prompts: Option<usize>) -> Tokens {
    let (side, c) = ((IMAGE / 4) >> stage, swin().channels(stage));
    let normal = |n: usize| Var::randn(0f32, 1.0, (1, n, c), &Device::Cpu).unwrap().as_tensor().clone();
    Tokens { patches: normal(side * side), prompts: prompts.map(normal), size: (side, side) }
}

fn plain(stage: usize) -> SwinBlock {
    let swin = swin();
    let plan = StagePlan::new(&swin, stage, BlockLowRank::default()).unwrap();
    SwinBlock::new(plan.block(plan.depth() - 1).unwrap(), &weights().0).unwrap()
}

fn adapting(stage: usize, tasks: &TaskSet) -> TADBlock {
    let (swin, method) = (swin(), Method::none().linears(LowRank::new(RANK).dropout(0.0)));
    let plan = StagePlan::new(&swin, stage, method.block_low_rank(stage)).unwrap();
    let (weights, ledger) = weights();
    let (vb, c) = (ledger.builder(Group::PromptNorms), swin.channels(stage));
    let norm = LayerNorm::new(vb.get(c, "weight").unwrap(), vb.get(c, "bias").unwrap());
    TADBlock::new(plan.block(plan.depth() - 1).unwrap(), &PerTask::default(), tasks, Some(norm), &weights).unwrap()
}

/// Times a block that gives these tensors, in evaluation and with the backward pass of their sum.
fn both(c: &mut Criterion, op: &str, parameters: &str, block: impl Fn(Mode) -> Result<Vec<Tensor>>) {
    for definition in Definition::ALL {
        let mut group = c.benchmark_group(format!("{op}/{}", definition.name()));
        group.sample_size(10);
        group.bench_function(BenchmarkId::new("forward", parameters), |bench| {
            bench.iter(|| black_box(definition.run(|| block(Mode::Eval)).unwrap()));
        });
        let pass = TrainingPass::seeded(0);
        let step = || -> Result<_> {
            let sums = block(Mode::Train(&pass))?.iter().map(Tensor::sum_all).collect::<Result<Vec<_>>>()?;
            Tensor::stack(&sums, 0)?.sum_all()?.backward()
        };
        group.bench_function(BenchmarkId::new("forward-and-backward", parameters), |bench| {
            bench.iter(|| definition.run(step).unwrap());
        });
        group.finish();
    }
}

fn blocks(c: &mut Criterion) {
    let tasks: TaskSet = "semseg=21,human_parts=7,sal=1,normals=3".parse().unwrap();
    for stage in 0..swin().stages() {
        let (block, x) = (plain(stage), tokens(stage, None));
        both(c, "swin-block", &format!("stage{stage}"), |mode| Ok(vec![block.forward(&x, mode)?.patches]));
        let (block, x) = (adapting(stage, &tasks), tokens(stage, Some(tasks.len())));
        both(c, "tad-block", &format!("stage{stage}_rank{RANK}"), |mode| {
            let (shared, task) = block.forward(&x, mode)?;
            Ok([Some(shared.patches), shared.prompts, Some(task.tokens)].into_iter().flatten().collect())
        });
    }
}

criterion_group!(benches, blocks);
criterion_main!(benches);
