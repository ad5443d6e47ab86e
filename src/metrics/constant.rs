//! The best prediction that ignores the image: what a trained model has to beat.

use super::{Meter, Scores};
use crate::Result;
use crate::sample::IGNORE;
use crate::task::{Task, TaskKind};
use candle_core::{DType, Device, Tensor};

/// Learns from labels what to predict everywhere: the most frequent class, the better of all and none for saliency, the mean unit
/// normal, the mean depth, the frequency of edges.
#[derive(Clone, Debug)]
pub struct ConstantPrediction {
    task: Task,
    /// For classes the count of each, for other kinds the sum of each channel.
    sums: Vec<f64>,
    pixels: f64,
}

impl ConstantPrediction {
    /// Knows nothing yet.
    pub fn new(task: &Task) -> Self {
        Self { task: task.clone(), sums: vec![0.0; task.outputs], pixels: 0.0 }
    }

    /// Learns from labels `[B, c, H, W]`.
    pub fn observe(&mut self, label: &Tensor) -> Result<()> {
        let (_, c, h, w) = label.dims4()?;
        let values = label.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        for image in values.chunks_exact(c * h * w) {
            for i in (0..h * w).filter(|i| image[*i] != IGNORE) {
                self.pixels += 1.0;
                if !self.task.kind.is_classes() {
                    (0..c).for_each(|c| self.sums[c] += f64::from(image[c * h * w + i]));
                } else if let Some(count) = self.sums.get_mut(image[i] as usize) {
                    *count += 1.0;
                }
            }
        }
        Ok(())
    }

    /// The scores of the constant prediction on labels.
    ///
    /// # Errors
    /// A label of another shape.
    pub fn scores<'a>(&self, labels: impl IntoIterator<Item = &'a Tensor>) -> Result<Scores> {
        let mut meters: Vec<(Vec<f32>, Meter)> =
            self.candidates().into_iter().map(|outputs| (outputs, Meter::new(&self.task))).collect();
        for label in labels {
            let (b, _, h, w) = label.dims4()?;
            for (outputs, meter) in &mut meters {
                let outputs = Tensor::new(&outputs[..], &Device::Cpu)?.reshape((1, self.task.outputs, 1, 1))?;
                meter.update(&outputs.broadcast_as((b, self.task.outputs, h, w))?, label)?;
            }
        }
        let better = |a: &Scores, b: &Scores| a.primary.value.partial_cmp(&b.primary.value);
        let scores = meters.into_iter().map(|(_, meter)| meter.scores());
        let best = scores.max_by(|a, b| better(a, b).unwrap_or(std::cmp::Ordering::Equal));
        Ok(best.unwrap_or_else(|| Meter::new(&self.task).scores()))
    }

    /// What to output everywhere: `[n]` before softmax or sigmoid; for saliency two answers, of which the better counts.
    fn candidates(&self) -> Vec<Vec<f32>> {
        let mean = |c: usize| self.sums[c] / self.pixels.max(1.0);
        match self.task.kind {
            TaskKind::Semseg | TaskKind::HumanParts => {
                let frequent =
                    (1..self.sums.len()).fold(0, |best, c| if self.sums[c] > self.sums[best] { c } else { best });
                vec![(0..self.sums.len()).map(|c| f32::from(u8::from(c == frequent))).collect()]
            }
            TaskKind::Sal => vec![vec![-20.0], vec![20.0]],
            TaskKind::Normals => {
                let length = (0..3).map(|c| mean(c).powi(2)).sum::<f64>().sqrt().max(1e-12);
                vec![(0..3).map(|c| (mean(c) / length) as f32).collect()]
            }
            TaskKind::Depth => vec![vec![mean(0) as f32]],
            TaskKind::Edge => {
                let share = mean(0).clamp(1e-6, 1.0 - 1e-6);
                vec![vec![(share / (1.0 - share)).ln() as f32]]
            }
        }
    }
}
