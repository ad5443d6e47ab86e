//! What a file of tensors tells, whatever its format.

use crate::Result;
use safetensors::Dtype;

/// A file whose tensors were found and checked to lie within it, and are read when they are asked for.
pub(crate) trait TensorFile: Send + Sync {
    /// Every tensor's name.
    fn names(&self) -> Vec<&str>;

    /// The type of a tensor's values as they are stored, and its shape.
    fn tensor(&self, name: &str) -> Option<(Dtype, &[usize])>;

    /// Fills `bytes` with a tensor's values in row-major order; there are as many as it has.
    ///
    /// # Errors
    /// A file that can no longer be read, or whose bytes are not those that were written.
    fn read(&self, name: &str, bytes: &mut [u8]) -> Result<()>;

    /// The text beside the tensors under this key.
    fn metadata(&self, _key: &str) -> Option<&str> {
        None
    }

    /// The configuration of the training that wrote it.
    fn config(&self) -> Option<&serde_json::Value> {
        None
    }
}

/// How many values a shape holds; `None` where its sides multiply to more than any file holds.
///
/// A side of zero does not excuse the others: strides are their products.
pub(crate) fn elements(shape: &[usize]) -> Option<usize> {
    const MOST: usize = 1 << 48;
    let bounded = |product: usize, side: &usize| product.checked_mul(*side.max(&1)).filter(|product| *product <= MOST);
    let product = shape.iter().try_fold(1, bounded)?;
    Some(if shape.contains(&0) { 0 } else { product })
}
