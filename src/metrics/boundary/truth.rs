//! What predicted edges are matched with.

use super::raster::Raster;
use crate::bitmap::Bitmap;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// How an image's true edges come from its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BoundaryRule {
    /// Where a map of segments changes: a pixel that differs from its right, lower or lower-right neighbour. PASCAL's benchmark takes
    /// the numbers of `LabelMap`; NYUD's takes the edge map itself as such a map, so that a line counts with both its rims.
    Segments,
    /// Where a map of edges is not 0: for edges of your own.
    Edges,
}

/// One image's true edges, thinned, and which of its pixels are unknown.
///
/// A pixel whose label is unknown is no edge, a change to or from it is none either, and what is predicted there is not counted. With
/// none unknown these are the benchmark's truths.
#[derive(Clone, Debug)]
pub struct BoundaryTruth {
    pub(super) edges: Bitmap,
    pub(super) unknown: Option<Bitmap>,
}

impl BoundaryTruth {
    /// The edges of a label by a rule; `unknown` is the value of pixels of which nothing is known, where there is one.
    ///
    /// ```
    /// use tadformer::metrics::{BoundaryRule, BoundaryTruth, Raster};
    /// let segments = [7u16, 7, 9, 9];
    /// let truth = BoundaryTruth::new(BoundaryRule::Segments, Raster::new(&segments, [1, 4])?, None);
    /// assert_eq!(truth.to_vec(), [false, true, false, false]);
    /// # Ok::<(), tadformer::Error>(())
    /// ```
    pub fn new<T: Copy + PartialEq + Default>(rule: BoundaryRule, label: Raster<'_, T>, unknown: Option<T>) -> Self {
        let [height, width] = label.size();
        let is_unknown = |value: T| unknown.is_some_and(|unknown| unknown == value);
        let mut edges = match rule {
            BoundaryRule::Segments => changes(label, is_unknown),
            BoundaryRule::Edges => Bitmap::of(label.values(), height, width, |v| v != T::default() && !is_unknown(v)),
        };
        edges.thin();
        let unknown = unknown.map(|_| Bitmap::of(label.values(), height, width, is_unknown));
        Self { edges, unknown: unknown.filter(|map| map.count() > 0) }
    }

    /// [`BoundaryTruth::new`] of a label or map of segments `[1, H, W]` of whole numbers.
    ///
    /// # Errors
    /// A map of another shape.
    pub fn of_map(rule: BoundaryRule, map: &Tensor, unknown: Option<u32>) -> Result<Self> {
        let &[1, height, width] = map.dims() else {
            let (what, got) = ("map of true edges".into(), map.dims().to_vec());
            return Err(Error::Shape { what, expected: "[1, H, W]".into(), got });
        };
        let values = map.to_dtype(DType::U32)?.flatten_all()?.to_vec1::<u32>()?;
        Ok(Self::new(rule, Raster::new(&values, [height, width])?, unknown))
    }

    /// Height and width.
    pub fn size(&self) -> [usize; 2] {
        [self.edges.height(), self.edges.width()]
    }

    /// Whether each pixel is an edge, row by row.
    pub fn to_vec(&self) -> Vec<bool> {
        self.edges.to_vec()
    }

    /// Whether nothing is known of any pixel.
    pub(super) fn is_unknown(&self) -> bool {
        let pixels = (self.edges.height() * self.edges.width()) as u64;
        self.unknown.as_ref().map_or(0, Bitmap::count) == pixels
    }
}

/// Pixels that differ from their right, lower or lower-right neighbour, where both are known.
fn changes<T: Copy + PartialEq>(label: Raster<'_, T>, is_unknown: impl Fn(T) -> bool) -> Bitmap {
    let ([height, width], values) = (label.size(), label.values());
    let mut map = Bitmap::empty(height, width);
    for y in 0..height {
        for x in 0..width {
            let here = values[y * width + x];
            let differs = |dy: usize, dx: usize| {
                let (y, x) = (y + dy, x + dx);
                y < height && x < width && values[y * width + x] != here && !is_unknown(values[y * width + x])
            };
            if !is_unknown(here) && (differs(0, 1) || differs(1, 0) || differs(1, 1)) {
                map.insert(y, x);
            }
        }
    }
    map
}
