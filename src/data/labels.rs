//! Label files: a PNG as a task's label.

use super::PIXEL_LIMIT;
use super::label::{Label, normal};
use super::stored::Stored;
use crate::sample::{FaultKind, IGNORE};
use crate::{Error, Result, Task, TaskKind};
use png::ColorType;
use std::path::Path;

/// The grey of a mask's pixel of which nothing is known.
const UNKNOWN_GREY: u8 = 128;
/// Lengths of a stored normal between which it is one, bent by rounding or resizing at most.
pub(super) const LENGTHS: std::ops::Range<f32> = 0.5..1.5;
/// What a stored depth of 1 stands for: a millimetre.
const MILLIMETRE: f64 = 0.001;

/// Reads a PNG file of at most [`PIXEL_LIMIT`] pixels as the label of a task.
///
/// | kind | file | label | ignored |
/// | --- | --- | --- | --- |
/// | `semseg`, `human_parts` | palette, or grey of at most 8 bits: the stored number is the class, its colour means nothing | class index | 255 |
/// | `sal`, `edge` | grey, or RGB with three equal channels: 0 or 255 | 0 or 1 | 128 |
/// | `normals` | 8-bit RGB: x right, y down, z towards the viewer, each (n + 1) / 2 of 255 | unit normal | black, mid-grey |
/// | `depth` | 16-bit grey: millimetres along the camera's axis | metres | 0 |
///
/// Palette files are PASCAL's own. Masks and normals are stored as [`picture`](crate::picture::picture) draws them.
///
/// # Errors
/// A file that cannot be read or is no PNG; one of another form than the table's, such as classes in RGB colours; a value
/// that the task does not have, with its place; one of more pixels.
///
/// ```
/// use tadformer::data::read_label;
/// use tadformer::image::{GrayImage, Luma};
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("label.png");
/// GrayImage::from_fn(4, 2, |x, _| Luma([if x == 3 { 255 } else { 6 }])).save(&path).unwrap();
/// let label = read_label(&path, &"semseg=7".parse()?)?;
/// assert_eq!(label.tensor()?.to_vec3::<u8>()?[0][1], [6, 6, 6, 255]);
/// assert_eq!(label.crop(2, 0, 2, 2)?.resize(1, 1)?.tensor()?.to_vec3::<u8>()?, [[[6]]]);
/// # Ok::<(), tadformer::Error>(())
/// ```
pub fn read_label(path: impl AsRef<Path>, task: &Task) -> Result<Label> {
    read_label_within(path, task, PIXEL_LIMIT)
}

/// [`read_label`] within another limit on the pixels.
///
/// # Errors
/// As there; a file whose header announces more pixels, of which none is decoded then.
pub fn read_label_within(path: impl AsRef<Path>, task: &Task, pixels: u64) -> Result<Label> {
    read_label_as(path, task, &LabelForm { pixels, ..LabelForm::default() })
}

/// How a file stores a label, where that is otherwise than in [`read_label`]'s table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelForm {
    /// A number of classes that is ignored, as 255 always is; the grey of a mask that is, instead of 128.
    pub ignore: Option<u8>,
    /// The metres that a stored depth of 1 stands for.
    pub metres: f64,
    /// The most pixels.
    pub pixels: u64,
}

impl Default for LabelForm {
    fn default() -> Self {
        Self { ignore: None, metres: MILLIMETRE, pixels: PIXEL_LIMIT }
    }
}

/// [`read_label`] of a file that stores its label in another form.
///
/// ```
/// use tadformer::data::{LabelForm, read_label_as};
/// use tadformer::image::{GrayImage, Luma};
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("label.png");
/// GrayImage::from_fn(3, 1, |x, _| Luma([x as u8])).save(&path).unwrap();
/// let label = read_label_as(&path, &"semseg=3".parse()?, &LabelForm { ignore: Some(0), ..Default::default() })?;
/// assert_eq!(label.tensor()?.flatten_all()?.to_vec1::<u8>()?, [255, 1, 2]);
/// # Ok::<(), tadformer::Error>(())
/// ```
///
/// # Errors
/// As [`read_label_within`].
pub fn read_label_as(path: impl AsRef<Path>, task: &Task, form: &LabelForm) -> Result<Label> {
    examine_label(path.as_ref(), task, form).map_err(|refusal| refusal.1)
}

/// Of which kind an error is, and the error.
pub(super) type Refusal = Box<(FaultKind, Error)>;

/// [`read_label_as`], which tells of what kind an error is.
pub(super) fn examine_label(path: &Path, task: &Task, form: &LabelForm) -> std::result::Result<Label, Refusal> {
    let file = File { stored: Stored::read(path, form.pixels).map_err(|error| unreadable(error, task))?, task };
    let size = (file.stored.width, file.stored.height);
    let pixels = match task.kind() {
        TaskKind::Semseg | TaskKind::HumanParts => file.classes(form.ignore),
        TaskKind::Sal | TaskKind::Edge => file.mask(form.ignore.unwrap_or(UNKNOWN_GREY)),
        TaskKind::Normals => file.normals(),
        TaskKind::Depth => file.depths(),
    }?;
    Ok(Label::of_pixels(task.kind(), size, pixels, form.metres))
}

/// A file that cannot be read, told of the task's label.
pub(super) fn unreadable(error: Error, task: &Task) -> Refusal {
    Box::new((kind_of(&error), of_task(task)(error)))
}

/// A file that was there a moment ago is missing, or cannot be read.
fn kind_of(error: &Error) -> FaultKind {
    match error {
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => FaultKind::Missing,
        _ => FaultKind::Unreadable,
    }
}

/// Makes an error of a file say whose label it is.
pub(super) fn of_task(task: &Task) -> impl Fn(Error) -> Error {
    let label = format!("label of {}: ", task.name());
    move |error| match error {
        Error::File { path, problem, cure } if !problem.starts_with("label of ") => {
            Error::File { path, problem: label.clone() + &problem, cure }
        }
        Error::Io { path, action, source } => {
            let cure = "look at its rights, and at what holds it".into();
            Error::File { path, problem: format!("{label}cannot {action}: {source}"), cure }
        }
        other => other,
    }
}

/// A file that is to be a task's label.
struct File<'a> {
    stored: Stored,
    task: &'a Task,
}

type Pixels = std::result::Result<Vec<u8>, Refusal>;

impl File<'_> {
    fn classes(self, ignore: Option<u8>) -> Pixels {
        if !self.stored.is_of_classes() {
            let cure =
                "store class indices as an 8-bit grey or palette PNG; colours do not tell which class they stand for";
            return Err(self.form("a palette or grey of at most 8 bits", cure));
        }
        let unknown = |v: u8| v == IGNORE as u8 || Some(v) == ignore;
        let outputs = self.task.outputs();
        let is_class = |v: u8| usize::from(v) < outputs || unknown(v);
        if let Some((at, v)) = self.stored.bytes.iter().enumerate().find(|(_, v)| !is_class(**v)) {
            let cure = "number the classes from 0, store 255 where nothing is known, or give the task more classes";
            let expected = format!("0 to {} or {}", outputs - 1, ignore.unwrap_or(IGNORE as u8));
            return Err(self.value(FaultKind::Value, &expected, &v.to_string(), at, cure));
        }
        let class = |v| if unknown(v) { IGNORE as u8 } else { v };
        Ok(self.stored.bytes.into_iter().map(class).collect())
    }

    /// 0, 128 and 255, whichever grey is ignored.
    fn mask(mut self, ignore: u8) -> Pixels {
        let grey = || self.stored.bytes.as_chunks::<3>().0.iter().all(|[r, g, b]| r == g && r == b);
        // PNG's own scale: the largest number that fits is white.
        let (every, scale) = match (self.stored.colour, self.stored.bits) {
            (ColorType::Grayscale, bits @ ..=8) => (1, 255 / (255u8 >> (8 - bits))),
            (ColorType::Rgb, 8) if grey() => (3, 1),
            _ => return Err(self.form("8-bit grey", "store a mask of 0 and 255 as an 8-bit grey PNG")),
        };
        let stored = std::mem::take(&mut self.stored.bytes).into_iter().step_by(every);
        let mut levels: Vec<u8> = stored.map(|v| v * scale).collect();
        for (at, level) in levels.iter_mut().enumerate() {
            *level = match *level {
                v if v == ignore => UNKNOWN_GREY,
                v @ (0 | 255) => v,
                v => {
                    let cure = format!(
                        "store 255 where it is, 0 where it is not, {ignore} where nothing is known; cut soft masks at a threshold"
                    );
                    let expected = format!("0, 255, or {ignore} to ignore");
                    return Err(self.value(FaultKind::Value, &expected, &v.to_string(), at, &cure));
                }
            };
        }
        Ok(levels)
    }

    fn normals(self) -> Pixels {
        if (self.stored.colour, self.stored.bits) != (ColorType::Rgb, 8) {
            let cure = "store (n + 1) / 2 of 255 as an RGB PNG without alpha, black where nothing is known";
            return Err(self.form("8-bit RGB", cure));
        }
        for (at, pixel) in self.stored.bytes.as_chunks().0.iter().enumerate() {
            if let Some((_, length)) = normal(*pixel).filter(|(_, length)| !LENGTHS.contains(length)) {
                let cure =
                    "store unit normals, black where nothing is known, and resize them without mixing neighbours";
                let (expected, got) = ("a vector of length 1", format!("one of {length:.2}"));
                return Err(self.value(FaultKind::Length, expected, &got, at, cure));
            }
        }
        Ok(self.stored.bytes)
    }

    fn depths(self) -> Pixels {
        if (self.stored.colour, self.stored.bits) != (ColorType::Grayscale, 16) {
            return Err(self.form("16-bit grey", "store millimetres as a 16-bit grey PNG, 0 where nothing is known"));
        }
        Ok(self.stored.bytes)
    }

    /// The file holds another kind of pixels than the task's labels do.
    fn form(&self, expected: &str, cure: &str) -> Refusal {
        let name = self.task.name();
        let problem = format!("label of {name}: expected {expected}, got {}", self.stored.form());
        Box::new((FaultKind::Form, Error::file(&self.stored.path, problem, cure)))
    }

    /// A pixel holds a value that the task does not have.
    fn value(&self, kind: FaultKind, expected: &str, got: &str, at: usize, cure: &str) -> Refusal {
        let (name, x, y) = (self.task.name(), at % self.stored.width, at / self.stored.width);
        let problem = format!("label of {name}: expected {expected}, got {got} at column {x}, row {y}");
        Box::new((kind, Error::file(&self.stored.path, problem, cure)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::{picture, save_png};
    use candle_core::{DType, Device, Tensor};
    use png::BitDepth;
    use std::path::PathBuf;
    use tempfile::TempDir;

    /// A PNG of these bytes, packed as PNG packs them.
    fn png(size: (u32, u32), colour: ColorType, depth: BitDepth, bytes: &[u8]) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("label.png");
        let mut encoder = png::Encoder::new(std::fs::File::create(&path).unwrap(), size.0, size.1);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        if colour == ColorType::Indexed {
            encoder.set_palette((0..=255).flat_map(|i| [255 - i, i, 7]).take(3 << depth as usize).collect::<Vec<u8>>());
        }
        encoder.write_header().unwrap().write_image_data(bytes).unwrap();
        (folder, path)
    }

    fn label(task: &str, size: (u32, u32), colour: ColorType, depth: BitDepth, bytes: &[u8]) -> Result<Vec<f32>> {
        let (_folder, path) = png(size, colour, depth, bytes);
        let label = read_label(&path, &task.parse()?)?.tensor()?.to_dtype(DType::F32)?;
        assert_eq!(label.dims()[1..], [size.1 as usize, size.0 as usize]);
        Ok(label.flatten_all()?.to_vec1()?)
    }

    #[test]
    fn classes_are_the_stored_numbers_of_greys_and_palettes() -> Result<()> {
        for colour in [ColorType::Grayscale, ColorType::Indexed] {
            let read = |task, depth, bytes: &[u8]| label(task, (3, 2), colour, depth, bytes);
            let whole = read("semseg=21", BitDepth::Eight, &[0, 1, 20, 255, 5, 0])?;
            assert_eq!(whole, [0., 1., 20., 255., 5., 0.]);
            // Two to a byte, each line beginning a new one.
            let halves = read("human_parts=7", BitDepth::Four, &[0x01, 0x60, 0x20, 0x30])?;
            assert_eq!(halves, [0., 1., 6., 2., 0., 3.]);
            assert_eq!(read("semseg=2", BitDepth::One, &[0b0110_0000, 0b1000_0000])?, [0., 1., 1., 1., 0., 0.]);
        }
        Ok(())
    }

    #[test]
    fn masks_are_black_and_white() -> Result<()> {
        for task in ["sal=1", "edge=1"] {
            let eight = label(task, (3, 1), ColorType::Grayscale, BitDepth::Eight, &[0, 255, 128])?;
            assert_eq!(eight, [0.0, 1.0, IGNORE]);
            assert_eq!(label(task, (2, 1), ColorType::Grayscale, BitDepth::One, &[0b0100_0000])?, [0.0, 1.0]);
        }
        Ok(())
    }

    #[test]
    fn depth_is_in_millimetres_and_unknown_where_it_is_0() -> Result<()> {
        let bytes = [0, 0, 0x04, 0xd2, 0xff, 0xff];
        let got = label("depth=1", (1, 3), ColorType::Grayscale, BitDepth::Sixteen, &bytes)?;
        assert_eq!(got, [IGNORE, 1.234, 65.535]);
        Ok(())
    }

    #[test]
    fn normals_have_length_1_and_black_is_ignored() -> Result<()> {
        let bytes = [0, 0, 0, 255, 128, 128, 128, 20, 200];
        let got = label("normals=3", (3, 1), ColorType::Rgb, BitDepth::Eight, &bytes)?;
        let at = |x: usize| [got[x], got[3 + x], got[6 + x]];
        assert_eq!(at(0), [IGNORE; 3]);
        assert!((at(1)[0] - 1.0).abs() < 1e-4 && at(1)[1].abs() < 0.01);
        let length = at(2).iter().map(|v| v * v).sum::<f32>();
        assert!((length - 1.0).abs() < 1e-6 && at(2)[1] < -0.7 && at(2)[2] > 0.5, "{:?}", at(2));
        Ok(())
    }

    /// What the crate's own writer draws of a label is read as that label.
    #[test]
    fn pictures_of_masks_and_normals_are_read_as_what_was_drawn() -> Result<()> {
        let (folder, third) = (tempfile::tempdir().unwrap(), 1.0 / 3.0);
        let masks = [0.0, 1.0, IGNORE, 0.0];
        let normals = [0.6, 0., IGNORE, -third, 0., 0., IGNORE, 2. * third, 0.8, 1., IGNORE, 2. * third];
        for (task, values) in [("sal=1", &masks[..]), ("edge=1", &masks[..]), ("normals=3", &normals[..])] {
            let (task, path): (Task, _) = (task.parse()?, folder.path().join("drawn.png"));
            let drawn = Tensor::new(values, &Device::Cpu)?.reshape((task.kind().label_channels(), 2, 2))?;
            save_png(&picture(task.kind(), &drawn, None)?, &path)?;
            let read = read_label(&path, &task)?.tensor()?.to_dtype(DType::F32)?;
            let read = read.flatten_all()?.to_vec1::<f32>()?;
            assert!(read.iter().zip(values).all(|(a, b)| (a - b).abs() < 0.01), "{task}: {read:?}");
        }
        Ok(())
    }

    #[test]
    fn cropping_and_resizing_take_whole_pixels_of_every_kind() -> Result<()> {
        use ColorType::{Grayscale, Rgb};
        let of = |task: &str, colour, depth, bytes: &[u8]| -> Result<Label> {
            let (_folder, path) = png((4, 2), colour, depth, bytes);
            read_label(&path, &task.parse()?)
        };
        let flat =
            |label: Label| -> Result<Vec<f32>> { Ok(label.tensor()?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?) };
        let classes = of("semseg=9", Grayscale, BitDepth::Eight, &[0, 1, 2, 3, 4, 5, 6, 255])?;
        assert_eq!(classes.dimensions(), (4, 2));
        assert_eq!(flat(classes.crop(1, 0, 2, 2)?)?, [1., 2., 5., 6.]);
        assert_eq!(flat(classes.crop(3, 1, 1, 1)?)?, [IGNORE]);
        assert_eq!(flat(classes.resize(2, 1)?)?, [0., 2.]);
        assert_eq!(flat(classes.resize(8, 2)?)?[..8], [0., 0., 1., 1., 2., 2., 3., 3.]);
        // As candle's upsample_nearest2d has it.
        let floats = classes.tensor()?.unsqueeze(0)?.to_dtype(DType::F32)?;
        let want = floats.upsample_nearest2d(5, 7)?.flatten_all()?.to_vec1::<f32>()?;
        assert_eq!(flat(classes.resize(7, 5)?)?, want);
        let masks = of("edge=1", Grayscale, BitDepth::Two, &[0b00_11_00_11, 0b11_00_11_00])?;
        assert_eq!(flat(masks.crop(1, 1, 3, 1)?)?, [0., 1., 0.]);
        let depths = of("depth=1", Grayscale, BitDepth::Sixteen, &[0, 1, 0, 2, 0, 3, 0, 4, 1, 0, 2, 0, 3, 0, 0, 0])?;
        assert_eq!(flat(depths.crop(2, 0, 2, 2)?)?, [0.003, 0.004, 0.768, IGNORE]);
        let colours: Vec<u8> = (0..8).flat_map(|i| [[255, 128, 128], [0, 0, 0]][i % 2]).collect();
        let normals = of("normals=3", Rgb, BitDepth::Eight, &colours)?.crop(1, 0, 2, 1)?.tensor()?;
        let x = normals.get(0)?.to_vec2::<f32>()?[0].clone();
        assert!(x[0] == IGNORE && (x[1] - 1.0).abs() < 1e-4, "{x:?}");
        for (x, y, width, height) in [(0, 0, 5, 1), (4, 0, 1, 1), (0, 2, 1, 1), (0, 0, 0, 1), (u32::MAX, 0, 1, 1)] {
            let message = classes.crop(x, y, width, height).unwrap_err().to_string();
            assert!(message.starts_with("`crop`: expected a part of 4 x 2 pixels"), "{message}");
        }
        assert!(classes.resize(0, 3).unwrap_err().to_string().contains("at least 1"));
        Ok(())
    }

    #[test]
    fn files_of_another_form_are_refused_with_the_cure() {
        use ColorType::{Grayscale, Indexed, Rgb, Rgba};
        for (task, colour, depth, bytes, words) in [
            ("semseg=7", Rgb, BitDepth::Eight, &[128, 0, 0][..], ["palette or grey", "8-bit RGB"]),
            ("human_parts=7", Grayscale, BitDepth::Sixteen, &[0, 1], ["palette or grey", "16-bit grey"]),
            ("sal=1", Rgb, BitDepth::Eight, &[255, 0, 0], ["expected 8-bit grey", "8-bit RGB"]),
            ("edge=1", Indexed, BitDepth::Eight, &[1], ["0 and 255", "8-bit palette"]),
            ("normals=3", Rgba, BitDepth::Eight, &[0, 0, 255, 255], ["without alpha", "RGB with alpha"]),
            ("depth=1", Grayscale, BitDepth::Eight, &[7], ["millimetres", "8-bit grey"]),
        ] {
            let message = label(task, (1, 1), colour, depth, bytes).unwrap_err().to_string();
            let name = task.split('=').next().unwrap();
            assert!(message.contains("label.png") && message.contains(&format!("label of {name}")), "{message}");
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
        }
    }

    #[test]
    fn values_that_the_task_does_not_have_are_refused_with_their_place() {
        let eight = BitDepth::Eight;
        for (task, colour, bytes, words) in [
            ("semseg=7", ColorType::Grayscale, &[0, 0, 0, 7][..], ["0 to 6 or 255, got 7", "from 0"]),
            ("sal=1", ColorType::Grayscale, &[0, 255, 0, 1], ["0, 255, or 128 to ignore, got 1", "threshold"]),
            ("normals=3", ColorType::Rgb, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255], ["got one of 1.73", "black"]),
        ] {
            let message = label(task, (2, 2), colour, eight, bytes).unwrap_err().to_string();
            assert!(message.contains("label.png") && message.contains("at column 1, row 1"), "{message}");
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
        }
    }

    #[test]
    fn files_that_are_missing_damaged_or_no_png_are_named() {
        let (_folder, path) = png((64, 64), ColorType::Grayscale, BitDepth::Eight, &[0; 64 * 64]);
        let message = || read_label(&path, &"sal=1".parse().unwrap()).unwrap_err().to_string();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 20]).unwrap();
        assert!(message().contains("label.png: label of sal: no label"), "{}", message());
        // The header alone, of a size that no memory holds.
        let mut huge = whole[..33].to_vec();
        huge[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
        std::fs::write(&path, &huge).unwrap();
        assert!(message().contains("label.png"), "{}", message());
        std::fs::write(&path, b"plain text").unwrap();
        assert!(
            message().contains("label.png: label of sal: no label") && message().contains("PNG files"),
            "{}",
            message()
        );
        std::fs::remove_file(&path).unwrap();
        assert!(message().contains("cannot read"), "{}", message());
    }
}
