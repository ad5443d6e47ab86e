//! The cubic that lies through the pixels, a = -0.75.

/// Weights of the four pixels around a place that is `fraction` of the way from the second to the third; they sum to 1.
pub(super) const fn weights(fraction: f64) -> [f64; 4] {
    let (far, near, close) = (fraction + 1.0, fraction, 1.0 - fraction);
    let first = ((A * far - 5.0 * A) * far + 8.0 * A) * far - 4.0 * A;
    let second = ((A + 2.0) * near - (A + 3.0)) * near * near + 1.0;
    let third = ((A + 2.0) * close - (A + 3.0)) * close * close + 1.0;
    [first, second, third, 1.0 - first - second - third]
}

const A: f64 = -0.75;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_a_pixel_it_is_the_pixel_and_half_way_it_is_symmetric() {
        assert_eq!(weights(0.0), [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(weights(0.5), [-0.09375, 0.59375, 0.59375, -0.09375]);
    }
}
