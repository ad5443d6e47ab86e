//! Numbers in rows and columns, as MATLAB stores them.

use crate::data::numbers::{ByteOrder, Number};

/// Numbers in rows and columns.
#[derive(Clone, Copy, Debug)]
pub struct Numbers<'a> {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) number: Number,
    pub(super) order: ByteOrder,
    pub(super) bytes: &'a [u8],
}

impl Numbers<'_> {
    /// Rows and columns.
    pub fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// Gives each number with its row and column, as it is stored: column by column.
    pub fn each(&self, mut give: impl FnMut(usize, usize, f64)) {
        let (mut y, mut x) = (0, 0);
        self.number.each(self.bytes, self.order, |value| {
            give(y, x, value);
            y += 1;
            if y == self.height {
                (y, x) = (0, x + 1);
            }
        });
    }

    /// Whether there is one that is not 0.
    pub fn any(&self) -> bool {
        let mut any = false;
        self.number.each(self.bytes, self.order, |value| any |= value != 0.0);
        any
    }

    /// The number, where there is just one.
    pub fn only(&self) -> Option<f64> {
        let mut only = None;
        if self.size() == (1, 1) {
            self.each(|_, _, value| only = Some(value));
        }
        only
    }
}
