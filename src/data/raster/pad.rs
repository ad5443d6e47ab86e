//! Maps with more pixels on the right and below.

use super::Planes;

/// The map in the upper left of one of this height and width, neither smaller than the map's; `fill` has a value for each channel.
pub(in crate::data) fn pad<T: Copy>(map: Planes<T>, (height, width): (usize, usize), fill: &[T]) -> Vec<T> {
    let mut values = Vec::with_capacity(fill.len() * height * width);
    for (plane, fill) in map.planes().zip(fill) {
        let end = values.len() + height * width;
        for line in plane.chunks_exact(map.width) {
            values.extend_from_slice(line);
            values.extend(std::iter::repeat_n(*fill, width - map.width));
        }
        values.resize(end, *fill);
    }
    values
}
