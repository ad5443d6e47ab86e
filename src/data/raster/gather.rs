//! Whole pixels taken by columns and rows: what crops, mirrors and resizes without mixing.

use super::Planes;

/// Of every channel the values at these columns and rows, each within the map.
pub(in crate::data) fn gather<T: Copy>(map: Planes<T>, columns: &[usize], rows: &[usize]) -> Vec<T> {
    let mut values = Vec::with_capacity(map.channels() * rows.len() * columns.len());
    for plane in map.planes() {
        for row in rows {
            let line = &plane[row * map.width..][..map.width];
            values.extend(columns.iter().map(|column| line[*column]));
        }
    }
    values
}
