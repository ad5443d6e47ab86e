//! Text of files, names and servers, as a terminal may be shown it.

use std::fmt::{self, Display, Write};

/// A text on one line, with whatever a terminal would act on written out.
///
/// Control characters, ends of lines, and invisible characters that reorder or hide what follows are shown as Rust writes them in a
/// string. Everything else stays as it is, quotes and backslashes too, so that a text printed twice is the same as printed once.
/// Every [`Error`](crate::Error) prints so; a program that prints a file's own text does likewise:
///
/// ```
/// use tadformer::Printable;
/// let name = "layers\u{1b}[2J\n\u{202e}0"; // clears the screen, forges a line, and turns its end round
/// assert_eq!(Printable(name).to_string(), r"layers\u{1b}[2J\n\u{202e}0");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Printable<T>(pub T);

impl<T: Display> Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaped(f), "{}", self.0)
    }
}

/// What is written to it goes on to the formatter, escaped.
struct Escaped<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // What Rust escapes in a string, but for the characters that it escapes for its own syntax alone.
        for piece in text.split_inclusive(SYNTAX) {
            let plain = piece.trim_end_matches(SYNTAX);
            write!(self.0, "{}{}", plain.escape_debug(), &piece[plain.len()..])?;
        }
        Ok(())
    }
}

const SYNTAX: [char; 3] = ['\\', '"', '\''];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_written_out() {
        for (text, shown) in [
            ("\u{1b}]0;title\u{7}", r"\u{1b}]0;title\u{7}"),
            ("a\r\nb\tc\0", r"a\r\nb\tc\0"),
            ("\u{9b}2J\u{7f}", r"\u{9b}2J\u{7f}"),
            ("\u{202e}gnp.exe\u{2066}\u{200b}\u{feff}\u{2028}", r"\u{202e}gnp.exe\u{2066}\u{200b}\u{feff}\u{2028}"),
            ("\u{e0041}", r"\u{e0041}"),
        ] {
            assert_eq!(Printable(text).to_string(), shown);
            assert_eq!(Printable(shown).to_string(), shown, "once more changes nothing");
        }
    }

    #[test]
    fn what_people_write_stays() {
        for text in [r#"it's "C:\x", 100 %"#, "Zürich, 東京, Ελλάδα, e\u{301}", "→ ≥ 2²", "", "\\\\"] {
            assert_eq!(Printable(text).to_string(), text);
        }
        assert_eq!(Printable(format_args!("{:.3}", "\u{1b}abcd")).to_string(), r"\u{1b}ab");
    }
}
