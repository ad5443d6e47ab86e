//! The whole model: inference, and a training step with AdamW, of four tasks on Swin-T: `op/path/pass/parameters`.
#![allow(clippy::unwrap_used)]

use candle_core::{Device, Result, Tensor};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use tadformer::layers::{Mode, TrainingPass};
use tadformer::train::{AdamW, AdamWConfig, Gradients};
use tadformer::{SwinConfig, TADFormer};

fn model(rank: usize, image: usize) -> TADFormer {
    TADFormer::builder(SwinConfig { image_size: image, ..SwinConfig::tiny() }).rank(rank).build().unwrap()
}

fn step(model: &TADFormer, optimizer: &mut AdamW, images: &Tensor) -> tadformer::Result<()> {
    let outputs = model.forward(images, Mode::Train(&TrainingPass::seeded(0)))?;
    let losses = outputs.iter().map(|(_, output)| output.sqr()?.mean_all()).collect::<Result<Vec<_>>>()?;
    let store = Tensor::stack(&losses, 0)?.sum_all()?.backward()?;
    optimizer.step(&Gradients::of(model.ledger(), &store), 1e-4)
}

fn swin_t(c: &mut Criterion) {
    let mut group = c.benchmark_group("swin-t/fused");
    group.sample_size(10);
    for (rank, image) in [(16, 224), (64, 224), (16, 448), (64, 448)] {
        let model = model(rank, image);
        let images = Tensor::randn(0f32, 1.0, (1, 3, image, image), &Device::Cpu).unwrap();
        let parameters = format!("rank{rank}_image{image}");
        group.bench_function(BenchmarkId::new("inference", &parameters), |bench| {
            bench.iter(|| black_box(model.forward(&images, Mode::Eval).unwrap()));
        });
        let mut optimizer = AdamW::new(model.ledger(), AdamWConfig::default()).unwrap();
        group.bench_function(BenchmarkId::new("training-step", &parameters), |bench| {
            bench.iter(|| step(&model, &mut optimizer, &images).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, swin_t);
criterion_main!(benches);
