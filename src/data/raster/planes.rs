//! Values of a map, a plane for each channel.

/// `[c, H, W]`: the channels' planes one after the other, row by row.
#[derive(Clone, Copy, Debug)]
pub(in crate::data) struct Planes<'a, T> {
    values: &'a [T],
    pub height: usize,
    pub width: usize,
}

impl<'a, T> Planes<'a, T> {
    /// Of whole planes, of at least one pixel.
    pub fn new(values: &'a [T], (height, width): (usize, usize)) -> Self {
        debug_assert!(height * width > 0 && values.len().is_multiple_of(height * width));
        Self { values, height, width }
    }

    pub fn channels(&self) -> usize {
        self.values.len() / (self.height * self.width)
    }

    /// A plane at a time.
    pub fn planes(&self) -> std::slice::ChunksExact<'a, T> {
        self.values.chunks_exact(self.height * self.width)
    }
}
