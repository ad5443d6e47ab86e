//! The frame of an HTML page and its looks, in light and dark, on wide screens and narrow ones.

use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("page.css");

/// A whole page.
pub(super) fn page(title: &str, content: Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main { (content) }
                footer { "Written by tadformer " (env!("CARGO_PKG_VERSION")) ". ↑ more is better, ↓ less is better; – not measured." }
            }
        }
    }
    .into_string()
}
