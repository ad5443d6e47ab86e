//! What a step takes for granted of its tensors, checked before either of its definitions runs.

use candle_core::{DType, Result, Tensor};

/// The checks of one step, which is named in their errors: shapes without a 0, and the float type that the step's tensors share.
#[derive(Clone, Copy)]
pub(super) struct Shapes {
    step: &'static str,
    dtype: DType,
}

impl Shapes {
    /// For a step that computes in `x`'s float type.
    pub(super) fn of(step: &'static str, x: &Tensor) -> Result<Self> {
        let shapes = Self { step, dtype: x.dtype() };
        shapes.float("values", x)?;
        Ok(shapes)
    }

    /// A tensor of `N` dimensions in the step's float type, none of them 0: its sizes.
    pub(super) fn sizes<const N: usize>(self, what: &str, tensor: &Tensor) -> Result<[usize; N]> {
        self.typed(what, tensor)?;
        match <[usize; N]>::try_from(tensor.dims()) {
            Ok(sizes) if fit(&sizes) => Ok(sizes),
            _ => candle_core::bail!("{}: expected {what} of {N} sizes above 0, got {:?}", self.step, tensor.dims()),
        }
    }

    /// A tensor of any number of dimensions in the step's float type, none of them 0: its last one's size.
    pub(super) fn channels(self, what: &str, tensor: &Tensor) -> Result<usize> {
        self.typed(what, tensor)?;
        match tensor.dims() {
            dims @ [.., last] if fit(dims) => Ok(*last),
            dims => candle_core::bail!("{}: expected {what} of sizes above 0, got {dims:?}", self.step),
        }
    }

    /// `tensor`, which is the step's `what`, has these sizes and the step's float type.
    pub(super) fn expect(self, what: &str, tensor: &Tensor, sizes: &[usize]) -> Result<()> {
        self.shaped(what, tensor, sizes)?;
        self.typed(what, tensor)
    }

    /// As [`Shapes::expect`] of what is converted to the step's float type from another one: a stored weight, a mask.
    pub(super) fn stored(self, what: &str, tensor: &Tensor, sizes: &[usize]) -> Result<()> {
        self.shaped(what, tensor, sizes)?;
        self.float(what, tensor)
    }

    /// A stored weight that takes `n_in` channels to as many as this gives.
    pub(super) fn matrix(self, what: &str, weight: &Tensor, n_in: usize) -> Result<usize> {
        let out = weight.dims().first().copied().filter(|out| *out > 0).unwrap_or(1);
        self.stored(what, weight, &[out, n_in])?;
        Ok(out)
    }

    fn shaped(self, what: &str, tensor: &Tensor, sizes: &[usize]) -> Result<()> {
        if tensor.dims() == sizes {
            return Ok(());
        }
        candle_core::bail!("{}: expected {what} {sizes:?}, got {:?}", self.step, tensor.dims())
    }

    fn typed(self, what: &str, tensor: &Tensor) -> Result<()> {
        if tensor.dtype() == self.dtype {
            return Ok(());
        }
        let (dtype, got) = (self.dtype.as_str(), tensor.dtype().as_str());
        candle_core::bail!("{}: expected {what} in {dtype} as the step's other tensors, got {got}", self.step)
    }

    fn float(self, what: &str, tensor: &Tensor) -> Result<()> {
        match tensor.dtype() {
            DType::F32 | DType::F64 | DType::F16 | DType::BF16 => Ok(()),
            got => candle_core::bail!("{}: expected {what} in f32, f64, f16 or bf16, got {}", self.step, got.as_str()),
        }
    }

    /// Tokens of a map of `size` (height, width): the number of them.
    pub(super) fn tokens(self, size: (usize, usize)) -> Result<usize> {
        match size.0.checked_mul(size.1) {
            Some(tokens) if tokens > 0 => Ok(tokens),
            _ => candle_core::bail!(
                "{}: expected a height and a width above 0 and within memory, got {size:?}",
                self.step
            ),
        }
    }

    /// A result of these sizes: whether memory could hold it.
    pub(super) fn result(self, sizes: &[usize]) -> Result<()> {
        if fit(sizes) {
            return Ok(());
        }
        candle_core::bail!("{}: expected a result with values and within memory, got one of {sizes:?}", self.step)
    }

    /// The side of a filter, odd and at least `least`: the number of its taps.
    pub(super) fn taps(self, kernel_size: usize, least: usize) -> Result<usize> {
        match kernel_size.checked_mul(kernel_size) {
            Some(taps) if kernel_size >= least && !kernel_size.is_multiple_of(2) => Ok(taps),
            _ => {
                candle_core::bail!("{}: expected an odd kernel size of at least {least}, got {kernel_size}", self.step)
            }
        }
    }

    /// One factor of drop-path for each of `count` images, or none.
    pub(super) fn drop_path(self, factors: Option<&[f64]>, count: usize) -> Result<()> {
        match factors {
            Some(factors) if factors.len() != count => {
                candle_core::bail!("{}: expected a factor for each of {count} images, got {}", self.step, factors.len())
            }
            _ => Ok(()),
        }
    }

    /// As many of `what` as there are tasks.
    pub(super) fn count(self, what: &str, count: usize, tasks: usize) -> Result<()> {
        if count == tasks {
            return Ok(());
        }
        candle_core::bail!("{}: expected {what} for each of {tasks} tasks, got {count}", self.step)
    }

    /// `whole` divided by `part`, which has to go in evenly and at least once.
    pub(super) fn times(self, what: &str, whole: usize, part: usize) -> Result<usize> {
        match whole.checked_div(part) {
            Some(times) if times > 0 && times * part == whole => Ok(times),
            _ => candle_core::bail!("{}: expected {what} a multiple of {part}, got {whole}", self.step),
        }
    }
}

/// Whether there are values of these sizes, and no more than memory could hold.
fn fit(sizes: &[usize]) -> bool {
    let bytes = sizes.iter().try_fold(size_of::<f64>(), |bytes, size| bytes.checked_mul(*size));
    bytes.is_some_and(|bytes| bytes > 0 && isize::try_from(bytes).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{
        self, Definition, Factor, LayerNorm, LowRankMap, LowRankPath, TaskCondition, TaskPath, TpcReading, WindowGrid,
    };
    use candle_core::{Device, Var};

    fn zeros(sizes: &[usize]) -> Result<Tensor> {
        Tensor::zeros(sizes, DType::F32, &Device::Cpu)
    }

    fn norm(c: usize) -> Result<LayerNorm> {
        Ok(LayerNorm::new(zeros(&[c])?, zeros(&[c])?))
    }

    fn path(out: usize, n_in: usize) -> Result<LowRankPath> {
        Ok(LowRankPath { a: zeros(&[2, n_in])?, b: zeros(&[out, 2])?, scale: 1.0, dropout: None })
    }

    fn factor(own: usize, out: usize, n_in: usize) -> Result<Factor> {
        Ok(Factor::PerTask(vec![zeros(&[out, n_in])?; own]))
    }

    fn task_path(out: usize, n_in: usize) -> Result<TaskPath> {
        Ok(TaskPath::shared(&path(out, n_in)?))
    }

    fn map(out: usize, n_in: usize) -> Result<LowRankMap> {
        Ok(LowRankMap { weight: zeros(&[out, n_in])?, bias: Some(zeros(&[out])?), path: Some(path(out, n_in)?) })
    }

    /// Channels of these tests; two images of 2 x 3 patches in one window of 3 x 3, two tasks.
    const C: usize = 4;

    fn attention(patches: usize, size: (usize, usize), qkv: usize, factors: usize) -> Result<Tensor> {
        let half = ops::AttentionHalf {
            patches: zeros(&[2, patches, C])?,
            prompts: Some(zeros(&[2, 2, C])?),
            norm: norm(C)?,
            qkv: map(qkv, C)?,
            proj: map(C, C)?,
            bias: zeros(&[2, 9, 9])?,
            mask: None,
            grid: WindowGrid::new(size, 3, false)?,
            drop_path: Some(vec![1.0; factors]),
        };
        Ok(half.forward()?.patches)
    }

    fn perceptron(hidden: usize) -> Result<Tensor> {
        let (x, fc1, fc2) = (zeros(&[2, 6, C])?, map(8, C)?, map(C, hidden)?);
        let half = ops::MlpHalf { x, norm: norm(C)?, fc1, fc2, drop_path: None };
        half.forward()
    }

    fn condition(tasks: usize) -> Result<TaskCondition> {
        Ok(TaskCondition { attended: zeros(&[2, 9, C])?, scores: zeros(&[2, 2, 4, 9])?, tasks })
    }

    fn mix(patches: usize, tasks: usize) -> Result<Tensor> {
        let grid = WindowGrid::new((2, 3), 3, false)?;
        let (x, share) = (zeros(&[4, patches, C])?, zeros(&[1])?);
        ops::task_mix(&x, &condition(tasks)?, &share, &grid, TpcReading::Positions).map(|mut tasks| tasks.remove(0))
    }

    fn projection(shared: usize, images: usize) -> Result<Tensor> {
        let grid = WindowGrid::new((2, 3), 3, false)?;
        let (x, shared, f) = (zeros(&[2, 6, C])?, zeros(&[2, shared, C])?, zeros(&[images, 9, 2])?);
        ops::task_projection(&x, &shared, &f, &task_path(C, C)?, &grid, None)
    }

    fn filter(r: usize, vectors: usize) -> Result<Tensor> {
        let vector = || zeros(&[vectors]);
        let (weight, bias, scale, shift) = (zeros(&[9 * r, r])?, vector()?, vector()?, vector()?);
        let weights = ops::FilterWeights { weight, bias, scale, shift, kernel_size: 3 };
        ops::dynamic_filter(&zeros(&[2, 6, 2])?, (2, 3), &weights)
    }

    /// A step that takes the right sizes and refuses the wrong ones, by its name and theirs, whichever definition runs.
    #[track_caller]
    fn refuses(step: &str, right: impl Fn() -> Result<Tensor>, wrong: impl Fn() -> Result<Tensor>) {
        let right = Definition::ALL.map(|by| by.run(&right));
        assert!(right.iter().all(Result::is_ok), "{step}: {right:?}");
        refused(step, wrong);
    }

    #[track_caller]
    fn refused(step: &str, wrong: impl Fn() -> Result<Tensor>) {
        for by in Definition::ALL {
            let message = by.run(&wrong).map(|y| y.dims().to_vec()).unwrap_err().to_string();
            assert!(message.contains(step), "{step}, {}: {message}", by.name());
        }
    }

    #[test]
    fn no_kernel_runs_on_shapes_that_do_not_fit() -> Result<()> {
        let x = zeros(&[2, 6, C])?;
        let down = |c| ops::norm_down(&x, &norm(C)?, &zeros(&[2, c])?.into());
        refuses("norm-down", || down(C), || down(2 * C));
        let normed = |c| norm(c)?.forward(&x);
        refuses("layer-norm", || normed(C), || normed(2));
        let merged = |size| ops::merge_linear(&x, size, &norm(4 * C)?, &zeros(&[2, 4 * C])?);
        refuses("merge-linear", || merged((2, 3)), || merged((2, 2)));
        let hidden = |all, r| ops::task_hidden(&x, &zeros(&[all, 6, r])?, &task_path(C, C)?, &task_path(C, C)?);
        refuses("task-hidden", || hidden(4, 2), || hidden(4, 3));
        refuses("task-hidden", || hidden(2, 2), || hidden(3, 2));
        let update = |n| ops::task_update(&zeros(&[4, n, C])?, &x, &zeros(&[4, 6, 2])?, &task_path(C, C)?, None);
        refuses("task-update", || update(6), || update(5));
        let conditioned = |tasks, c| ops::conditioned_down(&condition(tasks)?, &norm(c)?, &zeros(&[2, C])?.into());
        refuses("conditioned-down", || conditioned(2, C), || conditioned(2, 2));
        refuses("conditioned-down", || conditioned(4, C), || conditioned(3, C));
        refuses("conditioned-down", || conditioned(1, C), || conditioned(0, C));
        refuses("task-mix", || mix(6, 2), || mix(9, 2));
        refuses("task-mix", || mix(6, 2), || mix(6, 0));
        refuses("task-projection", || projection(9, 4), || projection(6, 4));
        refuses("task-projection", || projection(9, 2), || projection(9, 3));
        refuses("mlp-half", || perceptron(8), || perceptron(9));
        refuses("dynamic", || filter(2, 18), || filter(3, 27));
        refuses("dynamic-filter", || filter(2, 18), || filter(2, 17));
        for (patches, size, qkv, factors) in
            [(16, (2, 3), 12, 2), (6, (4, 4), 12, 2), (6, (2, 3), 8, 2), (6, (2, 3), 12, 1)]
        {
            refuses("attention-half", || attention(6, (2, 3), 12, 2), || attention(patches, size, qkv, factors));
        }
        Ok(())
    }

    #[test]
    fn factors_of_each_task_are_as_many_as_the_tasks_and_of_one_size() -> Result<()> {
        let x = zeros(&[2, 6, C])?;
        let f = zeros(&[4, 6, 2])?;
        let down = |own| ops::norm_down(&zeros(&[6, 6, C])?, &norm(C)?, &factor(own, 2, C)?);
        refuses("norm-down", || down(3), || down(4));
        refuses("norm-down", || down(1), || down(0));
        let conditioned = |own| ops::conditioned_down(&condition(2)?, &norm(C)?, &factor(own, 2, C)?);
        refuses("conditioned-down", || conditioned(2), || conditioned(1));
        let path =
            |own| Ok::<_, candle_core::Error>(TaskPath { a: factor(own, 2, C)?, b: factor(own, C, 2)?, scale: 1.0 });
        let hidden = |one, two| ops::task_hidden(&x, &f, &path(one)?, &path(two)?);
        refuses("task-hidden", || hidden(2, 2), || hidden(2, 3));
        refuses("task-hidden", || hidden(2, 2), || hidden(1, 2));
        let update = |own| ops::task_update(&zeros(&[4, 6, C])?, &x, &f, &path(own)?, None);
        refuses("task-update", || update(2), || update(4));
        refused("task-update", || {
            let b = Factor::PerTask(vec![zeros(&[C, 2])?, zeros(&[C, 3])?]);
            ops::task_update(&zeros(&[4, 6, C])?, &x, &f, &TaskPath { b, ..path(2)? }, None)
        });
        Ok(())
    }

    #[test]
    fn an_even_kernel_reads_nothing_past_its_taps() -> Result<()> {
        let (u, map) = (zeros(&[2, 6, 2])?, zeros(&[2, 2, 3, 2])?);
        for kernel_size in [0, 2, 4, usize::MAX] {
            let n = 2 * kernel_size.min(4).pow(2);
            let (weight, bias, scale, shift) = (zeros(&[n, 2])?, zeros(&[n])?, zeros(&[n])?, zeros(&[n])?);
            let weights = ops::FilterWeights { weight, bias, scale, shift, kernel_size };
            refused("dynamic-filter", || ops::dynamic_filter(&u, (2, 3), &weights));
            refused("filter-taps", || ops::filter_taps(&u, &weights));
            refused("filter-norm", || ops::filter_norm(&zeros(&[2, n])?, &zeros(&[n])?, &zeros(&[n])?, kernel_size));
            refused("depthwise-filter", || ops::depthwise_filter(&map, &zeros(&[2, n / 2, 2])?));
        }
        Ok(())
    }

    #[test]
    fn no_heads_no_rank_no_tokens_and_no_outputs_are_refused() -> Result<()> {
        let (x, c) = (zeros(&[2, 6, C])?, norm(C)?);
        refused("norm-down", || ops::norm_down(&x, &c, &zeros(&[0, C])?.into()));
        refused("norm-down", || ops::norm_down(&zeros(&[2, 0, C])?, &c, &zeros(&[2, C])?.into()));
        refused("conditioned-down", || ops::conditioned_down(&condition(2)?, &c, &zeros(&[0, C])?.into()));
        for (attended, scores) in [([0, 9, C], [0, 2, 4, 9]), ([2, 0, C], [2, 2, 4, 0]), ([2, 9, C], [2, 0, 4, 9])] {
            let condition = TaskCondition { attended: zeros(&attended)?, scores: zeros(&scores)?, tasks: 2 };
            refused("tpc", || condition.feature());
            refused("conditioned-down", || ops::conditioned_down(&condition, &c, &zeros(&[2, C])?.into()));
        }
        refused("merge-linear", || ops::merge_linear(&x, (2, 3), &norm(4 * C)?, &zeros(&[0, 4 * C])?));
        refused("merge-linear", || ops::merge_linear(&x, (usize::MAX, 2), &norm(4 * C)?, &zeros(&[2, 4 * C])?));
        refused("task-hidden", || {
            let fc2 = TaskPath { a: zeros(&[0, C])?.into(), ..task_path(C, C)? };
            ops::task_hidden(&x, &zeros(&[4, 6, 2])?, &task_path(C, C)?, &fc2)
        });
        refused("linear", || ops::linear(&x, &zeros(&[0, C])?, None));
        refused("linear", || ops::linear(&zeros(&[2, 0])?, &zeros(&[3, 0])?, None));
        refused("layer-norm", || norm(0)?.forward(&zeros(&[2, 0])?));
        Ok(())
    }

    #[test]
    fn a_mask_of_other_windows_is_refused() -> Result<()> {
        let attention = |windows: usize| {
            let (qkv, bias, mask) = (zeros(&[4, 9, 3 * C])?, zeros(&[2, 9, 9])?, zeros(&[windows, 9, 9])?);
            Ok(ops::window_attention(&qkv, &bias, Some(&mask))?.tokens)
        };
        refuses("window-attention", || attention(2), || attention(0));
        refuses("window-attention", || attention(4), || attention(3));
        Ok(())
    }

    #[test]
    fn types_that_a_step_does_not_compute_in_are_refused() -> Result<()> {
        let (x, ones) = (zeros(&[2, 6, C])?, zeros(&[C])?);
        for dtype in [DType::U8, DType::I64, DType::F8E4M3] {
            refused("gelu", || ops::gelu(&x.to_dtype(dtype)?));
            refused("filter-norm", || {
                ops::filter_norm(&zeros(&[2, 9])?.to_dtype(dtype)?, &zeros(&[9])?, &zeros(&[9])?, 3)
            });
            refused("linear", || ops::linear(&x, &zeros(&[2, C])?.to_dtype(dtype)?, None));
        }
        for dtype in [DType::F64, DType::BF16] {
            refused("layer-norm", || LayerNorm::new(ones.to_dtype(dtype)?, ones.clone()).forward(&x));
            refused("norm-down", || ops::norm_down(&x, &norm(C)?, &zeros(&[2, C])?.to_dtype(dtype)?.into()));
            refused("linear", || ops::linear(&x, &zeros(&[C, C])?, Some(&ones.to_dtype(dtype)?)));
        }
        Ok(())
    }

    #[test]
    fn a_weight_may_be_stored_in_any_float_type_and_trains_in_it() -> Result<()> {
        let (x, norm) = (zeros(&[2, 6, C])?.ones_like()?, norm(4 * C)?);
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
            let weight = Var::from_tensor(&zeros(&[2, 4 * C])?.to_dtype(dtype)?)?;
            for by in Definition::ALL {
                let y = by.run(|| ops::merge_linear(&x, (2, 3), &norm, &weight))?;
                assert_eq!(y.dtype(), DType::F32);
                assert_eq!(y.sum_all()?.backward()?.get(&weight).unwrap().dtype(), dtype, "{}", by.name());
            }
        }
        Ok(())
    }
}
