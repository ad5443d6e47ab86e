//! The head of an array in NumPy's format, version 1.0; its values follow, row by row.

/// A type of values, as NumPy writes it.
pub(super) trait Descr {
    const DESCR: &str;
}

impl Descr for u8 {
    const DESCR: &str = "|u1";
}

impl Descr for f32 {
    const DESCR: &str = "<f4";
}

/// Of two sides or more; filled up with spaces, so that the values begin at a multiple of 64 bytes.
pub(super) fn header<T: Descr>(shape: &[usize]) -> Vec<u8> {
    const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
    let shape = shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let text = format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({shape}), }}", T::DESCR);
    let length = (MAGIC.len() + 2 + text.len() + 1).next_multiple_of(64) - MAGIC.len() - 2;
    // Names and few sides: far fewer bytes than the two of the length can tell.
    let mut bytes = [MAGIC, &(length as u16).to_le_bytes()].concat();
    bytes.extend(format!("{text:<width$}\n", width = length - 1).into_bytes());
    bytes
}
