//! Room in buffers that threads reuse.

use super::float::Real;

/// Makes room for `len` values without caring what they are.
pub(in crate::ops) fn resize<T: Real>(buffer: &mut Vec<T>, len: usize) {
    buffer.resize(len, T::zero());
}

/// `len` zeros.
pub(in crate::ops) fn zeroed<T: Real>(buffer: &mut Vec<T>, len: usize) {
    buffer.clear();
    buffer.resize(len, T::zero());
}
