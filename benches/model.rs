//! The whole model: inference, and forward with backward, at sizes that a laptop takes.

use candle_core::{DType, Device, Result, Tensor};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use tadformer::layers::{Mode, TrainingPass};
use tadformer::{SwinConfig, TADFormer};

fn model(rank: usize, image: usize) -> tadformer::Result<(TADFormer, Tensor)> {
    let swin = SwinConfig { image_size: image, ..SwinConfig::tiny() };
    let model = TADFormer::builder(swin).rank(rank).build()?;
    Ok((model, Tensor::zeros((1, 3, image, image), DType::F32, &Device::Cpu)?))
}

fn step(model: &TADFormer, images: &Tensor) -> Result<()> {
    let outputs = model.forward(images, Mode::Train(&TrainingPass::seeded(0)))?;
    let losses = outputs.iter().map(|(_, output)| output.sqr()?.mean_all()).collect::<Result<Vec<_>>>()?;
    Tensor::stack(&losses, 0)?.sum_all()?.backward().map(drop)
}

fn swin_t(c: &mut Criterion) {
    let mut group = c.benchmark_group("swin_t/four_tasks/cpu");
    group.sample_size(10);
    for (rank, image) in [(16, 224), (64, 224)] {
        let Ok((model, images)) = model(rank, image) else { continue };
        let id = format!("rank{rank}_image{image}");
        group.bench_function(BenchmarkId::new("inference", &id), |bench| {
            bench.iter(|| black_box(model.forward(&images, Mode::Eval)));
        });
        group.bench_function(BenchmarkId::new("forward_and_backward", &id), |bench| {
            bench.iter(|| black_box(step(&model, &images)));
        });
    }
    group.finish();
}

criterion_group!(benches, swin_t);
criterion_main!(benches);
