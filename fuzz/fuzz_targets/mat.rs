//! Any bytes as a MATLAB 5 file: each variable by the names that data sets have, walked to its end.
#![no_main]

use tadformer::Result;
use tadformer::data::mat::{Matrix, Variable};

/// Few enough that a run is quick, whatever a file announces.
const BYTES: u64 = 1 << 20;

/// Structs within structs, and cells within cells, so far down; what lies deeper is reached by nobody who does not ask for it.
const DEPTH: usize = 6;

fn walk(matrix: &Matrix, depth: usize) -> Result<()> {
    let _ = matrix.text();
    if let Ok(numbers) = matrix.numbers() {
        let (mut count, (height, width)) = (0, numbers.size());
        numbers.each(|y, x, _| {
            assert!(y < height && x < width);
            count += 1;
        });
        assert_eq!(count, height * width);
        assert_eq!(numbers.only().is_some(), count == 1);
    }
    if depth == 0 {
        return Ok(());
    }
    for one in matrix.structs().into_iter().flatten() {
        let one = one?;
        for field in ["objects", "parts", "mask", "class_ind", "part_name"] {
            one.field(field).and_then(|field| walk(&field, depth - 1)).ok();
        }
    }
    for cell in matrix.cells().into_iter().flatten() {
        walk(&cell?, depth - 1)?;
    }
    Ok(())
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = tadformer_fuzz::file("mat", bytes);
    for name in ["anno", "LabelMap"] {
        let Ok(variable) = Variable::read_within(&path, name, BYTES) else { continue };
        let _ = variable.matrix().and_then(|matrix| walk(&matrix, DEPTH));
    }
});
