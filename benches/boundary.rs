//! odsF: one image's counts at all thresholds, by both recipes, at three sizes of the same picture, and a set of images of 480 x 320 in
//! parallel, whose throughput is in images.
#![allow(clippy::unwrap_used)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rayon::prelude::*;
use std::time::Duration;
use tadformer::metrics::{BoundaryMeter, BoundaryRecipe, BoundaryRule, BoundaryTruth, PASCAL_DISTANCE, Raster};

/// Height and width.
const SIZES: [[usize; 2]; 3] = [[160, 240], [320, 480], [640, 960]];
const SEGMENTS: usize = 40;
const SET: usize = 10;

/// A prediction and its truth.
struct Case {
    size: [usize; 2],
    prediction: Vec<u8>,
    truth: BoundaryTruth,
}

impl Case {
    /// Segments about points drawn from a seed; predicted are their boundaries, blurred, on a ground of waves and grain.
    fn new(seed: u64, size: [usize; 2]) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let points: Vec<[f32; 2]> =
            (0..SEGMENTS).map(|_| [rng.random_range(0.0..320.0), rng.random_range(0.0..480.0)]).collect();
        let scale = 480.0 / size[1] as f32;
        let (segments, prediction): (Vec<u16>, Vec<u8>) = (0..size[0] * size[1])
            .map(|i| {
                let (y, x) = ((i / size[1]) as f32 * scale, (i % size[1]) as f32 * scale);
                let mut near: Vec<(f32, u16)> =
                    points.iter().zip(0..).map(|(p, k)| ((p[0] - y).hypot(p[1] - x), k)).collect();
                near.sort_by(|a, b| a.0.total_cmp(&b.0));
                let from_boundary = (near[1].0 - near[0].0) / 2.0;
                let waves = 2.0 + (x * 0.31).sin() * (y * 0.27).cos() + (x * 0.13 + y * 0.19).sin();
                let ground = 0.1 * waves * rng.random_range(0.7..1.0f32);
                let probability = 0.9 * (-from_boundary * from_boundary / 8.0).exp() + ground;
                (near[0].1, (255.0 * probability.clamp(0.0, 1.0)) as u8)
            })
            .unzip();
        let truth = BoundaryTruth::new(BoundaryRule::Segments, Raster::new(&segments, size).unwrap(), None);
        Self { size, prediction, truth }
    }

    /// Matched pixels at all thresholds.
    fn count(&self, meter: &BoundaryMeter) -> u64 {
        let prediction = Raster::new(&self.prediction, self.size).unwrap();
        meter.count(prediction, &self.truth).unwrap().matched.iter().sum()
    }
}

fn boundary(c: &mut Criterion) {
    for recipe in BoundaryRecipe::ALL.iter().copied() {
        let meter = BoundaryMeter::new(recipe, PASCAL_DISTANCE).unwrap();
        let mut group = c.benchmark_group(format!("boundary/{}", recipe.name()));
        group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(5));
        for size in SIZES {
            let case = Case::new(1, size);
            group.throughput(Throughput::Elements((size[0] * size[1]) as u64));
            let id = BenchmarkId::new("image", format!("{}x{}", size[1], size[0]));
            group.bench_function(id, |b| b.iter(|| case.count(&meter)));
        }
        let set: Vec<Case> = (0..SET as u64).map(|seed| Case::new(seed, SIZES[1])).collect();
        group.throughput(Throughput::Elements(SET as u64));
        let id = BenchmarkId::new("set", format!("{SET} of {}x{}", SIZES[1][1], SIZES[1][0]));
        group.bench_function(id, |b| b.iter(|| set.par_iter().map(|case| case.count(&meter)).sum::<u64>()));
        group.finish();
    }
}

criterion_group!(benches, boundary);
criterion_main!(benches);
