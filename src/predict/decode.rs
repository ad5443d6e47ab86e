//! From a task's outputs to a map in label form, at any size.

use crate::ops;
use crate::task::{Task, TaskKind};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

/// Resizes outputs bilinearly and reads them off: class indices, unit normals, probabilities, depths.
///
/// # Shapes
/// `outputs` `[n, h, w]` to `[c, height, width]` f32 on the CPU, with c = 3 for normals and 1 otherwise.
///
/// Pixels are made one row at a time, so that a large photo needs no large array of class scores.
///
/// # Errors
/// Outputs of another number of channels than the task's, or of no pixels.
pub fn decode(task: &Task, outputs: &Tensor, (height, width): (usize, usize)) -> Result<Tensor> {
    let (n, h, w) = outputs.dims3()?;
    if n != task.outputs || h == 0 || w == 0 {
        let expected = format!("[{}, h, w], h and w at least 1", task.outputs);
        return Err(Error::Shape { what: format!("outputs of {}", task.name), expected, got: outputs.dims().to_vec() });
    }
    let scores = outputs.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let (rows, columns) = (ops::bilinear_taps(h, height), ops::bilinear_taps(w, width));
    let channels = task.kind.label_channels();
    let row = |taps: &ops::Taps2| -> Vec<f32> {
        let [(y0, v0), (y1, v1)] = *taps;
        let line: Vec<f32> = (0..n * w)
            .map(|i| (i / w * h * w, i % w))
            .map(|(plane, x)| scores[plane + y0 * w + x] * v0 + scores[plane + y1 * w + x] * v1)
            .collect();
        let mut out = vec![0.0; channels * width];
        let mut pixel = vec![0.0; n];
        for (x, [(x0, u0), (x1, u1)]) in columns.iter().enumerate() {
            for (score, line) in pixel.iter_mut().zip(line.chunks_exact(w)) {
                *score = line[*x0] * u0 + line[*x1] * u1;
            }
            for (c, value) in read_off(task.kind, &pixel).into_iter().take(channels).enumerate() {
                out[c * width + x] = value;
            }
        }
        out
    };
    let lines: Vec<f32> = rows.par_iter().flat_map_iter(row).collect(); // [height, c, width]
    Ok(Tensor::from_vec(lines, (height, channels, width), &Device::Cpu)?.transpose(0, 1)?.contiguous()?)
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
