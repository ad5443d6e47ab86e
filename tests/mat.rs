//! MATLAB 5 files and NumPy's arrays: what is in them, and files that lie, in bounded time and memory.
#![cfg(feature = "data")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/counting.rs"]
mod counting;
#[path = "common/mat.rs"]
mod mat;

use counting::{Counting, during};
use mat::{DOUBLE, LITTLE, Mat, UINT8, UINT16};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tadformer::data::mat::{Matrix, Variable};
use tadformer::data::read_npy;
use tempfile::TempDir;

#[global_allocator]
static COUNTING: Counting = Counting;

fn file(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn variable(bytes: &[u8], name: &str) -> tadformer::Result<Variable> {
    let (_folder, path) = file("file.mat", bytes);
    Variable::read(&path, name)
}

/// Numbers row by row.
fn rows(matrix: &Matrix) -> Vec<Vec<f64>> {
    let numbers = matrix.numbers().unwrap();
    let (height, width) = numbers.size();
    let mut rows = vec![vec![0.0; width]; height];
    numbers.each(|y, x, value| rows[y][x] = value);
    rows
}

/// Two byte orders, as they are and compressed.
fn each_way(elements: impl Fn(Mat) -> Vec<Vec<u8>>, check: impl Fn(&[u8])) {
    for big in [false, true] {
        let mat = Mat { big };
        check(&mat.file(&elements(mat)));
        let compressed: Vec<Vec<u8>> = elements(mat).iter().map(|element| mat.compressed(element)).collect();
        check(&mat.file(&compressed));
    }
}

#[test]
fn numbers_of_any_class_and_storage_are_read_column_by_column() {
    let halves = |mat: Mat, values: &[u16]| -> Vec<u8> {
        values.iter().flat_map(|v| if mat.big { v.to_be_bytes() } else { v.to_le_bytes() }).collect()
    };
    let elements = |mat: Mat| {
        vec![
            mat.text("note", "stands before it"),
            mat.numbers("wide", DOUBLE, &[2, 3], 4, &halves(mat, &[1, 2, 3, 400, 5, 6])), // double stored as uint16
            mat.numbers("small", DOUBLE, &[1, 1], 2, &[15]),                              // within its tag
            mat.numbers("deep", UINT8, &[3, 1, 1], 2, &[0, 1, 1]),
            mat.numbers("none", DOUBLE, &[0, 0], 9, &[]),
        ]
    };
    each_way(elements, |bytes| {
        let read = |name| variable(bytes, name).unwrap();
        assert_eq!(rows(&read("wide").matrix().unwrap()), [[1., 3., 5.], [2., 400., 6.]]);
        assert_eq!(read("small").matrix().unwrap().numbers().unwrap().only(), Some(15.0));
        assert_eq!(rows(&read("deep").matrix().unwrap()), [[0.], [1.], [1.]]);
        assert!(read("deep").matrix().unwrap().numbers().unwrap().any());
        let none = read("none");
        assert!(none.matrix().unwrap().is_empty() && !none.matrix().unwrap().numbers().unwrap().any());
        assert_eq!(none.matrix().unwrap().structs().unwrap().len(), 0, "as programs write no structs");
        let message = variable(bytes, "other").unwrap_err().to_string();
        assert!(message.contains("no variable `other`; it has note, wide, small, deep, none"), "{message}");
    });
}

#[test]
fn structs_cells_and_text_are_read_by_name_and_place() {
    let elements = |mat: Mat| {
        let part = |name: &str, set: u8| vec![mat.text("", name), mat.numbers("", UINT8, &[1, 2], 2, &[0, set])];
        let parts = mat.structs("", &["part_name", "mask"], &[part("head", 1), part("torso", 7)]);
        let objects = [vec![parts, mat.text("", "person")], vec![mat.long(14, &[]), mat.text("", "")]];
        let cells = [mat.text("", "über"), mat.numbers("", UINT16, &[1, 1], 4, &[1, 1]), mat.long(14, &[])];
        vec![mat.structs("anno", &["parts", "class"], &objects), mat.cells("list", &cells)]
    };
    each_way(elements, |bytes| {
        let anno = variable(bytes, "anno").unwrap();
        let objects: Vec<_> = anno.matrix().unwrap().structs().unwrap().map(Result::unwrap).collect();
        let text = |matrix: Matrix| matrix.text().unwrap();
        assert_eq!(text(objects[0].field("class").unwrap()), "person");
        assert_eq!(text(objects[1].field("class").unwrap()), "");
        assert!(objects[1].field("parts").unwrap().is_empty());
        let parts = objects[0].field("parts").unwrap().structs().unwrap();
        let parts: Vec<_> = parts
            .map(Result::unwrap)
            .map(|part| (text(part.field("part_name").unwrap()), rows(&part.field("mask").unwrap())))
            .collect();
        assert_eq!(parts, [("head".into(), vec![vec![0., 1.]]), ("torso".into(), vec![vec![0., 7.]])]);
        let message = objects[0].field("mask").map(drop).unwrap_err().to_string();
        assert!(message.contains("without the field `mask`; it has parts, class"), "{message}");
        assert!(
            anno.matrix()
                .unwrap()
                .one_struct()
                .unwrap_err()
                .to_string()
                .contains("expected one struct, got structs, 1 x 2")
        );
        let list = variable(bytes, "list").unwrap();
        let cells: Vec<_> = list.matrix().unwrap().cells().unwrap().map(Result::unwrap).collect();
        assert_eq!((cells.len(), cells[0].text().unwrap()), (3, "über".to_owned()));
        assert_eq!(cells[1].numbers().unwrap().only(), Some(257.0));
        assert!(cells[1].text().unwrap_err().to_string().contains("expected a line of text, got numbers, 1 x 1"));
        assert!(cells[0].numbers().unwrap_err().to_string().contains("expected real numbers, got text"));
    });
}

#[test]
fn what_is_no_file_of_matlab_5_says_what_it_is() {
    let whole = LITTLE.file(&[LITTLE.numbers("x", DOUBLE, &[1, 1], 2, &[1])]);
    let mut hdf5 = whole.clone();
    hdf5[124..126].copy_from_slice(&[0, 2]);
    for (bytes, words) in [
        (&b"plain text"[..], "no MATLAB 5 file"),
        (&[0; 200], "no MATLAB 5 file"),
        (&hdf5, "which is HDF5 (save it with save(..., '-v7'))"),
        (&whole[..128], "no variable `x`; it has none"),
        (&whole[..140], "ends within an element"),
        (&whole[..whole.len() - 1], "ends within an element"),
    ] {
        let message = variable(bytes, "x").unwrap_err().to_string();
        assert!(message.contains("file.mat") && message.contains(words), "{message}");
    }
}

/// Reads a variable as each kind of thing, to its end; that it is another kind is no error here.
fn walk(matrix: &Matrix, depth: usize) -> tadformer::Result<()> {
    let of_kind = |outcome: tadformer::Result<()>| match outcome {
        Err(error) if error.to_string().contains(": expected ") => Ok(()),
        outcome => outcome,
    };
    of_kind(matrix.text().map(drop))?;
    of_kind(
        matrix.numbers().map(|numbers| numbers.each(|y, x, _| assert!(y < numbers.size().0 && x < numbers.size().1))),
    )?;
    of_kind(matrix.structs().map(drop))?;
    of_kind(matrix.cells().map(drop))?;
    if depth == 0 {
        return Ok(());
    }
    for one in matrix.structs().into_iter().flatten() {
        walk(&one?.field("f")?, depth - 1)?;
    }
    for one in matrix.cells().into_iter().flatten() {
        walk(&one?, depth - 1)?;
    }
    Ok(())
}

/// The error of a file, which must come soon and take little memory beside its own size.
fn refusal(bytes: &[u8]) -> String {
    let (_folder, path) = file("file.mat", bytes);
    let start = Instant::now();
    let (message, counted) = during(|| {
        let read = Variable::read_within(&path, "x", 1 << 24).and_then(|x| walk(&x.matrix()?, 4));
        read.err().map(|error| error.to_string()).unwrap_or_default()
    });
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}: {message:.200}", start.elapsed());
    let most = 2 * bytes.len() as isize + (2 << 24);
    assert!(counted.peak < most, "{} bytes: {message:.200}", counted.peak);
    message
}

#[test]
fn files_that_lie_are_refused_in_bounded_time_and_memory() {
    let mat = LITTLE;
    let x = |class: u32, dims: &[u32], content: &[u8]| mat.file(&[mat.matrix("x", class, dims, content)]);
    let slots = |length: u32, names: &[u8]| [mat.element(5, &mat.u32(length)), mat.element(1, names)].concat();
    let many = i32::MAX as u32;
    let bomb = mat.compressed(&mat.numbers("x", UINT8, &[1 << 14, 1 << 14], 2, &vec![0; 1 << 28]));
    let mut deep = mat.long(14, &[]);
    for _ in 0..2000 {
        deep = mat.cells("", &[deep]);
    }
    for (what, bytes, words) in [
        (
            "numbers that are not there",
            x(DOUBLE, &[many, many], &mat.element(9, &[0; 8])),
            "8 bytes for 2147483647 x 2147483647 numbers",
        ),
        ("more elements than can be counted", x(1, &[many; 3], &[]), "more elements than can be counted"),
        ("sides below 0", x(DOUBLE, &[0x8000_0000, 1], &mat.element(9, &[0; 8])), "without its size"),
        ("a hundred sides", x(DOUBLE, &[1; 100], &mat.element(9, &[0; 8])), "without its size"),
        ("cells that are not there", x(1, &[many, 1], &mat.long(14, &[])), "2147483647 cells in 8 bytes"),
        ("structs of no field", x(2, &[many, 1], &slots(8, &[])), "2147483647 structs of 0 fields"),
        (
            "structs that are not there",
            x(2, &[many, 1], &slots(2, b"f\0")),
            "2147483647 structs of 1 fields in 0 bytes",
        ),
        ("a million fields", x(2, &[1, 1], &slots(1, &vec![b'f'; 1 << 20])), "over 1024 fields"),
        ("names of length 0", x(2, &[1, 1], &slots(0, b"ffff")), "without a length"),
        ("names of length -1", x(2, &[1, 1], &slots(u32::MAX, b"ffff")), "without the length of their names"),
        ("a bomb", mat.file(&[bomb]), "more than the limit of 16777216"),
        (
            "a matrix as long as it says no file is",
            mat.file(&[[mat.u32(14), mat.u32(u32::MAX)].concat()]),
            "ends within",
        ),
        ("compressed nonsense", mat.file(&[mat.long(15, &[7; 100])]), "damaged"),
        (
            "a compressed text",
            mat.file(&[mat.compressed(b"something else, long enough")]),
            "something else than a matrix",
        ),
        ("nesting", mat.file(&[mat.cells("x", &[deep])]), ""),
        ("a million variables", mat.file(&vec![mat.long(0, &[]); 1 << 20]), "more than 1000 variables"),
        ("a matrix of nothing", mat.file(&[mat.long(14, &[])]), "ends within an element"),
    ] {
        let message = refusal(&bytes);
        assert!(message.contains(words), "{what}: {message}");
    }
}

/// Each is cut everywhere and changed everywhere, and gives an error or something; a changed compressed one is never taken for whole.
#[test]
fn no_cut_and_no_changed_byte_makes_a_file_another_than_it_was() {
    let mat = LITTLE;
    let person = mat.structs(
        "x",
        &["f", "mask"],
        &[vec![mat.text("", "person"), mat.numbers("", UINT8, &[2, 2], 2, &[1, 0, 0, 1])]],
    );
    for (is_packed, bytes) in
        [(false, mat.file(std::slice::from_ref(&person))), (true, mat.file(&[mat.compressed(&person)]))]
    {
        let whole = variable(&bytes, "x").unwrap();
        assert!(walk(&whole.matrix().unwrap(), 2).is_ok());
        for end in 0..bytes.len() {
            assert!(variable(&bytes[..end], "x").is_err(), "cut at {end}");
        }
        for at in 128..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x41;
            let message = refusal(&changed);
            assert!(!is_packed || !message.is_empty(), "byte {at} of the compressed file");
        }
    }
}

#[test]
fn arrays_that_lie_are_refused_before_anything_is_allocated() {
    let npy = |version: u8, length: &[u8], header: &str, values: usize| {
        [b"\x93NUMPY", &[version, 0][..], length, header.as_bytes(), &vec![0; values]].concat()
    };
    let header = |shape: &str| format!("{{'descr': '<f8', 'fortran_order': True, 'shape': {shape}, }}\n");
    let of = |shape: &str, values| npy(1, &(header(shape).len() as u16).to_le_bytes(), &header(shape), values);
    for bytes in [
        of("(10000, 10000, 3)", 8),
        of("(10001, 10000)", 8),
        of("(18446744073709551615, 18446744073709551615)", 8),
        of(&format!("({})", "9, ".repeat(500)), 8),
        of(&"(".repeat(1500), 8),
        of("(2, 2)", 31),
        npy(2, &[0xff; 4], "{", 100),
        npy(1, &[0xff; 2], "{", 1 << 17),
        npy(9, &[8, 0], "{}", 100),
    ] {
        let (_folder, path) = file("file.npy", &bytes);
        let start = Instant::now();
        let (message, counted) = during(|| read_npy(&path).map(drop).unwrap_err().to_string());
        assert!(message.contains("file.npy"), "{message}");
        assert!(counted.peak < 1 << 16, "{} bytes: {message}", counted.peak);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
}
