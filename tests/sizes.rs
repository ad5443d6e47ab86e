//! Windows and images of other sizes than a checkpoint's, beside what timm computed; batches of several sizes.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Device, Tensor};
use common::{builder, distance};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tadformer::checkpoint::Checkpoint;
use tadformer::layers::Mode;
use tadformer::loss::depth_l1;
use tadformer::params::{Ledger, Release, Weights, checkpoint_source};
use tadformer::sample::PaddedBatch;
use tadformer::swin::{Swin, SwinConfig, names};
use tadformer::{Batch, Sample};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A golden Swin at another window and image size than it was saved with.
fn swin(folder: &str, window: usize, image_size: usize) -> Swin {
    let path = golden(folder).join("transformers");
    let config = SwinConfig { window, image_size, ..SwinConfig::of_checkpoint(&path).unwrap() };
    let (_, checkpoint, _) = names::canonical(Checkpoint::open(path).unwrap()).unwrap();
    let source = checkpoint_source(Arc::new(checkpoint), DType::F32, &Device::Cpu);
    Swin::new(&config, &Weights::new(source, Ledger::seeded(0, DType::F32, &Device::Cpu), Release::none())).unwrap()
}

#[test]
fn another_window_gives_the_features_that_timm_gives_with_resized_tables() {
    for folder in ["swin_w4_128", "swin_w7_224"] {
        let expected = Checkpoint::open(golden(folder).join("window.safetensors")).unwrap();
        let said = |key: &str| expected.metadata(key).unwrap().parse().unwrap();
        let swin = swin(folder, said("window"), said("image_size"));
        let load = |name: &str| expected.load(name, DType::F32, &Device::Cpu).unwrap();
        for (i, stage) in swin.forward(&load("input")).unwrap().iter().enumerate() {
            let want = load(&format!("stage.{i}.features"));
            let error = distance(&stage.before_merging.to_nchw().unwrap(), &want).unwrap();
            let largest = distance(&want, &want.zeros_like().unwrap()).unwrap();
            assert!(error < 1e-4 * largest, "{folder}, stage {i}: {error:.1e} of {largest:.1e}");
        }
    }
}

/// Different values everywhere.
fn image(h: usize, w: usize) -> Sample {
    let values: Vec<f32> = (0..3 * h * w).map(|i| (i * 37 % 101) as f32 / 100.0).collect();
    let label = Tensor::full(1f32, (1, h, w), &Device::Cpu).unwrap();
    let image = Tensor::from_vec(values, (3, h, w), &Device::Cpu).unwrap();
    Sample { image, labels: BTreeMap::from([("depth".to_owned(), label)]) }
}

#[test]
fn images_of_several_sizes_are_refused_with_the_helper_named_and_padded_by_it() {
    let samples = [image(40, 64), image(48, 56)];
    let message = Batch::stack(&samples, DType::F32, &Device::Cpu).unwrap_err().to_string();
    let words = ["image of a batch", "[3, 40, 64], the first sample's", "PaddedBatch", "got [3, 48, 56]"];
    assert!(words.iter().all(|word| message.contains(word)), "{message}");

    let padded = PaddedBatch::stack(&samples, DType::F32, &Device::Cpu).unwrap();
    let model = builder().build().unwrap();
    let outputs = model.forward(&padded.batch.images, Mode::Eval).unwrap();
    for (task, output) in outputs.iter() {
        let maps = padded.crop(output).unwrap();
        assert_eq!(maps[0].dims(), [task.outputs(), 40, 64]);
        assert_eq!(maps[1].dims(), [task.outputs(), 48, 56]);
    }
}

#[test]
fn padding_is_no_part_of_a_loss() {
    let samples = [image(40, 64), image(48, 56)];
    let padded = PaddedBatch::stack(&samples, DType::F32, &Device::Cpu).unwrap();
    let outputs = builder().build().unwrap().forward(&padded.batch.images, Mode::Eval).unwrap();
    let (depth, label) = (outputs.get("depth").unwrap(), &padded.batch.labels["depth"]);
    let sum = |difference: Tensor| difference.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    let own = padded.crop(depth).unwrap().into_iter().zip(padded.crop(label).unwrap());
    let want = own.map(|(map, label)| sum((map - label).unwrap())).sum::<f32>() / (40 * 64 + 48 * 56) as f32;
    let got = depth_l1(depth, label).unwrap().to_scalar::<f32>().unwrap();
    assert!((got - want).abs() < 1e-5 * want, "{got} {want}");
}
