//! Numbers as files of arrays store them.

use half::f16;

/// A type of number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F16,
    F32,
    F64,
}

/// Which of a number's bytes comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

/// Which way an array of rows and columns is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Row by row, a pixel's channels together.
    Rows,
    /// Column by column, a channel after the other, as Fortran and MATLAB do.
    Columns,
}

impl Number {
    /// How many bytes one takes.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 | Self::F16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    /// Gives each number that these bytes hold, as the nearest f64.
    pub(super) fn each(self, bytes: &[u8], order: ByteOrder, give: impl FnMut(f64)) {
        match self {
            Self::I8 => each(bytes, order, i8::from_le_bytes, give),
            Self::U8 => each(bytes, order, u8::from_le_bytes, give),
            Self::I16 => each(bytes, order, i16::from_le_bytes, give),
            Self::U16 => each(bytes, order, u16::from_le_bytes, give),
            Self::I32 => each(bytes, order, i32::from_le_bytes, give),
            Self::U32 => each(bytes, order, u32::from_le_bytes, give),
            Self::I64 => each(bytes, order, |bytes| i64::from_le_bytes(bytes) as f64, give),
            Self::U64 => each(bytes, order, |bytes| u64::from_le_bytes(bytes) as f64, give),
            Self::F16 => each(bytes, order, f16::from_le_bytes, give),
            Self::F32 => each(bytes, order, f32::from_le_bytes, give),
            Self::F64 => each(bytes, order, f64::from_le_bytes, give),
        }
    }
}

/// `of` takes a number's bytes, the least of them first.
fn each<const N: usize, T: Into<f64>>(
    bytes: &[u8],
    order: ByteOrder,
    of: impl Fn([u8; N]) -> T,
    mut give: impl FnMut(f64),
) {
    let numbers = bytes.as_chunks().0;
    match order {
        ByteOrder::Little => numbers.iter().for_each(|bytes| give(of(*bytes).into())),
        ByteOrder::Big => {
            numbers.iter().for_each(|bytes| give(of(std::array::from_fn(|i| bytes[N - 1 - i])).into()));
        }
    }
}

/// Stored values of `[H, W, channels]` as `[channels, H, W]`.
pub(super) fn to_planes<T: Copy>(stored: Vec<T>, [height, width, channels]: [usize; 3], order: Order) -> Vec<T> {
    if order == Order::Rows && channels == 1 {
        return stored;
    }
    let at = |c: usize, y: usize, x: usize| match order {
        Order::Rows => (y * width + x) * channels + c,
        Order::Columns => (c * width + x) * height + y,
    };
    let mut planes = Vec::with_capacity(stored.len());
    for (c, y) in (0..channels).flat_map(|c| (0..height).map(move |y| (c, y))) {
        planes.extend((0..width).map(|x| stored[at(c, y, x)]));
    }
    planes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(number: Number, bytes: &[u8], order: ByteOrder) -> Vec<f64> {
        let mut values = Vec::new();
        number.each(bytes, order, |value| values.push(value));
        values
    }

    #[test]
    fn each_type_is_read_in_both_byte_orders() {
        use Number::{F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
        for (number, bytes, want) in [
            (I8, vec![0xff, 2], vec![-1.0, 2.0]),
            (U8, vec![0xff, 2], vec![255.0, 2.0]),
            (I16, vec![0xfe, 0xff, 1, 2], vec![-2.0, 513.0]),
            (U16, vec![0xfe, 0xff], vec![65534.0]),
            (I32, (-70_000i32).to_le_bytes().to_vec(), vec![-70_000.0]),
            (U32, 4_000_000_000u32.to_le_bytes().to_vec(), vec![4e9]),
            (I64, (-5i64).to_le_bytes().to_vec(), vec![-5.0]),
            (U64, (1u64 << 60).to_le_bytes().to_vec(), vec![(1u64 << 60) as f64]),
            (F16, f16::from_f32(-1.5).to_le_bytes().to_vec(), vec![-1.5]),
            (F32, 0.25f32.to_le_bytes().to_vec(), vec![0.25]),
            (F64, 1e300f64.to_le_bytes().to_vec(), vec![1e300]),
        ] {
            assert_eq!(all(number, &bytes, ByteOrder::Little), want, "{number:?}");
            let turned: Vec<u8> = bytes.chunks(number.bytes()).flat_map(|one| one.iter().rev().copied()).collect();
            assert_eq!(all(number, &turned, ByteOrder::Big), want, "{number:?}");
        }
    }

    #[test]
    fn both_ways_of_storing_an_array_give_its_planes() {
        // Value 100 c + 10 y + x, of 2 channels, 2 rows and 3 columns.
        let want = [0, 1, 2, 10, 11, 12, 100, 101, 102, 110, 111, 112];
        let rows = vec![0, 100, 1, 101, 2, 102, 10, 110, 11, 111, 12, 112];
        let columns = vec![0, 10, 1, 11, 2, 12, 100, 110, 101, 111, 102, 112];
        assert_eq!(to_planes(rows, [2, 3, 2], Order::Rows), want);
        assert_eq!(to_planes(columns, [2, 3, 2], Order::Columns), want);
        assert_eq!(to_planes(vec![1, 2, 3, 4], [2, 2, 1], Order::Rows), [1, 2, 3, 4]);
    }
}
