//! The Dynamic Task Filter in both its regimes, beside candle's grouped convolution and a copy of the same bytes.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{VarBuilder, VarMap};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tadformer::DynamicTaskFilter;
use tadformer::ops::depthwise_filter;

/// Maps, height, width: the windows of a 448 image's first stage for one task, and the whole maps of four.
const REGIMES: [(&str, usize, usize, usize); 2] = [("windows", 256, 7, 7), ("maps", 4, 56, 56)];
const RANKS: [usize; 3] = [16, 32, 64];

/// Candle's own way: one group for each map and channel.
fn grouped(maps: &Tensor, taps: &Tensor) -> Result<Tensor> {
    let (b, r, h, w) = maps.dims4()?;
    let weights = taps.transpose(1, 2)?.reshape((b * r, 1, 3, 3))?;
    maps.reshape((1, b * r, h, w))?.conv2d(&weights, 1, 1, 1, b * r)
}

fn filter(c: &mut Criterion) {
    let device = Device::Cpu;
    for (regime, b, h, w) in REGIMES {
        let mut group = c.benchmark_group(format!("dtf/{regime}"));
        group.sample_size(20);
        for rank in RANKS {
            let run = || -> Result<_> {
                let variables = VarMap::new();
                let filter = DynamicTaskFilter::new(rank, 3, VarBuilder::from_varmap(&variables, DType::F32, &device))?;
                let tokens = Tensor::randn(0f32, 1., (b, h * w, rank), &device)?;
                Ok((filter, tokens))
            };
            let Ok((filter, tokens)) = run() else { continue };
            let Ok(taps) = filter.taps(&tokens) else { continue };
            let Ok(maps) = tokens.reshape((b, h, w, rank)) else { continue };
            let Ok(planes) = maps.permute((0, 3, 1, 2)).and_then(|maps| maps.contiguous()) else { continue };
            group.throughput(Throughput::Bytes(2 * 4 * (b * h * w * rank) as u64));
            group.bench_function(BenchmarkId::new("taps_and_convolution", rank), |bench| {
                bench.iter(|| black_box(filter.forward_tokens(&tokens, (h, w))));
            });
            group.bench_function(BenchmarkId::new("convolution", rank), |bench| {
                bench.iter(|| black_box(depthwise_filter(&maps, &taps)));
            });
            group.bench_function(BenchmarkId::new("candle_grouped", rank), |bench| {
                bench.iter(|| black_box(grouped(&planes, &taps)));
            });
            group.bench_function(BenchmarkId::new("copy", rank), |bench| bench.iter(|| black_box(maps.copy())));
        }
        group.finish();
    }
}

criterion_group!(benches, filter);
criterion_main!(benches);
