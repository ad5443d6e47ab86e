//! A colour as people write it: `#rrggbb`.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Red, green and blue, written `#804020` in a [`FolderDescription`](super::FolderDescription).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Colour(pub [u8; 3]);

impl TryFrom<String> for Colour {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6);
        let number = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        match number.and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
            Some(number) => Ok(Self([16, 8, 0].map(|shift| (number >> shift) as u8))),
            None => Err(Error::config("colour", "#rrggbb, six hexadecimal digits", text, "such as #804020")),
        }
    }
}

impl From<Colour> for String {
    fn from(Colour([r, g, b]): Colour) -> Self {
        format!("#{r:02x}{g:02x}{b:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_six_digits_and_nothing_else() {
        let read = |text: &str| Colour::try_from(text.to_owned());
        assert_eq!(read("#80fF01").unwrap(), Colour([128, 255, 1]));
        assert_eq!(String::from(Colour([128, 255, 1])), "#80ff01");
        for wrong in ["80ff01", "#80ff0", "#80ff011", "#80ff0g", "#+80ff0", "#éff0", ""] {
            assert!(read(wrong).unwrap_err().to_string().contains("six hexadecimal digits"), "{wrong}");
        }
    }
}
