//! Bounds of the sizes that a decoder's configuration names.

use crate::{Error, Result};
use std::ops::Range;

/// More channels than any decoder has.
const CHANNELS: Range<usize> = 1..1 << 14;

/// Checks the channels to which each of `stages` stages is projected; `place` is where the decoder stands in a configuration.
pub(super) fn check_projections(place: &str, channels: &[usize], stages: usize) -> Result<()> {
    if channels.len() == stages && channels.iter().all(|channels| CHANNELS.contains(channels)) {
        return Ok(());
    }
    let expected = format!("a number from 1 to {} for each of {stages} stages", CHANNELS.end - 1);
    let got = format!("{channels:?}");
    Err(Error::config(format!("{place}.channels"), expected, got, "the paper uses 18, 36, 72, 144"))
}

/// Checks one number of channels, the decoder's field `field`.
pub(super) fn check_channels(place: &str, field: &str, channels: usize) -> Result<()> {
    if CHANNELS.contains(&channels) {
        return Ok(());
    }
    let expected = format!("a number from 1 to {}", CHANNELS.end - 1);
    Err(Error::config(format!("{place}.{field}"), expected, channels, "256 is usual"))
}

/// Checks the share of values that training drops; `usual` is the published one.
pub(super) fn check_dropout(place: &str, dropout: f64, usual: f64) -> Result<()> {
    if (0.0..1.0).contains(&dropout) {
        return Ok(());
    }
    let (field, cure) = (format!("{place}.dropout"), format!("{usual} is usual, 0 drops nothing"));
    Err(Error::config(field, "from 0 up to, not including, 1", dropout, cure))
}
