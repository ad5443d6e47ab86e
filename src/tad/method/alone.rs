//! Kinds of a choice that have no fields of their own.

use serde::{Deserialize, Deserializer};

/// Reads a kind without fields, and refuses any: serde's own reader of such a variant passes over them.
pub(super) fn alone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Alone {}
    Alone::deserialize(deserializer).map(|Alone {}| ())
}
