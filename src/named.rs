//! Choices that go by names, on command lines and in files.

use crate::{Error, Result};

/// The one of `all` whose name this is.
///
/// # Errors
/// Another name: the error lists the names there are.
pub(crate) fn find_named<T: Copy, const N: usize>(
    field: &str,
    all: [T; N],
    name_of: fn(T) -> &'static str,
    name: &str,
    cure: &str,
) -> Result<T> {
    all.into_iter().find(|choice| name_of(*choice) == name).ok_or_else(|| {
        let names = all.map(name_of).join(", ");
        Error::config(field, format!("one of {names}"), name, cure)
    })
}
