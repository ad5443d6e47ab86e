//! Label files: a PNG as a task's label.

use super::PIXEL_LIMIT;
use super::label::{Label, normal};
use super::pixel_limit::check_size;
use crate::files::open_regular;
use crate::{Error, Result, Task, TaskKind};
use png::ColorType;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// The greys of a mask.
const MASK: [u8; 3] = [0, 255, 128];
/// Lengths of a stored normal between which it is one, bent by rounding or resizing at most.
const LENGTHS: std::ops::Range<f32> = 0.5..1.5;

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
    let file = Stored::read(path.as_ref(), pixels)?;
    let (width, height) = (file.width, file.height);
    let pixels = match task.kind() {
        TaskKind::Semseg | TaskKind::HumanParts => file.classes(task),
        TaskKind::Sal | TaskKind::Edge => file.mask(task),
        TaskKind::Normals => file.normals(task),
        TaskKind::Depth => file.depths(task),
    }?;
    Ok(Label::of_pixels(task.kind(), (width, height), pixels))
}

/// The numbers of a PNG as they are stored: no palette, no scale applied.
struct Stored {
    path: PathBuf,
    width: usize,
    height: usize,
    colour: ColorType,
    bits: usize,
    /// Row by row, a pixel's channels together; two bytes for a number of 16 bits, the high one first, and one for any other.
    bytes: Vec<u8>,
}

impl Stored {
    fn read(path: &Path, pixels: u64) -> Result<Self> {
        let damaged = |e: png::DecodingError| Error::file(path, format!("no label: {e}"), "labels are PNG files");
        let mut decoder = png::Decoder::new(BufReader::new(open_regular(path)?));
        check_size(path, decoder.read_header_info().map_err(damaged)?.size(), pixels)?;
        let mut reader = decoder.read_info().map_err(damaged)?;
        let too_large = || Error::file(path, "a label that no memory holds", "make the label smaller");
        let mut bytes = vec![0; reader.output_buffer_size().ok_or_else(too_large)?];
        let frame = reader.next_frame(&mut bytes).map_err(damaged)?;
        let (width, height, bits) = (frame.width as usize, frame.height as usize, frame.bit_depth as usize);
        let samples = width * frame.color_type.samples();
        bytes.truncate(frame.line_size * height);
        if bits < 8 {
            let lines = bytes.chunks_exact(frame.line_size);
            bytes = lines.flat_map(|line| (0..samples).map(move |i| sample(line, i, bits))).collect();
        }
        Ok(Self { path: path.to_owned(), width, height, colour: frame.color_type, bits, bytes })
    }

    fn classes(self, task: &Task) -> Result<Vec<u8>> {
        if !matches!((self.colour, self.bits), (ColorType::Grayscale | ColorType::Indexed, ..=8)) {
            let cure =
                "store class indices as an 8-bit grey or palette PNG; colours do not tell which class they stand for";
            return Err(self.form(task, "a palette or grey of at most 8 bits", cure));
        }
        let is_class = |v: u8| usize::from(v) < task.outputs() || v == 255;
        if let Some((at, v)) = self.bytes.iter().enumerate().find(|(_, v)| !is_class(**v)) {
            let cure = "number the classes from 0, store 255 where nothing is known, or give the task more classes";
            return Err(self.value(task, &format!("0 to {} or 255", task.outputs() - 1), &v.to_string(), at, cure));
        }
        Ok(self.bytes)
    }

    fn mask(mut self, task: &Task) -> Result<Vec<u8>> {
        let grey = || self.bytes.as_chunks::<3>().0.iter().all(|[r, g, b]| r == g && r == b);
        // PNG's own scale: the largest number that fits is white.
        let (every, scale) = match (self.colour, self.bits) {
            (ColorType::Grayscale, bits @ ..=8) => (1, 255 / (255u8 >> (8 - bits))),
            (ColorType::Rgb, 8) if grey() => (3, 1),
            _ => return Err(self.form(task, "8-bit grey", "store a mask of 0 and 255 as an 8-bit grey PNG")),
        };
        let levels: Vec<u8> = std::mem::take(&mut self.bytes).into_iter().step_by(every).map(|v| v * scale).collect();
        if let Some((at, v)) = levels.iter().enumerate().find(|(_, v)| !MASK.contains(v)) {
            let cure =
                "store 255 where it is, 0 where it is not, 128 where nothing is known; cut soft masks at a threshold";
            return Err(self.value(task, "0, 255, or 128 to ignore", &v.to_string(), at, cure));
        }
        Ok(levels)
    }

    fn normals(self, task: &Task) -> Result<Vec<u8>> {
        if (self.colour, self.bits) != (ColorType::Rgb, 8) {
            let cure = "store (n + 1) / 2 of 255 as an RGB PNG without alpha, black where nothing is known";
            return Err(self.form(task, "8-bit RGB", cure));
        }
        for (at, pixel) in self.bytes.as_chunks().0.iter().enumerate() {
            if let Some((_, length)) = normal(*pixel).filter(|(_, length)| !LENGTHS.contains(length)) {
                let cure =
                    "store unit normals, black where nothing is known, and resize them without mixing neighbours";
                return Err(self.value(task, "a vector of length 1", &format!("one of {length:.2}"), at, cure));
            }
        }
        Ok(self.bytes)
    }

    fn depths(self, task: &Task) -> Result<Vec<u8>> {
        if (self.colour, self.bits) != (ColorType::Grayscale, 16) {
            return Err(self.form(
                task,
                "16-bit grey",
                "store millimetres as a 16-bit grey PNG, 0 where nothing is known",
            ));
        }
        Ok(self.bytes)
    }

    /// The file holds another kind of pixels than the task's labels do.
    fn form(&self, task: &Task, expected: &str, cure: &str) -> Error {
        let colour = match self.colour {
            ColorType::Grayscale => "grey",
            ColorType::Indexed => "palette",
            ColorType::Rgb => "RGB",
            ColorType::GrayscaleAlpha => "grey with alpha",
            ColorType::Rgba => "RGB with alpha",
        };
        let name = task.name();
        Error::file(&self.path, format!("label of {name}: expected {expected}, got {}-bit {colour}", self.bits), cure)
    }

    /// A pixel holds a value that the task does not have.
    fn value(&self, task: &Task, expected: &str, got: &str, at: usize, cure: &str) -> Error {
        let (x, y) = (at % self.width, at / self.width);
        let problem = format!("label of {}: expected {expected}, got {got} at column {x}, row {y}", task.name());
        Error::file(&self.path, problem, cure)
    }
}

/// The i-th number of a line of fewer than 8 bits each, the most significant first.
fn sample(line: &[u8], i: usize, bits: usize) -> u8 {
    let first = i * bits;
    line[first / 8] >> (8 - bits - first % 8) & ((1 << bits) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::{picture, save_png};
    use crate::sample::IGNORE;
    use candle_core::{DType, Device, Tensor};
    use png::BitDepth;
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
        assert!(message().contains("label.png: no label"), "{}", message());
        // The header alone, of a size that no memory holds.
        let mut huge = whole[..33].to_vec();
        huge[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
        std::fs::write(&path, &huge).unwrap();
        assert!(message().contains("label.png"), "{}", message());
        std::fs::write(&path, b"plain text").unwrap();
        assert!(message().contains("label.png: no label") && message().contains("PNG files"), "{}", message());
        std::fs::remove_file(&path).unwrap();
        assert!(message().contains("cannot read"), "{}", message());
    }
}
