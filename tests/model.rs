//! What holds of the whole model: who gets a gradient, what stays frozen, plain Swin underneath, bad input.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Device, Result, Tensor};
use common::{builder, distance, images, randomise_b, swin};
use tadformer::layers::{Mode, TrainingPass};
use tadformer::ops::GradientCheckpointing;
use tadformer::params::{Group, Ledger, Pretrained, Release, Role, Weights, random_source};
use tadformer::swin::{Swin, SwinConfig};
use tadformer::tad::{AdaptedLinear, Gate, LowRank, Method, PerTask, Prompts, TaskFilterKind, TpcReading};
use tadformer::{Outputs, TADFormer, Tuning};

fn loss(model: &TADFormer, images: &Tensor) -> Result<Tensor> {
    let outputs = model.forward(images, Mode::Train(&TrainingPass::seeded(1)))?;
    let losses = outputs.iter().map(|(_, output)| output.sqr()?.mean_all()).collect::<Result<Vec<_>>>()?;
    Tensor::stack(&losses, 0)?.sum_all()
}

/// Names of trained weights without a gradient that is somewhere not zero.
fn without_gradient(model: &TADFormer) -> Result<Vec<String>> {
    let store = loss(model, &images(2, 64, 64)?)?.backward()?;
    let mut names = Vec::new();
    for entry in model.ledger().trained() {
        let moves = match store.get(entry.tensor()) {
            Some(grad) => grad.abs()?.max_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()? > 0.0,
            None => false,
        };
        if !moves {
            names.push(entry.name);
        }
    }
    Ok(names)
}

#[test]
fn every_trained_parameter_gets_a_gradient_but_the_unused_prompt_norms() -> Result<()> {
    let model = builder().build().unwrap();
    randomise_b(&model)?;
    // Stage 1 is the only one with a block before its last.
    let unused = ["layers.1.blocks.0.attn.prompt_norm.weight", "layers.1.blocks.0.attn.prompt_norm.bias"];
    assert_eq!(without_gradient(&model)?, unused);
    for release in [Release::everything(), Release::biases(), Release::everything().without(Pretrained::Biases)] {
        let model = builder().release(release.clone()).build().unwrap();
        randomise_b(&model)?;
        assert_eq!(without_gradient(&model)?, unused, "{release:?}");
    }
    let bitfit = builder().tuning(Tuning::BitFit, 0).build().unwrap();
    assert!(without_gradient(&bitfit)?.is_empty());
    Ok(())
}

#[test]
fn a_merged_model_gives_the_same_outputs_and_the_model_back_bit_for_bit() -> Result<()> {
    for builder in [builder(), builder().tuning(Tuning::LowRankOnly, 2)] {
        let model = builder.build().unwrap();
        randomise_b(&model)?;
        let images = images(2, 40, 64)?;
        let want = model.forward(&images, Mode::Eval)?;
        let merged = model.merge()?;
        for ((task, want), (_, got)) in want.iter().zip(merged.forward(&images)?.iter()) {
            let (distance, largest) = (distance(got, want)?, distance(want, &want.zeros_like()?)?);
            assert!(distance < 1e-5 * largest, "{}: {distance:.1e} of {largest:.1e}", task.name());
        }
        let model = merged.unmerge()?;
        assert_eq!(bits(&want)?, bits(&model.forward(&images, Mode::Eval)?)?);
    }
    Ok(())
}

#[test]
fn a_backbone_stored_in_half_precision_takes_half_the_memory_and_predicts_alike() -> Result<()> {
    let frozen_bytes = |model: &TADFormer| -> usize {
        let frozen = model.ledger().entries().into_iter().filter(|entry| matches!(entry.role, Role::Frozen(_)));
        let matrices = frozen.filter(|entry| entry.tensor().rank() == 2);
        matrices.map(|entry| entry.tensor().elem_count() * entry.tensor().dtype().size_in_bytes()).sum()
    };
    let (full, images) = (builder().build().unwrap(), images(1, 64, 64)?);
    randomise_b(&full)?;
    let want = full.forward(&images, Mode::Eval)?;
    for dtype in [DType::BF16, DType::F16] {
        let model = builder().frozen_dtype(dtype).build().unwrap();
        randomise_b(&model)?;
        assert_eq!(2 * frozen_bytes(&model), frozen_bytes(&full), "{dtype:?}");
        let same = |got: Outputs| -> Result<()> {
            for ((task, want), (_, got)) in want.iter().zip(got.iter()) {
                let distance = distance(got, want)?;
                assert!(got.dtype() == DType::F32 && distance < 1e-2, "{}, {dtype:?}: {distance:.1e}", task.name());
            }
            Ok(())
        };
        same(model.forward(&images, Mode::Eval)?)?;
        let merged = model.merge()?;
        same(merged.forward(&images)?)?;
        assert_eq!(without_gradient(&merged.unmerge()?)?.len(), 2, "the unused prompt norm's alone");
    }
    Ok(())
}

/// Every output, value by value.
fn bits(outputs: &Outputs) -> Result<Vec<u32>> {
    let values = outputs.iter().map(|(_, map)| map.flatten_all()?.to_vec1::<f32>()).collect::<Result<Vec<_>>>()?;
    Ok(values.concat().into_iter().map(f32::to_bits).collect())
}

#[test]
fn checkpointing_changes_no_gradient() -> Result<()> {
    let config = SwinConfig { drop_path: 0.3, ..swin() };
    let model = TADFormer::builder(config).tasks("sal=1,depth=1".parse().unwrap()).rank(2).build().unwrap();
    randomise_b(&model)?;
    let images = images(2, 40, 64)?;
    let gradients = |checkpoint| -> Result<Vec<Vec<f32>>> {
        let pass = TrainingPass::seeded(5).with_gradient_checkpointing(checkpoint);
        let outputs = model.forward(&images, Mode::Train(&pass))?;
        let losses = outputs.iter().map(|(_, output)| output.sqr()?.mean_all()).collect::<Result<Vec<_>>>()?;
        let store = Tensor::stack(&losses, 0)?.sum_all()?.backward()?;
        let trained = model.ledger().trained();
        trained.iter().filter_map(|entry| store.get(entry.tensor())).map(|grad| grad.flatten_all()?.to_vec1()).collect()
    };
    assert_eq!(gradients(GradientCheckpointing::Off)?, gradients(GradientCheckpointing::On)?);
    Ok(())
}

#[test]
fn each_task_can_go_back_alone_through_one_pass() -> Result<()> {
    let model = TADFormer::builder(swin()).tasks("sal=1,depth=1".parse().unwrap()).rank(2).build().unwrap();
    randomise_b(&model)?;
    let outputs = model.forward(&images(1, 40, 64)?, Mode::Train(&TrainingPass::seeded(5)))?;
    let losses = outputs.iter().map(|(_, output)| output.sqr()?.mean_all()).collect::<Result<Vec<_>>>()?;
    let both = (&losses[0] + &losses[1])?.backward()?;
    let alone = [losses[0].backward()?, losses[1].backward()?];
    let (mut shared, mut own) = (0, 0);
    for entry in model.ledger().trained() {
        let Some(want) = both.get(entry.tensor()) else { continue };
        let parts: Vec<&Tensor> = alone.iter().filter_map(|store| store.get(entry.tensor())).collect();
        let sum = parts.iter().skip(1).try_fold(parts[0].clone(), |sum, part| sum + *part)?;
        let error = (sum - want)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(error <= 1e-5 * want.abs()?.max_all()?.to_scalar::<f32>()?.max(1e-3), "{}: {error}", entry.name);
        if parts.len() == 2 { shared += 1 } else { own += 1 }
    }
    assert!(shared > 10 && own > 10, "{shared} shared, {own} of one task");
    Ok(())
}

#[test]
fn every_variant_trains_all_it_has() -> Result<()> {
    let paper = || Method::tadformer(2);
    let prompts = |per_task, gate| Prompts::Learned { per_task, gate };
    let average = prompts(1, Gate::Average { reading: TpcReading::Positions });
    let ungated = PerTask::default().prompts(prompts(3, Gate::None));
    let unfiltered = PerTask::default().filter(TaskFilterKind::None);
    let variants = [
        paper().task_paths(PerTask::default().filter(TaskFilterKind::Static { kernel: 5 })),
        paper().task_paths(unfiltered.clone().prompts(average)),
        paper().task_paths(ungated).linears(LowRank::new(2).ranks([1, 2, 3, 4])),
        paper().task_paths(PerTask::default().prompts(Prompts::None)),
        paper().linears(LowRank::new(2).on([AdaptedLinear::Qkv, AdaptedLinear::Proj])),
        paper().linears(LowRank::new(2).on([AdaptedLinear::Qkv])).task_paths(unfiltered.clone()),
        Method::none().task_paths(unfiltered),
        Method::low_rank(2),
        Method::none(),
    ];
    for method in variants {
        let text = format!("{method:?}");
        let model = builder().method(method).build().unwrap();
        randomise_b(&model)?;
        let idle: Vec<String> = without_gradient(&model)?
            .into_iter()
            .filter(|name| !name.starts_with("layers.1.blocks.0.attn.prompt_norm"))
            .collect();
        assert!(idle.is_empty(), "{text}: {idle:?}");
    }
    Ok(())
}

#[test]
fn a_frozen_weight_gets_no_gradient() -> Result<()> {
    let model = builder().build().unwrap();
    let store = loss(&model, &images(1, 64, 64)?)?.backward()?;
    let mut frozen = 0;
    for entry in model.ledger().entries() {
        if let Role::Frozen(tensor) = &entry.role {
            assert!(store.get(tensor).is_none(), "{}", entry.name);
            frozen += 1;
        }
    }
    assert_eq!(frozen, 5 * 8 + 3);
    Ok(())
}

#[test]
fn a_fresh_adapter_leaves_plain_swins_features_unchanged() -> Result<()> {
    let model = builder().method(Method::low_rank(2)).build().unwrap();
    let plain = Swin::new(&swin(), &Weights::random(3, DType::F32, &Device::Cpu))?;
    for (height, width) in [(64, 64), (50, 75)] {
        let images = images(2, height, width)?;
        let stages = model.stages(&images, Mode::Eval)?;
        for (stage, features) in stages.iter().zip(plain.forward(&images)?) {
            assert_eq!(distance(&stage.shared.tokens, &features.merged.tokens)?, 0.0);
            assert_eq!(stage.shared.size, features.merged.size);
        }
    }
    Ok(())
}

#[test]
fn outputs_have_the_images_size_whatever_it_is() -> Result<()> {
    let model = builder().build().unwrap();
    for (height, width) in [(64, 64), (4, 4), (5, 130), (97, 33)] {
        let outputs = model.forward(&images(1, height, width)?, Mode::Eval)?;
        for (task, output) in outputs.iter() {
            assert_eq!(output.dims(), [1, task.outputs(), height, width]);
            assert!(output.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?.is_finite());
        }
    }
    Ok(())
}

#[test]
fn images_do_not_see_each_other() -> Result<()> {
    let model = builder().build().unwrap();
    randomise_b(&model)?;
    let images = images(3, 40, 56)?;
    let together = model.forward(&images, Mode::Eval)?;
    let alone = model.forward(&images.narrow(0, 1, 1)?, Mode::Eval)?;
    for ((_, a), (_, b)) in together.iter().zip(alone.iter()) {
        assert!(distance(&a.narrow(0, 1, 1)?, b)? < 1e-5);
    }
    Ok(())
}

#[test]
fn one_model_serves_many_threads() -> Result<()> {
    let model = builder().build().unwrap();
    let images: Vec<Tensor> = (1..5).map(|i| images(1, 40 + 4 * i, 52)).collect::<Result<_>>()?;
    let forward = |images: &Tensor| model.forward(images, Mode::Eval).unwrap().get("depth").unwrap().clone();
    let alone: Vec<Tensor> = images.iter().map(forward).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = images.iter().map(|images| scope.spawn(|| forward(images))).collect();
        for (thread, alone) in threads.into_iter().zip(&alone) {
            assert_eq!(distance(&thread.join().unwrap(), alone).unwrap(), 0.0);
        }
    });
    Ok(())
}

#[test]
fn bad_images_are_refused_with_the_cure() -> Result<()> {
    let model = builder().build().unwrap();
    let refuse = |images: Tensor| model.forward(&images, Mode::Eval).unwrap_err().to_string();
    for images in [images(1, 3, 64)?, images(1, 64, 64)?.narrow(1, 0, 1)?, images(1, 8, 8)?.squeeze(0)?] {
        let message = refuse(images);
        assert!(message.contains("one patch (4)") && message.contains("enlarge"), "{message}");
    }
    // Without a refusal, a NaN in one pixel left numbers everywhere: a ReLU makes 0 of it.
    for wrong in [f32::NAN, f32::INFINITY] {
        let mut values = images(1, 64, 64)?.flatten_all()?.to_vec1::<f32>()?;
        values[1000] = wrong;
        let message = refuse(Tensor::from_vec(values, (1, 3, 64, 64), &Device::Cpu)?);
        assert!(message.contains("images: expected numbers, got NaN or infinity"), "{message}");
    }
    // Candle named two float types, and a step deep inside.
    let turn = "turn them with to_dtype";
    for (dtype, cure) in [(DType::F64, turn), (DType::BF16, turn), (DType::U8, "divide bytes by 255")] {
        let (message, got) = (refuse(images(1, 64, 64)?.to_dtype(dtype)?), dtype.as_str());
        let words = format!("images: expected f32 on cpu, where the model's weights are, got {got} on cpu ({cure}");
        assert!(message.contains(&words), "{message}");
    }
    let tiny = model.forward(&images(1, 8, 8)?, Mode::Train(&TrainingPass::seeded(0))).unwrap_err().to_string();
    assert!(tiny.contains("BatchNorm") && tiny.contains("larger batch or image"), "{tiny}");
    Ok(())
}

#[test]
fn a_configuration_that_cannot_work_is_refused_by_field() {
    let message = |b: tadformer::TADFormerBuilder| b.build().unwrap_err().to_string();
    assert!(message(builder().rank(0)).contains("`rank`") && message(builder().rank(0)).contains("DecodersOnly"));
    let even = PerTask::default().filter(TaskFilterKind::Dynamic { kernel: 2 });
    assert!(message(builder().method(Method::tadformer(2).task_paths(even))).starts_with("`filter.kernel`"));
    // Eight channels in the first stage and 64 in the last: without a refusal it built, mostly of weights that nothing can use.
    assert!(message(builder().rank(65)).starts_with("`rank`: expected at most 64, the channels of stage 3, got 65"));
    let heads = tadformer::heads::HrNetConfig::new([1, 2]);
    assert!(message(builder().head(heads)).starts_with("`head.channels`"));
}

#[test]
fn dropout_and_drop_path_draw_from_the_seed() -> Result<()> {
    let model = builder().build().unwrap();
    randomise_b(&model)?;
    let images = images(2, 64, 64)?;
    let depth = |seed| -> Result<Tensor> {
        let rng = TrainingPass::seeded(seed);
        Ok(model.forward(&images, Mode::Train(&rng))?.get("depth").unwrap().clone())
    };
    assert_eq!(distance(&depth(1)?, &depth(1)?)?, 0.0);
    assert!(distance(&depth(1)?, &depth(2)?)? > 1e-4);
    Ok(())
}

#[test]
fn the_whole_model_has_the_gradient_that_finite_differences_find() -> Result<()> {
    let mut config = builder().dtype(DType::F64).tasks("semseg=3,depth=1".parse().unwrap());
    config = config.method(Method::default().linears(LowRank::new(2).dropout(0.0)));
    let mut whole = config.config().clone();
    whole.swin.drop_path = 0.0;
    whole.release = Release::tadformer().with(Pretrained::Biases);
    let model = tadformer::TADFormerBuilder::from_config(whole).dtype(DType::F64).seed(5).build().unwrap();
    randomise_b(&model)?;
    let images = images(2, 36, 52)?.to_dtype(DType::F64)?;
    let store = loss(&model, &images)?.backward()?;
    let one_of_each_group = |group: Group| {
        let mut of_group = model.ledger().trained().into_iter().filter(|entry| entry.group == group);
        of_group.find(|entry| !entry.name.contains("layers.1.blocks.0.attn.prompt_norm")).unwrap()
    };
    let pretrained = [Pretrained::Norms, Pretrained::PositionBias, Pretrained::PatchEmbedding, Pretrained::Biases];
    let pretrained = pretrained.map(Group::Pretrained);
    let groups = [
        Group::LowRank,
        Group::Filters,
        Group::Prompts,
        Group::PromptNorms,
        Group::Gates,
        Group::Projections,
        Group::Heads,
    ];
    for group in groups.into_iter().chain(pretrained) {
        let entry = one_of_each_group(group);
        let var = entry.trained().unwrap();
        let grad = store.get(entry.tensor()).unwrap().flatten_all()?.to_vec1::<f64>()?;
        let at = (0..grad.len()).max_by(|a, b| grad[*a].abs().total_cmp(&grad[*b].abs())).unwrap();
        let base = var.flatten_all()?.to_vec1::<f64>()?;
        let moved = |delta: f64| -> Result<f64> {
            let mut values = base.clone();
            values[at] += delta;
            var.set(&Tensor::from_vec(values, var.dims(), &Device::Cpu)?)?;
            loss(&model, &images)?.to_scalar::<f64>()
        };
        let numeric = (moved(1e-6)? - moved(-1e-6)?) / 2e-6;
        moved(0.0)?;
        let error = (grad[at] - numeric).abs() / numeric.abs();
        assert!(error < 1e-5, "{}: {} is not {numeric}", entry.name, grad[at]);
    }
    Ok(())
}

#[test]
fn tunings_build_and_run() -> Result<()> {
    for &tuning in Tuning::ALL {
        let model = builder().tuning(tuning, 2).build().unwrap();
        let outputs = model.forward(&images(1, 64, 64)?, Mode::Eval)?;
        assert_eq!(outputs.iter().count(), 6, "{}", tuning.name());
    }
    Ok(())
}

#[test]
fn a_backbone_of_sizes_that_cannot_work_is_refused_before_it_is_built() {
    for (field, config) in [
        ("num_heads", SwinConfig { num_heads: vec![1, 2], ..swin() }),
        ("patch_size", SwinConfig { patch_size: 0, ..swin() }),
        ("window", SwinConfig { window: 0, ..swin() }),
        ("depths", SwinConfig { depths: vec![], num_heads: vec![], ..swin() }),
    ] {
        let (source, ledger) = (random_source(3, DType::F32, &Device::Cpu), Ledger::counting());
        let message = Swin::new(&config, &Weights::new(source, ledger, Release::none())).unwrap_err().to_string();
        assert!(message.contains(&format!("`{field}`")), "{message}");
    }
}

#[test]
fn a_folded_model_looks_at_what_it_looked_at_before() -> Result<()> {
    let model = builder().build().unwrap();
    randomise_b(&model)?;
    let images = images(1, 64, 96)?;
    let views = model.inspect(&images)?;
    let folded = model.merge().unwrap().inspect(&images)?;
    assert_eq!(views.len(), 4);
    for (view, folded) in views.iter().zip(&folded) {
        let (attention, after) = (view.attention.as_ref().unwrap(), folded.attention.as_ref().unwrap());
        assert!(distance(attention, after)? < 1e-3 && attention.dim(0)? == 6);
        assert_eq!(distance(view.gate.as_ref().unwrap(), folded.gate.as_ref().unwrap())?, 0.0);
        assert_eq!(view.filters.len(), 3);
        for (filter, folded) in view.filters.iter().zip(&folded.filters) {
            assert!(filter.linear == folded.linear && distance(&filter.taps, &folded.taps)? < 1e-3);
        }
    }
    Ok(())
}

#[test]
fn tasks_without_paths_of_their_own_look_at_nothing_and_say_so() -> Result<()> {
    let model = builder().tuning(Tuning::LowRankOnly, 2).build().unwrap();
    let message = model.inspect(&images(1, 64, 64)?).unwrap_err().to_string();
    assert!(
        message.contains("expected tasks with paths of their own") && message.contains("Tuning::TADFormer"),
        "{message}"
    );
    Ok(())
}
