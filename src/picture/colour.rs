//! Colours for classes and for depth.

/// The colour of a class, PASCAL VOC's: black for 0, and for any other the bits of its index spread over the channels.
pub fn class_colour(class: u8) -> [u8; 3] {
    let mut colour = [0u8; 3];
    for (i, shift) in (0..8).zip((0..8).rev()) {
        for (c, channel) in colour.iter_mut().enumerate() {
            let bit = class.checked_shr(3 * i + c as u32).unwrap_or(0) & 1;
            *channel |= bit << shift;
        }
    }
    colour
}

/// The colour of a depth, 0 the nearest and 1 the farthest: yellow over green to dark violet, even in lightness (after viridis).
pub fn depth_colour(depth: f32) -> [u8; 3] {
    const STOPS: [[f32; 3]; 6] =
        [[253., 231., 37.], [122., 209., 81.], [34., 168., 132.], [42., 120., 142.], [65., 68., 135.], [68., 1., 84.]];
    let at = depth.clamp(0.0, 1.0) * (STOPS.len() - 1) as f32;
    let low = (at as usize).min(STOPS.len() - 2);
    let t = at - low as f32;
    std::array::from_fn(|c| (STOPS[low][c] * (1.0 - t) + STOPS[low + 1][c] * t).round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_pascals_colours() {
        let want = [
            (0, [0, 0, 0]),
            (1, [128, 0, 0]),
            (2, [0, 128, 0]),
            (7, [128, 128, 128]),
            (15, [192, 128, 128]),
            (20, [0, 64, 128]),
        ];
        for (class, colour) in want {
            assert_eq!(class_colour(class), colour);
        }
    }

    #[test]
    fn depth_runs_from_yellow_to_violet() {
        assert_eq!(depth_colour(-1.0), [253, 231, 37]);
        assert_eq!(depth_colour(0.2), [122, 209, 81]);
        assert_eq!(depth_colour(2.0), [68, 1, 84]);
    }
}
