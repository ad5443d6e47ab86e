//! Products of a configuration's sizes, bounded: sizes that are each within their bounds can multiply to what no machine has.

use crate::{Error, Result};

/// The most values of any one array that a pass makes: 1 GB of f32. The largest Swin asks for three quarters of it at images of 2048.
pub(crate) const MOST_VALUES: usize = 1 << 28;

/// A size by its name.
pub(crate) type Factor<'a> = (&'a str, usize);

/// Refuses factors whose product is more than `most`.
///
/// # Errors
/// The product by its factors' names, with its value, what it counts and the most that is taken.
pub(crate) fn check_product(place: &str, factors: &[Factor], most: usize, counts: &str, cure: &str) -> Result<()> {
    let product = factors.iter().fold(1usize, |product, (_, size)| product.saturating_mul(*size));
    if product <= most {
        return Ok(());
    }
    let names: Vec<&str> = factors.iter().map(|(name, _)| *name).collect();
    let sizes: Vec<String> = factors.iter().map(|(_, size)| size.to_string()).collect();
    let got = format!("{} = {product}", sizes.join(" x "));
    Err(Error::config(format!("{place}{}", names.join(" x ")), format!("at most {most} {counts}"), got, cure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_named_with_its_factors_and_its_bound() {
        let check = |a, b| check_product("stage 1: ", &[("a", a), ("b", b)], 12, "values", "use fewer");
        assert!(check(3, 4).is_ok() && check(0, usize::MAX).is_ok());
        let message = check(3, 5).unwrap_err().to_string();
        assert_eq!(message, "`stage 1: a x b`: expected at most 12 values, got 3 x 5 = 15 (use fewer)");
        assert!(check(usize::MAX, usize::MAX).is_err());
    }
}
