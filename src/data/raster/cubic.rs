//! The cubic that lies through the pixels, a = -0.75.

const A: f64 = -0.75;

/// The weight of a pixel at this distance, in pixels.
pub(super) const fn weight(distance: f64) -> f64 {
    if distance < 1.0 {
        ((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0
    } else if distance < 2.0 {
        ((A * distance - 5.0 * A) * distance + 8.0 * A) * distance - 4.0 * A
    } else {
        0.0
    }
}

/// Weights of the four pixels around a place that is `fraction` of the way from the second to the third; they sum to 1.
pub(super) const fn weights(fraction: f64) -> [f64; 4] {
    let (first, second, third) = (weight(1.0 + fraction), weight(fraction), weight(1.0 - fraction));
    [first, second, third, 1.0 - first - second - third]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_a_pixel_it_is_the_pixel_and_half_way_it_is_symmetric() {
        assert_eq!(weights(0.0), [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(weights(0.5), [-0.09375, 0.59375, 0.59375, -0.09375]);
    }
}
