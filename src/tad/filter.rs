//! The task filter, between A and B on a task's path: the Dynamic Task Filter, and its variants.

use super::TaskFilterKind;
use crate::layers::FeatureMap;
use crate::ops;
use crate::ops::FilterWeights;
use crate::params::{Group, Weights, uniform_by_fan_in};
use crate::task::TaskSet;
use candle_core::{Module, Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// A depth-wise k x k filter made for each map from the map's own pooled context.
///
/// ```text
/// taps = FilterNorm(W pool(u) + b)        W [r*k*k, r]
/// y    = depth-wise convolution of u with its own taps, stride 1, zero padding k/2
/// ```
/// with FilterNorm as in [`ops::filter_norm`]: each channel's taps normed, then scaled and shifted tap by tap.
///
/// # Shapes
/// `[b, r, h, w]` to `[b, r, h, w]`; as tokens `[b, h*w, r]`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{VarBuilder, VarMap};
/// use tadformer::DynamicTaskFilter;
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let filter = DynamicTaskFilter::new(16, 3, vb)?;
/// let map = Tensor::randn(0f32, 1., (2, 16, 12, 20), &Device::Cpu)?;
/// assert_eq!(filter.forward(&map)?.dims(), map.dims());
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// Source: section 3.4 of the paper, after Decoupled Dynamic Filter networks. The released code has a static filter in its
/// place ([`StaticTaskFilter`]); with this one its parameter counts are the paper's.
#[derive(Clone, Debug)]
pub struct DynamicTaskFilter {
    weights: FilterWeights,
}

impl DynamicTaskFilter {
    /// For maps of `rank` channels, with `kernel` x `kernel` taps (odd, at least 3).
    ///
    /// # Errors
    /// No rank; a kernel that is even or below 3: its centre or its deviation would not exist.
    pub fn new(rank: usize, kernel: usize, vb: VarBuilder) -> Result<Self> {
        let (n, conv, norm) = (rank * taps(rank, kernel, 3)?, vb.pp("conv"), vb.pp("norm"));
        let stdev = std::f64::consts::SQRT_2 / kernel as f64;
        let weights = FilterWeights {
            weight: conv.get_with_hints((n, rank), "weight", uniform_by_fan_in(rank))?,
            bias: conv.get_with_hints(n, "bias", uniform_by_fan_in(rank))?,
            scale: norm.get_with_hints(n, "scale", Init::Randn { mean: 0.0, stdev })?,
            shift: norm.get_with_hints(n, "shift", Init::Randn { mean: 0.0, stdev: 1.0 })?,
            kernel_size: kernel,
        };
        Ok(Self { weights })
    }

    /// `[b, r, h, w]` to `[b, r, h, w]`.
    ///
    /// # Errors
    /// A map of other than four dimensions, of other channels, or in another float type.
    pub fn forward(&self, map: &Tensor) -> Result<Tensor> {
        let (rank, dtype) = (self.weights.weight.dim(1)?, self.weights.weight.dtype());
        if !matches!(map.dims(), [_, r, _, _] if *r == rank) || map.dtype() != dtype {
            candle_core::bail!(
                "dynamic-filter: expected a map [b, {rank}, h, w] of {}, got {:?} of {} (turn it with to_dtype, or make the filter \
                 for its channels and in its type)",
                dtype.as_str(),
                map.dims(),
                map.dtype().as_str()
            )
        }
        let FeatureMap { tokens, size } = FeatureMap::from_nchw(map)?;
        FeatureMap { tokens: self.forward_tokens(&tokens, size)?, size }.to_nchw()
    }

    /// Tokens `[b, h*w, r]` of maps of `size` (h, w) to the same.
    ///
    /// # Errors
    /// Tokens of another number than `size` says, of other channels than the filter's, or in another float type.
    pub fn forward_tokens(&self, tokens: &Tensor, size: (usize, usize)) -> Result<Tensor> {
        ops::dynamic_filter(tokens, size, &self.weights)
    }

    /// Each map's own filter: tokens `[b, h*w, r]` to `[b, k*k, r]`.
    ///
    /// # Errors
    /// Tokens of other channels than the filter's, or in another float type.
    pub fn taps(&self, tokens: &Tensor) -> Result<Tensor> {
        ops::filter_taps(tokens, &self.weights)
    }
}

impl Module for DynamicTaskFilter {
    fn forward(&self, map: &Tensor) -> Result<Tensor> {
        self.forward(map)
    }
}

/// Taps of a kernel of at least `least`, for maps of `rank` channels.
fn taps(rank: usize, kernel: usize, least: usize) -> Result<usize> {
    if !(least..1 << 10).contains(&kernel) || kernel.is_multiple_of(2) {
        candle_core::bail!("`kernel`: expected an odd number from {least} to 1023, got {kernel} (the paper uses 3)")
    }
    if !(1..1 << 20).contains(&rank) {
        candle_core::bail!("`rank`: expected a number from 1 to 1048575, got {rank} (the paper uses 16 to 128)")
    }
    Ok(kernel * kernel)
}

/// One learned depth-wise k x k filter with a bias for each task: what the released code has in the DTF's place.
///
/// # Shapes
/// Each task's weight `[r, 1, k, k]` and bias `[r]`; tokens `[T*b, h*w, r]`, the tasks leading, to the same.
#[derive(Clone, Debug)]
pub struct StaticTaskFilter {
    filters: Vec<(Tensor, Tensor)>,
}

impl StaticTaskFilter {
    /// One filter for each task, named after it.
    ///
    /// # Errors
    /// No rank, or an even kernel; weights that are missing or of another shape; a name made twice.
    pub fn new(tasks: &TaskSet, rank: usize, kernel: usize, vb: VarBuilder) -> Result<Self> {
        let init = uniform_by_fan_in(taps(rank, kernel, 1)?);
        let one = |name: &str| -> Result<(Tensor, Tensor)> {
            let vb = vb.pp(name);
            let weight = vb.get_with_hints((rank, 1, kernel, kernel), "weight", init)?;
            Ok((weight, vb.get_with_hints(rank, "bias", init)?))
        };
        Ok(Self { filters: tasks.iter().map(|task| one(&task.name)).collect::<Result<_>>()? })
    }

    /// Tokens `[T*b, h*w, r]` of maps of `size` (h, w) to the same.
    ///
    /// # Errors
    /// Tokens of another number than `size` says, of other channels than the filters', or in another float type; maps that the tasks do
    /// not divide.
    pub fn forward_tokens(&self, tokens: &Tensor, size: (usize, usize)) -> Result<Tensor> {
        let taps = self.taps(tokens)?;
        let map = FeatureMap { tokens: tokens.clone(), size };
        let maps = ops::depthwise_filter(&map.to_nhwc()?, &taps)?;
        let biases: Vec<&Tensor> = self.filters.iter().map(|(_, bias)| bias).collect();
        let biases = Tensor::stack(&biases, 0)?.unsqueeze(1)?; // [T, 1, r]
        maps.reshape((self.filters.len(), (), biases.dim(2)?))?.broadcast_add(&biases)?.reshape(tokens.shape())
    }

    /// Each map's filter without its bias, which is its task's: tokens `[T*b, h*w, r]`, the tasks leading, to `[T*b, k*k, r]`.
    ///
    /// # Errors
    /// Tokens of other channels than the filters'; maps that the tasks do not divide.
    pub fn taps(&self, tokens: &Tensor) -> Result<Tensor> {
        let ((tb, _, r), tasks) = (tokens.dims3()?, self.filters.len());
        if !tb.is_multiple_of(tasks) || self.filters.iter().any(|(_, bias)| bias.dims() != [r]) {
            candle_core::bail!(
                "static filter: expected maps of {tasks} tasks and of the filters' rank, got {:?}",
                tokens.dims()
            )
        }
        let weights: Vec<&Tensor> = self.filters.iter().map(|(weight, _)| weight).collect();
        let taps = Tensor::stack(&weights, 0)?.reshape((tasks, r, ()))?.transpose(1, 2)?; // [T, k*k, r]
        let kk = taps.dim(1)?;
        taps.unsqueeze(1)?.broadcast_as((tasks, tb / tasks, kk, r))?.reshape((tb, kk, r))
    }
}

/// The filter of one task-aware linear, whichever kind was configured.
#[derive(Clone, Debug)]
pub enum TaskFilter {
    /// Made from each input's context.
    Dynamic(DynamicTaskFilter),
    /// Learned for each task.
    Static(StaticTaskFilter),
    /// The identity.
    None,
}

impl TaskFilter {
    /// The configured kind, from `weights` at the linear's place.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice; no rank; an even kernel or, for the dynamic filter, one below 3.
    pub fn new(kind: TaskFilterKind, tasks: &TaskSet, rank: usize, weights: &Weights) -> Result<Self> {
        let vb = weights.adapter(Group::Filters).pp("filter");
        Ok(match kind {
            TaskFilterKind::Dynamic { kernel } => Self::Dynamic(DynamicTaskFilter::new(rank, kernel, vb)?),
            TaskFilterKind::Static { kernel } => Self::Static(StaticTaskFilter::new(tasks, rank, kernel, vb)?),
            TaskFilterKind::None => Self::None,
        })
    }

    /// Tokens `[T*b, h*w, r]` of maps of `size`, the tasks leading, to the same.
    ///
    /// # Errors
    /// Where there is a filter, those of its own `forward_tokens`.
    pub fn forward_tokens(&self, tokens: &Tensor, size: (usize, usize)) -> Result<Tensor> {
        match self {
            Self::Dynamic(filter) => filter.forward_tokens(tokens, size),
            Self::Static(filter) => filter.forward_tokens(tokens, size),
            Self::None => Ok(tokens.clone()),
        }
    }

    /// Each map's filter: tokens `[T*b, h*w, r]`, the tasks leading, to `[T*b, k*k, r]`; `None` where there is no filter.
    ///
    /// # Errors
    /// Where there is a filter, those of its own `taps`.
    pub fn taps(&self, tokens: &Tensor) -> Result<Option<Tensor>> {
        match self {
            Self::Dynamic(filter) => filter.taps(tokens).map(Some),
            Self::Static(filter) => filter.taps(tokens).map(Some),
            Self::None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};
    use candle_core::{DType, Device, Var};
    use candle_nn::VarMap;

    fn dynamic() -> Result<(DynamicTaskFilter, VarMap)> {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F64, &Device::Cpu);
        Ok((DynamicTaskFilter::new(2, 3, vb)?, variables))
    }

    #[test]
    fn a_map_makes_its_own_filter() -> Result<()> {
        let (filter, _) = dynamic()?;
        let maps = normal(1, &[2, 2, 4, 5])?;
        let alone = filter.forward(&maps.narrow(0, 1, 1)?)?;
        close(&filter.forward(&maps)?.narrow(0, 1, 1)?, &alone, 1e-12)?;
        let taps = filter.taps(&normal(2, &[2, 6, 2])?)?;
        assert!((taps.get(0)? - taps.get(1)?)?.abs()?.sum_all()?.to_scalar::<f64>()? > 1e-3);
        Ok(())
    }

    #[test]
    fn gradients_reach_the_map_and_every_weight() -> Result<()> {
        let (filter, variables) = dynamic()?;
        let maps = normal(1, &[2, 2, 3, 4])?;
        check(&[&maps], |v| filter.forward(&v[0]))?;
        let names: Vec<String> = variables.data().lock().unwrap().keys().cloned().collect();
        assert_eq!(names.len(), 4);
        let mut vars: Vec<Var> = variables.all_vars();
        vars.sort_by_key(|v| v.elem_count());
        let c = normal(5, &[2, 2, 3, 4])?;
        let loss = || (filter.forward(&maps)? * &c)?.sum_all();
        let grads = loss()?.backward()?;
        for var in vars {
            let grad: Vec<f64> = grads.get(&var).unwrap().flatten_all()?.to_vec1()?;
            let base: Vec<f64> = var.flatten_all()?.to_vec1()?;
            let at = |delta: f64| -> Result<f64> {
                let mut moved = base.clone();
                moved[1] += delta;
                var.set(&Tensor::from_vec(moved, var.dims(), &Device::Cpu)?)?;
                loss()?.to_scalar()
            };
            let numeric = (at(1e-5)? - at(-1e-5)?) / 2e-5;
            at(0.0)?;
            assert!((grad[1] - numeric).abs() < 1e-6 * numeric.abs().max(1.0), "{} {numeric}", grad[1]);
        }
        Ok(())
    }

    #[test]
    fn a_static_filter_serves_each_task_its_own() -> Result<()> {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F64, &Device::Cpu);
        let tasks: TaskSet = "sal=1,depth=1".parse().map_err(candle_core::Error::wrap)?;
        let filter = StaticTaskFilter::new(&tasks, 2, 3, vb)?;
        let tokens = normal(1, &[4, 12, 2])?;
        let (weight, bias) = &filter.filters[1];
        let map = FeatureMap { tokens: tokens.narrow(0, 3, 1)?, size: (3, 4) }.to_nchw()?;
        let want = map.conv2d(weight, 1, 1, 1, 2)?.broadcast_add(&bias.reshape((1, 2, 1, 1))?)?;
        close(&filter.forward_tokens(&tokens, (3, 4))?.narrow(0, 3, 1)?, &FeatureMap::from_nchw(&want)?.tokens, 1e-12)?;
        check(&[&tokens], |v| filter.forward_tokens(&v[0], (3, 4)))
    }

    #[test]
    fn maps_of_other_channels_or_types_are_refused_with_the_cure() -> Result<()> {
        let (filter, _) = dynamic()?;
        for (dims, dtype, got) in [
            (vec![1, 3, 4, 5], DType::F64, "got [1, 3, 4, 5] of f64"),
            (vec![2, 4, 5], DType::F64, "got [2, 4, 5] of f64"),
            (vec![1, 2, 4, 5], DType::F32, "got [1, 2, 4, 5] of f32"),
            (vec![1, 2, 4, 5], DType::U8, "got [1, 2, 4, 5] of u8"),
        ] {
            let message = filter.forward(&Tensor::zeros(dims, dtype, &Device::Cpu)?).unwrap_err().to_string();
            assert!(message.contains("expected a map [b, 2, h, w] of f64"), "{message}");
            assert!(message.contains(got) && message.contains("to_dtype"), "{message}");
        }
        Ok(())
    }

    #[test]
    fn kernels_and_ranks_that_no_filter_has_are_refused() -> Result<()> {
        let vb = || VarBuilder::zeros(DType::F32, &Device::Cpu);
        let tasks: TaskSet = "sal=1".parse().map_err(candle_core::Error::wrap)?;
        for (rank, kernel, field) in [(2, 4, "kernel"), (2, 0, "kernel"), (2, usize::MAX, "kernel"), (0, 3, "rank")] {
            let dynamic = DynamicTaskFilter::new(rank, kernel, vb()).unwrap_err().to_string();
            let fixed = StaticTaskFilter::new(&tasks, rank, kernel, vb()).unwrap_err().to_string();
            assert!(dynamic.contains(field) && fixed.contains(field), "{dynamic}; {fixed}");
        }
        StaticTaskFilter::new(&tasks, 2, 1, vb())?;
        assert!(DynamicTaskFilter::new(2, 1, vb()).unwrap_err().to_string().contains("from 3"));
        Ok(())
    }
}
