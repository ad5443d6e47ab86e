//! Any bytes as an array of NumPy's.
#![no_main]

use tadformer::data::read_npy_within;

/// Few enough that a run is quick, whatever a header announces.
const PIXELS: u64 = 1 << 14;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(map) = read_npy_within(tadformer_fuzz::file("npy", bytes), PIXELS) else { return };
    assert!(map.height * map.width <= PIXELS as usize && matches!(map.channels, 1 | 3));
    assert_eq!(map.values.len(), map.channels * map.height * map.width);
});
