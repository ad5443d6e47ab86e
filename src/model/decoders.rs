//! The decoders of all tasks, and the layer that some of them share.

use super::TADFormerConfig;
use super::held::Held;
use crate::heads::{Head, SharedHidden};
use crate::params::Weights;
use crate::task::Task;
use candle_core::Result;

/// One decoder for each task, all weights asked of `weights` at `heads`, without what is held of them training.
pub(super) fn decoders(config: &TADFormerConfig, weights: &Weights, held: &Held) -> Result<Vec<Box<dyn Head>>> {
    let (widths, places) = (config.swin.widths(), weights.pp("heads"));
    let shared = shared(config, &places, held)?;
    let decoder = |task: &Task| {
        let place = places.pp(&task.name);
        let place = if held.head(task) { place.held() } else { place };
        config.head_of(&task.name).build(&widths, task.outputs, shared.as_ref(), &place)
    };
    config.tasks.iter().map(decoder).collect()
}

/// The layer that decoders share, if some do: it trains as long as one of these does.
fn shared(config: &TADFormerConfig, places: &Weights, held: &Held) -> Result<Option<SharedHidden>> {
    let sharing = || config.tasks.iter().filter_map(|task| Some((task, config.head_of(&task.name).shared()?)));
    let Some((_, sizes)) = sharing().next() else { return Ok(None) };
    let place = places.pp(SharedHidden::NAME);
    let place = if sharing().all(|(task, _)| held.head(task)) { place.held() } else { place };
    SharedHidden::new(&sizes.channels, &place).map(Some)
}
