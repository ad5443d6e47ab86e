//! One comparison, and the error it may have.

use crate::Printable;
use std::fmt;

/// One tensor or figure compared.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was compared.
    pub name: String,
    /// Relative root-mean-square error, or what the comparison of its kind of file takes: how many values differ where they have to be
    /// equal; the largest difference of a data set's values.
    pub error: f64,
    /// PyTorch's own, in float32, where the file tells.
    pub torch: Option<f64>,
    /// What is allowed.
    pub limit: f64,
}

impl Row {
    /// How much of its limit the error uses up.
    pub fn share(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { self.error / self.limit }
    }

    /// Whether the error is within the limit; one that is no number is not.
    pub fn passes(&self) -> bool {
        self.error <= self.limit
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let torch = self.torch.map_or("-".to_owned(), |torch| format!("{torch:.1e}"));
        let verdict = if self.passes() { "ok" } else { "ABOVE" };
        let name = Printable(&self.name).to_string();
        write!(f, "{name:<72} {:>9.1e} {torch:>9} {:>9.1e} {verdict}", self.error, self.limit)
    }
}

/// Outputs and features may differ by this much.
pub(crate) const OUTPUT_LIMIT: f64 = 1e-4;

/// Gradients may differ by this much, or by three times PyTorch's own float32 error.
pub(crate) const GRADIENT_LIMIT: f64 = 1e-3;

/// Metrics and losses may differ by this much.
pub(crate) const FIGURE_LIMIT: f64 = 1e-5;
