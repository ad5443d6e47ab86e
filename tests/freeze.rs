//! Parts of a model that are frozen stay as they are, bit for bit, while the others train as before.
#![cfg(all(feature = "data", feature = "train"))]
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{Result, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use common::{builder, distance, images, randomise_b};
use std::collections::BTreeMap;
use std::sync::Arc;
use tadformer::TADFormer;
use tadformer::data::{BatchOptions, Batches};
use tadformer::layers::{Mode, TrainingPass};
use tadformer::model::OpenOptions;
use tadformer::ops::{Definition, GradientCheckpointing};
use tadformer::params::{Entry, Group, Role};
use tadformer::scenes::Scenes;
use tadformer::tad::LowRank;
use tadformer::train::{AdamWConfig, Gradients, Silent, TrainConfig, Trainer};

fn model() -> TADFormer {
    let method = builder().config().method.clone().linears(LowRank::new(2).dropout(0.0));
    let model = builder().method(method).build().unwrap();
    randomise_b(&model).unwrap();
    model
}

fn values(model: &TADFormer) -> Values {
    let value = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1().unwrap();
    model.ledger().entries().iter().map(|entry| (entry.name.clone(), value(entry.tensor()))).collect()
}

fn is_of_depth(name: &str) -> bool {
    name.starts_with("heads.depth.")
}

type Values = BTreeMap<String, Vec<f32>>;

/// Nothing that is frozen, nor a statistic of depth's decoder, and most of the rest: at a first step's rate not all of it does.
fn only_what_trains_moved(model: &TADFormer, before: &Values, after: &Values) {
    let (mut moved, mut could) = (0, 0);
    for entry in model.ledger().entries() {
        let trains = matches!(entry.role, Role::Trained(_) | Role::Statistics(_)) && !is_of_depth(&entry.name);
        if before[&entry.name] != after[&entry.name] {
            assert!(trains, "{} moved", entry.name);
            moved += 1;
        }
        could += usize::from(trains);
    }
    assert!(moved > could / 2, "{moved} of {could} moved");
}

#[test]
fn a_frozen_head_stays_as_it_is_statistics_too_and_comes_with_the_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let (mut model, adapter) = (model(), folder.path().join("adapter.safetensors"));
    let whole = model.parameters();
    model.freeze("depth").unwrap();
    let before = values(&model);
    let of_depth: usize = before.iter().filter(|(name, _)| is_of_depth(name)).map(|(_, v)| v.len()).sum();
    let statistics: usize =
        before.iter().filter(|(name, _)| is_of_depth(name) && name.contains("running")).map(|(_, v)| v.len()).sum();
    assert_eq!(whole.trained() - model.parameters().trained(), of_depth - statistics);
    assert_eq!(whole.total(), model.parameters().total());

    let options = BatchOptions::new(2);
    let batches = Batches::shuffled(Arc::new(Scenes::new(1, 8, (64, 64)).unwrap()), 0, &options).unwrap();
    let held_out = || Batches::once(Arc::new(Scenes::new(9, 2, (64, 64)).unwrap()), &options);
    Trainer::new(&model, TrainConfig::new(1e-2, 2, &adapter)).unwrap().run(batches, held_out, &mut Silent).unwrap();
    let after = values(&model);
    only_what_trains_moved(&model, &before, &after);
    let opened = TADFormer::open(&adapter, &OpenOptions::default()).unwrap();
    assert_eq!(values(&opened), after);
}

#[test]
fn candles_adamw_over_what_is_trainable_moves_no_more() -> Result<()> {
    let mut model = model();
    model.freeze("depth").unwrap();
    model.freeze("filters").unwrap();
    let before = values(&model);
    let mut optimizer = AdamW::new(model.trainable(), ParamsAdamW::default())?;
    let pass = TrainingPass::seeded(0);
    optimizer.backward_step(&loss(&model, Mode::Train(&pass))?)?;
    let after = values(&model);
    only_what_trains_moved(&model, &before, &after);
    let filters = model.ledger().entries().into_iter().filter(|entry| entry.group.name() == "filters");
    assert!(filters.map(|entry| matches!(entry.role, Role::Held(_))).reduce(|a, b| a && b).unwrap());
    Ok(())
}

/// Weights and gradients were matched by their places, which are others once a part is frozen.
#[test]
fn an_optimizer_made_before_moves_nothing_that_was_frozen_since() -> tadformer::Result<()> {
    let mut model = model();
    let mut optimizer = tadformer::train::AdamW::new(model.ledger(), AdamWConfig::default())?;
    model.freeze("depth")?;
    model.freeze("low_rank")?;
    let before = values(&model);
    let pass = TrainingPass::seeded(0);
    let gradients = Gradients::of(model.ledger(), &loss(&model, Mode::Train(&pass))?.backward()?);
    optimizer.step(&gradients, 1e-2)?;
    only_what_trains_moved(&model, &before, &values(&model));
    Ok(())
}

/// All outputs, each value weighed by another wave.
fn loss(model: &TADFormer, mode: Mode) -> Result<Tensor> {
    let outputs = model.forward(&images(2, 64, 64)?, mode)?;
    let weighed = |(i, output): (usize, &Tensor)| {
        let wave = Tensor::arange(0f32, output.elem_count() as f32, output.device())?;
        (output * (wave + i as f64)?.sin()?.reshape(output.shape())?)?.mean_all()
    };
    let losses: Vec<Tensor> =
        outputs.iter().map(|(_, output)| output).enumerate().map(weighed).collect::<Result<_>>()?;
    Tensor::stack(&losses, 0)?.sum_all()
}

fn gradients(model: &TADFormer, checkpointing: GradientCheckpointing) -> Result<BTreeMap<String, Tensor>> {
    let pass = TrainingPass::seeded(0);
    let store = checkpointing.run(|| loss(model, Mode::Train(&pass)))?.backward()?;
    let trained = model.ledger().trained().into_iter();
    Ok(trained.filter_map(|entry| Some((entry.name.clone(), store.get(entry.tensor())?.clone()))).collect())
}

#[test]
fn whichever_group_is_frozen_the_gradients_of_the_others_are_as_before() -> Result<()> {
    let mut model = model();
    let passes = [
        (Definition::Fused, GradientCheckpointing::Off),
        (Definition::Fused, GradientCheckpointing::On),
        (Definition::Composed, GradientCheckpointing::Off),
    ];
    for (definition, checkpointing) in passes {
        let gradients = |model: &TADFormer| definition.run(|| gradients(model, checkpointing));
        let whole = gradients(&model)?;
        let groups: Vec<_> = model.parameters().groups().filter(|(_, count)| count.trained > 0).collect();
        assert!(groups.len() > 8);
        // Statistics of a frozen decoder take the batch's place.
        for (group, _) in groups.iter().filter(|(group, _)| group.name() != "heads") {
            model.freeze(group.name()).unwrap();
            let rest = gradients(&model)?;
            let names: Vec<_> = model.ledger().entries().into_iter().filter(|entry| entry.group == *group).collect();
            assert!(names.iter().all(|entry| !rest.contains_key(&entry.name)) && rest.len() < whole.len());
            for (name, gradient) in &rest {
                let size = whole[name].abs()?.max_all()?.to_scalar::<f32>()?;
                let far = distance(gradient, &whole[name])?;
                assert!(far <= 1e-4 * f64::from(size), "{} frozen: {name} is off by {far}", group.name());
            }
            model.unfreeze(group.name()).unwrap();
        }
        let again = gradients(&model)?;
        assert!(whole.keys().eq(again.keys()));
    }
    Ok(())
}

#[test]
fn what_cannot_be_frozen_is_told_with_what_can() {
    let mut model = model();
    let message = model.freeze("rooms").unwrap_err().to_string();
    assert!(message.contains("one of semseg, human_parts,") && message.contains("low_rank"), "{message}");
    assert!(!message.contains("statistics") && !message.contains("linears"), "{message}");
    let message = model.unfreeze("linears").unwrap_err().to_string();
    assert!(message.contains("got linears"), "{message}");
}

/// What was frozen trained again, in silence, as soon as a task came or went.
#[test]
fn what_is_frozen_stays_so_with_other_tasks() -> tadformer::Result<()> {
    let mut model = model().with_tasks("semseg=7,depth=1".parse()?, 1)?;
    model.freeze("depth")?;
    model.freeze("low_rank")?;
    let more = model.with_tasks(model.config().tasks.with("edge=1".parse()?)?, 7)?;
    for entry in more.ledger().entries() {
        let frozen = is_of_depth(&entry.name) || entry.group == Group::LowRank;
        assert!(!frozen || !matches!(entry.role, Role::Trained(_)), "{} trains", entry.name);
    }
    let of_edge = |entry: &Entry| entry.name.starts_with("heads.edge.") && entry.trained().is_some();
    assert!(more.ledger().trained().iter().any(of_edge), "a new task's decoder trains");
    let (before, after) = (values(&model), values(&more));
    assert!(before.iter().all(|(name, value)| name == "prompts.table" || after[name] == *value), "as they were");

    // A decoder that went and comes again is new, and trains; what the others share is still frozen.
    let without = more.with_tasks(more.config().tasks.without("depth")?, 7)?;
    let again = without.with_tasks(model.config().tasks.clone(), 7)?;
    let trained = again.ledger().trained();
    assert!(trained.iter().any(|entry| is_of_depth(&entry.name)));
    assert!(trained.iter().all(|entry| entry.group != Group::LowRank));
    Ok(())
}
