//! Every public step with random sizes, types and views, right for the most part and often with one thing wrong: nothing panics, either
//! definition refuses what the other refuses, by the step's name, and where they accept, values and gradients agree, whichever graph
//! is made and with gradient checkpointing or without.
//!
//! 256 cases a step, or as many as `PROPTEST_CASES` says; CONTRIBUTING.md has the command that runs many under AddressSanitizer.
#![allow(clippy::panic, clippy::unwrap_used)]

mod above;
mod case;
mod inputs;

use candle_core::{DType, Device, Result, Tensor, Var};
use case::{Case, Draws, Graph, cases};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tadformer::ops::{Definition, GradientCheckpointing, leaf, recomputed, recorded, without_graph};

/// A step on inputs that are drawn: as often as it is called the same.
type Step = Arc<dyn Fn() -> Result<Vec<Tensor>> + Send + Sync>;

/// One test for each step: what its errors are named by, and what draws its inputs.
macro_rules! steps {
    ($($test:ident: $names:expr, $draw:path;)*) => {
        proptest! {
            $(
                #[test]
                fn $test(case in cases()) {
                    agree(&case, &$names, $draw)
                }
            )*
        }
    };
}

steps! {
    attention_half: ["attention-half", "window-grid"], inputs::attention_half;
    batch_norm: ["batch-norm"], inputs::batch_norm;
    bilinear: ["bilinear"], inputs::bilinear;
    conv3x3: ["conv3x3"], inputs::conv3x3;
    conditioned_down: ["conditioned-down"], inputs::conditioned_down;
    depthwise_filter: ["depthwise-filter"], inputs::depthwise_filter;
    dynamic_filter: ["dynamic-filter"], inputs::dynamic_filter;
    feature_map: ["feature-map"], inputs::feature_map;
    filter_norm: ["filter-norm"], inputs::filter_norm;
    filter_taps: ["filter-taps"], inputs::filter_taps;
    gelu: ["gelu"], inputs::gelu;
    grid: ["window-grid", "partition", "reverse"], inputs::grid;
    layer_norm: ["layer-norm"], inputs::layer_norm;
    linear: ["linear"], inputs::linear;
    low_rank_map: ["linear", "dropout", "low-rank map", "shape mismatch in add", "dtype mismatch in add"], inputs::low_rank_map;
    merge_linear: ["merge-linear"], inputs::merge_linear;
    mlp_half: ["mlp-half"], inputs::mlp_half;
    multi_scale_head: ["multi-scale-head"], inputs::multi_scale_head;
    norm_down: ["norm-down"], inputs::norm_down;
    relative_position_index: ["a side"], inputs::relative_position_index;
    shift_mask: ["window-grid"], inputs::shift_mask;
    task_condition: ["tpc"], inputs::task_condition;
    task_hidden: ["task-hidden"], inputs::task_hidden;
    task_mix: ["task-mix", "window-grid"], inputs::task_mix;
    task_path: ["factor", "linear"], inputs::task_path_of;
    task_projection: ["task-projection", "window-grid"], inputs::task_projection;
    task_update: ["task-update"], inputs::task_update;
    window_attention: ["window-attention"], inputs::window_attention;

    dynamic_task_filter: ["`kernel`", "`rank`", "dynamic-filter", "filter-taps", "feature-map"], above::dynamic_task_filter;
    static_task_filter: ["`kernel`", "`rank`", "depthwise-filter", "feature-map", "static filter", "unexpected rank"], above::static_task_filter;
    patch_embed: ["`patch_size`", "split-patches", "linear", "layer-norm"], above::patch_embed;
    position_bias: ["a side", "bicubic", "shape mismatch"], above::position_bias;
    task_losses: ["cross-entropy", "balanced-bce", "l1", "normals-l1", "label: expected classes"], above::task_losses;
}

/// What a step gives, and the gradients that it sends to the variables among its inputs.
struct Made {
    outputs: Vec<Tensor>,
    gradients: Vec<Tensor>,
}

/// Draws a step's inputs, and holds the two definitions against each other.
fn agree(case: &Case, names: &[&str], draw: fn(&mut Draws) -> Result<Step>) {
    let mut draws = Draws::right(case);
    drop(draw(&mut draws).unwrap());
    let mut draws = draws.again();
    let step = match draw(&mut draws) {
        Ok(step) => step,
        Err(error) => return named(&error, names), // refused where it is made
    };
    let make = |by: Definition, graph, checkpointing| by.run(|| make(&step, &draws.variables, graph, checkpointing));
    let oracle = make(Definition::Composed, Graph::Candle, GradientCheckpointing::Off);
    for by in Definition::ALL {
        match (make(by, case.graph, case.checkpointing), &oracle) {
            (Ok(made), Ok(oracle)) => {
                let dtype = oracle.outputs.first().map_or(DType::F64, Tensor::dtype);
                close("output", dtype, &made.outputs, &oracle.outputs);
                let gradients = if case.graph == Graph::None { &[] } else { &oracle.gradients[..] };
                close("gradient", dtype, &made.gradients, gradients);
            }
            (Err(made), Err(oracle)) => [&made, oracle].iter().for_each(|error| named(error, names)),
            (made, oracle) => {
                let [made, oracle] = [made.as_ref(), oracle.as_ref()]
                    .map(|made| made.map_or_else(|e| e.to_string(), |_| "accepts".into()));
                panic!("{}: {made}; the oracle: {oracle}", by.name())
            }
        }
    }
}

/// Runs a step in the graph that is asked for, and goes back from a weighted sum of all that it gives.
fn make(step: &Step, variables: &[Var], graph: Graph, checkpointing: GradientCheckpointing) -> Result<Made> {
    let leaves = |outputs: Vec<Tensor>| outputs.iter().map(leaf).collect::<Result<Vec<_>>>();
    let outputs = match graph {
        Graph::Candle => checkpointing.run(|| step())?,
        Graph::Tape => recorded(checkpointing, || leaves(step()?))?,
        Graph::MadeAgain => {
            let step = step.clone();
            recorded(checkpointing, || recomputed(move || step()))?
        }
        Graph::None => return Ok(Made { outputs: without_graph(|| step())?, gradients: Vec::new() }),
    };
    let mut loss = Tensor::zeros((), DType::F64, &Device::Cpu)?;
    for output in outputs.iter().filter(|output| output.dtype().is_float()) {
        loss = (loss + (output.to_dtype(DType::F64)? * weights(output.dims())?)?.sum_all()?)?;
    }
    let store = loss.backward()?;
    let gradient = |var: &Var| store.get(var).cloned().map_or_else(|| var.zeros_like(), Ok);
    Ok(Made { outputs, gradients: variables.iter().map(gradient).collect::<Result<_>>()? })
}

/// Numbers between -1 and 1 without a pattern that rows or heads could share.
fn weights(dims: &[usize]) -> Result<Tensor> {
    let values: Vec<f64> =
        (0..dims.iter().product()).map(|i| (1.7 * i as f64 + 0.3 * (i * i % 17) as f64).sin()).collect();
    Tensor::from_vec(values, dims, &Device::Cpu)
}

/// Fails unless tensors agree as well as computing in this float type allows; in half precision, which no kernel computes in, sums
/// only have their shapes.
fn close(what: &str, dtype: DType, got: &[Tensor], want: &[Tensor]) {
    let of = |dtype: DType| match dtype {
        DType::F64 => 1e-9,
        DType::F32 => 1e-2, // steps after one another cancel much: what is wrong shows in f64
        _ => f64::INFINITY,
    };
    assert_eq!(got.len(), want.len(), "{what}s");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!((got.dims(), got.dtype()), (want.dims(), want.dtype()), "{what} {i}");
        let tolerance = f64::max(of(dtype), of(want.dtype()));
        let values = |x: &Tensor| x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let (got, want) = (values(got), values(want));
        let scale = want.iter().fold(1.0f64, |most, v| most.max(v.abs()));
        let worst = got.iter().zip(&want).fold(0.0, |worst, (a, b)| (a - b).abs().max(worst));
        let finite = got.iter().chain(&want).all(|v| v.is_finite());
        let near = finite && worst <= tolerance * scale;
        assert!(near || tolerance.is_infinite(), "{what} {i} is {worst:.1e} off, its values up to {scale:.1e}");
    }
}

/// An error says which step it is of.
#[track_caller]
fn named(error: &candle_core::Error, names: &[&str]) {
    let message = error.to_string();
    assert!(names.iter().any(|name| message.contains(name)), "an error that names none of {names:?}: {message}");
}

/// The sources of `ops`, without their tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// Whoever adds a step to `ops` adds it here: each public function is called in these tests, and each public type occurs.
#[test]
fn no_public_step_is_forgotten() {
    let driven = [include_str!("main.rs"), include_str!("inputs.rs"), include_str!("above.rs")].concat();
    let word =
        |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned();
    let (mut functions, mut names) = (0, 0);
    for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops")) {
        let source = std::fs::read_to_string(&path).unwrap();
        let code = source.split("#[cfg(test)]\nmod ").next().unwrap();
        for function in code.split("pub fn ").skip(1).map(word) {
            let called = [("::", "("), (".", "("), (" ", "("), ("(", "("), ("(", ")")];
            let called = called.iter().any(|(before, after)| driven.contains(&format!("{before}{function}{after}")));
            assert!(called, "{}: `{function}` is called in no test of tests/steps", path.display());
            functions += 1;
        }
    }
    let module = include_str!("../../src/ops/mod.rs");
    for statement in module.split("\npub use ").skip(1) {
        let list = statement.split(';').next().unwrap().rsplit("::").next().unwrap();
        for name in list.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty()) {
            assert!(driven.contains(name), "`ops::{name}` occurs in no test of tests/steps");
            names += 1;
        }
    }
    assert!(functions > 40 && names > 40, "only {functions} functions and {names} names were found");
}
