//! The best prediction that ignores the image: what a trained model has to beat.

use super::labels::read_label;
use super::meter::Meter;
use super::score::Scores;
use crate::Result;
use crate::sample::IGNORE;
use crate::task::{Task, TaskKind};
use candle_core::{Device, Tensor};

/// Learns from labels what to predict everywhere: the most frequent class, the better of all and none for saliency, the mean unit
/// normal, the mean depth, the frequency of edges (at least 0.02, so that a threshold of the metric lies below it).
///
/// Before a valid pixel is seen it predicts class 0, normals of length 0, depth 0 and hardly any edge.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use tadformer::metrics::ConstantPrediction;
/// let mut constant = ConstantPrediction::new(&"depth=1".parse()?);
/// constant.observe(&Tensor::new(&[[[[1f32, 2., 255.]]]], &Device::Cpu)?)?;
/// assert_eq!(constant.outputs()?[0].flatten_all()?.to_vec1::<f32>()?, [1.5]);
/// let mut meter = constant.meter()?;
/// meter.update(&Tensor::new(&[[[[1f32, 2.]]]], &Device::Cpu)?)?;
/// assert_eq!(meter.scores().primary.value, Some(0.5));
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ConstantPrediction {
    task: Task,
    /// For classes the count of each, for other kinds the sum of each channel.
    sums: Vec<f64>,
    pixels: f64,
}

/// What a [`ConstantPrediction`] scores, batch by batch; for saliency the better of its two.
#[derive(Debug)]
pub struct ConstantMeter {
    meters: Vec<(Tensor, Meter)>,
    none: Meter,
}

impl ConstantMeter {
    /// Adds labels `[B, c, H, W]`.
    ///
    /// # Errors
    /// A label of another shape; a value that the task's labels cannot have.
    pub fn update(&mut self, label: &Tensor) -> Result<()> {
        let (b, _, h, w) = label.dims4()?;
        self.meters.iter_mut().try_for_each(|(outputs, meter)| {
            let n = outputs.dim(1)?;
            meter.update(&outputs.broadcast_as((b, n, h, w))?, label)
        })
    }

    /// The figures over all labels so far.
    pub fn scores(&self) -> Scores {
        let better = |a: &Scores, b: &Scores| a.primary.value.partial_cmp(&b.primary.value);
        let scores = self.meters.iter().map(|(_, meter)| meter.scores());
        let best = scores.max_by(|a, b| better(a, b).unwrap_or(std::cmp::Ordering::Equal));
        best.unwrap_or_else(|| self.none.scores())
    }
}

impl ConstantPrediction {
    /// For a task, before any label.
    pub fn new(task: &Task) -> Self {
        Self { task: task.clone(), sums: vec![0.0; task.outputs], pixels: 0.0 }
    }

    /// Learns from labels `[B, c, H, W]`.
    ///
    /// # Errors
    /// A label of another shape; a value that the task's labels cannot have.
    pub fn observe(&mut self, label: &Tensor) -> Result<()> {
        let (b, c, h, w) = label.dims4()?;
        let values = read_label(&self.task, label, [b, h, w])?;
        for image in values.chunks_exact((c * h * w).max(1)) {
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

    /// A meter of what has been learnt, for labels to measure it on.
    ///
    /// # Errors
    /// Memory that candle cannot have.
    pub fn meter(&self) -> Result<ConstantMeter> {
        let meters = self.outputs()?.into_iter().map(|outputs| (outputs, Meter::new(&self.task))).collect();
        Ok(ConstantMeter { meters, none: Meter::new(&self.task) })
    }

    /// What to output everywhere, each `[1, n, 1, 1]` before softmax or sigmoid, on the CPU: one tensor, for saliency two (none
    /// and all), of which the better counts.
    ///
    /// # Errors
    /// A task whose outputs are not those of its kind.
    pub fn outputs(&self) -> Result<Vec<Tensor>> {
        let shape = (1, self.task.outputs, 1, 1);
        let tensor = |values: Vec<f32>| Ok(Tensor::from_vec(values, shape, &Device::Cpu)?);
        self.candidates().into_iter().map(tensor).collect()
    }

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
                let share = mean(0).clamp(0.02, 0.98);
                vec![vec![(share / (1.0 - share)).ln() as f32]]
            }
        }
    }
}
