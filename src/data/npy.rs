//! Arrays in NumPy's format, as maps.
//!
//! Own code: what there is for it believes a header's length and its shape, and reads the header as an expression of Python.

use super::numbers::{ByteOrder, Number, Order, to_planes};
use super::pixel_limit::{PIXEL_LIMIT, check_size};
use crate::files::open_regular;
use crate::{Error, Result};
use std::io::{BufReader, Read};
use std::path::Path;

/// Bytes of the longest header that is read; NumPy's own of such arrays have 118.
const LONGEST_HEADER: usize = 4096;
/// Bytes that are read at once: a whole number of each type.
const PIECE: usize = 1 << 16;
const CURE: &str = "save it with numpy.save, as numbers of H x W, H x W x 1 or H x W x 3";

/// Values of a map, whatever type of number they were stored in.
#[derive(Clone, Debug, PartialEq)]
pub struct NpyMap {
    /// `[c, H, W]`, row by row.
    pub values: Vec<f32>,
    /// c: 1 or 3.
    pub channels: usize,
    /// H.
    pub height: usize,
    /// W.
    pub width: usize,
}

/// Reads a `.npy` file of at most [`PIXEL_LIMIT`] pixels: `[H, W]`, `[H, W, 1]` or `[H, W, 3]` of floats of 16, 32 or 64 bits,
/// integers or bools, stored row by row or, in Fortran's order, column by column.
///
/// # Errors
/// A file that cannot be read or is no such array; one whose bytes are more or fewer than its shape asks for; a side of 0; more pixels.
///
/// ```
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("depth.npy");
/// let header = format!("{:<117}\n", "{'descr': '<f2', 'fortran_order': False, 'shape': (1, 2), }");
/// let bytes = [b"\x93NUMPY\x01\x00\x76\x00", header.as_bytes(), &[0x00, 0x3e, 0x00, 0x40]].concat();
/// std::fs::write(&path, bytes).unwrap();
/// let map = tadformer::data::read_npy(&path)?;
/// assert_eq!((map.height, map.width, map.values), (1, 2, vec![1.5, 2.0]));
/// # Ok::<(), tadformer::Error>(())
/// ```
pub fn read_npy(path: impl AsRef<Path>) -> Result<NpyMap> {
    read_npy_within(path, PIXEL_LIMIT)
}

/// [`read_npy`] within another limit on the pixels.
///
/// # Errors
/// As there; a file whose header announces more pixels, of which none is read then.
pub fn read_npy_within(path: impl AsRef<Path>, pixels: u64) -> Result<NpyMap> {
    let path = path.as_ref();
    let file = open_regular(path)?;
    let length = file.metadata().map_err(Error::io(path, "read"))?.len();
    let mut file = BufReader::new(file);
    let (text, start) = header_text(path, &mut file)?;
    let header = Header::parse(&text).map_err(|problem| Error::file(path, format!("no array: {problem}"), CURE))?;
    let [height, width, channels] = header.shape;
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    check_size(path, (side(width), side(height)), pixels)?;
    let count = height * width * channels;
    // A file that has grown since then is longer than it was.
    let (got, want) = (length.saturating_sub(start), (count * header.number.bytes()) as u64);
    if got != want {
        let problem = format!("{got} bytes of values, and its shape asks for {want}");
        return Err(Error::file(path, problem, "it was cut short or written to: take the file as it was published"));
    }
    let values = header.values(path, &mut file, count)?;
    Ok(NpyMap { values: to_planes(values, header.shape, header.order), channels, height, width })
}

/// The header, and where the values start.
fn header_text(path: &Path, file: &mut impl Read) -> Result<(String, u64)> {
    let none = || Error::file(path, "no NumPy array", CURE);
    let mut start = [0; 8];
    file.read_exact(&mut start).map_err(|_| none())?;
    let length_bytes = match start {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, 0] => 2,
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, 0] => 4,
        _ => return Err(none()),
    };
    let mut length = [0; 4];
    file.read_exact(&mut length[..length_bytes]).map_err(|_| none())?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST_HEADER {
        return Err(Error::file(path, format!("no array: a header of {length} bytes"), CURE));
    }
    let mut text = vec![0; length];
    file.read_exact(&mut text).map_err(|_| none())?;
    Ok((String::from_utf8_lossy(&text).into_owned(), (start.len() + length_bytes + length) as u64))
}

/// What stands before the values.
#[derive(Debug, PartialEq)]
struct Header {
    number: Number,
    bytes: ByteOrder,
    order: Order,
    /// Height, width, channels.
    shape: [usize; 3],
}

impl Header {
    /// Of a dictionary as NumPy writes it: three names, each once, in any order.
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let (number, bytes) = of_descr(quoted(after(text, "descr")?)?)?;
        let order = match after(text, "fortran_order")? {
            rest if rest.starts_with("False") => Order::Rows,
            rest if rest.starts_with("True") => Order::Columns,
            _ => return Err("`fortran_order` is neither True nor False".into()),
        };
        Ok(Self { number, bytes, order, shape: shape(after(text, "shape")?)? })
    }

    /// The values in the order in which they are stored.
    fn values(&self, path: &Path, file: &mut impl Read, count: usize) -> Result<Vec<f32>> {
        let mut values = Vec::with_capacity(count);
        let mut piece = vec![0; PIECE.min(count * self.number.bytes())];
        while values.len() < count {
            let most = (count - values.len()) * self.number.bytes();
            let piece = &mut piece[..most.min(PIECE)];
            file.read_exact(piece).map_err(Error::io(path, "read"))?;
            self.number.each(piece, self.bytes, |value| values.push(value as f32));
        }
        Ok(values)
    }
}

/// What follows a name and its colon.
fn after<'a>(text: &'a str, name: &str) -> std::result::Result<&'a str, String> {
    let named = [format!("'{name}'"), format!("\"{name}\"")];
    let rest = named.iter().find_map(|name| Some(text.split_once(name.as_str())?.1));
    let value = rest.and_then(|rest| rest.trim_start().strip_prefix(':'));
    value.map(str::trim_start).ok_or_else(|| format!("its header has no `{name}`"))
}

/// The text between two quotes.
fn quoted(text: &str) -> std::result::Result<&str, String> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let end = quote.and_then(|quote| text[1..].find(quote));
    end.map(|end| &text[1..=end]).ok_or_else(|| "of several values together".into())
}

/// A type as NumPy names it: byte order, kind and bytes.
fn of_descr(descr: &str) -> std::result::Result<(Number, ByteOrder), String> {
    let bytes = match descr.chars().next() {
        Some('>') => ByteOrder::Big,
        _ => ByteOrder::Little,
    };
    let number = match descr.trim_start_matches(['<', '>', '|', '=']) {
        "b1" | "u1" => Number::U8,
        "i1" => Number::I8,
        "i2" => Number::I16,
        "u2" => Number::U16,
        "i4" => Number::I32,
        "u4" => Number::U32,
        "i8" => Number::I64,
        "u8" => Number::U64,
        "f2" => Number::F16,
        "f4" => Number::F32,
        "f8" => Number::F64,
        _ => return Err(format!("values of type `{descr:.40}`")),
    };
    Ok((number, bytes))
}

/// The sides of a tuple, as height, width and channels.
fn shape(text: &str) -> std::result::Result<[usize; 3], String> {
    let inner = text.strip_prefix('(').and_then(|text| Some(text.split_once(')')?.0));
    let inner = inner.ok_or("its header has no `shape`")?;
    let sides = inner.split(',').map(str::trim).filter(|side| !side.is_empty());
    let sides = sides.map(|side| side.parse::<u32>().ok().filter(|side| *side > 0).map(|side| side as usize));
    match sides.collect::<Option<Vec<_>>>().as_deref() {
        Some([height, width]) => Ok([*height, *width, 1]),
        Some([height, width, channels @ (1 | 3)]) => Ok([*height, *width, *channels]),
        _ => Err(format!("of shape ({inner:.80})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str, values: &[u8]) -> Result<NpyMap> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map.npy");
        let bytes =
            [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), values].concat();
        std::fs::write(&path, bytes).unwrap();
        read_npy_within(&path, 12)
    }

    #[test]
    fn every_type_and_both_orders_are_read() -> Result<()> {
        let rows = "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 1, 3), }\n";
        let numbers: Vec<u8> = [1i16, 2, 3, -4, 5, 6].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(read(rows, &numbers)?.values, [1., -4., 2., 5., 3., 6.]);
        let columns = "{\"shape\":(2,3),\"fortran_order\":True,\"descr\":\"|b1\"}";
        let map = read(columns, &[0, 1, 1, 0, 0, 0])?;
        assert_eq!((map.channels, map.height, map.width), (1, 2, 3));
        assert_eq!(map.values, [0., 1., 0., 1., 0., 0.]);
        for (descr, bytes) in
            [(">f8", 2.5f64.to_be_bytes().to_vec()), ("=f4", 2.5f32.to_le_bytes().to_vec()), ("<f2", vec![0x00, 0x41])]
        {
            let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (1, 1, 1)}}");
            assert_eq!(read(&header, &bytes)?.values, [2.5], "{descr}");
        }
        Ok(())
    }

    #[test]
    fn what_is_no_map_is_refused_by_what_it_is() {
        let array =
            |descr: &str, shape: &str| format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}");
        for (header, bytes, words) in [
            (array("'<f4'", "(2, 2)"), 15, "15 bytes of values, and its shape asks for 16"),
            (array("'<f4'", "(2, 2)"), 17, "17 bytes of values"),
            (array("'<f4'", "(4, 4)"), 64, "4 x 4 pixels, more than the limit of 12"),
            (array("'<f4'", "(4294967295, 4294967295, 3)"), 0, "more than the limit of 12"),
            (array("'<f4'", "(99999999999999999999, 1)"), 0, "of shape (99999999999999999999, 1)"),
            (array("'<f4'", "(0, 4)"), 0, "of shape (0, 4)"),
            (array("'<f4'", "(-1, 4)"), 0, "of shape (-1, 4)"),
            (array("'<f4'", "(2, 2, 2)"), 32, "of shape (2, 2, 2)"),
            (array("'<f4'", "(4,)"), 16, "of shape (4,)"),
            (array("'<f4'", &"(".repeat(3000)), 0, "its header has no `shape`"),
            (array("'|O'", "(2, 2)"), 4, "values of type `|O`"),
            (array("'<c8'", "(1, 1)"), 8, "values of type `<c8`"),
            (array("[('a', '<f4')]", "(1, 1)"), 4, "of several values together"),
            (array("'<f4'", "(1, 1)").replace("False", "7"), 4, "neither True nor False"),
            ("{}".into(), 0, "its header has no `descr`"),
            (" ".repeat(5000), 0, "a header of 5000 bytes"),
        ] {
            let message = read(&header, &vec![0; bytes]).unwrap_err().to_string();
            assert!(message.contains(words) && message.contains("map.npy"), "{message}");
        }
    }

    #[test]
    fn a_file_that_is_no_array_or_ends_in_its_header_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map.npy");
        for bytes in
            [&b""[..], b"plain text that is long enough", b"\x93NUMPY\x01\x00\x76", b"\x93NUMPY\x02\x00\x76\0\0\0{"]
        {
            std::fs::write(&path, bytes).unwrap();
            let message = read_npy(&path).unwrap_err().to_string();
            assert!(message.contains("no NumPy array"), "{message}");
        }
    }
}
