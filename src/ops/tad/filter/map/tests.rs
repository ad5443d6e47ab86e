//! A map in bands beside the whole.
#![allow(unsafe_code)] // memory that is made of values is read as such

use super::MapSize;
use super::convolution::{ConvolveRows, Direction, Reads};
use super::tap_gradients::AddTapGradients;
use candle_core::Result;
use pulp::Arch;
use std::mem::MaybeUninit;

/// `len` values that `write` writes over.
fn made(len: usize, write: impl FnOnce(&mut [MaybeUninit<f64>])) -> Vec<f64> {
    let mut y = vec![MaybeUninit::new(f64::NAN); len];
    write(&mut y);
    // SAFETY: made of values.
    y.into_iter().map(|y| unsafe { y.assume_init() }).collect()
}

#[test]
fn bands_of_a_large_map_give_what_the_whole_gives() -> Result<()> {
    let map = MapSize::new((150, 33), 27, 3)?;
    assert!(map.h > map.band_rows());
    let values = |n: usize, step: f64| -> Vec<f64> { (0..n).map(|i| (i as f64 * step).sin()).collect() };
    let (u, dy, taps) = (values(map.len(), 0.37), values(map.len(), 0.11), values(map.taps_len(), 0.7));
    let close = |got: &[f64], want: &[f64]| got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-10);
    let reads = Reads { u: &u, taps: &taps, start: None, map, direction: Direction::Forward };
    let whole = |y: &mut [_]| Arch::new().dispatch(ConvolveRows { reads, rows: 0..map.h, y });
    assert_eq!(made(map.len(), |y| map.convolve(&u, &taps, y)), made(map.len(), whole));
    let (mut got, mut want) = (vec![1.0; map.taps_len()], vec![0.0; map.taps_len()]);
    map.tap_gradients(&u, &dy, &mut got);
    Arch::new().dispatch(AddTapGradients { u: &u, dy: &dy, map, rows: 0..map.h, sums: &mut want });
    assert!(close(&got, &want));
    let (mut got, mut want) = (vec![1.0; map.r], vec![0.0; map.r]);
    map.pool(&u, &mut got);
    u.chunks(map.r).for_each(|u| want.iter_mut().zip(u).for_each(|(sum, u)| *sum += u));
    want.iter_mut().for_each(|sum| *sum /= (map.h * map.w) as f64);
    assert!(close(&got, &want));
    Ok(())
}
