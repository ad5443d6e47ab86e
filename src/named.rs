//! Choices that go by names, on command lines and in files.

use crate::{Error, Result};
use serde::{Deserialize, Deserializer};

/// The one of `all` whose name this is.
///
/// # Errors
/// Another name: the error lists the names there are.
pub(crate) fn find_named<T: Copy>(
    field: &str,
    all: &[T],
    name_of: fn(T) -> &'static str,
    name: &str,
    cure: &str,
) -> Result<T> {
    all.iter().copied().find(|choice| name_of(*choice) == name).ok_or_else(|| {
        let names = all.iter().map(|choice| name_of(*choice)).collect::<Vec<_>>().join(", ");
        Error::config(field, format!("one of {names}"), name, cure)
    })
}

/// Reads a kind without fields, and refuses any: serde's own reader of such a variant passes over them.
pub(crate) fn alone<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<(), D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Alone {}
    Alone::deserialize(deserializer).map(|Alone {}| ())
}
