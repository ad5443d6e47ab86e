//! What loading costs: every frozen weight goes from its file to its place once, and a second adapter brings its own weights alone.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/counting.rs"]
mod counting;

use candle_core::{DType, Device, Tensor};
use common::swin;
use counting::Counting;
use std::path::Path;
use tadformer::TADFormer;
use tadformer::checkpoint::Checkpoint;
use tadformer::files::write_tensors;
use tadformer::heads::HrNetConfig;
use tadformer::params::{Ledger, Release, Role, Weights, checkpoint_source, random_source};
use tadformer::swin::{Swin, SwinConfig, names};

#[global_allocator]
static COUNTING: Counting = Counting;

/// A Swin of seven megabytes.
fn medium() -> SwinConfig {
    SwinConfig { embed_dim: 32, depths: vec![2, 2, 2, 2], num_heads: vec![1, 2, 4, 8], ..swin() }
}

/// Its weights, by timm's names.
fn drawn() -> Vec<(String, Tensor)> {
    let ledger = Ledger::seeded(0, DType::F32, &Device::Cpu);
    let source = random_source(0, DType::F32, &Device::Cpu);
    Swin::new(&medium(), &Weights::new(source, ledger.clone(), Release::none())).unwrap();
    ledger.entries().into_iter().map(|entry| (entry.name.clone(), entry.tensor().clone())).collect()
}

/// As transformers names them, query, key and value apart.
fn as_transformers(tensors: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    let renames = [
        ("norm1", "layernorm_before"),
        ("norm2", "layernorm_after"),
        ("attn.proj", "attention.output.dense"),
        ("attn.relative", "attention.self.relative"),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
        ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
        ("patch_embed.norm", "embeddings.norm"),
    ];
    let rename = |(name, tensor): (String, Tensor)| -> Vec<(String, Tensor)> {
        if let Some((block, end)) = name.split_once(".attn.qkv.") {
            let part = |(i, part): (usize, &str)| {
                let rows = tensor.dim(0).unwrap() / 3;
                (format!("encoder.{block}.attention.self.{part}.{end}"), tensor.narrow(0, i * rows, rows).unwrap())
            };
            return ["query", "key", "value"].into_iter().enumerate().map(part).collect();
        }
        let name = renames.iter().fold(name, |name, (timm, hub)| name.replace(timm, hub));
        let name = match name.split_once(".downsample.") {
            Some((stage, rest)) => {
                let stage: usize = stage.strip_prefix("layers.").unwrap().parse().unwrap();
                format!("layers.{}.downsample.{rest}", stage - 1)
            }
            None => name,
        };
        vec![(if name.starts_with("layers.") { format!("encoder.{name}") } else { name }, tensor)]
    };
    tensors.into_iter().flat_map(rename).collect()
}

/// Bytes of the weights, and bytes of the large pieces that loading them asked for.
fn cost_of_loading(path: &Path) -> (usize, usize) {
    let (_, checkpoint, _) = names::canonical(Checkpoint::open(path).unwrap()).unwrap();
    let config = SwinConfig::of_checkpoint(path).unwrap();
    let ledger = Ledger::seeded(0, DType::F32, &Device::Cpu);
    let source = checkpoint_source(checkpoint.into(), DType::F32, &Device::Cpu);
    let weights = Weights::new(source, ledger.clone(), Release::none());
    let (_, bytes) = counting::during(|| Swin::new(&config, &weights).unwrap());
    (ledger.entries().iter().map(|entry| 4 * entry.tensor().elem_count()).sum(), bytes.large)
}

#[test]
fn every_weight_is_copied_once_whatever_the_format() {
    let folder = tempfile::tempdir().unwrap();
    let (timm, transformers) = (folder.path().join("timm.safetensors"), folder.path().join("hub.safetensors"));
    write_tensors(&timm, drawn(), None).unwrap();
    write_tensors(&transformers, as_transformers(drawn()), None).unwrap();
    for path in [timm, transformers] {
        let (bytes, asked) = cost_of_loading(&path);
        assert!(bytes > 6_000_000);
        // What is smaller than a page is not counted.
        assert!(asked <= bytes && asked * 100 >= bytes * 95, "{}: {asked} for {bytes}", path.display());
    }
}

#[test]
fn a_second_adapter_holds_the_bytes_of_its_own_weights_alone() {
    let head = HrNetConfig::new([4, 4, 8, 8]);
    let build = |tasks: &str| {
        let builder = TADFormer::builder(medium()).tasks(tasks.parse().unwrap()).rank(4).head(head.clone());
        builder.seed(3).build().unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("second.safetensors");
    build("depth=1,sal=1").save_adapter(&path).unwrap();
    let first = build("semseg=7");
    // What is made once for the whole process is not the adapter's.
    drop(first.with_adapter(&path).unwrap());
    let (second, bytes) = counting::during(|| first.with_adapter(&path).unwrap());
    let held = bytes.held as usize;
    let own = second.ledger().entries().into_iter().filter(|entry| !matches!(entry.role, Role::Frozen(_)));
    let own: usize = own.map(|entry| 4 * entry.tensor().elem_count()).sum();
    let names = 400_000;
    assert!((own..own + names).contains(&held), "{held} bytes for {own} of weights");
    assert!(held < first.parameters().frozen(), "{held}: less than a quarter of the backbone");
}
