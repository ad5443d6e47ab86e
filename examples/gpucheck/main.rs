//! A device held beside the CPU: one JSON line for each check, and exit 1 where one fails.
//!
//!     cargo run --release --features cuda --example gpucheck -- --device cuda
//!     cargo run --release --example gpucheck -- --device cpu       # the kernels beside the composed definitions
//!
//! The device runs what it would run in a program. What it is held against is the CPU's composed definitions in f32, and in f64, which
//! tell rounding from mistakes.

#[cfg(all(feature = "data", feature = "train"))]
mod checks;
#[cfg(all(feature = "data", feature = "train"))]
mod compare;
#[cfg(all(feature = "data", feature = "train"))]
mod golden;
#[cfg(all(feature = "data", feature = "train"))]
mod threads;
#[cfg(all(feature = "data", feature = "train"))]
mod tiny;
#[cfg(all(feature = "data", feature = "train"))]
mod training;
#[cfg(all(feature = "data", feature = "train"))]
mod values;

#[cfg(all(feature = "data", feature = "train"))]
fn main() -> anyhow::Result<()> {
    checks::main()
}

#[cfg(not(all(feature = "data", feature = "train")))]
fn main() {
    eprintln!("gpucheck: build with the features data and train");
}
