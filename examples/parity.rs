//! The crate's results beside PyTorch's: golden files of a TADFormer, folders with one Swin in three formats, losses and metrics,
//! edges as the benchmark scores them.
//!
//!     cargo run --release --example parity -- tests/golden
//!
//! `--device` and `--definition` hold another device, or the composed definitions of the steps, to the same files. Exits with 1 where
//! an error is above its limit.

#[path = "shared/backend.rs"]
mod backend;

use backend::Backend;
use candle_core::DType;
use clap::Parser;
use std::path::PathBuf;
use tadformer::parity;

#[derive(Parser)]
#[command(about = "Compares the crate with golden files that PyTorch wrote")]
struct Options {
    /// Golden files, folders with expected.safetensors and one Swin in three formats, or a folder of all these
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// f32, or f64 to tell rounding from mistakes
    #[arg(long, default_value = "f32")]
    dtype: DType,
    #[command(flatten)]
    backend: Backend,
    /// Print only what is above its limit, and the worst of each file
    #[arg(long, short)]
    quiet: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut above = 0;
    let golden = options.paths.iter().map(|path| parity::golden_in(path)).collect::<Result<Vec<_>, _>>()?;
    for path in golden.iter().flatten() {
        let rows = options.backend.run(|device| Ok(parity::compare(path, options.dtype, device)?))?;
        println!(
            "{}: {} tensors and figures\n{:<72} {:>9} {:>9} {:>9}",
            path.display(),
            rows.len(),
            "",
            "error",
            "torch f32",
            "limit"
        );
        rows.iter().filter(|row| !options.quiet || !row.passes()).for_each(|row| println!("{row}"));
        if let Some(worst) = rows.iter().max_by(|a, b| a.share().total_cmp(&b.share())) {
            println!("worst: {worst}\n");
        }
        above += rows.iter().filter(|row| !row.passes()).count();
    }
    anyhow::ensure!(above == 0, "{above} errors are above their limits");
    Ok(())
}
