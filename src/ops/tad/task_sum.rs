//! What tasks share plus each task's own path, which three steps make of the end of the tasks' paths.
#![allow(unsafe_code)] // blocks of rows write their own parts of the gradients

use super::factor::{Factor, FactorKernel, FactorSums};
use super::rows::{TaskRows, of_width};
use super::shared::add_to_shared;
use super::task_path::TaskPath;
use crate::ops::cpu::simd;
use crate::ops::cpu::{Fresh, Parts, Real, Values, resize, values};
use crate::ops::graph::{InputGradients, OnTensor};
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};
use std::mem::MaybeUninit;
use std::ops::Range;

/// `shared + s B_t f_t` for each task t; shared `[b, N, C]`, f `[T*b, N, r]`, the tasks leading, to `[T*b, N, C]`.
#[derive(Clone)]
pub(in crate::ops) struct TaskSum {
    pub(in crate::ops) shared: Tensor,
    pub(in crate::ops) filtered: Tensor,
    b: Factor,
    scale: f64,
}

impl TaskSum {
    pub(in crate::ops) fn new(shared: &Tensor, filtered: &Tensor, path: &TaskPath) -> Self {
        Self { shared: shared.clone(), filtered: filtered.clone(), b: path.b.clone(), scale: path.scale }
    }

    pub(in crate::ops) fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { shared: f(&self.shared)?, filtered: f(&self.filtered)?, b: self.b.map(f)?, scale: self.scale })
    }

    /// Whether `shared`, which is `what` in the step of `shapes`, has these sizes, and the path gives each task what is added to it;
    /// gives the number of tasks.
    pub(in crate::ops) fn check(&self, shapes: Shapes, what: &str, sizes @ [maps, n, c]: [usize; 3]) -> Result<usize> {
        shapes.expect(what, &self.shared, &sizes)?;
        let [all, _, rank] = shapes.sizes("filtered", &self.filtered)?;
        let tasks = shapes.times("maps of all tasks", all, maps)?;
        shapes.expect("filtered", &self.filtered, &[all, n, rank])?;
        self.b.check(shapes, "B", tasks, Some(c), rank)?;
        Ok(tasks)
    }

    /// By candle's primitives.
    pub(in crate::ops) fn composed(&self) -> Result<Tensor> {
        add_to_shared(&self.shared, &self.b.forward(&(&self.filtered * self.scale)?)?)
    }

    pub(in crate::ops) fn tasks(&self) -> Result<usize> {
        Ok(self.filtered.dim(0)? / self.shared.dim(0)?)
    }

    /// That of task `t` of `tasks` alone.
    pub(in crate::ops) fn task(&self, t: usize, tasks: usize) -> Result<Self> {
        let maps = self.filtered.dim(0)? / tasks;
        let filtered = self.filtered.narrow(0, t * maps, maps)?;
        Ok(Self { shared: self.shared.clone(), filtered, b: self.b.task(t), scale: self.scale })
    }

    /// As slices, whose rows are cut into units of `unit`.
    pub(in crate::ops) fn kernel<T: Real>(&self, unit: usize) -> Result<SumKernel<'_, T>> {
        let (maps, n, _) = self.shared.dims3()?;
        Ok(SumKernel {
            shared: values(&self.shared)?,
            filtered: values(&self.filtered)?,
            b: self.b.kernel()?,
            scale: T::of(self.scale),
            rows: TaskRows { tasks: self.tasks()?, units: maps * n / unit, unit },
        })
    }
}

/// A [`TaskSum`] as slices.
pub(in crate::ops) struct SumKernel<'a, T: Real> {
    shared: Values<'a, T>,
    filtered: Values<'a, T>,
    b: FactorKernel<'a, T>,
    scale: T,
    pub(in crate::ops) rows: TaskRows,
}

impl<T: Real> SumKernel<'_, T> {
    /// What tasks share in a block.
    pub(in crate::ops) fn shared(&self, block: &Range<usize>) -> &[T] {
        &self.shared[of_width(&self.rows.shared(block), self.b.out)]
    }

    fn filtered(&self, t: usize, block: &Range<usize>) -> &[T] {
        &self.filtered[of_width(&self.rows.of(t, block), self.b.n_in)]
    }

    /// `y = s B_t f_t` of a block, all of y written.
    pub(in crate::ops) fn path(&self, t: usize, block: &Range<usize>, y: &mut [T]) {
        self.b.forward(t, self.filtered(t, block), self.scale, y);
    }

    /// `y = shared + s B_t f_t` of a block, all of y written.
    pub(in crate::ops) fn forward<'y>(
        &self,
        t: usize,
        block: &Range<usize>,
        y: &'y mut [MaybeUninit<T>],
    ) -> &'y mut [T] {
        let y = y.write_copy_of_slice(self.shared(block));
        self.b.add(t, self.filtered(t, block), self.scale, y);
        y
    }

    /// The gradients, where `of_task` writes all of the sum's in a block of one task, and adds to sums that `start` begins and `join`
    /// joins.
    pub(in crate::ops) fn backward<S: Send>(
        &self,
        start: impl Fn() -> S + Sync + Send,
        of_task: impl Fn(&mut S, usize, &Range<usize>, &mut [T]) + Sync + Send,
        join: impl Fn(&mut S, S),
    ) -> (SumGradients<T>, S) {
        let (mut shared, mut filtered) = (vec![T::zero(); self.shared.len()], Fresh::of(self.filtered.len()));
        let (b, sums, _) = {
            let (dshared, df) = (Parts::of(&mut shared), filtered.parts());
            self.rows.blocks().sum(
                || (self.b.sums(), start(), Vec::new()),
                |(db, sums, dy), block| {
                    let place = of_width(&self.rows.shared(&block), self.b.out);
                    // SAFETY: `Blocks` puts each unit into one block, so that no other part has these places.
                    let dshared = unsafe { dshared.at(place.start, place.len()) };
                    for t in 0..self.rows.tasks {
                        resize(dy, dshared.len());
                        of_task(sums, t, &block, dy);
                        simd::vectorised(|| simd::add(dshared, dy));
                        let place = of_width(&self.rows.of(t, &block), self.b.n_in);
                        // SAFETY: as above, and no other task has these rows.
                        let df = unsafe { df.at(place.start, place.len()) };
                        self.b.backward(t, self.filtered(t, &block), dy, self.scale, df, db);
                    }
                },
                |(db, sums, _), (other_db, other, _)| {
                    db.add(&other_db);
                    join(sums, other);
                },
            )
        };
        // SAFETY: the blocks cover all rows of all tasks, and `FactorKernel::backward` writes each.
        let filtered = unsafe { filtered.written() };
        (SumGradients { shared, filtered, b }, sums)
    }
}

/// The gradients of a [`TaskSum`].
pub(in crate::ops) struct SumGradients<T> {
    shared: Vec<T>,
    filtered: Vec<T>,
    b: FactorSums<T>,
}

impl<T: Real> SumGradients<T> {
    /// Gives the tensors theirs.
    pub(in crate::ops) fn give(self, sum: &TaskSum, grads: &mut InputGradients) -> Result<()> {
        grads.give_values(&sum.shared, self.shared)?;
        grads.give_values(&sum.filtered, self.filtered)?;
        self.b.give(&sum.b, grads)
    }
}
