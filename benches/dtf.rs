//! The Dynamic Task Filter in both its regimes, beside candle's grouped convolution and a copy of the same bytes.
//!
//! The arrays lie well beyond the L2 cache. A copy is `Tensor::copy`: like the filter, it writes a fresh array.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;
use tadformer::DynamicTaskFilter;
use tadformer::ops::depthwise_filter;

/// Maps, height, width: attention's windows, and whole maps.
const REGIMES: [(&str, usize, usize, usize); 2] = [("windows", 4096, 7, 7), ("maps", 8, 112, 112)];
const RANKS: [usize; 3] = [16, 32, 64];

/// What a regime is measured on.
struct Case {
    filter: DynamicTaskFilter,
    /// `[b, h*w, r]`.
    tokens: Tensor,
    size: (usize, usize),
    rank: usize,
}

impl Case {
    fn new((b, h, w): (usize, usize, usize), rank: usize) -> Result<Self> {
        let (variables, device) = (VarMap::new(), Device::Cpu);
        let filter = DynamicTaskFilter::new(rank, 3, VarBuilder::from_varmap(&variables, DType::F32, &device))?;
        Ok(Self { filter, tokens: Tensor::randn(0f32, 1., (b, h * w, rank), &device)?, size: (h, w), rank })
    }

    /// Candle's own way, one group for each map and channel, on the first two maps alone: the rest would take minutes.
    fn grouped(&self, taps: &Tensor, planes: &Tensor) -> Result<Tensor> {
        let weights = taps.narrow(0, 0, 2)?.transpose(1, 2)?.reshape((2 * self.rank, 1, 3, 3))?;
        planes.conv2d(&weights, 1, 1, 1, 2 * self.rank)
    }

    fn planes(&self) -> Result<Tensor> {
        let (h, w) = self.size;
        self.tokens.narrow(0, 0, 2)?.transpose(1, 2)?.reshape((1, 2 * self.rank, h, w))?.contiguous()
    }

    fn forward(&self) -> Result<Tensor> {
        self.filter.forward_tokens(&self.tokens, self.size)
    }

    /// Gradients of the tokens and of every weight, by way of a product with `c` `[b*h*w*r, 1]`: candle's sums would take longer.
    fn forward_and_backward(&self, tokens: &Var, c: &Tensor) -> Result<GradStore> {
        let y = self.filter.forward_tokens(tokens, self.size)?;
        y.reshape((1, c.dim(0)?))?.matmul(c)?.backward()
    }
}

fn regime(c: &mut Criterion, name: &str, shape: (usize, usize, usize), rank: usize) -> Result<()> {
    let case = Case::new(shape, rank)?;
    let (b, (h, w)) = (shape.0, case.size);
    let (taps, planes) = (case.filter.taps(&case.tokens)?, case.planes()?);
    let maps = case.tokens.reshape((b, h, w, rank))?;
    let (var, weights) = (Var::from_tensor(&case.tokens)?, case.tokens.reshape(((), 1))?);
    let values = (b * h * w * rank) as u64;
    let mut group = c.benchmark_group(format!("dtf/{name}/{b}x{h}x{w}"));
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Bytes(2 * 4 * values));
    group.bench_function(BenchmarkId::new("copy", rank), |bench| bench.iter(|| black_box(maps.copy())));
    group.bench_function(BenchmarkId::new("forward", rank), |bench| bench.iter(|| black_box(case.forward())));
    group.bench_function(BenchmarkId::new("convolution", rank), |bench| {
        bench.iter(|| black_box(depthwise_filter(&maps, &taps)));
    });
    group.bench_function(BenchmarkId::new("forward_and_backward", rank), |bench| {
        bench.iter(|| black_box(case.forward_and_backward(&var, &weights)));
    });
    group.throughput(Throughput::Bytes(2 * 4 * values * 2 / b as u64));
    group.bench_function(BenchmarkId::new("candle_grouped_two_maps", rank), |bench| {
        bench.iter(|| black_box(case.grouped(&taps, &planes)));
    });
    group.finish();
    Ok(())
}

fn filter(c: &mut Criterion) {
    for (name, b, h, w) in REGIMES {
        for rank in RANKS {
            if let Err(error) = regime(c, name, (b, h, w), rank) {
                eprintln!("{name}, rank {rank}: {error}");
            }
        }
    }
}

criterion_group!(benches, filter);
criterion_main!(benches);
