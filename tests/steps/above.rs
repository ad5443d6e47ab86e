//! The inputs of steps above `ops`, which make its crate-private ones public.

use super::Step;
use super::case::Draws;
use super::inputs::{only, step};
use candle_core::{Device, Result, Tensor};
use candle_nn::VarBuilder;
use std::collections::HashMap;
use tadformer::layers::FeatureMap;
use tadformer::loss::task_loss;
use tadformer::params::{Group, Ledger, Release, Weights};
use tadformer::swin::{PatchEmbed, SwinConfig};
use tadformer::tad::StaticTaskFilter;
use tadformer::{DynamicTaskFilter, TaskKind, TaskSet};

/// Weights of the case's float type, drawn from a seed.
fn weights(draws: &mut Draws) -> Weights {
    let (seed, dtype) = (draws.seed(), draws.case.dtype);
    Weights::random(seed, dtype, &Device::Cpu)
}

pub fn dynamic_task_filter(draws: &mut Draws) -> Result<Step> {
    let s = draws.sizes();
    let (rank, kernel) = (draws.number(s.rank), draws.number(s.kernel));
    let filter = DynamicTaskFilter::new(rank, kernel, weights(draws).adapter(Group::Filters))?;
    let map = draws.tensor(&[s.images, s.rank, s.height, s.width])?;
    step(move || Ok(vec![filter.forward(&map)?, filter.taps(&FeatureMap::from_nchw(&map)?.tokens)?]))
}

pub fn static_task_filter(draws: &mut Draws) -> Result<Step> {
    let s = draws.sizes();
    let tasks: TaskSet = ["sal=1", "sal=1,depth=1", "sal=1,depth=1,edge=1"][s.tasks - 1].parse().unwrap();
    let (rank, kernel) = (draws.number(s.rank), draws.number(s.kernel));
    let filter = StaticTaskFilter::new(&tasks, rank, kernel, weights(draws).adapter(Group::Filters))?;
    let (tokens, size) = (draws.tensor(&[s.tasks * s.images, s.tokens(), s.rank])?, draws.size((s.height, s.width)));
    only(move || filter.forward_tokens(&tokens, size))
}

pub fn patch_embed(draws: &mut Draws) -> Result<Step> {
    let (s, patch) = (draws.sizes(), draws.one_of(&[1, 2, 4]));
    let config = SwinConfig { patch_size: draws.number(patch), embed_dim: 12, ..SwinConfig::tiny() };
    let embed = PatchEmbed::new(&config, &weights(draws))?;
    let images = draws.tensor(&[s.images, 3, s.height, s.width])?;
    only(move || Ok(embed.forward(&images)?.tokens))
}

pub fn position_bias(draws: &mut Draws) -> Result<Step> {
    let (s, to) = (draws.sizes(), draws.one_of(&[1, 2, 5]));
    let side = 2 * s.window - 1;
    let table = draws.tensor(&[side * side, s.heads])?;
    let tensors = HashMap::from([("relative_position_bias_table".to_owned(), table)]);
    let source = VarBuilder::from_tensors(tensors, draws.case.dtype, &Device::Cpu);
    let (heads, to, dtype) = (s.heads, draws.number(to), draws.case.dtype);
    only(move || {
        let ledger = Ledger::seeded(0, dtype, &Device::Cpu);
        Weights::new(source.clone(), ledger, Release::none()).position_bias(to, heads)
    })
}

pub fn task_losses(draws: &mut Draws) -> Result<Step> {
    let (s, kind) = (draws.sizes(), draws.one_of(TaskKind::ALL));
    let (channels, of_label, end) = match kind {
        TaskKind::Semseg | TaskKind::HumanParts => (s.hidden, 1, s.hidden),
        TaskKind::Normals => (3, 3, 2),
        _ => (1, 1, 2),
    };
    let outputs = draws.tensor(&[s.images, channels, s.height, s.width])?;
    let label: Tensor = draws.label(&[s.images, of_label, s.height, s.width], end)?;
    only(move || task_loss(kind, &outputs, &label))
}
