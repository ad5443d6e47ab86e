//! From a task's outputs to a map in label form, at any size.

use crate::finite::is_finite;
use crate::ops;
use crate::ops::Taps2;
use crate::task::{Task, TaskKind};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

/// About as many numbers as a strip has.
const STRIP: usize = 1 << 20;

/// Resizes outputs bilinearly and reads them off: class indices, unit normals, probabilities, depths.
///
/// # Shapes
/// `outputs` `[n, h, w]` to `[c, height, width]` f32 on the CPU, with c = 3 for normals and 1 otherwise.
///
/// Pixels are made one row at a time, so that a large photo needs no large array of class scores.
///
/// # Errors
/// Outputs of another number of channels than the task's, of no pixels, or with values that are NaN or infinite; a side of 0.
pub fn decode(task: &Task, outputs: &Tensor, (height, width): (usize, usize)) -> Result<Tensor> {
    if height == 0 || width == 0 {
        let got = format!("{height} x {width}");
        return Err(Error::config(
            format!("size of {}", task.name),
            "sides of at least 1",
            got,
            "give the photo's size",
        ));
    }
    Readout::new(task, outputs)?.map((height, width))
}

/// One task's outputs at the size that the model works at, to be read off at any other.
#[derive(Clone, Debug)]
pub(crate) struct Readout {
    kind: TaskKind,
    /// `[n, h, w]`.
    scores: Vec<f32>,
    dims: (usize, usize, usize),
}

impl Readout {
    pub(crate) fn new(task: &Task, outputs: &Tensor) -> Result<Self> {
        let (n, h, w) = outputs.dims3()?;
        let what = || format!("outputs of {}", task.name);
        if n != task.outputs || h == 0 || w == 0 {
            let expected = format!("[{}, h, w], h and w at least 1", task.outputs);
            return Err(Error::Shape { what: what(), expected, got: outputs.dims().to_vec() });
        }
        if !is_finite(outputs)? {
            let cure = "the model has diverged, or its float type is too narrow for its values";
            return Err(Error::config(what(), "numbers", "NaN or infinity", cure));
        }
        let scores = outputs.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(Self { kind: task.kind, scores, dims: (n, h, w) })
    }

    /// The whole map, `[c, height, width]`.
    pub(crate) fn map(&self, (height, width): (usize, usize)) -> Result<Tensor> {
        let channels = self.kind.label_channels();
        let (plane, mut done) = (height * width, 0);
        let mut planes = vec![0f32; channels * plane];
        let write = |at: usize, pixel: [f32; 3], row: &mut [f32]| {
            row.chunks_exact_mut(width).zip(pixel).for_each(|(channel, value)| channel[at] = value);
        };
        self.strips((height, width), channels, write, |strip| {
            for row in strip.chunks_exact(channels * width) {
                for (c, values) in row.chunks_exact(width).enumerate() {
                    planes[c * plane + done..][..width].copy_from_slice(values);
                }
                done += width;
            }
            Ok::<(), Error>(())
        })?;
        Ok(Tensor::from_vec(planes, (channels, height, width), &Device::Cpu)?)
    }

    /// The map from top to bottom, a strip of rows at a time and never whole, for sides of at least 1: `write` puts the pixel of a
    /// column into its row, which has `values` numbers for each; `take` gets the strip's rows, one after the other.
    pub(crate) fn strips<T: Copy + Default + Send, E>(
        &self,
        (height, width): (usize, usize),
        values: usize,
        write: impl Fn(usize, [f32; 3], &mut [T]) + Sync,
        mut take: impl FnMut(&[T]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let (_, h, w) = self.dims;
        let (rows, columns) = (ops::bilinear_taps(h, height), ops::bilinear_taps(w, width));
        let length = values * width;
        let together = (STRIP / length).clamp(1, height);
        let mut strip = vec![T::default(); together * length];
        for rows in rows.chunks(together) {
            let strip = &mut strip[..rows.len() * length];
            let lines = strip.par_chunks_mut(length).zip(rows);
            lines.for_each(|(line, taps)| self.row(taps, &columns, |at, pixel| write(at, pixel, line)));
            take(strip)?;
        }
        Ok(())
    }

    /// The pixels of one row, read off.
    fn row(&self, [(y0, v0), (y1, v1)]: &Taps2, columns: &[Taps2], mut pixel: impl FnMut(usize, [f32; 3])) {
        let (n, h, w) = self.dims;
        let line: Vec<f32> = (0..n * w)
            .map(|i| (i / w * h * w, i % w))
            .map(|(plane, x)| self.scores[plane + y0 * w + x] * v0 + self.scores[plane + y1 * w + x] * v1)
            .collect();
        let mut scores = vec![0.0; n];
        for (x, [(x0, u0), (x1, u1)]) in columns.iter().enumerate() {
            for (score, line) in scores.iter_mut().zip(line.chunks_exact(w)) {
                *score = line[*x0] * u0 + line[*x1] * u1;
            }
            pixel(x, read_off(self.kind, &scores));
        }
    }
}

/// The label of one pixel; all but normals fill the first value alone.
fn read_off(kind: TaskKind, scores: &[f32]) -> [f32; 3] {
    match kind {
        TaskKind::Semseg | TaskKind::HumanParts => {
            let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(class, _)| class);
            [best as f32, 0.0, 0.0]
        }
        TaskKind::Normals => {
            let length = scores.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12);
            std::array::from_fn(|c| scores[c] / length)
        }
        TaskKind::Sal | TaskKind::Edge => [1.0 / (1.0 + (-scores[0]).exp()), 0.0, 0.0],
        TaskKind::Depth => [scores[0].max(0.0), 0.0, 0.0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(values: &[f32], dims: (usize, usize, usize)) -> Tensor {
        Tensor::new(values, &Device::Cpu).and_then(|t| t.reshape(dims)).unwrap()
    }

    #[test]
    fn resizing_equals_the_models_own_then_reads_off() -> Result<()> {
        let task: Task = "depth=1".parse()?;
        let map = outputs(&[0., 1., 2., 3., 4., 5.], (1, 2, 3));
        let got = decode(&task, &map, (5, 4))?;
        let want = ops::bilinear(&map.unsqueeze(0)?, (5, 4))?.squeeze(0)?;
        let error = (got - want)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(error < 1e-6, "{error}");
        Ok(())
    }

    #[test]
    fn maps_of_no_pixels_are_refused() -> Result<()> {
        let message = decode(&"depth=1".parse()?, &outputs(&[], (1, 2, 0)), (5, 4)).unwrap_err().to_string();
        assert!(message.contains("outputs of depth") && message.contains("at least 1"), "{message}");
        let message = decode(&"depth=1".parse()?, &outputs(&[1.], (1, 1, 1)), (5, 0)).unwrap_err().to_string();
        assert!(message.contains("size of depth") && message.contains("5 x 0"), "{message}");
        Ok(())
    }

    /// NaN was the highest score of all, and so a class.
    #[test]
    fn outputs_that_are_no_numbers_are_refused() -> Result<()> {
        for wrong in [f32::NAN, f32::INFINITY] {
            let map = outputs(&[0.0, wrong], (2, 1, 1));
            let message = decode(&"semseg=2".parse()?, &map, (5, 4)).unwrap_err().to_string();
            assert!(message.contains("`outputs of semseg`: expected numbers"), "{message}");
        }
        Ok(())
    }

    #[test]
    fn strips_together_are_the_map() -> Result<()> {
        let task: Task = "normals=3".parse()?;
        let values: Vec<f32> = (0..18).map(|i| (i as f32).sin()).collect();
        let (readout, size) = (Readout::new(&task, &outputs(&values, (3, 2, 3)))?, (700, 600));
        let (mut y, mut strips) = (0, 0);
        let whole = readout.map(size)?.permute((1, 2, 0))?.contiguous()?;
        let write = |at: usize, pixel: [f32; 3], row: &mut [f32]| row[3 * at..][..3].copy_from_slice(&pixel);
        readout.strips(size, 3, write, |strip| {
            let rows = strip.len() / 1800;
            let want = whole.narrow(0, y, rows)?.flatten_all()?.to_vec1::<f32>()?;
            assert_eq!(strip, want);
            (y, strips) = (y + rows, strips + 1);
            Ok::<(), Error>(())
        })?;
        assert_eq!((y, strips), (700, 2));
        Ok(())
    }

    #[test]
    fn each_kind_is_read_off() -> Result<()> {
        let read = |task: &str, values: &[f32], dims| -> Result<Vec<f32>> {
            let map = outputs(values, dims);
            Ok(decode(&task.parse()?, &map, (dims.1, dims.2))?.flatten_all()?.to_vec1()?)
        };
        assert_eq!(read("semseg=3", &[0., 5., 1., 2., 3., 4.], (3, 1, 2))?, [2.0, 0.0]);
        assert_eq!(read("normals=3", &[0., 3., 4.], (3, 1, 1))?, [0.0, 0.6, 0.8]);
        assert_eq!(read("sal=1", &[0.0], (1, 1, 1))?, [0.5]);
        assert_eq!(read("depth=1", &[-2.0], (1, 1, 1))?, [0.0]);
        assert!(read("semseg=4", &[0., 1.], (2, 1, 1)).unwrap_err().to_string().contains("[4, h, w]"));
        Ok(())
    }
}
