//! A linear map with a trained path of low rank beside it.

pub(in crate::ops) mod kernel;

use super::dropout::Dropout;
use super::graph::OnTensor;
use super::linear;
use super::matmul::matmul;
use super::shapes::Shapes;
use candle_core::{DType, Result, Tensor};

/// `y = W x + b + s B A dropout(x)`: the weights of a frozen linear map, and of the trained path beside it where there is one.
///
/// # Shapes
/// W `[out, in]`, b `[out]`, A `[r, in]`, B `[out, r]`.
#[derive(Clone, Debug)]
pub struct LowRankMap {
    /// W.
    pub weight: Tensor,
    /// b.
    pub bias: Option<Tensor>,
    /// The trained path.
    pub path: Option<LowRankPath>,
}

/// The trained path of a [`LowRankMap`].
#[derive(Clone, Debug)]
pub struct LowRankPath {
    /// A, `[r, in]`.
    pub a: Tensor,
    /// B, `[out, r]`.
    pub b: Tensor,
    /// s.
    pub scale: f64,
    /// What is dropped of the path's input, in training.
    pub dropout: Option<Dropout>,
}

impl LowRankPath {
    /// Rank r.
    ///
    /// # Errors
    /// An A without dimensions.
    pub fn rank(&self) -> Result<usize> {
        self.a.dim(0)
    }

    /// `A x`: `[.., in]` to `[.., r]`.
    ///
    /// # Errors
    /// A last dimension other than `in`.
    pub fn down(&self, x: &Tensor) -> Result<Tensor> {
        linear(x, &self.a, None)
    }

    /// `s B u`: `[.., r]` to `[.., out]`.
    ///
    /// # Errors
    /// A last dimension other than `r`.
    pub fn up(&self, u: &Tensor) -> Result<Tensor> {
        linear(&(u * self.scale)?, &self.b, None)
    }

    pub(super) fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { a: f(&self.a)?, b: f(&self.b)?, ..*self })
    }
}

impl LowRankMap {
    /// `W x + b`.
    ///
    /// # Errors
    /// A last dimension other than `in`.
    pub fn pretrained(&self, x: &Tensor) -> Result<Tensor> {
        linear(x, &self.weight, self.bias.as_ref())
    }

    /// What the path reads: `dropout(x)`.
    ///
    /// # Errors
    /// Values that are no floats; a device without room for the factors.
    pub fn dropped(&self, x: &Tensor) -> Result<Tensor> {
        Shapes::of("dropout", x)?.channels("x", x)?;
        match self.dropout() {
            Some(dropout) => x * dropout.of(x)?,
            None => Ok(x.clone()),
        }
    }

    /// Adds the path's `s B A x` to `y`; x as [`LowRankMap::dropped`] gives it.
    ///
    /// # Errors
    /// Tensors whose shapes do not fit.
    pub fn add_path(&self, y: &Tensor, x: &Tensor) -> Result<Tensor> {
        match &self.path {
            Some(path) => y + path.up(&path.down(x)?)?,
            None => Ok(y.clone()),
        }
    }

    /// The same map as one frozen matrix, `W + s B A` in W's float type, made in f32 where that is a half.
    ///
    /// # Errors
    /// W, A and B whose shapes or float types do not fit.
    pub fn folded(&self) -> Result<Self> {
        let Some(path) = &self.path else { return Ok(self.clone()) };
        let shapes = Shapes::of("low-rank map", &path.a)?;
        let [_, n_in] = shapes.sizes("A", &path.a)?;
        self.check(shapes, "the map", n_in, shapes.matrix("a weight", &self.weight, n_in)?)?;
        let dtype = self.weight.dtype();
        let inner = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let [w, a, b] = [&self.weight, &path.a, &path.b].map(|t| t.detach().to_dtype(inner));
        let weight = (w? + (matmul(&b?, &a?)? * path.scale)?)?.to_dtype(dtype)?;
        Ok(Self { weight, bias: self.bias.clone(), path: None })
    }

    /// `[.., in]` to `[.., out]`.
    ///
    /// # Errors
    /// A last dimension other than `in`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.add_path(&self.pretrained(x)?, &self.dropped(x)?)
    }

    /// The same map with what `f` gives for every weight.
    pub(super) fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self {
            weight: f(&self.weight)?,
            bias: self.bias.as_ref().map(&mut *f).transpose()?,
            path: self.path.as_ref().map(|path| path.map(f)).transpose()?,
        })
    }

    /// Whether it is a map from `n_in` channels to `out`, in the step of `shapes`, of which it is `what`.
    pub(super) fn check(&self, shapes: Shapes, what: &str, n_in: usize, out: usize) -> Result<()> {
        shapes.stored(&format!("{what}'s weight"), &self.weight, &[out, n_in])?;
        if let Some(bias) = &self.bias {
            shapes.expect(&format!("{what}'s bias"), bias, &[out])?;
        }
        if let Some(path) = &self.path {
            let [rank, _] = shapes.sizes(&format!("{what}'s A"), &path.a)?;
            shapes.expect(&format!("{what}'s A"), &path.a, &[rank, n_in])?;
            shapes.expect(&format!("{what}'s B"), &path.b, &[out, rank])?;
        }
        Ok(())
    }

    pub(super) fn dropout(&self) -> Option<Dropout> {
        self.path.as_ref()?.dropout
    }

    /// The same map with W stored the way round that forward products read it, [in, out]: worth its while where it serves often.
    ///
    /// # Errors
    /// A W that is no matrix.
    pub fn turned(&self) -> Result<Self> {
        Ok(Self { weight: self.weight.t()?.contiguous()?.t()?, ..self.clone() })
    }
}
