//! One network in several formats and under several families' names gives the same tensors, bit for bit.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tadformer::candle_core::{DType, Device};
use tadformer::params::Checkpoint;
use tadformer::swin::names::{Family, canonical};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Every tensor's shape and the bits of its values.
type Bits = BTreeMap<String, (Vec<usize>, Vec<u32>)>;

fn bits(checkpoint: &Checkpoint) -> Bits {
    let of = |name: &str| {
        let tensor = checkpoint.load(name, DType::F32, &Device::Cpu).unwrap();
        let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        (name.to_owned(), (tensor.dims().to_vec(), values.into_iter().map(f32::to_bits).collect()))
    };
    checkpoint.names().map(of).collect()
}

/// Whether a name is one of the backbone's, rather than of the final norm or the classifier.
fn of_backbone(name: &str) -> bool {
    name.starts_with("layers.") || name.starts_with("patch_embed.")
}

fn backbone(name: &str, family: Family) -> Bits {
    let (found, checkpoint, _) = canonical(Checkpoint::open(golden(name)).unwrap()).unwrap();
    assert_eq!(found, family, "{name}");
    bits(&checkpoint).into_iter().filter(|(name, _)| of_backbone(name)).collect()
}

#[test]
fn three_families_of_one_swin_are_the_same_tensors() {
    for folder in ["swin_w4_128", "swin_w7_224"] {
        let timm = backbone(&format!("{folder}/timm"), Family::Timm);
        assert_eq!(timm.len(), 4 + 8 * 13 + 3 * 3);
        assert_eq!(timm["layers.3.blocks.1.attn.qkv.weight"].0, [192, 64]);
        assert_eq!(timm["layers.3.downsample.reduction.weight"].0, [64, 128]);
        assert!(timm == backbone(&format!("{folder}/transformers"), Family::Transformers), "{folder}");
        assert!(timm == backbone(&format!("{folder}/original.pth"), Family::Original), "{folder}");
    }
}

#[test]
fn transformers_own_names_are_the_same_tensors() {
    let file = Checkpoint::open(golden("swin_w4_128/transformers")).unwrap();
    let renames = [
        ("attention.self.query", "attention.q_proj"),
        ("attention.self.key", "attention.k_proj"),
        ("attention.self.value", "attention.v_proj"),
        ("attention.self.relative", "attention.relative_position_bias.relative"),
        ("attention.output.dense", "attention.o_proj"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
    ];
    let tensors = file.names().map(|name| {
        let tensor = file.load(name, DType::F32, &Device::Cpu).unwrap();
        (renames.iter().fold(name.to_owned(), |name, (hub, own)| name.replace(hub, own)), tensor)
    });
    let (family, own, _) = canonical(Checkpoint::from_tensors(tensors.collect())).unwrap();
    assert_eq!(family, Family::Transformers);
    let own: Bits = bits(&own).into_iter().filter(|(name, _)| of_backbone(name)).collect();
    assert!(own == backbone("swin_w4_128/transformers", Family::Transformers));
}

#[test]
fn a_released_training_checkpoint_is_its_safetensors_twin() {
    let pth = Checkpoint::open(golden("released_w4_64.pth")).unwrap();
    let twin = Checkpoint::open(golden("released_w4_64.safetensors")).unwrap().under("state.");
    let twin_names: Vec<&str> = twin.names().collect();
    let (family, pth, _) = canonical(pth).unwrap();
    let (_, canonical_twin, _) = canonical(twin.clone()).unwrap();
    assert_eq!(family, Family::Released);
    let (pth, canonical_twin) = (bits(&pth), bits(&canonical_twin));
    assert_eq!(canonical_twin.len(), twin_names.len(), "every tensor has a name of ours");
    assert_eq!(pth.keys().collect::<Vec<_>>(), canonical_twin.keys().collect::<Vec<_>>());
    assert!(pth == canonical_twin);
    assert_eq!(pth["heads.semseg.projections.1.weight"].0, [2, 32]);
    assert_eq!(pth["heads.normals.output.weight"].0, [3, 48]);
    assert_eq!(pth["layers.0.blocks.1.attn.proj.filter.semseg.weight"].0, [3, 1, 3, 3]);
    assert_eq!(pth["prompts.table"].0, [2, 8]);
}
