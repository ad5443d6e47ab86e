//! The end of the tasks' paths, which three steps add to what tasks share.
#![allow(unsafe_code)] // blocks of rows write their own parts of the gradients

use super::factor::{Factor, FactorKernel, FactorSums};
use super::task_path::TaskPath;
use crate::ops::cpu::{Parts, Real, Values, values};
use crate::ops::graph::OnTensor;
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};
use std::mem::MaybeUninit;
use std::ops::Range;

/// `s B_t f_t` for each task t; f `[T*b, N, r]`, the tasks leading.
#[derive(Clone)]
pub(in crate::ops) struct Up {
    pub(in crate::ops) filtered: Tensor,
    pub(in crate::ops) b: Factor,
    scale: f64,
}

impl Up {
    pub(in crate::ops) fn new(filtered: &Tensor, path: &TaskPath) -> Self {
        Self { filtered: filtered.clone(), b: path.b.clone(), scale: path.scale }
    }

    pub(in crate::ops) fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { filtered: f(&self.filtered)?, b: self.b.map(f)?, ..*self })
    }

    /// Whether it gives each task what is added to `[maps, n, out]`, in the step of `shapes`; gives the number of tasks.
    pub(in crate::ops) fn check(&self, shapes: Shapes, [maps, n, out]: [usize; 3]) -> Result<usize> {
        let [all, _, rank] = shapes.sizes("filtered", &self.filtered)?;
        let tasks = shapes.times("maps of all tasks", all, maps)?;
        shapes.expect("filtered", &self.filtered, &[all, n, rank])?;
        self.b.check(shapes, "B", tasks, Some(out), rank)?;
        Ok(tasks)
    }

    /// By candle's primitives.
    pub(in crate::ops) fn composed(&self) -> Result<Tensor> {
        self.b.forward(&(&self.filtered * self.scale)?)
    }

    /// That of task `t` of `tasks`.
    pub(in crate::ops) fn task(&self, t: usize, tasks: usize) -> Result<Self> {
        let maps = self.filtered.dim(0)? / tasks;
        Ok(Self { filtered: self.filtered.narrow(0, t * maps, maps)?, b: self.b.task(t), ..*self })
    }

    pub(in crate::ops) fn kernel<T: Real>(&self) -> Result<UpKernel<'_, T>> {
        Ok(UpKernel { filtered: values(&self.filtered)?, b: self.b.kernel()?, scale: T::of(self.scale) })
    }
}

/// An [`Up`] as slices; its functions work on rows of one task, counted through all tasks.
pub(in crate::ops) struct UpKernel<'a, T: Real> {
    pub(in crate::ops) filtered: Values<'a, T>,
    pub(in crate::ops) b: FactorKernel<'a, T>,
    scale: T,
}

impl<T: Real> UpKernel<'_, T> {
    fn values(&self, rows: &Range<usize>) -> Range<usize> {
        rows.start * self.b.n_in..rows.end * self.b.n_in
    }

    /// `y = s B_t f`.
    pub(in crate::ops) fn forward(&self, t: usize, rows: &Range<usize>, y: &mut [T]) {
        self.b.forward(t, &self.filtered[self.values(rows)], self.scale, y);
    }

    /// `y += s B_t f`.
    pub(in crate::ops) fn add(&self, t: usize, rows: &Range<usize>, y: &mut [T]) {
        self.b.add(t, &self.filtered[self.values(rows)], self.scale, y);
    }

    /// `df = s dy B_t`, and `dB_t += s dyᵀ f`; all of the rows' places in df are written.
    ///
    /// # Safety
    /// No other thread works on these rows.
    pub(in crate::ops) unsafe fn backward(
        &self,
        t: usize,
        rows: &Range<usize>,
        dy: &[T],
        df: &Parts<MaybeUninit<T>>,
        db: &mut FactorSums<T>,
    ) {
        let place = self.values(rows);
        // SAFETY: the caller's promise: these places are the rows'.
        let df = unsafe { df.at(place.start, place.len()) };
        self.b.backward(t, &self.filtered[place], dy, self.scale, df, db);
    }
}
