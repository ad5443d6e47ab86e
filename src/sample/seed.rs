//! Seeds of samples from a seed of the whole.

/// Spreads seeds over all 64 bits (the finish of SplitMix64), so that the indices of neighbouring seeds do not overlap.
pub(crate) fn scatter(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
