//! Adapters and full exports: what was saved comes back, and what does not fit is refused and named.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::Tensor;
use common::{builder, distance, images, randomise_b, swin};
use std::path::{Path, PathBuf};
use tadformer::heads::HrNetConfig;
use tadformer::layers::Mode;
use tadformer::model::{ModelFile, OpenOptions, Stored};
use tadformer::params::{Group, Release};
use tadformer::swin::SwinConfig;
use tadformer::{TADFormer, TADFormerBuilder};

fn saved(folder: &Path) -> (TADFormer, PathBuf) {
    let model = builder().build().unwrap();
    randomise_b(&model).unwrap();
    let path = folder.join("adapter.safetensors");
    model.save_adapter(&path).unwrap();
    (model, path)
}

fn outputs(model: &TADFormer) -> Vec<Tensor> {
    let outputs = model.forward(&images(1, 44, 60).unwrap(), Mode::Eval).unwrap();
    outputs.iter().map(|(_, output)| output.clone()).collect()
}

fn same(a: &TADFormer, b: &TADFormer) -> bool {
    outputs(a).iter().zip(&outputs(b)).all(|(a, b)| distance(a, b).unwrap() == 0.0)
}

/// The backbone's digest as it stands in a file's header.
fn saved_digest(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let (_, rest) = text.split_once(r#"\"digest\":\""#).unwrap();
    rest[..64].to_owned()
}

fn refusal(result: tadformer::Result<TADFormer>) -> String {
    result.map(drop).unwrap_err().to_string()
}

#[test]
fn an_adapter_holds_what_was_trained_and_opens_with_its_backbone() {
    let folder = tempfile::tempdir().unwrap();
    let (model, path) = saved(folder.path());
    let file = ModelFile::open(&path).unwrap();
    assert_eq!((file.stored(), file.config(), file.base()), (Stored::Adapter, model.config(), model.base()));
    let opened = TADFormer::open(&path, &OpenOptions::default()).unwrap();
    assert!(same(&model, &opened));
    let bytes = std::fs::metadata(&path).unwrap().len() as usize;
    let statistics = 6 * 2 * 4 * 12;
    let values = 4 * (model.parameters().trained() + statistics);
    assert!((values..values + 60_000).contains(&bytes), "{bytes} bytes for {values} of values");
    assert!(folder.path().join(model.base().file_name()).exists(), "a random backbone is written beside it");
}

#[test]
fn a_full_export_needs_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let model = builder().release(Release::everything()).build().unwrap();
    randomise_b(&model).unwrap();
    let path = folder.path().join("full.safetensors");
    model.save_full(&path).unwrap();
    assert!(same(&model, &TADFormer::open(&path, &OpenOptions::default()).unwrap()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let resaved = folder.path().join("again.safetensors");
    let opened = TADFormer::open(&path, &OpenOptions::default()).unwrap();
    opened.save_full(&resaved).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&resaved).unwrap());
}

#[test]
fn an_adapter_on_a_checkpoint_finds_it_again_or_is_given_it() {
    let folder = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/swin_w4_128");
    let backbone = folder.path().join("swin.safetensors");
    std::fs::copy(golden.join("timm/model.safetensors"), &backbone).unwrap();
    let model = TADFormerBuilder::from_config(builder().config().clone());
    let model = |path: &Path| {
        let mut config = model.config().clone();
        config.swin = SwinConfig { image_size: 128, ..SwinConfig::of_checkpoint(path).unwrap() };
        TADFormerBuilder::from_config(config).seed(3).pretrained(path).build().unwrap()
    };
    let first = model(&backbone);
    let report = first.load_report().unwrap();
    assert_eq!(
        report.loaded.len(),
        first.ledger().entries().iter().filter(|e| matches!(e.group, Group::Pretrained(_))).count()
    );
    assert_eq!(report.unused, ["head.fc.bias", "head.fc.weight", "norm.bias", "norm.weight"]);
    randomise_b(&first).unwrap();
    let path = folder.path().join("adapter.safetensors");
    first.save_adapter(&path).unwrap();
    assert!(same(&first, &TADFormer::open(&path, &OpenOptions::default()).unwrap()));

    std::fs::remove_file(&backbone).unwrap();
    let beside = folder.path().join(first.base().file_name());
    assert!(
        same(&first, &TADFormer::open(&path, &OpenOptions::default()).unwrap()),
        "it was written beside the adapter"
    );
    std::fs::remove_file(beside).unwrap();
    let message = refusal(TADFormer::open(&path, &OpenOptions::default()));
    assert!(message.contains("its backbone: ") && message.contains("give its checkpoint"), "{message}");
    // The same weights under another family's names are the same backbone.
    for other in ["transformers", "original.pth"] {
        let options = OpenOptions { backbone: Some(golden.join(other)), ..OpenOptions::default() };
        assert!(same(&first, &TADFormer::open(&path, &options).unwrap()), "{other}");
    }
    let options =
        OpenOptions { backbone: Some(golden.with_file_name("swin_w7_224").join("timm")), ..OpenOptions::default() };
    let message = refusal(TADFormer::open(&path, &options));
    assert!(message.contains("backbone weights"), "{message}");
}

/// A model on a golden backbone that lies under this name in a folder, and its adapter in another.
fn on_a_file(folder: &Path, release: Release) -> (TADFormer, PathBuf, PathBuf) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/swin_w4_128/original.pth");
    let (backbone, out) = (folder.join("somebodys secret/my-swin.pth"), folder.join("out"));
    std::fs::create_dir(backbone.parent().unwrap()).unwrap();
    std::fs::create_dir(&out).unwrap();
    std::fs::copy(golden, &backbone).unwrap();
    let model = TADFormer::builder_from_pretrained(&backbone).unwrap().rank(2).release(release).build().unwrap();
    randomise_b(&model).unwrap();
    (model, backbone, out.join("adapter.safetensors"))
}

#[test]
fn an_adapter_records_its_backbones_name_and_nothing_of_its_folders() {
    let folder = tempfile::tempdir().unwrap();
    let (model, backbone, path) = on_a_file(folder.path(), Release::default());
    model.save_adapter(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("my-swin.pth") && !text.contains("secret"));
    assert!(!text.contains(folder.path().to_str().unwrap()));
    // The adapter alone, as a colleague has it.
    let theirs = tempfile::tempdir().unwrap();
    let alone = theirs.path().join("adapter.safetensors");
    std::fs::copy(&path, &alone).unwrap();
    let message = refusal(TADFormer::from_adapter(&alone));
    let digest = model.base().short_digest();
    for words in [
        format!("swin 8 [2, 2, 2, 2] window 4 with weights {digest} (read from `my-swin.pth`)"),
        format!(
            "backbone-{digest}.safetensors: no such file (put the backbone or `my-swin.pth` there, or give its checkpoint"
        ),
        "--backbone".to_owned(),
    ] {
        assert!(message.contains(&words), "{words}\n{message}");
    }
    // With a file of the recorded name beside it, whose weights must be those.
    std::fs::copy(&backbone, theirs.path().join("my-swin.pth")).unwrap();
    let opened = TADFormer::from_adapter(&alone).unwrap();
    assert!(same(&model, &opened) && opened.base() == model.base());
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/released_w4_64.pth");
    std::fs::copy(other, theirs.path().join("my-swin.pth")).unwrap();
    assert!(TADFormer::from_adapter(&alone).is_err());
}

#[test]
fn a_full_export_becomes_an_adapter_with_the_backbone_that_it_was_trained_from() {
    let folder = tempfile::tempdir().unwrap();
    let (model, backbone, path) = on_a_file(folder.path(), Release::default());
    let norm =
        model.ledger().entries().into_iter().find(|entry| entry.name == "layers.0.blocks.0.norm1.weight").unwrap();
    let tadformer::params::Role::Trained(norm) = norm.role else { unreachable!() };
    norm.set(&(norm.as_tensor() * 1.5).unwrap()).unwrap();
    let full = folder.path().join("full.safetensors");
    model.save_full(&full).unwrap();
    let opened = TADFormer::from_adapter(&full).unwrap();
    // What training changed of the backbone is not what the adapter stands on.
    let message = opened.save_adapter(&path).unwrap_err().to_string();
    assert!(message.contains("not the one that training started from") && message.contains("--backbone"), "{message}");
    assert!(std::fs::read_dir(path.parent().unwrap()).unwrap().next().is_none(), "nothing is written then");
    let with =
        |backbone: PathBuf| TADFormer::open(&full, &OpenOptions { backbone: Some(backbone), ..OpenOptions::default() });
    let opened = with(backbone).unwrap();
    assert!(same(&model, &opened));
    opened.save_adapter(&path).unwrap();
    assert!(same(&model, &TADFormer::from_adapter(&path).unwrap()));
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/swin_w4_128/expected.safetensors");
    assert!(with(other).is_err());

    // Without released weights the export's backbone is the one that training started from.
    let folder = tempfile::tempdir().unwrap();
    let (model, backbone, path) = on_a_file(folder.path(), Release::none());
    model.save_full(&full).unwrap();
    std::fs::remove_file(backbone).unwrap();
    TADFormer::from_adapter(&full).unwrap().save_adapter(&path).unwrap();
    assert!(same(&model, &TADFormer::from_adapter(&path).unwrap()));
}

#[test]
fn a_backbone_that_was_replaced_while_training_is_not_written_beside_the_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let (model, backbone, path) = on_a_file(folder.path(), Release::default());
    let timm = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/swin_w7_224/original.pth");
    std::fs::copy(timm, backbone).unwrap();
    let message = model.save_adapter(&path).unwrap_err().to_string();
    assert!(message.contains("my-swin.pth") && message.contains("not the one that training started from"), "{message}");
}

#[test]
fn a_published_backbone_in_the_hubs_cache_is_recorded_and_not_copied() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = folder.path().join("models--someone--swin/snapshots/0123456789abcdef0123456789abcdef01234567");
    std::fs::create_dir_all(&snapshot).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/swin_w4_128/timm/model.safetensors");
    std::fs::copy(golden, snapshot.join("model.safetensors")).unwrap();
    let swin = SwinConfig { window: 8, image_size: 256, ..SwinConfig::of_checkpoint(&snapshot).unwrap() };
    let build = |path: &Path| TADFormer::builder(swin.clone()).rank(2).pretrained(path).build().unwrap();
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("adapter.safetensors");
    let model = build(&snapshot);
    model.save_adapter(&path).unwrap();
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 1);
    let bytes = std::fs::read(&path).unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains("models--"), "the model and commit are recorded, not the path");
    #[cfg(feature = "hub")]
    {
        let hub = tadformer::hub::Hub::default().cache(folder.path()).offline();
        assert!(same(&model, &TADFormer::open(&path, &OpenOptions { hub, ..OpenOptions::default() }).unwrap()));
    }
    // Outside the cache it is copied, as the file has it: the tables are resized when it is read again.
    let elsewhere = folder.path().join("elsewhere.safetensors");
    std::fs::copy(snapshot.join("model.safetensors"), &elsewhere).unwrap();
    build(&elsewhere).save_adapter(&path).unwrap();
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 2);
    std::fs::remove_file(elsewhere).unwrap();
    assert!(same(&model, &TADFormer::open(&path, &OpenOptions::default()).unwrap()));
}

#[test]
fn an_adapter_that_does_not_fit_says_every_difference_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (model, path) = saved(folder.path());
    let fresh = builder().build().unwrap();
    assert!(!same(&model, &fresh));
    fresh.load_adapter(&path).unwrap();
    assert!(same(&model, &fresh));
    for (other, words) in [
        (
            builder().tasks("sal=1,depth=1".parse().unwrap()),
            vec!["tasks: the adapter has semseg=7", "the model sal=1,depth=1"],
        ),
        (builder().seed(4), vec!["backbone weights"]),
        (builder().rank(3), vec!["method.linears.rank: the adapter has [2], the model [3]"]),
        (
            builder().head(HrNetConfig::new([2, 2, 4, 5])).rank(3),
            vec!["head.channels: the adapter has [2,2,4,4], the model [2,2,4,5]", "method.linears.rank"],
        ),
        (builder().release(Release::none()), vec!["release: the adapter has"]),
    ] {
        let other = other.build().unwrap();
        let before = outputs(&other);
        let message = other.load_adapter(&path).unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "{message}");
        }
        assert!(outputs(&other).iter().zip(&before).all(|(a, b)| distance(a, b).unwrap() == 0.0));
    }
    let deeper = TADFormer::builder(SwinConfig { depths: vec![1, 1, 1, 1], ..swin() });
    let message = deeper.rank(2).build().unwrap().load_adapter(&path).unwrap_err().to_string();
    assert!(message.contains("swin.depths: the adapter has [1,2,1,1], the model [1,1,1,1]"), "{message}");
}

#[test]
fn damaged_and_foreign_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_, path) = saved(folder.path());
    let bytes = std::fs::read(&path).unwrap();
    let open = |bytes: &[u8]| {
        let path = folder.path().join("damaged.safetensors");
        std::fs::write(&path, bytes).unwrap();
        refusal(TADFormer::open(&path, &OpenOptions::default()))
    };
    for end in [0, 4, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        let message = open(&bytes[..end]);
        assert!(message.contains("damaged.safetensors"), "cut at {end}: {message}");
    }
    // The header is JSON: a text of the same length keeps the file whole.
    let replace = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut changed = bytes.clone();
        changed[at..at + from.len()].copy_from_slice(to.as_bytes());
        open(&changed)
    };
    assert!(replace(r#"\"format\":1"#, r#"\"format\":7"#).contains("this version reads format 1"));
    assert!(replace(r#"\"scale\":4.0"#, r#"\"scale\":0.0"#).contains("`scale`"));
    assert!(replace("prompts.table", "prompts.tabel").contains("`prompts.table` is missing"));
    assert!(replace(r#"\"embed_dim\":8,"#, r#"\"embed_dim\":0,"#).contains("`embed_dim`"));
    let digest = saved_digest(&bytes);
    assert!(replace(&digest, &format!("../../{}", &digest[6..])).contains("a digest that is none"));
    assert!(replace(r#"\"rank\":[2]"#, r#"\"rank\":[9]"#).contains("fewer than the"));
    assert!(replace(r#"\"kernel\":3"#, r#"\"kernel\":4"#).contains("`filter.kernel`"));
    assert!(replace(r#"\"tasks\":"#, r#"\"tusks\":"#).contains("damaged metadata"));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/swin_w4_128/timm/model.safetensors");
    assert!(refusal(TADFormer::open(golden, &OpenOptions::default())).contains("no tadformer adapter"));
    assert!(refusal(TADFormer::open(folder.path().join("none"), &OpenOptions::default())).contains("cannot read"));
}

#[test]
fn a_folder_that_cannot_be_written_to_keeps_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let (model, path) = saved(folder.path());
    let before = std::fs::read(&path).unwrap();
    let message = model.save_adapter(folder.path().join("missing/adapter.safetensors")).unwrap_err().to_string();
    assert!(message.contains("missing") && message.contains("cannot create"), "{message}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    #[cfg(target_os = "linux")]
    assert!(model.save_full("/proc/adapter.safetensors").is_err(), "nobody can write there");
}

#[test]
fn a_checkpoint_that_lacks_a_tensor_names_it_and_its_nearest() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/swin_w4_128/timm/model.safetensors");
    let bytes = std::fs::read(golden).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("swin.safetensors");
    let build = |from: &str, to: &str, change: fn(&mut SwinConfig)| {
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut changed = bytes.clone();
        changed[at..at + from.len()].copy_from_slice(to.as_bytes());
        std::fs::write(&path, changed).unwrap();
        let mut swin = SwinConfig { depths: vec![2, 2, 2, 2], num_heads: vec![1, 2, 4, 4], image_size: 128, ..swin() };
        change(&mut swin);
        refusal(TADFormer::builder(swin).rank(2).pretrained(&path).build())
    };
    let message = build("layers.3.blocks.1.mlp.fc2.bias", "layers.3.blocks.1.mlp.fc3.bias", |_| ());
    assert!(message.contains("`layers.3.blocks.1.mlp.fc2.bias` is missing"), "{message}");
    assert!(message.contains("nearest name in the file is `layers.3.blocks.1.mlp.fc3.bias`"), "{message}");
    let message = build("norm.bias", "norm.bias", |swin| swin.embed_dim = 16);
    assert!(
        message.contains("has shape [8, 3, 4, 4], expected [16, 3, 4, 4]") || message.contains("has shape"),
        "{message}"
    );
    let message = build("norm.bias", "norm.bias", |swin| swin.depths[1] = 3);
    assert!(message.contains("layers.1.blocks.2") && message.contains("choose the preset"), "{message}");
}

#[test]
fn another_window_resizes_the_bias_tables_and_reports_it() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/swin_w4_128/timm/model.safetensors");
    let swin = SwinConfig { window: 8, image_size: 256, ..SwinConfig::of_checkpoint(&golden).unwrap() };
    let model = TADFormer::builder(swin).rank(2).pretrained(&golden).build().unwrap();
    let report = model.load_report().unwrap();
    assert_eq!(report.reshaped.len(), 8);
    assert_eq!(report.reshaped[0].1, [49, 1]);
    assert_eq!(report.reshaped[0].2, [225, 1]);
}

#[cfg(not(feature = "hub"))]
#[test]
fn without_the_hub_an_id_names_the_feature() {
    let message = refusal(TADFormer::from_adapter("someone/rooms"));
    assert!(message.contains("someone/rooms") && message.contains("feature `hub`"), "{message}");
    let message = TADFormer::builder_from_pretrained("someone/swin").map(drop).unwrap_err().to_string();
    assert!(message.contains("feature `hub`"), "{message}");
}
