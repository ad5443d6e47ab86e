//! Training on a folder of one's own: `photos/*.jpg` or `.png`, and `semseg/*.png` of the same names with a class for each pixel.
//!
//!     cargo run --release --example dataset -- FOLDER CLASSES
//!
//! With no arguments it writes itself such a folder of rendered scenes first.

#[macro_use]
#[path = "shared/say.rs"]
mod say;
#[path = "shared/stop.rs"]
mod stop;
#[path = "shared/threads.rs"]
mod threads;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use tadformer::data::{BatchOptions, Batches, Dataset, image_tensor, photos, read_label, read_photo};
use tadformer::files::create_folder;
use tadformer::image::{GrayImage, imageops::FilterType};
use tadformer::picture::{photo_picture, save_png};
use tadformer::scenes::Scenes;
use tadformer::train::{Silent, TrainConfig, Trainer};
use tadformer::{Error, Result, Sample, SwinConfig, TADFormer, Task, TaskSet};

const SIDE: usize = 96;

struct Folder {
    root: PathBuf,
    photos: Vec<PathBuf>,
    tasks: TaskSet,
}

impl Dataset for Folder {
    fn len(&self) -> usize {
        self.photos.len()
    }

    fn tasks(&self) -> &TaskSet {
        &self.tasks
    }

    /// Samples of a batch have one size, so photos are resized, and labels as well: by the nearest pixel, as classes do not mix.
    fn get(&self, index: usize) -> Result<Sample> {
        let path = &self.photos[index];
        let photo = read_photo(path)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let image = photo.resize_exact(SIDE as u32, SIDE as u32, FilterType::Triangle);
        let label = |task: &Task| {
            let path = self.root.join(format!("{}/{name}.png", task.name()));
            let label = read_label(&path, task)?;
            let ((width, height), (wide, high)) = (label.dimensions(), (photo.width(), photo.height()));
            if (width, height) != (wide, high) {
                let problem = format!("a label of {width} x {height} for a photo of {wide} x {high}");
                return Err(Error::file(&path, problem, "label the photo at its own size"));
            }
            Ok((task.name().to_owned(), label.resize(SIDE as u32, SIDE as u32)?.tensor()?))
        };
        Sample::new(image_tensor(&image)?, self.tasks.iter().map(label).collect::<Result<Vec<_>>>()?)
    }
}

fn main() -> anyhow::Result<()> {
    let stop = stop::on_signals()?;
    threads::take(0)?;
    let made = tempfile::tempdir()?;
    let (root, classes) = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => (render(made.path())?, 7),
        [folder, classes] => (PathBuf::from(folder), classes.parse()?),
        _ => anyhow::bail!("give a folder and its number of classes, or nothing"),
    };
    let tasks: TaskSet = format!("semseg={classes}").parse()?;
    let mut photos = photos(&[root.join("photos")])?;
    let held_out = photos.split_off(photos.len() * 4 / 5);
    let folder = |photos| Arc::new(Folder { root: root.clone(), photos, tasks: tasks.clone() });
    let (folder, held_out) = (folder(photos), folder(held_out));
    say!("{} photos to train on, {} to validate on", folder.len(), held_out.len());

    // A small model drawn at random; with pretrained weights: TADFormer::builder_from_pretrained("microsoft/swin-tiny-patch4-window7-224")?
    let small = SwinConfig { embed_dim: 24, num_heads: vec![1, 2, 4, 8], depths: vec![1; 4], ..SwinConfig::tiny() };
    let model = TADFormer::builder(small).image_size(SIDE).tasks(tasks.clone()).rank(4).build()?;
    let options = BatchOptions::new(4);
    let config = TrainConfig::new(2e-3, 20, made.path().join("adapter.safetensors"));
    let mut trainer = Trainer::new(&model, config)?.with_stop_flag(stop);
    let report = trainer.run(
        Batches::shuffled(folder, 0, &options)?,
        || Batches::once(held_out.clone(), &options),
        &mut Silent,
    )?;
    for record in report.history.steps() {
        say!("step {:2}: loss {:.3}", record.step, record.total);
    }
    for (task, scores) in report.best.iter() {
        say!(
            "{task}: {} {:.3} after step {}",
            scores.primary.name,
            scores.primary.value.unwrap_or(f64::NAN),
            report.best_step
        );
    }
    Ok(())
}

/// Writes rendered scenes as such a folder.
fn render(folder: &Path) -> Result<PathBuf> {
    let (photos, labels) = (folder.join("photos"), folder.join("semseg"));
    create_folder(&photos)?;
    create_folder(&labels)?;
    let scenes = Scenes::new(0, 30, (80, SIDE))?;
    for index in 0..scenes.len() {
        let (sample, name) = (scenes.get(index)?, format!("scene-{index:02}.png"));
        save_png(&photo_picture(&sample.image)?, &photos.join(&name))?;
        let classes: Vec<u8> = sample.labels["semseg"].flatten_all()?.to_vec1::<u8>()?;
        let saved = GrayImage::from_raw(SIDE as u32, 80, classes).map(|label| label.save(labels.join(&name)));
        saved.transpose().map_err(|error| Error::dataset(index, error))?;
    }
    Ok(folder.to_owned())
}
