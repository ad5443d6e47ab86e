//! A factor of the tasks' low-rank paths: one that they share, or each task's own.

use super::shared::for_each_task;
use crate::ops::cpu::simd;
use crate::ops::cpu::{BothWays, Matrix, Place, Real, add_product, product};
use crate::ops::graph::{InputGradients, OnTensor};
use crate::ops::linear;
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};

/// A matrix `[out, in]` of the tasks' low-rank paths: A or B.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use tadformer::ops::Factor;
/// let ones = Tensor::ones((1, 2), DType::F32, &Device::Cpu)?;
/// let (shared, own) = (Factor::Shared(ones.clone()), Factor::PerTask(vec![ones.clone(), (&ones * 3.0)?]));
/// let tasks = Tensor::ones((2, 1, 2), DType::F32, &Device::Cpu)?; // one map of one token for each of two tasks
/// let values = |factor: &Factor| factor.forward(&tasks)?.flatten_all()?.to_vec1::<f32>();
/// assert_eq!((values(&shared)?, values(&own)?), (vec![2.0, 2.0], vec![2.0, 6.0]));
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// Source: tasks share A and B in TADFormer; in MTLoRA each task has its own.
#[derive(Clone, Debug)]
pub enum Factor {
    /// One for all tasks.
    Shared(Tensor),
    /// One for each task in the tasks' order, all of one size.
    PerTask(Vec<Tensor>),
}

impl From<Tensor> for Factor {
    /// One for all tasks.
    fn from(one: Tensor) -> Self {
        Self::Shared(one)
    }
}

impl Factor {
    /// `F_t x` for the rows x of each task t: `[T*b, N, in]`, the tasks leading, to `[T*b, N, out]`.
    ///
    /// # Errors
    /// Rows of another number of channels than `in`, or of another number of tasks than there are factors.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let own = match self {
            Self::Shared(one) => return linear(x, one, None),
            Self::PerTask(own) => own,
        };
        let shapes = Shapes::of("factor", x)?;
        let [all, _, n_in] = shapes.sizes("rows", x)?;
        shapes.times("maps of all tasks", all, own.len())?;
        self.check(shapes, "a matrix", own.len(), None, n_in)?;
        let tasks = x.chunk(own.len(), 0)?;
        let products = tasks.iter().zip(own).map(|(x, one)| linear(x, one, None)).collect::<Result<Vec<_>>>()?;
        Tensor::cat(&products, 0)
    }

    /// `F_t x` of rows x that the tasks share, for each task t: `[b, N, in]` to `[T*b, N, out]`, the tasks leading.
    ///
    /// # Errors
    /// As [`Factor::forward`].
    pub fn forward_shared(&self, x: &Tensor, tasks: usize) -> Result<Tensor> {
        let [_, _, _] = Shapes::of("factor", x)?.sizes("x", x)?;
        match self {
            Self::Shared(one) => for_each_task(&linear(x, one, None)?, tasks),
            Self::PerTask(_) => self.forward(&for_each_task(x, tasks)?),
        }
    }

    /// The factor of task `t` alone.
    pub(in crate::ops) fn task(&self, t: usize) -> Self {
        Self::Shared(self.matrices()[self.index(t)].clone())
    }

    /// Channels that it gives.
    pub(in crate::ops) fn out(&self) -> Result<usize> {
        match self.matrices().first() {
            Some(matrix) => matrix.dim(0),
            None => candle_core::bail!("factor: expected a matrix, got none"),
        }
    }

    /// How many there are.
    pub(in crate::ops) fn count(&self) -> usize {
        self.matrices().len()
    }

    fn matrices(&self) -> &[Tensor] {
        match self {
            Self::Shared(one) => std::slice::from_ref(one),
            Self::PerTask(own) => own,
        }
    }

    /// Which matrix is task `t`'s.
    fn index(&self, t: usize) -> usize {
        match self {
            Self::Shared(_) => 0,
            Self::PerTask(_) => t,
        }
    }

    pub(in crate::ops) fn map(&self, f: &mut OnTensor) -> Result<Self> {
        match self {
            Self::Shared(one) => f(one).map(Self::Shared),
            Self::PerTask(own) => own.iter().map(f).collect::<Result<_>>().map(Self::PerTask),
        }
    }

    /// Whether it takes `n_in` channels of each of `tasks` tasks to `out`, or to any number, in the step of `shapes`, of which it is
    /// `what`; gives that number.
    pub(in crate::ops) fn check(
        &self,
        shapes: Shapes,
        what: &str,
        tasks: usize,
        out: Option<usize>,
        n_in: usize,
    ) -> Result<usize> {
        if let Self::PerTask(own) = self {
            shapes.count(what, own.len(), tasks)?;
        }
        let mut out = out;
        for matrix in self.matrices() {
            let [rows, _] = shapes.sizes(what, matrix)?;
            shapes.expect(what, matrix, &[*out.get_or_insert(rows), n_in])?;
        }
        Ok(out.unwrap_or_default())
    }

    pub(in crate::ops) fn kernel<T: Real>(&self) -> Result<FactorKernel<'_, T>> {
        let (out, n_in) = self.matrices().first().map_or(Ok((0, 0)), Tensor::dims2)?;
        let matrices = self.matrices().iter().map(BothWays::lend).collect::<Result<_>>()?;
        Ok(FactorKernel { factor: self, matrices, out, n_in })
    }
}

/// A [`Factor`] as slices; all its functions work on whole rows of one task.
pub(in crate::ops) struct FactorKernel<'a, T: Real> {
    factor: &'a Factor,
    matrices: Vec<BothWays<'a, T>>,
    pub(in crate::ops) out: usize,
    pub(in crate::ops) n_in: usize,
}

/// Sums of the gradients of each matrix.
pub(in crate::ops) struct FactorSums<T>(Vec<Vec<T>>);

impl<T: Real> FactorKernel<'_, T> {
    fn matrix(&self, t: usize) -> &BothWays<'_, T> {
        &self.matrices[self.factor.index(t)]
    }

    /// `y = s F_t x`, all of y written.
    pub(in crate::ops) fn forward(&self, t: usize, x: &[T], s: T, y: &mut [impl Place<T>]) {
        product(y, self.out, Matrix::rows(x, self.n_in), self.matrix(t).t(), s);
    }

    /// `y += s F_t x`.
    pub(in crate::ops) fn add(&self, t: usize, x: &[T], s: T, y: &mut [T]) {
        add_product(y, self.out, Matrix::rows(x, self.n_in), self.matrix(t).t(), s);
    }

    pub(in crate::ops) fn sums(&self) -> FactorSums<T> {
        FactorSums(self.matrices.iter().map(|matrix| vec![T::zero(); matrix.len()]).collect())
    }

    /// `dx = s dy F_t`, all of dx written, and `dF_t += s dyᵀ x`.
    pub(in crate::ops) fn backward(
        &self,
        t: usize,
        x: &[T],
        dy: &[T],
        s: T,
        dx: &mut [impl Place<T>],
        sums: &mut FactorSums<T>,
    ) {
        let (x, dy) = (Matrix::rows(x, self.n_in), Matrix::rows(dy, self.out));
        product(dx, self.n_in, dy, self.matrix(t).matrix(), s);
        add_product(&mut sums.0[self.factor.index(t)], self.n_in, dy.t(), x, s);
    }
}

impl<T: Real> FactorSums<T> {
    pub(in crate::ops) fn add(&mut self, other: &Self) {
        for (sum, other) in self.0.iter_mut().zip(&other.0) {
            simd::vectorised(|| simd::add(sum, other));
        }
    }

    /// Gives the matrices their gradients.
    pub(in crate::ops) fn give(self, factor: &Factor, grads: &mut InputGradients) -> Result<()> {
        factor.matrices().iter().zip(self.0).try_for_each(|(matrix, sum)| grads.give_values(matrix, sum))
    }
}

#[cfg(test)]
impl Factor {
    /// One that the tasks share, or as many as there are tasks.
    pub(in crate::ops) fn of(matrices: &[Tensor]) -> Self {
        match matrices {
            [one] => Self::Shared(one.clone()),
            own => Self::PerTask(own.to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{close, normal};

    #[test]
    fn each_task_has_its_own_product_also_of_what_tasks_share() -> Result<()> {
        let (own, x) = ([normal(1, &[2, 3])?, normal(2, &[2, 3])?], normal(3, &[2, 4, 3])?);
        let factor = Factor::of(&own);
        let shared = factor.forward_shared(&x, 2)?;
        for (t, one) in own.iter().enumerate() {
            close(&shared.narrow(0, 2 * t, 2)?, &linear(&x, one, None)?, 0.0)?;
            close(&Factor::of(&own[t..=t]).forward_shared(&x, 2)?.narrow(0, 2, 2)?, &linear(&x, one, None)?, 0.0)?;
        }
        close(&factor.forward(&Tensor::cat(&[&x, &x], 0)?)?, &shared, 0.0)
    }

    /// Candle spoke of a rank, of nobody's.
    #[test]
    fn shared_maps_without_images_are_refused_by_name() -> Result<()> {
        let (own, x) = ([normal(1, &[2, 3])?, normal(2, &[2, 3])?], normal(3, &[4, 3])?);
        for factor in [Factor::of(&own[..1]), Factor::of(&own)] {
            let message = factor.forward_shared(&x, 2).unwrap_err().to_string();
            assert!(message.contains("factor: expected x of 3 sizes"), "{message}");
        }
        Ok(())
    }

    #[test]
    fn factors_of_another_number_of_tasks_or_of_several_sizes_are_refused() -> Result<()> {
        let (one, x) = (normal(1, &[2, 3])?, normal(3, &[3, 4, 3])?);
        let refused = |own: &[Tensor]| Factor::PerTask(own.to_vec()).forward(&x).unwrap_err().to_string();
        for own in [vec![], vec![one.clone(); 2], vec![one.clone(), one.clone(), normal(2, &[1, 3])?]] {
            assert!(refused(&own).contains("factor: expected"), "{}", refused(&own));
        }
        let check =
            |own: usize| Factor::PerTask(vec![one.clone(); own]).check(Shapes::of("step", &x)?, "A", 3, None, 3);
        assert_eq!(check(3)?, 2);
        assert!(check(2).unwrap_err().to_string().contains("step: expected A for each of 3 tasks, got 2"));
        Ok(())
    }
}
