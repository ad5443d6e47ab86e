//! Colours for depth.

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
    fn depth_runs_from_yellow_to_violet() {
        assert_eq!(depth_colour(-1.0), [253, 231, 37]);
        assert_eq!(depth_colour(0.2), [122, 209, 81]);
        assert_eq!(depth_colour(2.0), [68, 1, 84]);
    }
}
