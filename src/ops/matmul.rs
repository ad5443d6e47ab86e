//! Candle's product of batches of matrices, kept from the views that it multiplies wrong.

use candle_core::{Result, Tensor};

/// `a b`, matrix by matrix.
///
/// Candle's product on the CPU gives wrong values where the right side's batch is a broadcast view and the left side is a transposed one
/// (huggingface/candle#3744): a side that repeats one matrix is copied first. Whoever multiplies tensors does it by this function.
///
/// # Errors
/// Sides whose shapes or float types do not fit.
pub(super) fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    whole(a)?.matmul(&whole(b)?)
}

/// A tensor whose batch repeats nothing.
fn whole(x: &Tensor) -> Result<Tensor> {
    let batch = x.stride().iter().zip(x.dims()).take(x.rank().saturating_sub(2));
    if batch.into_iter().any(|(stride, size)| *stride == 0 && *size > 1) { x.contiguous() } else { Ok(x.clone()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};
    use std::path::Path;

    /// A batch of matrices `[2, rows, columns]`: as it lies, transposed, broadcast, and both.
    fn views(seed: u64, rows: usize, columns: usize) -> Result<[Tensor; 4]> {
        let repeated = |x: Tensor| x.broadcast_as((2, x.dim(1)?, x.dim(2)?));
        Ok([
            normal(seed, &[2, rows, columns])?,
            normal(seed, &[2, columns, rows])?.t()?,
            repeated(normal(seed, &[1, rows, columns])?)?,
            repeated(normal(seed, &[1, columns, rows])?)?.t()?,
        ])
    }

    #[test]
    fn products_of_views_are_those_of_their_copies() -> Result<()> {
        for a in views(1, 3, 4)? {
            for b in views(2, 4, 5)? {
                close(&matmul(&a, &b)?, &a.force_contiguous()?.matmul(&b.force_contiguous()?)?, 1e-14)?;
            }
        }
        check(&[&normal(1, &[2, 4, 3])?, &normal(2, &[1, 4, 5])?], |v| {
            matmul(&v[0].t()?, &v[1].broadcast_as((2, 4, 5))?)
        })
    }

    /// Where this fails, candle multiplies them right: `matmul` has had its day.
    #[test]
    fn candle_multiplies_a_transposed_batch_with_a_broadcast_one_wrong() -> Result<()> {
        let ([_, a, ..], [_, _, b, _]) = (views(1, 3, 4)?, views(2, 4, 5)?);
        let off = (a.matmul(&b)? - matmul(&a, &b)?)?.abs()?.max_all()?.to_scalar::<f64>()?;
        assert!(off > 0.1, "{off}");
        Ok(())
    }

    /// Files whose code, tests aside, multiplies by candle's own means.
    fn multiply(folder: &Path, found: &mut Vec<String>) -> std::io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                multiply(&path, found)?;
                continue;
            }
            let source = std::fs::read_to_string(&path)?;
            let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            if code.contains(".matmul(") || code.contains("broadcast_matmul") {
                found.push(path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default());
            }
        }
        Ok(())
    }

    #[test]
    fn nothing_else_multiplies_by_candles_own_product() -> std::io::Result<()> {
        let mut found = Vec::new();
        multiply(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found)?;
        found.sort();
        assert_eq!(
            found,
            ["linear.rs", "matmul.rs"],
            "of these, `linear.rs` multiplies two matrices on one device's storage"
        );
        Ok(())
    }
}
