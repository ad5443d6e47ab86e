//! A low-rank map on slices.

use super::LowRankMap;
use crate::ops::cpu::simd;
use crate::ops::cpu::{
    BothWays, FrozenMatrix, Into, Matrix, Real, Values, add_product, copies, new_product, product, product_into,
    resize, values, zeroed,
};
use crate::ops::dropout::Dropout;
use crate::ops::graph::InputGradients;
use crate::ops::graph::trace::Pass;
use candle_core::{Result, Tensor};
use std::mem::MaybeUninit;

impl LowRankMap {
    /// The weights as slices, for products over `rows` rows in this pass; the path is folded into W where that saves work.
    pub(in crate::ops) fn kernel<T: Real>(
        &self,
        rows: usize,
        use_of_w: UseOfW,
        pass: Pass,
    ) -> Result<MapKernel<'_, T>> {
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
            bias: self.bias.as_ref().map(values).transpose()?,
            path: path.transpose()?,
            dropout: self.dropout(),
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
pub(in crate::ops) const FEWEST_ROWS_TO_TURN: usize = 64;

/// Whether somebody reads `W x + b` alone beside the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum UseOfW {
    /// Nobody does.
    WithPath,
    /// Somebody does: the path stays apart.
    Alone,
}

/// A [`LowRankMap`] as slices; all its functions work on whole rows.
pub(in crate::ops) struct MapKernel<'a, T: Real> {
    weight: FrozenMatrix<'a, T>,
    bias: Option<Values<'a, T>>,
    path: Option<PathKernel<'a, T>>,
    /// What is dropped of the path's input.
    dropout: Option<Dropout>,
    pub(in crate::ops) n_in: usize,
    pub(in crate::ops) out: usize,
    folded: bool,
    /// Weight, bias.
    trains: [bool; 2],
}

pub(in crate::ops) struct PathKernel<'a, T: Real> {
    a: BothWays<'a, T>,
    b: BothWays<'a, T>,
    scale: T,
}

/// Sums of the gradients of a map's weights.
pub(in crate::ops) struct MapSums<T> {
    weight: Vec<T>,
    bias: Vec<T>,
    a: Vec<T>,
    b: Vec<T>,
}

/// What the backward of a path reuses from block to block, whichever map's path it is.
#[derive(Default)]
pub(in crate::ops) struct PathBuffers<T> {
    /// What the path read, and its gradient, where something was dropped.
    dropped: Vec<T>,
    ddropped: Vec<T>,
    /// `A x` and `s dy B`.
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
    pub(in crate::ops) fn pretrained<'y>(&self, x: &[T], y: &'y mut [MaybeUninit<T>]) -> &'y mut [T] {
        let (x, weight) = (Matrix::rows(x, self.n_in), self.weight.matrix().t());
        let Some(bias) = &self.bias else { return new_product(y, x, weight, T::one()) };
        let y = copies(y, bias);
        add_product(y, self.out, x, weight, T::one());
        y
    }

    /// `dropout(x)`, what the path reads of rows x; `first` is the first row's number. A gradient goes back to x in the same way.
    pub(in crate::ops) fn dropped<'b>(&self, first: usize, x: &'b [T], buffer: &'b mut Vec<T>) -> &'b [T] {
        let Some(dropout) = self.dropout else { return x };
        resize(buffer, x.len());
        dropout.apply(x, first * self.n_in, buffer);
        buffer
    }

    /// `y += s B A x`, unless the path is folded; x as [`MapKernel::dropped`] gives it.
    pub(in crate::ops) fn add_path(&self, x: &[T], y: &mut [T], u: &mut Vec<T>) {
        let Some(path) = self.path.as_ref().filter(|_| !self.folded) else { return };
        let rank = path.down(x, self.n_in, u);
        add_product(y, self.out, Matrix::rows(u, rank), path.b.t(), path.scale);
    }

    pub(in crate::ops) fn sums(&self) -> MapSums<T> {
        let zeros = |n: usize, on: bool| vec![T::zero(); if on { n } else { 0 }];
        let (a, b) = self.path.as_ref().map_or((0, 0), |path| (path.a.len(), path.b.len()));
        MapSums {
            weight: zeros(self.weight.len(), self.trains[0]),
            bias: zeros(self.out, self.trains[1]),
            a: zeros(a, true),
            b: zeros(b, true),
        }
    }

    /// Makes room for the gradients of `rows` input rows, and says what the frozen product does to it: the path's part, where it is not
    /// folded, is added to zeros before.
    pub(in crate::ops) fn room_for_input(&self, rows: usize, dx: &mut Vec<T>) -> Into {
        resize(dx, rows * self.n_in);
        if self.path.is_none() || self.folded {
            return Into::Write;
        }
        dx.fill(T::zero());
        Into::Add
    }

    /// `dx += dy W` or `dx = dy W`, and the sums of W and b where they train.
    pub(in crate::ops) fn pretrained_backward(
        &self,
        x: &[T],
        dy: &[T],
        into: Into,
        dx: &mut [T],
        sums: &mut MapSums<T>,
    ) {
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

    /// The path's part of the gradients, by way of what it read: `dx += dropout(s dy B A)` (unless folded), `dA += (s dy B)ᵀ dropout(x)`,
    /// `dB += s dyᵀ (A dropout(x))`; `first` is the number of x's first row.
    pub(in crate::ops) fn path_backward(
        &self,
        first: usize,
        x: &[T],
        dy: &[T],
        dx: &mut [T],
        sums: &mut MapSums<T>,
        PathBuffers { dropped, ddropped, u, du }: &mut PathBuffers<T>,
    ) {
        if self.dropout.is_none() {
            return self.read_backward(x, dy, dx, sums, [u, du]);
        }
        zeroed(ddropped, x.len());
        self.read_backward(self.dropped(first, x, dropped), dy, ddropped, sums, [u, du]);
        let dropped = self.dropped(first, ddropped, dropped);
        simd::vectorised(|| simd::add(dx, dropped));
    }

    /// [`MapKernel::path_backward`] with x what the path read.
    fn read_backward(&self, x: &[T], dy: &[T], dx: &mut [T], sums: &mut MapSums<T>, [u, du]: [&mut Vec<T>; 2]) {
        let Some(path) = &self.path else { return };
        let rank = path.down(x, self.n_in, u);
        resize(du, u.len());
        let dy = Matrix::rows(dy, self.out);
        product(du, rank, dy, path.b.matrix(), path.scale);
        add_product(&mut sums.b, rank, dy.t(), Matrix::rows(u, rank), path.scale);
        add_product(&mut sums.a, self.n_in, Matrix::rows(du, rank).t(), Matrix::rows(x, self.n_in), T::one());
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
    pub(in crate::ops) fn add(&mut self, other: &Self) {
        for (sum, other) in [
            (&mut self.weight, &other.weight),
            (&mut self.bias, &other.bias),
            (&mut self.a, &other.a),
            (&mut self.b, &other.b),
        ] {
            simd::vectorised(|| simd::add(sum, other));
        }
    }

    pub(in crate::ops) fn give(self, map: &LowRankMap, grads: &mut InputGradients) -> Result<()> {
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
