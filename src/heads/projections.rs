//! What a decoder makes of each stage first: a linear map without a bias.

use crate::layers::{FeatureMap, Fold, PatchMerging, Projection, StageMap};
use crate::params::{Group, Weights, uniform_by_fan_in};
use candle_core::Result;

/// One projection a stage.
#[derive(Debug)]
pub(super) struct Projections(Vec<Projection>);

impl Projections {
    /// From stages of these `widths` to `channels`, from `weights` at `projections.i`.
    pub(super) fn new(channels: &[usize], widths: &[usize], weights: &Weights) -> Result<Self> {
        let vb = weights.adapter(Group::Projections).pp("projections");
        let project = |(i, (width, channels)): (usize, (&usize, &usize))| {
            vb.pp(i).get_with_hints((*channels, *width), "weight", uniform_by_fan_in(*width)).map(Projection::new)
        };
        widths.iter().zip(channels).enumerate().map(project).collect::<Result<_>>().map(Self)
    }

    /// Each stage's projected map, at its own size.
    pub(super) fn project(&self, stages: &[StageMap]) -> Result<Vec<FeatureMap>> {
        stages.iter().zip(&self.0).map(|(stage, projection)| stage.project(projection)).collect()
    }

    /// Folds the mergings still to come into the projections, or restores these.
    pub(super) fn fold(&mut self, how: Fold, mergings: &[Option<&PatchMerging>]) -> Result<()> {
        self.0.iter_mut().zip(mergings).try_for_each(|(projection, merging)| projection.fold(how, *merging))
    }
}
