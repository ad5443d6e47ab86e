//! A linear map with a trained path of low rank beside it.

use super::both_ways::BothWays;
use super::cpu::{Loan, Real, copies, loan};
use super::frozen_matrix::FrozenMatrix;
use super::linear;
use super::product::{Into, Matrix, add_product, new_product, product, product_into};
use super::segment::Gradients;
use super::shapes::Shapes;
use super::simd;
use super::trace::Pass;
use candle_core::{DType, Result, Tensor};
use std::mem::MaybeUninit;

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

/// Which values are dropped: a function of the seed and of a value's place alone, so that backward can find out again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// The share that is dropped.
    pub rate: f64,
    /// What tells one draw from another.
    pub seed: u64,
}

impl Dropout {
    /// 0 for a value that is dropped and `1 / (1 - rate)` for one that is kept; `index` is the value's place.
    #[inline(always)]
    fn factor(self, index: usize) -> f64 {
        // SplitMix64's finisher.
        let mut z = self.seed.wrapping_add((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let uniform = ((z ^ (z >> 31)) >> 40) as f64 / (1u64 << 24) as f64;
        if uniform < self.rate { 0.0 } else { 1.0 / (1.0 - self.rate) }
    }

    /// The factors of all values of `x`.
    fn of(self, x: &Tensor) -> Result<Tensor> {
        let factors: Vec<f64> = (0..x.elem_count()).map(|i| self.factor(i)).collect();
        Tensor::from_vec(factors, x.dims(), x.device())?.to_dtype(x.dtype())
    }

    /// `y[i] = x[i] factor(first + i)`.
    pub(super) fn apply<T: Real>(self, x: &[T], first: usize, y: &mut [T]) {
        simd::vectorised(|| {
            for (i, (y, x)) in y.iter_mut().zip(x).enumerate() {
                *y = *x * T::of(self.factor(first + i));
            }
        });
    }
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
        scaled_up(u, &self.b, self.scale)
    }

    fn contiguous(&self) -> Result<Self> {
        Ok(Self { a: self.a.contiguous()?, b: self.b.contiguous()?, ..self.clone() })
    }
}

/// `s B u`: `[.., r]` to `[.., out]`.
pub(super) fn scaled_up(u: &Tensor, b: &Tensor, scale: f64) -> Result<Tensor> {
    linear(&(u * scale)?, b, None)
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
        shapes.map("the map", self, n_in, shapes.matrix("a weight", &self.weight, n_in)?)?;
        let dtype = self.weight.dtype();
        let inner = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let [w, a, b] = [&self.weight, &path.a, &path.b].map(|t| t.detach().to_dtype(inner));
        let weight = (w? + (b?.matmul(&a?)? * path.scale)?)?.to_dtype(dtype)?;
        Ok(Self { weight, bias: self.bias.clone(), path: None })
    }

    /// `[.., in]` to `[.., out]`.
    ///
    /// # Errors
    /// A last dimension other than `in`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.add_path(&self.pretrained(x)?, &self.dropped(x)?)
    }

    /// The same map with its tensors' values in order; W by rows or by columns.
    pub(super) fn contiguous(&self) -> Result<Self> {
        let turned = self.weight.is_contiguous() || self.weight.t()?.is_contiguous();
        let path = self.path.as_ref().map(LowRankPath::contiguous).transpose()?;
        Ok(Self {
            weight: if turned { self.weight.clone() } else { self.weight.contiguous()? },
            bias: self.bias.as_ref().map(Tensor::contiguous).transpose()?,
            path,
        })
    }

    pub(super) fn dropout(&self) -> Option<Dropout> {
        self.path.as_ref()?.dropout
    }

    /// Every weight.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let path = self.path.iter().flat_map(|path| [&path.a, &path.b]);
        std::iter::once(&self.weight).chain(&self.bias).chain(path)
    }

    /// The same map with W stored the way round that forward products read it, [in, out]: worth its while where it serves often.
    ///
    /// # Errors
    /// A W that is no matrix.
    pub fn turned(&self) -> Result<Self> {
        Ok(Self { weight: self.weight.t()?.contiguous()?.t()?, ..self.clone() })
    }

    /// The weights as slices, for products over `rows` rows in this pass; the path is folded into W where that saves work.
    pub(super) fn kernel<T: Real>(&self, rows: usize, use_of_w: UseOfW, pass: Pass) -> Result<MapKernel<'_, T>> {
        let (out, n_in) = self.weight.dims2()?;
        let path = self.path.as_ref().map(|path| {
            Ok::<_, candle_core::Error>(PathKernel {
                a: BothWays::lend(&path.a)?,
                b: BothWays::lend(&path.b)?,
                scale: T::of(path.scale),
            })
        });
        let mut kernel = MapKernel {
            weight: FrozenMatrix::lend(&self.weight)?,
            bias: self.bias.as_ref().map(loan).transpose()?,
            path: path.transpose()?,
            n_in,
            out,
            folded: false,
            trains: [Some(&self.weight), self.bias.as_ref()].map(|w| w.is_some_and(Tensor::track_op)),
        };
        if pass == Pass::Forward && rows >= FEWEST_ROWS_TO_TURN {
            kernel.weight.turn();
        }
        let pays = rows * (n_in + out) > n_in * out;
        if use_of_w == UseOfW::WithPath && self.dropout().is_none() && pays {
            kernel.fold();
        }
        Ok(kernel)
    }
}

/// Rows from which a product that reads its weight without rearranging it repays turning the weight.
const FEWEST_ROWS_TO_TURN: usize = 64;

/// Whether somebody needs W x alone beside the whole.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum UseOfW {
    WithPath,
    Alone,
}

/// A [`LowRankMap`] as slices; all its functions work on whole rows.
pub(super) struct MapKernel<'a, T: Real> {
    weight: FrozenMatrix<'a, T>,
    bias: Option<Loan<'a, T>>,
    path: Option<PathKernel<'a, T>>,
    pub(super) n_in: usize,
    pub(super) out: usize,
    folded: bool,
    /// Weight, bias.
    trains: [bool; 2],
}

struct PathKernel<'a, T: Real> {
    a: BothWays<'a, T>,
    b: BothWays<'a, T>,
    scale: T,
}

/// Sums of the gradients of a map's weights.
pub(super) struct MapSums<T> {
    weight: Vec<T>,
    bias: Vec<T>,
    a: Vec<T>,
    b: Vec<T>,
    /// `A x` and `s dy B` of the rows at hand.
    u: Vec<T>,
    du: Vec<T>,
}

impl<T: Real> MapKernel<'_, T> {
    fn fold(&mut self) {
        let Some(path) = &self.path else { return };
        self.weight.add(path.b.matrix(), path.a.matrix(), path.scale);
        self.folded = true;
    }

    /// `y = W x + b`, with the path where it is folded, in memory that nothing was written to; hands it back as values.
    pub(super) fn pretrained<'y>(&self, x: &[T], y: &'y mut [MaybeUninit<T>]) -> &'y mut [T] {
        let (x, weight) = (Matrix::rows(x, self.n_in), self.weight.matrix().t());
        let Some(bias) = &self.bias else { return new_product(y, x, weight, T::one()) };
        let y = copies(y, bias);
        add_product(y, self.out, x, weight, T::one());
        y
    }

    /// `y += s B A x`, unless the path is folded.
    pub(super) fn add_path(&self, x: &[T], y: &mut [T], u: &mut Vec<T>) {
        let Some(path) = self.path.as_ref().filter(|_| !self.folded) else { return };
        let rank = path.down(x, self.n_in, u);
        add_product(y, self.out, Matrix::rows(u, rank), path.b.t(), path.scale);
    }

    pub(super) fn sums(&self) -> MapSums<T> {
        let zeros = |n: usize, on: bool| vec![T::zero(); if on { n } else { 0 }];
        let (a, b) = self.path.as_ref().map_or((0, 0), |path| (path.a.len(), path.b.len()));
        MapSums {
            weight: zeros(self.weight.len(), self.trains[0]),
            bias: zeros(self.out, self.trains[1]),
            a: zeros(a, true),
            b: zeros(b, true),
            u: Vec::new(),
            du: Vec::new(),
        }
    }

    /// Makes room for the gradients of `rows` input rows, and says what the frozen product does to it: the path's part, where it is not
    /// folded, is added to zeros before.
    pub(super) fn room_for_input(&self, dropout: Option<Dropout>, rows: usize, dx: &mut Vec<T>) -> Into {
        let path_adds = self.path.is_some() && (!self.folded || dropout.is_some());
        resize(dx, rows * self.n_in);
        if path_adds {
            dx.fill(T::zero());
            return Into::Add;
        }
        Into::Write
    }

    /// `dx += dy W` or `dx = dy W`, and the sums of W and b where they train.
    pub(super) fn pretrained_backward(&self, x: &[T], dy: &[T], into: Into, dx: &mut [T], sums: &mut MapSums<T>) {
        let rows = Matrix::rows(dy, self.out);
        product_into(dx, self.n_in, into, rows, self.weight.matrix(), T::one());
        if self.trains[0] {
            add_product(&mut sums.weight, self.n_in, rows.t(), Matrix::rows(x, self.n_in), T::one());
        }
        if self.trains[1] {
            simd::vectorised(|| {
                for dy in dy.chunks_exact(self.out) {
                    simd::add(&mut sums.bias, dy);
                }
            });
        }
    }

    /// The path's part of the gradients: `dx += s dy B A` (unless folded), `dA += (s dy B)ᵀ x`, `dB += s dyᵀ (A x)`.
    pub(super) fn path_backward(&self, x: &[T], dy: &[T], dx: &mut [T], sums: &mut MapSums<T>) {
        let Some(path) = &self.path else { return };
        let MapSums { a, b, u, du, .. } = sums;
        let rank = path.down(x, self.n_in, u);
        resize(du, u.len());
        let dy = Matrix::rows(dy, self.out);
        product(du, rank, dy, path.b.matrix(), path.scale);
        add_product(b, rank, dy.t(), Matrix::rows(u, rank), path.scale);
        add_product(a, self.n_in, Matrix::rows(du, rank).t(), Matrix::rows(x, self.n_in), T::one());
        if !self.folded {
            add_product(dx, self.n_in, Matrix::rows(du, rank), path.a.matrix(), T::one());
        }
    }
}

impl<T: Real> PathKernel<'_, T> {
    /// `u = A x`; gives the rank.
    fn down(&self, x: &[T], n_in: usize, u: &mut Vec<T>) -> usize {
        let rank = self.a.len() / n_in;
        resize(u, x.len() / n_in * rank);
        product(u, rank, Matrix::rows(x, n_in), self.a.t(), T::one());
        rank
    }
}

impl<T: Real> MapSums<T> {
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, other) in [
            (&mut self.weight, &other.weight),
            (&mut self.bias, &other.bias),
            (&mut self.a, &other.a),
            (&mut self.b, &other.b),
        ] {
            simd::vectorised(|| simd::add(sum, other));
        }
    }

    pub(super) fn give(self, map: &LowRankMap, grads: &mut Gradients) -> Result<()> {
        grads.give_values(&map.weight, self.weight)?;
        if let Some(bias) = &map.bias {
            grads.give_values(bias, self.bias)?;
        }
        match &map.path {
            Some(path) => {
                grads.give_values(&path.a, self.a)?;
                grads.give_values(&path.b, self.b)
            }
            None => Ok(()),
        }
    }
}

/// Makes room for `len` values without caring what they are.
pub(super) fn resize<T: Real>(buffer: &mut Vec<T>, len: usize) {
    buffer.resize(len, T::zero());
}

/// The low-rank path's gradients where its input was dropped: by way of what the path read.
#[allow(clippy::too_many_arguments)]
pub(super) fn path_backward<T: Real>(
    map: &MapKernel<T>,
    dropout: Option<Dropout>,
    first: usize,
    x: &[T],
    dy: &[T],
    dx: &mut [T],
    sums: &mut MapSums<T>,
    [dropped, ddropped]: [&mut Vec<T>; 2],
) {
    let Some(dropout) = dropout else { return map.path_backward(x, dy, dx, sums) };
    resize(dropped, x.len());
    dropout.apply(x, first, dropped);
    zeroed(ddropped, x.len());
    map.path_backward(dropped, dy, ddropped, sums);
    dropout.apply(ddropped, first, dropped);
    simd::vectorised(|| simd::add(dx, dropped));
}

/// `len` zeros.
pub(super) fn zeroed<T: Real>(buffer: &mut Vec<T>, len: usize) {
    buffer.clear();
    buffer.resize(len, T::zero());
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn dropout_keeps_the_mean_and_is_a_function_of_its_seed() -> Result<()> {
        let x = Tensor::ones((200, 50), DType::F32, &Device::Cpu)?;
        let draw = |seed| -> Result<Vec<f32>> { (&x * Dropout { rate: 0.25, seed }.of(&x)?)?.flatten_all()?.to_vec1() };
        let mean = draw(3)?.iter().sum::<f32>() / 10_000.0;
        assert!((mean - 1.0).abs() < 0.03, "{mean}");
        assert_eq!(draw(1)?, draw(1)?);
        assert_ne!(draw(1)?, draw(2)?);
        Ok(())
    }
}
