//! Any data set written out as a [`Folder`](super::Folder).

mod encoded;
mod label;

use super::Dataset;
use super::folder::{FolderDescription, IMAGES, Split};
use crate::files::{create_folder, write_folder, write_new};
use crate::{Error, Result, Sample};
use candle_core::{DType, Tensor};
use encoded::PngFile;
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use png::{BitDepth, ColorType};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Samples that are written between two calls of the progress.
const CHUNK: usize = 16;
/// Bytes of a name; file systems take 255 with the ending.
const MOST_NAME: usize = 200;

/// How [`export`] writes.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportOptions {
    /// As which files images are written.
    pub images: ImageFile,
    /// What `dataset.toml` says of splits.
    pub splits: BTreeMap<String, Split>,
}

/// The format of images' files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageFile {
    /// Every byte as it is.
    #[default]
    Png,
    /// Smaller and no longer the same, at a quality of 1 to 100.
    Jpeg(u8),
}

impl Default for ExportOptions {
    /// PNG images, a fifth of them for validation.
    fn default() -> Self {
        let splits = [("train", 0.8), ("val", 0.2)].map(|(name, share)| (name.to_owned(), Split::Share(share)));
        Self { images: ImageFile::Png, splits: splits.into() }
    }
}

/// Writes a data set as a [`Folder`](super::Folder) with its `dataset.toml`, under a temporary name until it is whole.
///
/// Classes are palette PNGs in the classes' colours, and read as they were; so are masks, 0, 255 and 128 for unknown. Normals are rounded to
/// RGB of 8 bits (within 0.4 degrees), depths to millimetres, at least 1 and at most 65,535; images of floats to 256 levels. A label that is
/// unknown everywhere is written, one that a sample lacks is not. `progress` is told how many samples are written.
///
/// ```
/// use tadformer::data::{Dataset, Folder, export};
/// use tadformer::scenes::Scenes;
/// let root = tempfile::tempdir().unwrap();
/// let scenes = Scenes::new(0, 5, (32, 48))?;
/// export(&scenes, root.path().join("scenes"), &Default::default(), &mut |_| ())?;
/// let folder = Folder::open(root.path().join("scenes"))?;
/// assert_eq!((folder.len(), folder.tasks()), (5, scenes.tasks()));
/// # Ok::<(), tadformer::Error>(())
/// ```
///
/// # Errors
/// A folder that holds something; a place that cannot be written to; a name that is no file's, or given twice; a sample that cannot be had,
/// or whose label holds what its task does not have, or depths beyond 65 metres.
pub fn export(
    dataset: &dyn Dataset,
    folder: impl AsRef<Path>,
    options: &ExportOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<FolderDescription> {
    options.check()?;
    let names = names(dataset)?;
    let description = FolderDescription { splits: options.splits.clone(), ..FolderDescription::of_dataset(dataset) };
    write_folder(folder.as_ref(), |root| {
        create_folder(&root.join(IMAGES))?;
        dataset.tasks().iter().try_for_each(|task| create_folder(&root.join(task.name())))?;
        let writer = Writer { dataset, root, images: options.images };
        for (chunk, names) in names.chunks(CHUNK).enumerate() {
            let write = |(at, name): (usize, &String)| {
                let index = chunk * CHUNK + at;
                writer.write(index, name).map_err(Error::of_sample(index))
            };
            names.par_iter().enumerate().try_for_each(write)?;
            progress(chunk * CHUNK + names.len());
        }
        description.save(root)
    })?;
    Ok(description)
}

impl ExportOptions {
    fn check(&self) -> Result<()> {
        match self.images {
            ImageFile::Jpeg(quality @ (0 | 101..)) => {
                Err(Error::config("quality of a JPEG", "1 to 100", quality, "90 is hard to tell from the original"))
            }
            _ => Ok(()),
        }
    }
}

/// What each sample's files are called.
fn names(dataset: &dyn Dataset) -> Result<Vec<String>> {
    if dataset.is_empty() {
        return Err(Error::config("data set", "at least one sample", "an empty one", "export another"));
    }
    let names: Vec<String> = (0..dataset.len()).map(|index| dataset.name(index)).collect();
    let mut seen = BTreeSet::new();
    for name in &names {
        let plain = !name.starts_with('.') && !name.chars().any(|c| c.is_control() || r#"/\:*?"<>|"#.contains(c));
        if !plain || !(1..=MOST_NAME).contains(&name.len()) {
            let expected = format!("at most {MOST_NAME} bytes that can be a file's name");
            return Err(Error::config("name of a sample", expected, name, "change what the data set's `name` gives"));
        }
        if !seen.insert(name) {
            return Err(Error::config("names of samples", "each once", format!("{name} twice"), "tell samples apart"));
        }
    }
    Ok(names)
}

/// What writes the samples of a data set into a folder.
struct Writer<'a> {
    dataset: &'a dyn Dataset,
    root: &'a Path,
    images: ImageFile,
}

impl Writer<'_> {
    fn write(&self, index: usize, name: &str) -> Result<()> {
        let sample = self.dataset.get(index).and_then(Sample::checked)?;
        self.image(&sample.float_image()?, name)?;
        for (task, label) in &sample.labels {
            let Some(task) = self.dataset.tasks().get(task) else { continue };
            let classes = self.dataset.classes(task.name()).cloned().unwrap_or_default();
            let file = label::file(task, label, &classes)?;
            write_new(&self.root.join(task.name()).join(format!("{name}.png")), |to| file.write(to))?;
        }
        Ok(())
    }

    fn image(&self, image: &Tensor, name: &str) -> Result<()> {
        let (_, height, width) = image.dims3()?;
        let bytes =
            (image * 255.0)?.round()?.clamp(0.0, 255.0)?.permute((1, 2, 0))?.flatten_all()?.to_dtype(DType::U8)?;
        let (bytes, size) = (bytes.to_vec1::<u8>()?, (width as u32, height as u32));
        let path = |ending: &str| self.root.join(IMAGES).join(format!("{name}.{ending}"));
        match self.images {
            ImageFile::Png => {
                let file = PngFile { size, colour: ColorType::Rgb, depth: BitDepth::Eight, palette: vec![], bytes };
                write_new(&path("png"), |to| file.write(to))
            }
            ImageFile::Jpeg(quality) => write_new(&path("jpg"), |to| {
                let mut jpeg = JpegEncoder::new_with_quality(to, quality);
                jpeg.encode(&bytes, size.0, size.1, ExtendedColorType::Rgb8).map_err(std::io::Error::other)
            }),
        }
    }
}
