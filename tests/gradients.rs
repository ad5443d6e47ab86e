//! Every module's gradients, in all its weights and its input, against central differences in f64: of the fused and of the composed
//! definitions.
#![allow(clippy::panic, clippy::unwrap_used)]

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use tadformer::heads::{AsppConfig, HeadConfig, HrNetConfig, LinearConfig, SegFormerConfig, SharedHidden};
use tadformer::layers::{BatchNorm, FeatureMap, LowRankConfig, LowRankLinear, Mlp, MlpLowRank, Mode, TrainingPass};
use tadformer::layers::{PatchMerging, Projection, StageMap};
use tadformer::ops::Definition;
use tadformer::params::{Entry, Group, Ledger, Release, Weights};
use tadformer::swin::{BlockConfig, PatchEmbed, PromptUpdate, SwinBlock, SwinConfig, Tokens};
use tadformer::tad::{PerTask, TaskAwareLinear, TaskFilterKind};
use tadformer::{TADBlock, TaskPrompt, TaskSet};

const PATH: Option<LowRankConfig> = Some(LowRankConfig { rank: 2, scale: 4.0, dropout: 0.0 });

fn weights() -> (Weights, Ledger) {
    let weights = Weights::random(1, DType::F64, &Device::Cpu).with_release(Release::everything());
    let ledger = weights.ledger().clone();
    (weights, ledger)
}

/// Values between -1 and 1 without a pattern that a window or head could share.
fn wave(seed: f64, dims: &[usize]) -> Result<Tensor> {
    let values: Vec<f64> =
        (0..dims.iter().product()).map(|i| (seed + 1.7 * i as f64 + 0.3 * (i * i % 17) as f64).sin()).collect();
    Tensor::from_vec(values, dims, &Device::Cpu)
}

/// Compares a few of each weight's gradients, by both definitions; weights start away from zeros and ones, so that every term counts.
fn check(ledger: &Ledger, forward: impl Fn() -> Result<Tensor>) -> Result<()> {
    for (i, entry) in ledger.trained().iter().enumerate() {
        let noise = (wave(i as f64, entry.tensor().dims())? * 0.3)?;
        entry.trained().unwrap().set(&(entry.tensor() + noise)?.detach())?;
    }
    Definition::ALL.into_iter().try_for_each(|definition| definition.run(|| check_weights(ledger, &forward)))
}

fn check_weights(ledger: &Ledger, forward: impl Fn() -> Result<Tensor>) -> Result<()> {
    let c = wave(0.5, forward()?.dims())?;
    let loss = || (forward()? * &c)?.sum_all();
    let store = loss()?.backward()?;
    let check_one = |entry: &Entry| -> Result<()> {
        let var = entry.trained().unwrap();
        let grad = store.get(entry.tensor()).unwrap_or_else(|| panic!("{} has no gradient", entry.name));
        let grad = grad.flatten_all()?.to_vec1::<f64>()?;
        let base = var.flatten_all()?.to_vec1::<f64>()?;
        let largest = grad.iter().fold(1e-6f64, |m, v| m.max(v.abs()));
        for at in [0, grad.len() / 2, grad.len() - 1] {
            let moved = |delta: f64| -> Result<f64> {
                let mut values = base.clone();
                values[at] += delta;
                var.set(&Tensor::from_vec(values, var.dims(), &Device::Cpu)?)?;
                loss()?.to_scalar()
            };
            let numeric = (moved(1e-5)? - moved(-1e-5)?) / 2e-5;
            moved(0.0)?;
            assert!(
                (grad[at] - numeric).abs() < 1e-6 * largest.max(1.0),
                "{}[{at}]: {} is not {numeric}",
                entry.name,
                grad[at]
            );
        }
        Ok(())
    };
    let trained = ledger.trained();
    assert!(!trained.is_empty());
    trained.iter().try_for_each(check_one)
}

/// An input that counts among the trained weights.
fn input(ledger: &Ledger, name: &str, dims: &[usize]) -> Result<Tensor> {
    ledger.builder(Group::Heads).get(dims, name)
}

fn block(prompts: PromptUpdate) -> BlockConfig {
    let low_rank = tadformer::swin::BlockLowRank { qkv: PATH, proj: PATH, fc1: PATH, fc2: PATH };
    BlockConfig { channels: 4, heads: 2, window: 2, hidden: 8, shifted: true, drop_path: 0.0, low_rank, prompts }
}

#[test]
fn low_rank_linear_and_mlp() -> Result<()> {
    let (weights, ledger) = weights();
    let linear = LowRankLinear::new(3, 5, PATH, &weights.pp("linear"))?;
    let mlp = Mlp::new(5, 7, MlpLowRank { fc1: PATH, fc2: PATH }, &weights.pp("mlp"))?;
    let x = input(&ledger, "x", &[2, 4, 3])?;
    check(&ledger, || mlp.forward(&linear.forward_in(&x, Mode::Eval)?, Mode::Eval))
}

#[test]
fn batch_norm_in_training_and_evaluation() -> Result<()> {
    for train in [false, true] {
        let (weights, ledger) = weights();
        let norm = BatchNorm::new(3, &weights.pp("norm"))?;
        let (x, rng) = (input(&ledger, "x", &[5, 3])?, TrainingPass::seeded(0));
        // In evaluation the statistics are fixed; in training they move, and the batch's own are used.
        check(&ledger, || norm.forward(&x, if train { Mode::Train(&rng) } else { Mode::Eval }))?;
    }
    Ok(())
}

#[test]
fn patch_embedding_and_merging() -> Result<()> {
    let (weights, ledger) = weights();
    let config = SwinConfig { embed_dim: 4, num_heads: vec![1, 2, 4, 8], patch_size: 2, ..SwinConfig::tiny() };
    let (embed, merging) =
        (PatchEmbed::new(&config, &weights.pp("patch_embed"))?, PatchMerging::new(4, &weights.pp("merge"))?);
    let images = input(&ledger, "images", &[1, 3, 5, 7])?;
    check(&ledger, || Ok(merging.forward(&embed.forward(&images)?)?.tokens))
}

#[test]
fn projecting_a_map_that_is_still_to_be_merged() -> Result<()> {
    for rows in [2, 9] {
        // A map of more tokens than the projection has rows, and one of fewer.
        let (weights, ledger) = weights();
        let merging = PatchMerging::new(4, &weights.pp("merge"))?;
        let (tokens, projection) = (input(&ledger, "x", &[1, 15, 4])?, input(&ledger, "projection", &[rows, 8])?);
        let map = StageMap::new(FeatureMap { tokens, size: (3, 5) }, Some(merging));
        let want = tadformer::ops::linear(&map.features()?.tokens, &projection, None)?;
        let projection = Projection::new(projection);
        let got = map.project(&projection)?;
        assert!((&got.tokens - want)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-12);
        assert_eq!(got.size, (2, 3));
        check(&ledger, || Ok(map.project(&projection)?.tokens))?;
    }
    Ok(())
}

#[test]
fn a_swin_block_with_prompts_on_a_map_that_is_padded_and_shifted() -> Result<()> {
    for update in [PromptUpdate::Residual, PromptUpdate::Attended] {
        let (weights, ledger) = weights();
        let block = SwinBlock::new(block(update), &weights.pp("block"))?;
        let (patches, prompts) = (input(&ledger, "patches", &[1, 15, 4])?, input(&ledger, "prompts", &[1, 2, 4])?);
        check(&ledger, || {
            let x = Tokens { patches: patches.clone(), prompts: Some(prompts.clone()), size: (3, 5) };
            let out = block.forward(&x, Mode::Eval)?;
            Tensor::cat(&[&out.patches, &out.prompts.unwrap()], 1)
        })?;
    }
    Ok(())
}

#[test]
fn task_prompts_from_stage_to_stage() -> Result<()> {
    let ledger = Ledger::seeded(1, DType::F64, &Device::Cpu);
    let prompts = TaskPrompt::new(3, 2, 3, ledger.builder(Group::Prompts))?;
    check(&ledger, || prompts.next(1, &prompts.next(0, &prompts.first(2)?)?))
}

#[test]
fn a_task_aware_linear_with_each_filter() -> Result<()> {
    let tasks: TaskSet = "sal=1,depth=1".parse().unwrap();
    for kind in [TaskFilterKind::Dynamic { kernel: 3 }, TaskFilterKind::Static { kernel: 3 }, TaskFilterKind::None] {
        let (weights, ledger) = weights();
        let linear = LowRankLinear::new(3, 4, PATH, &weights.pp("linear"))?;
        let aware = TaskAwareLinear::new(&linear, kind, &tasks, &weights.pp("linear"))?;
        let (x, z) = (input(&ledger, "x", &[1, 6, 3])?, input(&ledger, "z", &[2, 6, 3])?);
        check(&ledger, || aware.forward(&linear.pretrained(&x)?, &z, (2, 3)))?;
    }
    Ok(())
}

#[test]
fn a_task_adapting_block() -> Result<()> {
    let (weights, ledger) = weights();
    let tasks: TaskSet = "sal=1,depth=1".parse().unwrap();
    let vb: VarBuilder = ledger.builder(Group::PromptNorms).pp("prompt_norm");
    let norm = tadformer::layers::LayerNorm::new(vb.get(4, "weight")?, vb.get(4, "bias")?);
    let (config, paths) = (block(PromptUpdate::Residual), PerTask::default());
    let block = TADBlock::new(config, &paths, &tasks, Some(norm), &weights.pp("block"))?;
    let (patches, prompts) = (input(&ledger, "patches", &[1, 15, 4])?, input(&ledger, "prompts", &[1, 2, 4])?);
    check(&ledger, || {
        let x = Tokens { patches: patches.clone(), prompts: Some(prompts.clone()), size: (3, 5) };
        let (shared, task) = block.forward(&x, Mode::Eval)?;
        let tpc = task.grid.reverse(&task.condition.unwrap().feature()?.flatten_to(1)?)?;
        let tasks = Tensor::cat(&[&task.tokens, &tpc], 0)?.reshape((1, 60, 4))?;
        Tensor::cat(&[&shared.patches, &shared.prompts.unwrap(), &tasks], 1)
    })
}

/// A decoder of two stages in evaluation and in training, by dropout that is drawn the same each time.
fn check_head(config: &HeadConfig) -> Result<()> {
    for trains in [false, true] {
        let (weights, ledger) = weights();
        let shared =
            config.shared().map(|sizes| SharedHidden::new(&sizes.channels, &weights.pp("shared"))).transpose()?;
        let head = config.build(&[4, 6], 2, shared.as_ref(), &weights.pp("head"))?;
        let (fine, coarse) = (input(&ledger, "fine", &[2, 12, 4])?, input(&ledger, "coarse", &[2, 4, 6])?);
        check(&ledger, || {
            let maps = [(&fine, (3, 4)), (&coarse, (2, 2))]
                .map(|(tokens, size)| FeatureMap { tokens: tokens.clone(), size }.into());
            let pass = TrainingPass::seeded(0);
            head.forward(&maps, if trains { Mode::Train(&pass) } else { Mode::Eval })
        })?;
    }
    Ok(())
}

#[test]
fn an_hrnet_head() -> Result<()> {
    check_head(&HrNetConfig::new([2, 3]).into())?;
    check_head(&HeadConfig::HrNetShared(HrNetConfig::new([2, 3])))
}

#[test]
fn a_segformer_head() -> Result<()> {
    check_head(&SegFormerConfig::new(4).dropout(0.3).into())
}

#[test]
fn an_aspp_head() -> Result<()> {
    check_head(&AsppConfig::new([2, 3]).width(3).rates([1, 2, 6]).dropout(0.3).into())
}

#[test]
fn a_linear_head() -> Result<()> {
    check_head(&LinearConfig::default().into())
}
