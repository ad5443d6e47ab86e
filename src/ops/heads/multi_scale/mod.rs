//! A head over maps of several sizes: hidden layer, BatchNorm, ReLU and output, with no map resized.
//!
//! A 1x1 convolution commutes with resizing, which mixes positions and leaves channels alone. So the hidden layer's columns of
//! each map are applied at that map's own size, and what is resized is the hidden map, a few rows at a time: nothing of the
//! finest size is held at the hidden width, not even for backward, which makes those rows again.

mod backward;
mod forward;
mod kernel;
mod resample;

use crate::ops::batch_norm::{BatchMoments, BatchNorm, MomentsOf};
use crate::ops::constants::constants;
use crate::ops::cpu::Real;
use crate::ops::feature_map::FeatureMap;
use crate::ops::graph::{CpuKernel, InputGradients, Keep, OnTensor, Output, Passed, Step, apply};
use crate::ops::shapes::Shapes;
use crate::ops::{bilinear, linear};
use candle_core::{Device, Result, Tensor};

/// A 1x1 convolution.
#[derive(Clone, Debug)]
pub struct Conv1x1 {
    /// `[out, in]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Tensor,
}

impl Conv1x1 {
    fn forward(&self, rows: &Tensor) -> Result<Tensor> {
        linear(rows, &self.weight, Some(&self.bias))
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { weight: f(&self.weight)?, bias: f(&self.bias)? })
    }
}

/// `y = output(drop(ReLU(norm(hidden(concat_i resize(p_i))))))`, computed as `hidden(..) = b + Σ_i resize(W_i p_i)`, W_i the hidden
/// weight's columns of map i; resizing is bilinear, to the first map's size, as [`bilinear`](crate::ops::bilinear) does it.
///
/// # Shapes
/// Maps p_i `[B, h_i*w_i, c_i]`; hidden weight `[H, Σ c_i]`; output weight `[n, H]`; y `[B, n, h_0, w_0]`.
///
/// Source: HRNetV2's segmentation head, as MTLoRA and TADFormer use it, and SegFormer's; the order of the steps is ours.
#[derive(Clone, Debug)]
pub struct MultiScaleHead {
    /// The maps, the finest first.
    pub maps: Vec<FeatureMap>,
    /// Their channels to H.
    pub hidden: Conv1x1,
    /// Over the H channels.
    pub norm: BatchNorm,
    /// What multiplies each image's hidden channels after ReLU, `B*H` factors: dropout of whole channels.
    pub dropped: Option<Vec<f64>>,
    /// H to the head's outputs.
    pub output: Conv1x1,
}

impl MultiScaleHead {
    /// y, and the moments that the hidden values were normalised by, detached.
    ///
    /// On the CPU in f32 or f64 one step of the graph, elsewhere candle's primitives.
    ///
    /// # Errors
    /// No map, or tensors whose shapes or float types do not fit.
    pub fn forward(self) -> Result<(Tensor, BatchMoments)> {
        let given = match &self.norm.moments {
            MomentsOf::Given(moments) => Some(moments.detach()),
            MomentsOf::Batch => None,
        };
        let mut outputs = apply(self)?.into_iter();
        match (outputs.next(), given, outputs.next(), outputs.next()) {
            (Some(y), Some(moments), ..) => Ok((y, moments)),
            (Some(y), None, Some(mean), Some(variance)) => {
                Ok((y, BatchMoments { mean: mean.detach(), variance: variance.detach() }))
            }
            _ => candle_core::bail!("multi-scale-head: an output is missing"),
        }
    }
}

impl Step for MultiScaleHead {
    fn name(&self) -> &'static str {
        "multi-scale-head"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        let map = |FeatureMap { tokens, size }: &FeatureMap| Ok(FeatureMap { tokens: f(tokens)?, size: *size });
        let maps = self.maps.iter().map(map).collect::<Result<_>>()?;
        let (hidden, norm, output) = (self.hidden.map(f)?, self.norm.map(f)?, self.output.map(f)?);
        Ok(Self { maps, hidden, norm, dropped: self.dropped.clone(), output })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let Some(first) = self.maps.first() else { candle_core::bail!("multi-scale-head: expected a map, got none") };
        let ([images, _, _], mut channels) = (shapes.sizes("a map", &first.tokens)?, 0);
        for FeatureMap { tokens, size } in &self.maps {
            let [_, _, c] = shapes.sizes("a map", tokens)?;
            shapes.expect("a map", tokens, &[images, shapes.tokens(*size)?, c])?;
            channels += c;
        }
        let ([hidden, _], [out, _]) = (
            shapes.sizes("a hidden weight", &self.hidden.weight)?,
            shapes.sizes("an output weight", &self.output.weight)?,
        );
        shapes.expect("a hidden weight", &self.hidden.weight, &[hidden, channels])?;
        shapes.expect("a hidden bias", &self.hidden.bias, &[hidden])?;
        self.norm.check(shapes, hidden)?;
        if let Some(factors) = self.dropped.as_ref().filter(|factors| factors.len() != images * hidden) {
            let (name, got) = (self.name(), factors.len());
            candle_core::bail!("{name}: expected a factor for each of {hidden} channels of {images} images, got {got}")
        }
        shapes.expect("an output weight", &self.output.weight, &[out, hidden])?;
        shapes.expect("an output bias", &self.output.bias, &[out])
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let (images, (h, w)) = (self.maps[0].tokens.dim(0)?, self.maps[0].size);
        let resize = |FeatureMap { tokens, size }: &FeatureMap| {
            let map = tokens.transpose(1, 2)?.reshape((images, (), size.0, size.1))?;
            bilinear(&map, (h, w))
        };
        let maps: Vec<Tensor> = self.maps.iter().map(resize).collect::<Result<_>>()?;
        let rows = Tensor::cat(&maps, 1)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?.flatten_to(1)?;
        let (rows, moments) = self.norm.forward(&self.hidden.forward(&rows)?)?;
        let rows = self.drop(&rows.relu()?.reshape((images, h * w, ()))?)?.flatten_to(1)?;
        let y = self.output.forward(&rows)?.reshape((images, h * w, ()))?;
        let y = y.transpose(1, 2)?.reshape((images, (), h, w))?;
        Ok(match &self.norm.moments {
            MomentsOf::Batch => vec![y, moments.mean, moments.variance],
            MomentsOf::Given(_) => vec![y],
        })
    }
}

/// Each hidden channel's mean and variance.
pub(in crate::ops) struct Moments<T> {
    mean: Vec<T>,
    variance: Vec<T>,
}

impl<T: Real> CpuKernel<T> for MultiScaleHead {
    type Saved = Moments<T>;

    fn forward(&self, _: Keep) -> Result<Passed<Moments<T>>> {
        let kernel = self.kernel::<T>()?;
        let moments = self.moments(&kernel)?;
        let y = kernel.forward(&kernel.normed(&moments));
        let (b, (h, w)) = (kernel.images, kernel.size);
        let mut outputs = vec![Output::new(y, (b, kernel.outputs, h, w))];
        if matches!(self.norm.moments, MomentsOf::Batch) {
            let vector = |values: &Vec<T>| Output::new(values.clone(), kernel.hidden);
            outputs.extend([vector(&moments.mean), vector(&moments.variance)]);
        }
        Ok((outputs, Some(moments)))
    }

    fn backward(&self, moments: Moments<T>, outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let Some(Some(dy)) = outputs.first() else { return Ok(()) };
        self.gradients(&self.kernel()?, &moments, dy, grads)
    }
}

impl MultiScaleHead {
    /// Hidden values `[B, N, H]` times their channels' factors.
    fn drop(&self, x: &Tensor) -> Result<Tensor> {
        match &self.dropped {
            Some(factors) => x.broadcast_mul(&constants(factors, (x.dim(0)?, 1, x.dim(2)?), x.dtype(), x.device())?),
            None => Ok(x.clone()),
        }
    }

    fn moments<T: Real>(&self, kernel: &kernel::Kernel<T>) -> Result<Moments<T>> {
        let cpu = |vector: &Tensor| vector.to_dtype(T::DTYPE)?.to_device(&Device::Cpu)?.to_vec1();
        match &self.norm.moments {
            MomentsOf::Given(moments) => Ok(Moments { mean: cpu(&moments.mean)?, variance: cpu(&moments.variance)? }),
            MomentsOf::Batch => Ok(kernel.batch_moments()),
        }
    }
}

#[cfg(test)]
mod tests;
