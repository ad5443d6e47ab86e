//! One model, several threads.

use crate::checks::Verdict;
use crate::compare::wide;
use crate::tiny::{Place, Rates, images, model};
use serde_json::json;
use tadformer::TADFormer;
use tadformer::candle_core::{Device, Tensor};
use tadformer::layers::Mode;
use tadformer::ops;

const THREADS: usize = 8;
const ROUNDS: usize = 50;

/// Each thread predicts images of its own again and again; its outputs are, bit for bit, those that one thread alone gets. A device whose
/// work is ordered by thread, or not at all, gives other bits sooner or later.
pub fn check(on: &Device) -> anyhow::Result<Verdict> {
    let at = Place::on(on);
    let model = model(at, Rates::NONE)?;
    let all = (0..THREADS).map(|i| images(at, 1, 0.2 + 0.1 * i as f64)).collect::<Result<Vec<_>, _>>()?;
    let alone = all.iter().map(|images| bits(&model, images)).collect::<anyhow::Result<Vec<_>>>()?;
    let different = std::thread::scope(|scope| {
        let rounds = |(images, alone)| {
            let model = &model;
            scope.spawn(move || -> anyhow::Result<usize> {
                (0..ROUNDS).map(|_| anyhow::Ok(usize::from(&bits(model, images)? != alone))).sum()
            })
        };
        let threads: Vec<_> = all.iter().zip(&alone).map(rounds).collect();
        let counts =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked")));
        counts.sum::<anyhow::Result<usize>>()
    })?;
    let figures = json!({ "threads": THREADS, "rounds": ROUNDS, "different": different });
    Ok(Verdict { passes: different == 0, figures })
}

/// All outputs, bit for bit.
fn bits(model: &TADFormer, images: &Tensor) -> anyhow::Result<Vec<u64>> {
    let outputs = ops::without_graph(|| model.forward(images, Mode::Eval))?;
    let values = outputs.iter().map(|(_, output)| wide(output)?.flatten_all()?.to_vec1::<f64>());
    let values = values.collect::<tadformer::candle_core::Result<Vec<_>>>()?;
    Ok(values.into_iter().flatten().map(f64::to_bits).collect())
}
