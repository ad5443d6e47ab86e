//! What a stage gives a decoder: a map whose patch merging may still be to come.

use super::patch_merging::PatchMerging;
use super::{FeatureMap, Fold};
use crate::ops;
use candle_core::{Result, Tensor};

/// What a stage gives a decoder: a map whose patch merging may still be to come, so that its frozen reduction and the decoder's
/// projection are one product.
#[derive(Clone, Debug)]
pub struct StageMap {
    map: FeatureMap,
    merging: Option<PatchMerging>,
}

impl From<FeatureMap> for StageMap {
    /// A map with no merging to come.
    fn from(map: FeatureMap) -> Self {
        Self { map, merging: None }
    }
}

impl StageMap {
    /// A map with the merging that is still to come, if any.
    pub fn new(map: FeatureMap, merging: Option<PatchMerging>) -> Self {
        Self { map, merging }
    }

    /// How many images it is of.
    ///
    /// # Errors
    /// Tokens without dimensions.
    pub fn batch(&self) -> Result<usize> {
        self.map.tokens.dim(0)
    }

    /// Height and width of the features, after the merging.
    pub fn size(&self) -> (usize, usize) {
        if self.merging.is_some() { PatchMerging::merged(self.map.size) } else { self.map.size }
    }

    /// The features, after the merging.
    ///
    /// # Errors
    /// Tokens of another number than their size says.
    pub fn features(&self) -> Result<FeatureMap> {
        match &self.merging {
            Some(merging) => merging.forward(&self.map),
            None => Ok(self.map.clone()),
        }
    }

    /// The projected features.
    ///
    /// # Errors
    /// A projection for other channels; tokens of another number than their size says.
    pub fn project(&self, projection: &Projection) -> Result<FeatureMap> {
        let weight = &projection.weight;
        let (out, size) = (weight.dim(0)?, self.size());
        match (&self.merging, &projection.folded) {
            (Some(merging), Some(folded)) => merging.forward_with(&self.map, folded),
            // One product of both weights first, unless the map has fewer tokens than that has rows.
            (Some(merging), None) if self.batch()?.saturating_mul(size.0).saturating_mul(size.1) > out => {
                merging.forward_with(&self.map, &merging.fold(weight)?)
            }
            _ => {
                let FeatureMap { tokens, size } = self.features()?;
                Ok(FeatureMap { tokens: ops::linear(&tokens, weight, None)?, size })
            }
        }
    }
}

/// A decoder's linear map of a stage's features, `[out, C]`, without a bias.
#[derive(Clone, Debug)]
pub struct Projection {
    weight: Tensor,
    /// With the reduction of the stage's merging folded in, for inference: `[out, 2C]`.
    folded: Option<Tensor>,
}

impl Projection {
    /// From its weight.
    pub fn new(weight: Tensor) -> Self {
        Self { weight, folded: None }
    }

    /// Folds the reduction of the patch merging before it into the projection, where there is one, or drops what was folded.
    ///
    /// # Errors
    /// A merging whose channels are not the projection's.
    pub fn fold(&mut self, how: Fold, merging: Option<&PatchMerging>) -> Result<()> {
        self.folded = match (how, merging) {
            (Fold::Folded, Some(merging)) => Some(merging.fold(&self.weight.detach())?.detach()),
            _ => None,
        };
        Ok(())
    }
}
