//! One network in several formats and under several families' names gives the same tensors, bit for bit.

#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tadformer::checkpoint::Checkpoint;
use tadformer::model::BackboneFile;
use tadformer::swin::SwinConfig;
use tadformer::swin::names::{Family, Naming, canonical};

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

/// One Swin as each library's classes write it: what it is, the family, and what no backbone uses.
const FAMILIES: [(&str, Family, &[&str]); 8] = [
    (
        "SwinForImageClassification",
        Family::Transformers,
        &["classifier.bias", "classifier.weight", "swin.layernorm.bias", "swin.layernorm.weight"],
    ),
    ("SwinModel", Family::Transformers, &["layernorm.bias", "layernorm.weight"]),
    (
        "SwinForMaskedImageModeling",
        Family::Transformers,
        &[
            "decoder.0.bias",
            "decoder.0.weight",
            "swin.embeddings.mask_token",
            "swin.layernorm.bias",
            "swin.layernorm.weight",
        ],
    ),
    (
        "SwinBackbone",
        Family::Transformers,
        &[
            "hidden_states_norms.stage1.bias",
            "hidden_states_norms.stage1.weight",
            "hidden_states_norms.stage2.bias",
            "hidden_states_norms.stage2.weight",
            "swin.layernorm.bias",
            "swin.layernorm.weight",
        ],
    ),
    (
        "own_names.safetensors",
        Family::Transformers,
        &["classifier.bias", "classifier.weight", "swin.layernorm.bias", "swin.layernorm.weight"],
    ),
    ("timm.safetensors", Family::Timm, &["head.fc.bias", "head.fc.weight", "norm.bias", "norm.weight"]),
    ("torchvision.pth", Family::Torchvision, &["head.bias", "head.weight", "norm.bias", "norm.weight"]),
    ("timm_0.6.pth", Family::Original, &["head.bias", "head.weight", "norm.bias", "norm.weight"]),
];

fn family(name: &str) -> BackboneFile {
    BackboneFile::open(golden("families").join(name)).unwrap()
}

/// Every tensor of a file, but those that libraries make again from the window's size.
fn file_bits(path: &Path) -> Bits {
    let bits = bits(&Checkpoint::open(path).unwrap());
    bits.into_iter().filter(|(name, _)| !name.ends_with("relative_position_index")).collect()
}

#[test]
fn every_class_of_every_library_holds_the_same_backbone() {
    let want = backbone("families/timm.safetensors", Family::Timm);
    assert_eq!(want.len(), 4 + 3 * 13 + 3);
    for (name, kind, unused) in FAMILIES {
        assert!(want == backbone(&format!("families/{name}"), kind), "{name}");
        let file = family(name);
        assert_eq!((file.report().family, file.report().loaded.len()), (kind, want.len()), "{name}");
        assert_eq!(file.report().unused, unused, "{name}");
        assert_eq!(
            (file.config().depths.as_slice(), file.config().num_heads.as_slice()),
            ([1, 2].as_slice(), [1, 2].as_slice())
        );
    }
}

#[test]
fn configurations_beside_them_say_what_their_tensors_say() {
    for name in ["SwinForImageClassification", "SwinModel", "SwinForMaskedImageModeling", "SwinBackbone"] {
        let said = SwinConfig::of_config(golden("families").join(name).join("config.json")).unwrap();
        let found = family(name).config().clone();
        assert_eq!(SwinConfig { image_size: said.image_size, drop_path: said.drop_path, ..found }, said, "{name}");
    }
}

#[test]
fn what_is_written_is_what_the_library_itself_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("written.safetensors");
    for (source, _, unused) in FAMILIES {
        for (naming, theirs) in
            [(Naming::Timm, "timm.safetensors"), (Naming::Transformers, "SwinForImageClassification/model.safetensors")]
        {
            let written = family(source).save(&path, naming).unwrap();
            let (got, mut want) = (file_bits(&path), file_bits(&golden("families").join(theirs)));
            // A file without a classifier gives one without it.
            if !unused.iter().any(|name| name.contains("head") || name.contains("classifier")) {
                want.retain(|name, _| !name.contains("head.fc") && !name.contains("classifier"));
            }
            assert!(got == want, "{source} as {naming:?}");
            assert_eq!(written.names, got.into_keys().collect::<Vec<_>>());
            let is_head = |name: &&&str| {
                ["layernorm.", "classifier.", "head.", "norm."]
                    .iter()
                    .any(|part| name.trim_start_matches("swin.").starts_with(part))
            };
            assert_eq!(
                written.unused,
                unused.iter().filter(|name| !is_head(name)).copied().collect::<Vec<_>>(),
                "{source}"
            );
        }
        let written = family(source).save(&path, Naming::Own).unwrap();
        assert!(written.names.iter().all(|name| of_backbone(name)) && written.names.len() == 46, "{source}");
        assert_eq!(written.unused, unused);
        assert!(bits(&Checkpoint::open(&path).unwrap()) == backbone("families/timm.safetensors", Family::Timm));
    }
}

#[test]
fn torchvisions_features_are_ours() {
    let expected = Checkpoint::open(golden("families/torchvision_features.safetensors")).unwrap();
    let load = |name: &str| expected.load(name, DType::F32, &Device::Cpu).unwrap();
    let swin = family("torchvision.pth").swin(DType::F32, &Device::Cpu).unwrap();
    for (i, features) in swin.forward(&load("image")).unwrap().iter().enumerate() {
        let want = load(&format!("stage{i}"));
        let map = &features.before_merging;
        assert_eq!(want.dims()[1..3], [map.size.0, map.size.1], "stage {i}");
        let got = map.tokens.reshape(want.shape()).unwrap();
        let error =
            (got - want).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
        assert!(error < 1e-5, "stage {i}: {error}");
    }
}

/// The tensors of a golden file under changed names; `None` leaves one out.
fn renamed(name: &str, rename: impl Fn(&str) -> Option<String>) -> Checkpoint {
    let file = Checkpoint::open(golden("families").join(name)).unwrap();
    let load = |name: &str| {
        let dtype = if name.ends_with("relative_position_index") { DType::I64 } else { DType::F32 };
        file.load(name, dtype, &Device::Cpu).unwrap()
    };
    let tensors = file.names().filter_map(|name| Some((rename(name)?, load(name))));
    Checkpoint::from_tensors(tensors.collect())
}

#[test]
fn wrapped_names_are_the_same_tensors() {
    let want = backbone("families/timm.safetensors", Family::Timm);
    for (prefix, name) in [
        ("module.", "own_names.safetensors"),
        ("model.", "SwinModel/model.safetensors"),
        ("model.pixel_level_module.encoder.", "SwinModel/model.safetensors"),
        ("backbone.", "timm.safetensors"),
        ("module.encoder.", "timm_0.6.pth"),
        ("module.", "torchvision.pth"),
        ("state_dict.module.", "timm_0.6.pth"),
    ] {
        let (_, wrapped, _) = canonical(renamed(name, |name| Some(format!("{prefix}{name}")))).unwrap();
        let wrapped: Bits = bits(&wrapped).into_iter().filter(|(name, _)| of_backbone(name)).collect();
        assert!(wrapped == want, "{prefix} {name}");
    }
}

#[test]
fn a_network_without_qkv_biases_is_one_with_zeros() {
    let image = Tensor::randn(0f32, 1.0, (1, 3, 32, 40), &Device::Cpu).unwrap();
    let last = |file: &BackboneFile| {
        let features = file.swin(DType::F32, &Device::Cpu).unwrap().forward(&image).unwrap();
        features[1].merged.tokens.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let is_bias =
        |name: &str| ["qkv", "query", "key", "value"].iter().any(|part| name.ends_with(&format!("{part}.bias")));
    let want = {
        let file = Checkpoint::open(golden("families/timm.safetensors")).unwrap();
        let load = |name: &str| {
            let tensor = file.load(name, DType::F32, &Device::Cpu).unwrap();
            if is_bias(name) { tensor.zeros_like().unwrap() } else { tensor }
        };
        let tensors = file.names().map(|name| (name.to_owned(), load(name))).collect();
        last(&BackboneFile::of(Checkpoint::from_tensors(tensors)).unwrap())
    };
    assert_ne!(want, last(&family("timm.safetensors")));
    for name in ["timm.safetensors", "timm_0.6.pth", "SwinModel/model.safetensors"] {
        let file = BackboneFile::of(renamed(name, |name| (!is_bias(name)).then(|| name.to_owned()))).unwrap();
        assert_eq!(file.report().zeros.len(), 3, "{name}");
        assert!(file.report().to_string().contains("3 biases of zeros"));
        assert_eq!(last(&file), want, "{name}");
        let folder = tempfile::tempdir().unwrap();
        for &naming in Naming::ALL {
            let path = folder.path().join(naming.name());
            let written = file.save(&path, naming).unwrap();
            assert!(!written.names.iter().any(|name| is_bias(name)), "{name}");
            assert_eq!(last(&BackboneFile::open(&path).unwrap()), want, "{name}");
        }
    }
    let message = BackboneFile::of(renamed("timm.safetensors", |name| {
        (name != "layers.1.blocks.0.attn.qkv.bias").then(|| name.to_owned())
    }));
    let message = message.unwrap_err().to_string();
    assert!(message.contains("`layers.1.blocks.0.attn.qkv.bias` is missing"), "{message}");
}

#[test]
fn swin_v2_is_refused_by_name_with_the_reason() {
    let v2 = golden("families/Swinv2ForImageClassification");
    let tensors = [v2.join("model.safetensors"), golden("families/timm_v2.safetensors")];
    for path in &tensors {
        let message = BackboneFile::open(path).unwrap_err().to_string();
        assert!(message.contains("a SwinV2") && message.contains("cosines"), "{message}");
    }
    let message = SwinConfig::of_config(v2.join("config.json")).unwrap_err().to_string();
    assert!(message.contains("Swinv2ForImageClassification") && message.contains("cosines"), "{message}");
}

#[test]
fn a_backbone_with_a_tensor_of_another_shape_is_not_written() {
    let file = Checkpoint::open(golden("families/timm.safetensors")).unwrap();
    let name = "layers.1.blocks.1.mlp.fc2.weight";
    let load = |name: &str| file.load(name, DType::F32, &Device::Cpu).unwrap();
    let mut tensors: std::collections::HashMap<_, _> = file.names().map(|name| (name.to_owned(), load(name))).collect();
    tensors.insert(name.to_owned(), Tensor::zeros((8, 31), DType::F32, &Device::Cpu).unwrap());
    let message = BackboneFile::of(Checkpoint::from_tensors(tensors)).unwrap_err().to_string();
    assert!(message.contains(&format!("`{name}` has shape [8, 31], expected [8, 32]")), "{message}");
}
