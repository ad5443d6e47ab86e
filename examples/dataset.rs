//! What is in a data set, and all that is wrong with it.
//!
//!     cargo run --release --example dataset -- FOLDER --sheet sheet.png
//!
//! The folder holds `images/*.jpg` or `.png`, and a folder of PNG or npy labels for each task: `tadformer::data::Folder` tells. PASCAL_MT and
//! NYUD_MT are recognised. Without a folder, rendered scenes are written to `runs/scenes` first; `--scenes` writes more, or elsewhere.

#[macro_use]
#[path = "shared/say.rs"]
mod say;
#[path = "shared/threads.rs"]
mod threads;

use clap::Parser;
use indicatif::ProgressBar;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tadformer::Printable;
use tadformer::data::{Dataset, ExportOptions, FolderDescription, export, inspect, open_dataset};
use tadformer::picture::save_png;
use tadformer::report::contact_sheet;
use tadformer::scenes::Scenes;

#[derive(Parser)]
#[command(about = "Tells what is in a data set and all that is wrong with it; ends with 1 where something is")]
struct Options {
    /// The data set; runs/scenes by default, where 24 rendered scenes are written if nothing is there
    folder: Option<PathBuf>,
    /// Write so many rendered scenes into the folder first, if nothing is there
    #[arg(long)]
    scenes: Option<usize>,
    /// Only this split; of PASCAL_MT and NYUD_MT it is train where none is named
    #[arg(long)]
    split: Option<String>,
    /// Save what was found out of a folder without dataset.toml as its dataset.toml
    #[arg(long)]
    write_toml: bool,
    /// Draw images beside their labels into this PNG file
    #[arg(long)]
    sheet: Option<PathBuf>,
    /// Rows of the sheet, spread over the data set
    #[arg(long, default_value_t = 8)]
    rows: usize,
    /// The longest side of a picture on the sheet
    #[arg(long, default_value_t = 160)]
    side: u32,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    threads::take(0)?;
    let root = options.folder.clone().unwrap_or_else(|| "runs/scenes".into());
    if options.folder.is_none() || options.scenes.is_some() {
        write_scenes(&root, options.scenes.unwrap_or(24))?;
    }
    tell_what_was_found(&root, options.write_toml)?;
    let dataset = open_dataset(&root, options.split.as_deref())?;
    let bar = ProgressBar::new(dataset.len() as u64);
    let inspection = inspect(&dataset, &mut |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    say!("{inspection}");
    if let Some(path) = &options.sheet {
        let rows = options.rows.clamp(1, dataset.len());
        let spread = (0..rows).map(|row| row * dataset.len() / rows);
        save_png(&contact_sheet(&dataset, spread, options.side.max(16))?, path)?;
        say!("\n{} of the images are drawn in {}", rows, path.display());
    }
    Ok(if inspection.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Shows what had to be found out of a folder of one's own, and saves it if that is wished.
fn tell_what_was_found(root: &Path, save: bool) -> tadformer::Result<()> {
    let published = ["ImageSets", "gt_sets"].iter().any(|folder| root.join(folder).is_dir());
    if published || FolderDescription::read(root)?.is_some() {
        return Ok(());
    }
    let description = FolderDescription::infer(root)?;
    say!("There is no dataset.toml; this was found:\n");
    description.to_toml()?.lines().for_each(|line| say!("    {}", Printable(line)));
    if save {
        description.save(root)?;
        say!("\nIt is saved as {}; give the classes their names there.\n", root.join("dataset.toml").display());
    } else {
        say!("\n--write-toml saves it, to be mended by hand.\n");
    }
    Ok(())
}

/// Rendered scenes as a folder, where they are not there yet.
fn write_scenes(root: &Path, count: usize) -> tadformer::Result<()> {
    if root.exists() {
        return Ok(());
    }
    let scenes = Scenes::new(0, count, (240, 320))?;
    let bar = ProgressBar::new(count as u64);
    export(&scenes, root, &ExportOptions::default(), &mut |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    say!("{count} rendered scenes are written to {}\n", root.display());
    Ok(())
}
