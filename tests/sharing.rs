//! Several models on one backbone: frozen tensors shared, trained ones each model's own; tasks that come and go.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::Tensor;
use common::{builder, distance, images, randomise_b};
use std::collections::HashMap;
use std::path::Path;
use tadformer::TADFormer;
use tadformer::layers::Mode;
use tadformer::metrics::Score;
use tadformer::model::OpenOptions;
use tadformer::params::{Release, Role};
use tadformer::report::{CardFile, ModelCard};
use tadformer::tad::{Method, PerTask, Prompts, TaskFilterKind};

fn outputs(model: &TADFormer) -> HashMap<String, Tensor> {
    let outputs = model.forward(&images(1, 44, 60).unwrap(), Mode::Eval).unwrap();
    outputs.iter().map(|(task, output)| (task.name().to_owned(), output.clone())).collect()
}

fn same(a: &HashMap<String, Tensor>, b: &HashMap<String, Tensor>) -> bool {
    a.len() == b.len() && a.iter().all(|(name, a)| distance(a, &b[name]).unwrap() == 0.0)
}

/// Where a tensor's values lie.
fn place(tensor: &Tensor) -> usize {
    let (storage, _) = tensor.storage_and_layout();
    std::ptr::from_ref(&*storage) as usize
}

/// How many frozen tensors two models share; nothing else may be shared, and nothing frozen may be apart.
fn shared(first: &TADFormer, second: &TADFormer) -> usize {
    let places: Vec<usize> = first.ledger().entries().iter().map(|entry| place(entry.tensor())).collect();
    let entries = second.ledger().entries();
    for entry in &entries {
        let frozen = matches!(entry.role, Role::Frozen(_));
        assert_eq!(places.contains(&place(entry.tensor())), frozen, "{}", entry.name);
    }
    entries.iter().filter(|entry| matches!(entry.role, Role::Frozen(_))).count()
}

/// Moves every trained weight and statistic, as training would.
fn train(model: &TADFormer) {
    randomise_b(model).unwrap();
    for (i, entry) in model.ledger().entries().into_iter().enumerate() {
        let (Role::Trained(var) | Role::Statistics(var)) = entry.role else { continue };
        var.set(&(var.as_tensor() + 0.001 * (i % 7 + 1) as f64).unwrap()).unwrap();
    }
}

fn values(model: &TADFormer) -> HashMap<String, Tensor> {
    model.ledger().entries().iter().map(|entry| (entry.name.clone(), entry.tensor().copy().unwrap())).collect()
}

#[test]
fn a_second_adapter_on_a_backbone_costs_its_own_weights_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("second.safetensors");
    let second = builder().tasks("depth=1,rooms:semseg=5".parse().unwrap()).rank(3).build().unwrap();
    train(&second);
    second.save_adapter(&path).unwrap();
    let first = builder().build().unwrap();
    train(&first);
    let before = outputs(&first);

    let opened = first.with_adapter(&path).unwrap();
    assert!(shared(&first, &opened) > 20);
    assert_eq!((opened.config(), opened.base()), (second.config(), first.base()));
    assert!(same(&outputs(&opened), &outputs(&second)));
    assert!(same(&outputs(&first), &before));
    train(&opened);
    assert!(!same(&outputs(&opened), &outputs(&second)));
    assert!(same(&outputs(&first), &before), "training one leaves the other");
    opened.save_adapter(&path).unwrap();
    assert!(same(&outputs(&opened), &outputs(&TADFormer::open(&path, &OpenOptions::default()).unwrap())));
}

#[test]
fn an_adapter_of_another_backbone_or_of_weights_that_were_trained_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let save = |builder: tadformer::TADFormerBuilder| {
        let (model, path) = (builder.build().unwrap(), folder.path().join("adapter.safetensors"));
        train(&model);
        model.save_adapter(&path).unwrap();
        (model, path)
    };
    let refusal = |path: &Path| {
        let first = builder().build().unwrap();
        first.with_adapter(path).map(drop).unwrap_err().to_string()
    };
    let message = refusal(&save(builder().seed(4)).1);
    assert!(message.contains("does not fit") && message.contains("backbone weights"), "{message}");
    let message = refusal(&save(builder().release(Release::none())).1);
    assert!(message.contains("does not fit") && message.contains("a model that trained it"), "{message}");
    // The other way round nothing is missing: what the adapter trained is in its file.
    let (model, path) = save(builder());
    let frozen = builder().release(Release::none()).build().unwrap();
    assert!(same(&outputs(&frozen.with_adapter(path).unwrap()), &outputs(&model)));
}

#[test]
fn tasks_come_and_go_and_the_others_keep_their_weights() {
    let kinds = [TaskFilterKind::Dynamic { kernel: 3 }, TaskFilterKind::Static { kernel: 3 }];
    for filter in kinds {
        let paths = PerTask::default().filter(filter).prompts(Prompts::learned(2));
        let model = builder()
            .method(Method::tadformer(2).task_paths(paths))
            .tasks("semseg=7,sal=1,depth=1".parse().unwrap())
            .build()
            .unwrap();
        train(&model);
        let (old, before) = (values(&model), outputs(&model));
        // One gone, one new, another order.
        let other = model.with_tasks("depth=1,edge=1,semseg=7".parse().unwrap(), 9).unwrap();
        shared(&model, &other);
        let (new, rows) = (values(&other), |table: &Tensor, task: usize| table.narrow(0, 2 * task, 2).unwrap());
        for (name, value) in &new {
            match old.get(name) {
                Some(_) if name == "prompts.table" => {}
                Some(kept) => assert_eq!(distance(value, kept).unwrap(), 0.0, "{name}"),
                None => assert!(name.contains("edge"), "{name}"),
            }
        }
        assert!(!new.keys().any(|name| name.contains(".sal.")));
        let (new_table, old_table) = (&new["prompts.table"], &old["prompts.table"]);
        assert_eq!(new_table.dims()[0], 6);
        for (now, then) in [(0, 2), (2, 0)] {
            assert_eq!(distance(&rows(new_table, now), &rows(old_table, then)).unwrap(), 0.0);
        }
        for then in 0..3 {
            assert!(distance(&rows(new_table, 1), &rows(old_table, then)).unwrap() > 0.1, "drawn anew");
        }
        // Back to the first tasks: those that stayed all along are as they were.
        let back = other.with_tasks(model.config().tasks.clone(), 9).unwrap();
        assert_eq!(distance(&rows(&values(&back)["prompts.table"], 0), &rows(old_table, 0)).unwrap(), 0.0);
        assert!(same(&outputs(&model), &before), "the first model is as it was");
        assert!(same(&outputs(&model.with_tasks(model.config().tasks.clone(), 1).unwrap()), &before));
        let alone = model.with_tasks("edge=1".parse().unwrap(), 9).unwrap();
        assert_eq!(outputs(&alone).len(), 1);
    }
}

#[test]
fn without_prompts_the_tasks_that_stay_give_equal_outputs_to_rounding() {
    let method = Method::tadformer(2).task_paths(PerTask::default().prompts(Prompts::None));
    let model = builder().method(method).tasks("sal=1,depth=1".parse().unwrap()).build().unwrap();
    train(&model);
    let more = model.with_tasks(model.config().tasks.with("edge=1".parse().unwrap()).unwrap(), 5).unwrap();
    let (before, after) = (outputs(&model), outputs(&more));
    for (name, output) in &before {
        assert!(distance(output, &after[name]).unwrap() < 1e-5, "{name}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("more.safetensors");
    more.save_adapter(&path).unwrap();
    assert!(same(&after, &outputs(&TADFormer::open(path, &OpenOptions::default()).unwrap())));
}

#[test]
fn a_task_that_changes_under_its_name_is_refused() {
    let model = builder().build().unwrap();
    let message = model.with_tasks("semseg=8".parse().unwrap(), 0).map(drop).unwrap_err().to_string();
    assert!(message.contains("semseg=7") && message.contains("another name"), "{message}");
}

#[test]
fn a_card_is_written_beside_its_adapter_and_a_changed_one_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = folder.path().join("rooms.safetensors");
    let (model, path) = (builder().build().unwrap(), folder.path().join("README.md"));
    let scores = [("depth", Score::lower("rmse", Some(0.5))), ("sal", Score::higher("max_iou", None))];
    let scores = scores.map(|(task, score)| (task.to_owned(), score));
    let card = ModelCard::of(&model).license("cc0-1.0\nlicense: mit").title("a\n---\nb").scores(scores);
    assert_eq!(card.write_beside(&adapter).unwrap(), CardFile::Written(path.clone()));
    let text = std::fs::read_to_string(&path).unwrap();
    let backbone = model.base().file_name();
    for part in [
        "---\nlicense: \"cc0-1.0 license: mit\"\nlibrary_name: tadformer\npipeline_tag: image-segmentation\n",
        "\n# a --- b\n",
        "| `depth` | rmse ↓ | 0.5000 |",
        "TADFormer::from_adapter(\"OWNER/NAME\")",
        "TADFormer::from_adapter(\"rooms.safetensors\")",
        "hf upload OWNER/NAME rooms.safetensors adapter.safetensors\n",
        &format!("hf upload OWNER/NAME {backbone}\n"),
        &format!("| total | {} | {} |", model.parameters().trained(), model.parameters().frozen()),
        &model.base().digest,
    ] {
        assert!(text.contains(&part.replace("| rmse", "| `rmse`")), "{part}\n{text}");
    }
    assert!(!text.contains("base_model") && !text.contains("max_iou"), "{text}");
    // As it was written it is replaced; with one character changed it is somebody's own.
    assert_eq!(ModelCard::of(&model).write_beside(&adapter).unwrap(), CardFile::Written(path.clone()));
    assert!(std::fs::read_to_string(&path).unwrap().contains("license: \"unknown\""));
    let own = std::fs::read_to_string(&path).unwrap().replace("unknown", "mit");
    std::fs::write(&path, &own).unwrap();
    assert_eq!(card.write_beside(&adapter).unwrap(), CardFile::Kept(path.clone()));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), own);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(card.write_beside(&adapter).unwrap_err().to_string().contains("a folder, where a file"));
}

#[test]
fn a_card_names_a_published_backbone_and_no_folder_of_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = folder.path().join("models--someone--swin/snapshots/0123456789abcdef0123456789abcdef01234567");
    std::fs::create_dir_all(&snapshot).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/swin_w4_128/timm/model.safetensors");
    std::fs::copy(golden, snapshot.join("model.safetensors")).unwrap();
    let elsewhere = folder.path().join("elsewhere.safetensors");
    std::fs::copy(snapshot.join("model.safetensors"), &elsewhere).unwrap();
    let card = |path: &Path| {
        let swin = tadformer::SwinConfig::of_checkpoint(path).unwrap();
        let tasks = "depth=1".parse().unwrap();
        ModelCard::of(&TADFormer::builder(swin).tasks(tasks).rank(2).pretrained(path).build().unwrap()).to_string()
    };
    let text = card(&snapshot);
    assert!(
        text.contains("base_model: \"someone/swin\"\nbase_model_relation: adapter\npipeline_tag: depth-estimation\n")
    );
    assert!(
        text.contains("`someone/swin` at commit `0123456789abcdef") && !text.contains("hf upload OWNER/NAME backbone")
    );
    let text = card(&elsewhere);
    assert!(!text.contains("base_model") && !text.contains("elsewhere"), "{text}");
    assert!(text.contains("hf upload OWNER/NAME backbone-"));
}
