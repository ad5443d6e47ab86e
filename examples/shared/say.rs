//! Lines for a terminal that may be gone.

/// `println!`, which panics once nobody reads (`| head -1`); this goes on, and what the program came for gets done.
macro_rules! say {
    ($($line:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($line)*);
    }};
}
