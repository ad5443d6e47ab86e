//! Cutting a map into windows and putting it together again; the geometry of Swin.

use crate::ops::shapes::Shapes;
use candle_core::{Device, Result, Tensor};

/// How one map is cut: padded on the right and bottom to whole windows, rolled by the shift, cut row by row.
///
/// ```
/// use tadformer::ops::WindowGrid;
/// let grid = WindowGrid::new((13, 19), 4, true)?;
/// assert_eq!((grid.padded(), grid.shift(), grid.windows()), ((16, 20), 2, 20));
/// assert!(WindowGrid::new((13, 19), 0, true).is_err());
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowGrid {
    size: (usize, usize),
    window: usize,
    shift: usize,
}

impl WindowGrid {
    /// A grid for a map of `size` (height, width). Shifted blocks shift by half a window, floored, but a map whose
    /// smaller side is no larger than the window is not shifted.
    ///
    /// # Errors
    /// A map or window without a patch; after padding, as many patches as no `u32` counts.
    pub fn new(size: (usize, usize), window: usize, shifted: bool) -> Result<Self> {
        let padded = |side: usize| side.checked_next_multiple_of(window).filter(|side| *side > 0);
        let patches = padded(size.0).zip(padded(size.1)).and_then(|(h, w)| h.checked_mul(w));
        if patches.is_none_or(|patches| u32::try_from(patches).is_err()) {
            candle_core::bail!(
                "window-grid: expected a map and windows of 1 to {} patches, got {size:?} in windows of {window}",
                u32::MAX
            )
        }
        let shift = if shifted && size.0.min(size.1) > window { window / 2 } else { 0 };
        Ok(Self { size, window, shift })
    }

    /// Height and width of the map.
    pub fn size(&self) -> (usize, usize) {
        self.size
    }

    /// Patches of the map.
    pub(in crate::ops) fn tokens(&self) -> usize {
        self.size.0 * self.size.1
    }

    /// Height and width after padding to whole windows.
    pub fn padded(&self) -> (usize, usize) {
        (self.size.0.next_multiple_of(self.window), self.size.1.next_multiple_of(self.window))
    }

    /// Side of a window.
    pub fn window(&self) -> usize {
        self.window
    }

    /// By how much the map is rolled up and left; 0 for an unshifted block.
    pub fn shift(&self) -> usize {
        self.shift
    }

    /// Windows of one image.
    pub fn windows(&self) -> usize {
        let (h, w) = self.padded();
        h * w / (self.window * self.window)
    }

    /// Tokens to windows: `[B, H*W, C]` to `[B*nW, M*M, C]`.
    ///
    /// # Errors
    /// Tokens of another number than the map's.
    pub fn partition(&self, x: &Tensor) -> Result<Tensor> {
        let shapes = Shapes::of("partition", x)?;
        let [b, _, c] = shapes.sizes("tokens", x)?;
        shapes.expect("tokens", x, &[b, self.tokens(), c])?;
        let ((h, w), (hp, wp), m) = (self.size, self.padded(), self.window);
        let x = x.reshape((b, h, w, c))?;
        let x = x.pad_with_zeros(1, 0, hp - h)?.pad_with_zeros(2, 0, wp - w)?;
        let x = self.roll(&x, -(self.shift as i32))?;
        x.reshape(&[b, hp / m, m, wp / m, m, c][..])?.transpose(2, 3)?.reshape((b * self.windows(), m * m, c))
    }

    /// Windows to tokens: `[B*nW, M*M, C]` to `[B, H*W, C]`, the padding cropped.
    ///
    /// # Errors
    /// Windows of another size or number than the map's.
    pub fn reverse(&self, windows: &Tensor) -> Result<Tensor> {
        let shapes = Shapes::of("reverse", windows)?;
        let ([bw, _, c], (h, w), (hp, wp), m) =
            (shapes.sizes("windows", windows)?, self.size, self.padded(), self.window);
        let b = shapes.times("windows of all images", bw, self.windows())?;
        shapes.expect("windows", windows, &[bw, m * m, c])?;
        let x = windows.reshape(&[b, hp / m, wp / m, m, m, c][..])?.transpose(2, 3)?.reshape((b, hp, wp, c))?;
        let x = self.roll(&x, self.shift as i32)?;
        x.narrow(1, 0, h)?.narrow(2, 0, w)?.reshape((b, h * w, c))
    }

    /// Where each patch of each window stands among the map's tokens, window by window; `None` in the padding.
    pub(in crate::ops) fn places(&self) -> Vec<Option<u32>> {
        let ((h, w), (hp, wp), m) = (self.size, self.padded(), self.window);
        let place = |window: usize, token: usize| {
            let y = (window / (wp / m) * m + token / m + self.shift) % hp;
            let x = (window % (wp / m) * m + token % m + self.shift) % wp;
            (y < h && x < w).then(|| (y * w + x) as u32)
        };
        (0..self.windows()).flat_map(|window| (0..m * m).map(move |token| place(window, token))).collect()
    }

    fn roll(&self, x: &Tensor, by: i32) -> Result<Tensor> {
        if by == 0 { Ok(x.clone()) } else { x.roll(by, 1)?.roll(by, 2) }
    }
}

/// How many offsets there are along one axis between the positions of windows of side `m`: `2m - 1`.
///
/// # Errors
/// A window without a position, or with more pairs of offsets than a `u32` counts.
pub(crate) fn offsets(m: usize) -> Result<usize> {
    match m.checked_mul(2).and_then(|twice| twice.checked_sub(1)) {
        Some(side) if side.checked_mul(side).is_some_and(|all| u32::try_from(all).is_ok()) => Ok(side),
        _ => candle_core::bail!("expected windows of 1 to {} positions a side, got {m}", 1 << 15),
    }
}

/// For each pair of positions in an `m` x `m` window, the row of the bias table that holds their offset: `[m⁴]`, row-major.
///
/// `index[i, j] = (yi - yj + m - 1) (2m - 1) + (xi - xj + m - 1)` into a table of `(2m - 1)²` rows.
///
/// # Errors
/// A window without a position, or with more pairs of them than memory has room for.
pub fn relative_position_index(m: usize) -> Result<Vec<u32>> {
    let side = offsets(m)?;
    let mut index = reserved("relative-position-index", &[m; 4])?;
    for i in 0..m * m {
        let offset = |j: usize| (i / m + m - 1 - j / m) * side + (i % m + m - 1 - j % m);
        index.extend((0..m * m).map(|j| offset(j) as u32));
    }
    Ok(index)
}

/// An empty vector with room for an array of these sizes.
fn reserved<T>(step: &str, sizes: &[usize]) -> Result<Vec<T>> {
    let (len, mut room) = (sizes.iter().try_fold(1usize, |len, size| len.checked_mul(*size)), Vec::new());
    match len.map(|len| room.try_reserve_exact(len)) {
        Some(Ok(())) => Ok(room),
        _ => candle_core::bail!("{step}: expected fewer values, memory has no room for {sizes:?}"),
    }
}

/// What keeps tokens apart that only the roll has brought together: `[nW, M*M, M*M]`, 0 within a region of the map and
/// -100 across; `None` where the grid is not shifted.
///
/// # Errors
/// A device without room for the mask.
pub fn shift_mask(grid: &WindowGrid, device: &Device) -> Result<Option<Tensor>> {
    let (m, shift, (hp, wp)) = (grid.window(), grid.shift(), grid.padded());
    if shift == 0 {
        return Ok(None);
    }
    let band = |at: usize, side: usize| usize::from(at + m >= side) + usize::from(at + shift >= side);
    let region = |window: usize, token: usize| {
        let (y, x) = (window / (wp / m) * m + token / m, window % (wp / m) * m + token % m);
        3 * band(y, hp) + band(x, wp)
    };
    let n = m * m;
    let mut mask = reserved("shift-mask", &[grid.windows(), n, n])?;
    for window in 0..grid.windows() {
        let regions: Vec<usize> = (0..n).map(|token| region(window, token)).collect();
        for a in &regions {
            mask.extend(regions.iter().map(|b| if a == b { 0f32 } else { -100.0 }));
        }
    }
    Tensor::from_vec(mask, (grid.windows(), n, n), device).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn reverse_undoes_partition_for_odd_sizes_and_shifts() -> Result<()> {
        for (size, m, shifted) in [((8, 8), 4, false), ((7, 10), 4, true), ((3, 3), 4, true), ((5, 13), 3, true)] {
            let (grid, x) = (WindowGrid::new(size, m, shifted)?, normal(1, &[2, size.0 * size.1, 3])?);
            close(&grid.reverse(&grid.partition(&x)?)?, &x, 0.0)?;
        }
        Ok(())
    }

    #[test]
    fn places_are_where_partition_takes_its_rows() -> Result<()> {
        for (size, m, shifted) in [((8, 8), 4, true), ((7, 10), 4, true), ((3, 3), 4, true), ((5, 13), 3, false)] {
            let grid = WindowGrid::new(size, m, shifted)?;
            let tokens = Tensor::arange(1f64, (size.0 * size.1 + 1) as f64, &Device::Cpu)?.reshape((1, (), 1))?;
            let want: Vec<f64> = grid.partition(&tokens)?.flatten_all()?.to_vec1()?;
            let got: Vec<f64> = grid.places().iter().map(|place| place.map_or(0.0, |i| f64::from(i) + 1.0)).collect();
            assert_eq!(got, want);
        }
        Ok(())
    }

    #[test]
    fn windows_are_row_major_and_rolled_up_and_left() -> Result<()> {
        let x = Tensor::arange(0f64, 16., &Device::Cpu)?.reshape((1, 16, 1))?;
        let first = |shifted| -> Result<Vec<f64>> {
            WindowGrid::new((4, 4), 2, shifted)?.partition(&x)?.get(0)?.flatten_all()?.to_vec1()
        };
        assert_eq!(first(false)?, [0., 1., 4., 5.]);
        assert_eq!(first(true)?, [5., 6., 9., 10.]);
        Ok(())
    }

    #[test]
    fn gradients_flow_through_both_ways() -> Result<()> {
        let grid = WindowGrid::new((3, 5), 2, true)?;
        check(&[&normal(1, &[1, 15, 2])?], |v| grid.partition(&v[0]))?;
        check(&[&normal(1, &[6, 4, 2])?], |v| grid.reverse(&v[0]))
    }

    #[test]
    fn position_index_of_a_two_by_two_window() -> Result<()> {
        let index = relative_position_index(2)?;
        assert_eq!((&index[..4], &index[12..]), (&[4, 3, 1, 0][..], &[8, 7, 5, 4][..]));
        Ok(())
    }

    #[test]
    fn windows_and_maps_without_patches_or_with_too_many_are_refused() {
        let huge = 1 << 33;
        for (size, window) in
            [((4, 4), 0), ((0, 4), 2), ((4, 0), 2), ((huge, 1), 2), ((2, 2), huge), ((usize::MAX, 2), 7)]
        {
            let message = WindowGrid::new(size, window, true).unwrap_err().to_string();
            assert!(message.contains("window-grid"), "{message}");
        }
        for m in [0, 32769, usize::MAX] {
            assert!(relative_position_index(m).unwrap_err().to_string().contains("a side"), "{m}");
        }
        assert!(relative_position_index(32768).unwrap_err().to_string().contains("memory has no room"));
    }

    #[test]
    fn mask_parts_what_the_roll_brought_together() -> Result<()> {
        let mask = shift_mask(&WindowGrid::new((4, 4), 2, true)?, &Device::Cpu)?.unwrap();
        let mask = mask.to_vec3::<f32>()?;
        assert!(mask[0].iter().flatten().all(|v| *v == 0.0));
        assert_eq!(mask[3][0], [0., -100., -100., -100.]);
        assert_eq!(mask[1][0], [0., -100., 0., -100.]);
        assert!(shift_mask(&WindowGrid::new((2, 4), 2, true)?, &Device::Cpu)?.is_none());
        Ok(())
    }
}
