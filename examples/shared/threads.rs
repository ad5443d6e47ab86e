//! How many threads a program computes on.

use std::io::Write;
use tadformer::runtime::{compute_on_this_thread, most_threads};

/// Candle and rayon both read their number of threads from here, when they first need it.
const VARIABLE: &str = "RAYON_NUM_THREADS";

/// Takes so many threads, 0 for what the environment says or one a core, and no more than help; the first thing that a program does.
pub fn take(asked: usize) -> tadformer::Result<()> {
    let in_environment = || std::env::var(VARIABLE).ok().and_then(|threads| threads.parse().ok());
    let asked = if asked > 0 { asked } else { in_environment().unwrap_or(0) };
    let threads = asked.min(most_threads());
    if threads < asked {
        let _ = writeln!(
            std::io::stderr(),
            "{threads} threads, four a core, and not {asked}: more would wait for each other"
        );
    }
    if threads > 0 {
        set(threads);
    }
    compute_on_this_thread(0).map(drop)
}

#[allow(unsafe_code)] // no other thread runs yet
fn set(threads: usize) {
    unsafe { std::env::set_var(VARIABLE, threads.to_string()) };
}
