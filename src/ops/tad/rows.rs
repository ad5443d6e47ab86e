//! Rows that stand task after task.

use crate::ops::cpu::Blocks;
use std::ops::Range;

/// As many rows for each task, cut into units: single rows, or windows.
#[derive(Clone, Copy)]
pub(in crate::ops) struct TaskRows {
    pub(in crate::ops) tasks: usize,
    /// Units of one task.
    pub(in crate::ops) units: usize,
    /// Rows of a unit.
    pub(in crate::ops) unit: usize,
}

impl TaskRows {
    /// The units in blocks; a block takes all tasks' rows of its units.
    pub(in crate::ops) fn blocks(&self) -> Blocks {
        Blocks::of(self.units, self.unit)
    }

    /// Rows of all tasks.
    pub(in crate::ops) fn len(&self) -> usize {
        self.tasks * self.units * self.unit
    }

    /// The rows of task `t` in a block.
    pub(in crate::ops) fn of(&self, t: usize, block: &Range<usize>) -> Range<usize> {
        let first = t * self.units;
        (first + block.start) * self.unit..(first + block.end) * self.unit
    }

    /// The rows of a block as tasks share them.
    pub(in crate::ops) fn shared(&self, block: &Range<usize>) -> Range<usize> {
        self.of(0, block)
    }
}

/// The values of rows of this width.
pub(in crate::ops) fn of_width(rows: &Range<usize>, width: usize) -> Range<usize> {
    rows.start * width..rows.end * width
}
