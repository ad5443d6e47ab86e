//! The two steps of the Dynamic Task Filter: norming its taps, and the depth-wise convolution with them.

use candle_core::{D, Result, Tensor};

/// FilterNorm: each channel's k*k taps minus their mean, divided by their unbiased standard deviation + 1e-10, times a learned
/// scale, plus a learned shift.
///
/// # Shapes
/// `taps` `[b, r*k*k]` channel-major, `scale` and `shift` `[r*k*k]`, result `[b, k*k, r]`: one row of channels for each tap.
pub fn filter_norm(taps: &Tensor, scale: &Tensor, shift: &Tensor, kernel: usize) -> Result<Tensor> {
    let (b, n) = taps.dims2()?;
    let kk = kernel * kernel;
    let taps = taps.reshape((b, n / kk, kk))?;
    let centred = taps.broadcast_sub(&taps.mean_keepdim(D::Minus1)?)?;
    let deviation = (centred.sqr()?.sum_keepdim(D::Minus1)? / (kk - 1) as f64)?.sqrt()?;
    let normed = centred.broadcast_div(&(deviation + 1e-10)?)?.reshape((b, n))?;
    normed.broadcast_mul(scale)?.broadcast_add(shift)?.reshape((b, n / kk, kk))?.transpose(1, 2)?.contiguous()
}

/// Depth-wise convolution, stride 1 and zero padding, every map with its own filter:
/// `y[b, y, x, c] = Σ_ij u[b, y + i - k/2, x + j - k/2, c] taps[b, i k + j, c]`.
///
/// # Shapes
/// `u` `[b, h, w, r]`, `taps` `[b, k*k, r]` with k odd, result `[b, h, w, r]`.
///
/// A sum of k*k shifted products: candle's grouped convolution would run once for each of the b*r maps.
pub fn depthwise_filter(u: &Tensor, taps: &Tensor) -> Result<Tensor> {
    let (b, h, w, r) = u.dims4()?;
    let kernel = taps.dim(1)?.isqrt();
    let reach = kernel / 2;
    let padded = u.pad_with_zeros(1, reach, reach)?.pad_with_zeros(2, reach, reach)?;
    let product = |tap: usize| -> Result<Tensor> {
        let shifted = padded.narrow(1, tap / kernel, h)?.narrow(2, tap % kernel, w)?;
        shifted.broadcast_mul(&taps.narrow(1, tap, 1)?.reshape((b, 1, 1, r))?)
    };
    (1..kernel * kernel).try_fold(product(0)?, |sum, tap| sum + product(tap)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn equals_candles_grouped_convolution() -> Result<()> {
        for kernel in [3, 5] {
            let (u, taps) = (normal(1, &[2, 4, 6, 3])?, normal(2, &[2, kernel * kernel, 3])?);
            let maps = u.permute((0, 3, 1, 2))?.reshape((1, 6, 4, 6))?;
            let weights = taps.transpose(1, 2)?.reshape((6, 1, kernel, kernel))?;
            let want = maps.conv2d(&weights, kernel / 2, 1, 1, 6)?.reshape((2, 3, 4, 6))?.permute((0, 2, 3, 1))?;
            close(&depthwise_filter(&u, &taps)?, &want, 1e-12)?;
        }
        Ok(())
    }

    #[test]
    fn gradients() -> Result<()> {
        check(&[&normal(1, &[2, 3, 2, 2])?, &normal(2, &[2, 9, 2])?], |v| depthwise_filter(&v[0], &v[1]))?;
        let (taps, scale, shift) = (normal(1, &[2, 18])?, normal(2, &[18])?, normal(3, &[18])?);
        check(&[&taps, &scale, &shift], |v| filter_norm(&v[0], &v[1], &v[2], 3))
    }

    #[test]
    fn normed_taps_have_mean_zero_and_unbiased_deviation_one() -> Result<()> {
        let (one, zero) = (normal(2, &[18])?.ones_like()?, normal(2, &[18])?.zeros_like()?);
        let taps = filter_norm(&normal(1, &[2, 18])?, &one, &zero, 3)?;
        close(&taps.mean(1)?, &normal(1, &[2, 2])?.zeros_like()?, 1e-3)?;
        close(&(taps.sqr()?.sum(1)? / 8.)?, &normal(1, &[2, 2])?.ones_like()?, 1e-8)
    }
}
