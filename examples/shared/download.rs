//! What is shown while a model comes from the Hugging Face hub.

use indicatif::{ProgressBar, ProgressStyle};
use tadformer::hub::Progress;

/// A bar for each file that is downloaded.
pub fn bar() -> impl Fn(Progress<'_>) {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} left {eta}") {
        bar.set_style(style);
    }
    move |file| {
        bar.set_message(file.file.to_owned());
        bar.set_length(file.total);
        bar.set_position(file.done);
        if file.done == file.total {
            bar.finish_and_clear();
            bar.reset();
        }
    }
}
