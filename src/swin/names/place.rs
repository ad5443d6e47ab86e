//! Where a tensor of a file goes.

/// Where a tensor of the file goes.
#[derive(Debug, PartialEq)]
pub(super) enum Place {
    /// Under this name.
    As(String),
    /// Under this name, with key and value after it: what tells the three apart.
    Query(String, [&'static str; 3]),
    /// Key or value: under this name with its query.
    Fused(String),
    /// The model has no use for it.
    Nowhere,
}
