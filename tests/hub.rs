//! Models of the hub, from a real server on loopback through the real client.
//!
//! Here: what a hub is for, and what keeps a model from being had. In `hub/`:
//!
//! | file | attacks |
//! | --- | --- |
//! | `replies.rs` | answers that lie, do not end, dribble or offer other ways: commits, listings, files, refusals, heads, Xet |
//! | `redirects.rs` | redirects of every kind to other hosts, the token and the password on the way, `https` and its certificates |
//! | `cache.rs` | damaged blobs and copies, links that lead out, FIFOs and folders, locks that are held, killed processes |
#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "hub/cache.rs"]
mod cache;
mod common;
#[path = "hub/redirects.rs"]
mod redirects;
#[path = "hub/replies.rs"]
mod replies;
#[path = "common/server.rs"]
mod server;

use common::{distance, images};
use server::{Fault, Model, Server, git_id, sha256};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tadformer::heads::HrNetConfig;
use tadformer::hub::Hub;
use tadformer::layers::Mode;
use tadformer::model::{ModelFile, OpenOptions, Origin};
use tadformer::report::ModelCard;
use tadformer::{Error, HubProblem, TADFormer, TADFormerBuilder};
use tempfile::TempDir;

const ID: &str = "someone/swin-small";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/swin_w4_128").join(name)
}

fn transformers() -> Model {
    Model::of_folder(&golden("transformers"))
}

fn weights() -> Vec<u8> {
    std::fs::read(golden("transformers/model.safetensors")).unwrap()
}

/// A server with one model, and an empty cache.
fn start(model: Model) -> (Server, TempDir, Hub) {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    server.put(ID, model);
    let hub = hub(&server, &cache);
    (server, cache, hub)
}

fn hub(server: &Server, cache: &TempDir) -> Hub {
    Hub::new(server.endpoint(), cache.path())
}

fn build(builder: TADFormerBuilder) -> TADFormer {
    let head = HrNetConfig::new([2, 2, 4, 4]);
    builder.tasks("sal=1,depth=1".parse().unwrap()).rank(2).head(head).build().unwrap()
}

fn same(a: &TADFormer, b: &TADFormer) -> bool {
    let outputs = |model: &TADFormer| model.forward(&images(1, 64, 64).unwrap(), Mode::Eval).unwrap();
    outputs(a).iter().zip(outputs(b).iter()).all(|((_, a), (_, b))| distance(a, b).unwrap() == 0.0)
}

fn refusal(hub: &Hub, id: &str) -> Error {
    TADFormer::builder_from_hub(id, hub).map(drop).unwrap_err()
}

/// The hub's problem, and the message.
fn problem(hub: &Hub, id: &str) -> (HubProblem, String) {
    let error = refusal(hub, id);
    let message = error.to_string();
    match error {
        Error::Hub { problem, .. } => (problem, message),
        other => panic!("{other}"),
    }
}

/// What lies under a folder, links as their targets.
fn tree(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let inside = tree(&path);
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        match path.read_link() {
            Ok(target) => found.push(format!("{name} -> {}", target.display())),
            Err(_) if path.is_dir() => found.extend(inside.into_iter().map(|below| format!("{name}/{below}"))),
            Err(_) => found.push(name),
        }
    }
    found.sort();
    found
}

#[test]
fn each_format_gives_the_same_features_as_its_local_folder_and_the_second_time_nothing_is_asked() {
    let (server, cache, hub) = start(transformers());
    server.put("timm/swin", Model::of_folder(&golden("timm")));
    let pth = std::fs::read(golden("original.pth")).unwrap();
    let config = std::fs::read(golden("timm/config.json")).unwrap();
    server.put("original/swin", Model::default().with("pytorch_model.bin", pth.clone()).with("config.json", config));
    server.put("bare/swin", Model::default().with("pytorch_model.bin", pth));
    for (id, local) in
        [(ID, "transformers"), ("timm/swin", "timm"), ("original/swin", "original.pth"), ("bare/swin", "original.pth")]
    {
        let model = build(TADFormer::builder_from_hub(id, &hub).unwrap());
        let local = build(TADFormer::builder_from_pretrained(golden(local)).unwrap().drop_path(0.0));
        assert_eq!(model.base().digest, local.base().digest);
        assert!(same(&model, &local), "{id}");
        assert!(!server.requests().is_empty());
        let again = build(TADFormer::builder_from_hub(id, &hub).unwrap());
        assert!(same(&again, &local));
        assert!(server.requests().is_empty(), "{id}");
    }
    drop((server, cache));
}

#[test]
fn the_cache_has_the_layout_of_the_hubs_python_tools() {
    let (_server, cache, hub) = start(transformers());
    build(TADFormer::builder_from_hub(ID, &hub).unwrap());
    let (weights, config) = (weights(), std::fs::read(golden("transformers/config.json")).unwrap());
    let (large, small, commit) = (sha256(&weights), git_id(&config), transformers().commit());
    let model = cache.path().join("models--someone--swin-small");
    let mut want = vec![
        format!("blobs/{large}"),
        format!("blobs/{small}"),
        "refs/main".to_owned(),
        format!("snapshots/{commit}/config.json -> ../../blobs/{small}"),
        format!("snapshots/{commit}/model.safetensors -> ../../blobs/{large}"),
    ];
    want.sort();
    assert_eq!(tree(&model), want);
    assert_eq!(std::fs::read_to_string(model.join("refs/main")).unwrap(), commit);
}

#[test]
fn safetensors_come_before_a_pickle_and_nothing_else_is_downloaded() {
    let model = transformers().with("pytorch_model.bin", "a pickle").with("README.md", "words");
    let (_server, cache, hub) = start(model);
    build(TADFormer::builder_from_hub(ID, &hub).unwrap());
    let found = tree(cache.path()).join("\n");
    assert!(
        found.contains("model.safetensors") && !found.contains("pytorch_model") && !found.contains("README"),
        "{found}"
    );
}

#[test]
fn a_filled_cache_serves_with_the_server_gone() {
    let (server, cache, hub) = start(transformers());
    let first = build(TADFormer::builder_from_hub(ID, &hub).unwrap());
    let commit = transformers().commit();
    drop(server);
    for hub in [hub.clone(), hub.clone().offline()] {
        for id in [ID.to_owned(), format!("{ID}@main"), format!("{ID}@{commit}")] {
            assert!(same(&first, &build(TADFormer::builder_from_hub(&id, &hub).unwrap())), "{id}");
        }
    }
    // Another process, told by the environment alone.
    let mut child = child(&hub_of("http://127.0.0.1:9", &cache), &[("HF_HUB_OFFLINE", "1")]);
    assert!(child.wait().unwrap().success());
}

#[test]
fn without_a_server_an_empty_cache_fails_at_once_and_another_says_what_it_holds() {
    let (server, cache, hub) = start(transformers());
    let nowhere = server.endpoint();
    drop(server);
    let start = Instant::now();
    let (found, message) = problem(&hub, ID);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(matches!(found, HubProblem::NoNetwork { .. }), "{message}");
    assert!(
        message.contains(&nowhere) && message.contains("refused") && message.contains("holds no model"),
        "{message}"
    );
    let (found, message) = problem(&hub.clone().offline(), ID);
    assert!(matches!(found, HubProblem::Offline { .. }) && message.contains("HF_HUB_OFFLINE"), "{message}");

    std::fs::create_dir_all(cache.path().join("models--timm--swin")).unwrap();
    assert!(problem(&hub, ID).1.contains("holds timm/swin"));
    let commit = "0".repeat(40);
    let snapshot = cache.path().join("models--someone--swin-small/snapshots").join(&commit);
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(snapshot.join("config.json"), "{}").unwrap();
    let message = problem(&hub, ID).1;
    assert!(message.contains("of this model the cache") && message.contains(&commit), "{message}");
    assert!(message.contains("with config.json"), "{message}");
}

#[test]
fn models_that_cannot_be_had_are_told_apart() {
    let (server, _cache, hub) = start(transformers());
    server.put("someone/private", Model { token: Some("hf_right".into()), ..transformers() });
    server.put("someone/gated", Model { gated: true, ..transformers() });
    server.put("someone/empty", Model::default().with("README.md", "words"));
    let check = |hub: &Hub, id: &str, is: fn(&HubProblem) -> bool, words: &[&str]| {
        let (found, message) = problem(hub, id);
        assert!(is(&found), "{id}: {message}");
        assert!(message.starts_with(id) && words.iter().all(|word| message.contains(word)), "{message}");
    };
    let wrong = hub.clone().token("hf_wrong");
    check(&hub, "someone/none", |p| matches!(p, HubProblem::NoSuchModel { .. }), &["no such model", "private"]);
    check(&wrong, "someone/none", |p| matches!(p, HubProblem::NoSuchModel { .. }), &["no such model"]);
    check(&hub, "someone/private", |p| matches!(p, HubProblem::NoSuchModel { .. }), &["HF_TOKEN"]);
    check(&wrong, "someone/private", |p| matches!(p, HubProblem::Unauthorised { .. }), &["Invalid username"]);
    check(&hub, "someone/gated", |p| matches!(p, HubProblem::Gated { .. }), &["restricted", "/someone/gated", "terms"]);
    check(
        &hub,
        "someone/empty",
        |p| matches!(p, HubProblem::NoSuchFile { .. }),
        &["model.safetensors or pytorch_model.bin"],
    );
    let no_revision = format!("{ID}@v9");
    check(&hub, &no_revision, |p| matches!(p, HubProblem::NoSuchRevision { .. }), &["`v9`"]);
    let no_commit = format!("{ID}@{}", "0".repeat(40));
    check(&hub, &no_commit, |p| matches!(p, HubProblem::NoSuchRevision { .. }), &["a whole commit"]);
    assert!(TADFormer::builder_from_hub("someone/private", &hub.clone().token("hf_right")).is_ok());
}

#[test]
fn a_token_goes_to_the_hub_and_nowhere_else() {
    let (server, _cache, hub) = start(Model { token: Some("hf_right".into()), ..transformers() });
    TADFormer::builder_from_hub(ID, &hub.token("hf_right")).unwrap();
    let requests = server.requests();
    assert!(requests.iter().any(|request| request.path.starts_with("/cdn/")));
    for request in requests {
        let want = (!request.path.starts_with("/cdn/")).then_some("hf_right");
        assert_eq!(request.token.as_deref(), want, "{}", request.path);
    }
}

#[test]
fn another_architecture_is_named_before_its_weights_are_downloaded() {
    let config = |text: &str| Model::default().with("config.json", text).with("model.safetensors", vec![0; 1000]);
    let (server, _cache, hub) =
        start(config(r#"{"model_type": "vit", "architectures": ["ViTForImageClassification"]}"#));
    server.put("someone/v2", config(r#"{"architecture": "swinv2_tiny_window8_256"}"#));
    for (id, words) in [(ID, "ViTForImageClassification is no Swin"), ("someone/v2", "take a Swin, not a SwinV2")] {
        let error = refusal(&hub, id);
        assert!(matches!(error, Error::NotSwin { .. }) && error.to_string().contains(words), "{error}");
    }
    assert!(server.requests().iter().all(|request| !request.path.contains("model.safetensors")));
}

#[test]
fn names_that_leave_the_cache_are_refused() {
    let (server, _cache, hub) = start(transformers());
    for id in ["../../etc", "a/../b", "a/b/c", "someone/swin@../../x", "some where/swin"] {
        assert!(matches!(refusal(&hub, id), Error::Config { .. }), "{id}");
    }
    let model = hub.model(ID).unwrap();
    for name in ["../../../etc/passwd", "/etc/passwd", "a/../../b", ""] {
        assert!(matches!(model.file(name), Err(Error::Config { .. })), "{name}");
    }
    assert_eq!(server.requests().len(), 1, "only the model itself was asked for");
    assert!(model.file("none.json").unwrap_err().to_string().contains("no none.json at"));
}

#[test]
fn errors_of_the_server_that_pass_are_asked_again() {
    let (server, _cache, hub) = start(transformers());
    let hub = hub.patience(Duration::from_secs(1));
    for route in ["/revision/", "/paths-info/", "/resolve/", "/cdn/"] {
        server.fail(route, Fault::Status(500), 3);
    }
    build(TADFormer::builder_from_hub(ID, &hub).unwrap());
    server.put("someone/other", transformers());
    server.fail("/revision/", Fault::Status(503), usize::MAX);
    let (found, message) = problem(&hub, "someone/other");
    assert!(matches!(found, HubProblem::Server { .. }) && message.contains("503"), "{message}");
}

#[test]
fn an_error_page_is_never_taken_for_the_file() {
    let (server, cache, hub) = start(transformers());
    let hub = hub.patience(Duration::from_millis(200));
    for status in [404, 403, 500] {
        server.fail("/cdn/", Fault::Status(status), 1000);
        assert!(TADFormer::builder_from_hub(ID, &hub).is_err(), "{status}");
        assert!(!tree(cache.path()).iter().any(|file| file.contains("model.safetensors")));
    }
}

#[test]
fn a_download_that_is_cut_goes_on_where_it_was() {
    let (server, _cache, hub) = start(transformers());
    server.requests();
    let total = weights().len();
    server.fail("/cdn/", Fault::CutAfter(total / 8), 6);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    let hub = hub.progress(move |file| {
        if file.file == "model.safetensors" {
            record.lock().unwrap().push((file.done, file.total));
        }
    });
    build(TADFormer::builder_from_hub(ID, &hub).unwrap());
    let requests = server.requests();
    let starts: Vec<usize> =
        requests.iter().filter(|r| r.path.starts_with("/cdn/")).filter_map(|r| Some(r.range?.0)).collect();
    assert_eq!(starts, (1..7).map(|i| i * (total / 8)).collect::<Vec<_>>());
    let seen = seen.lock().unwrap();
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "progress never goes back");
    assert_eq!(seen.last(), Some(&(total as u64, total as u64)));
}

#[test]
fn a_server_that_knows_no_ranges_sends_all_again() {
    let (server, _cache, hub) = start(transformers());
    server.fail("/cdn/", Fault::CutAfter(100_000), 1);
    server.fail("/cdn/", Fault::NoRanges, 1000);
    let model = build(TADFormer::builder_from_hub(ID, &hub).unwrap());
    assert!(same(&model, &build(TADFormer::builder_from_pretrained(golden("transformers")).unwrap())));
}

#[test]
fn a_silent_server_is_given_up_and_a_slow_one_is_not() {
    let (server, _cache, hub) = start(transformers());
    let hub = hub.patience(Duration::from_millis(200));
    server.fail("/cdn/", Fault::Pieces(100_000, Duration::from_millis(50)), 1);
    build(TADFormer::builder_from_hub(ID, &hub).unwrap());
    server.put("someone/other", transformers());
    server.fail("/revision/", Fault::StallAfter(3), 1);
    let start = Instant::now();
    let (found, message) = problem(&hub, "someone/other");
    assert!(matches!(found, HubProblem::NoNetwork { .. }) && message.contains("silence for 200ms"), "{message}");
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_damaged_download_is_thrown_away() {
    let (server, cache, hub) = start(transformers());
    for route in ["/cdn/", "config.json"] {
        server.fail(route, Fault::Damage, 1);
    }
    let (found, message) = problem(&hub, ID);
    assert!(matches!(&found, HubProblem::Damaged { file, .. } if file == "config.json"), "{message}");
    let (found, message) = problem(&hub, ID);
    assert!(matches!(&found, HubProblem::Damaged { file, .. } if file == "model.safetensors"), "{message}");
    assert!(message.contains("try again"), "{message}");
    assert!(!tree(cache.path()).iter().any(|file| file.contains("incomplete") || file.contains("model.safetensors")));
    build(TADFormer::builder_from_hub(ID, &hub).unwrap());
}

#[test]
fn a_damaged_start_that_an_earlier_process_left_is_downloaded_anew() {
    let (server, cache, hub) = start(transformers());
    hub.model(ID).unwrap().file("config.json").unwrap();
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n",
        sha256(&weights()),
        weights().len()
    );
    let blobs = cache.path().join("models--someone--swin-small/blobs");
    let left = blobs.join(format!("{}.incomplete", git_id(pointer.as_bytes())));
    for length in [1000, weights().len(), weights().len() + 1] {
        std::fs::write(&left, vec![7; length]).unwrap();
        build(TADFormer::builder_from_hub(ID, &hub).unwrap());
        std::fs::remove_file(blobs.join(sha256(&weights()))).unwrap();
    }
    drop(server);
}

#[test]
fn a_branch_that_moved_is_followed_when_asked_and_shares_what_did_not_change() {
    let (server, _cache, hub) = start(transformers());
    let first = hub.model(ID).unwrap();
    first.file("model.safetensors").unwrap();
    let commit = server.put(ID, transformers().with("README.md", "words"));
    assert_eq!(hub.model(ID).unwrap().commit(), first.commit(), "what is cached is used");
    let newest = hub.clone().newest().model(ID).unwrap();
    assert_eq!(newest.commit(), commit);
    server.requests();
    newest.file("model.safetensors").unwrap();
    assert!(
        server.requests().iter().all(|request| !request.path.contains("/cdn/")),
        "the same content is there already"
    );
    assert_eq!(hub.model(ID).unwrap().commit(), commit);
}

#[test]
fn an_adapter_knows_its_published_backbone_and_has_it_again() {
    let (server, cache, hub) = start(transformers());
    let model = build(TADFormer::builder_from_hub(ID, &hub).unwrap());
    let commit = transformers().commit();
    assert_eq!(model.base().origin, Origin::Hub { id: ID.into(), revision: commit.clone() });
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("adapter.safetensors");
    model.save_adapter(&path).unwrap();
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 1, "what is published is not copied");
    // The branch goes on; the adapter stays with its commit.
    server.put(ID, transformers().with("README.md", "words"));
    hub.clone().newest().model(ID).unwrap();
    let open = |hub: Hub| TADFormer::open(&path, &OpenOptions { hub, ..OpenOptions::default() });
    assert!(same(&model, &open(hub.clone().offline()).unwrap()));
    server.put(ID, transformers());
    let elsewhere = tempfile::tempdir().unwrap();
    assert!(same(&model, &open(hub.clone().cache(elsewhere.path())).unwrap()));
    // A path in the cache says the same.
    let snapshot = cache.path().join("models--someone--swin-small/snapshots").join(&commit);
    let model = build(TADFormer::builder_from_pretrained(snapshot).unwrap());
    assert_eq!(model.base().origin.published(), Some((ID.to_owned(), commit)));
    model.save_adapter(&path).unwrap();
    drop(cache);
    assert!(same(&model, &open(hub.cache(elsewhere.path()).offline()).unwrap()));
}

/// A model's adapter and card, and the backbone where it is published nowhere: what the card says to upload.
fn adapter_model(model: &TADFormer) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let adapter = folder.path().join("adapter.safetensors");
    model.save_adapter(&adapter).unwrap();
    ModelCard::of(model).write_beside(&adapter).unwrap();
    Model::of_folder(folder.path())
}

const ADAPTER: &str = "colleague/rooms";

/// A backbone on the hub, an adapter made for it on the hub, and nothing in the cache.
fn published_adapter() -> (Server, TempDir, Hub, TADFormer) {
    let (server, cache, hub) = start(transformers());
    let model = build(TADFormer::builder_from_hub(ID, &hub).unwrap());
    server.put(ADAPTER, adapter_model(&model));
    server.requests();
    let empty = tempfile::tempdir().unwrap();
    let hub = hub.cache(empty.path());
    drop(cache);
    (server, empty, hub, model)
}

fn open(source: &str, hub: &Hub) -> tadformer::Result<TADFormer> {
    TADFormer::open(source, &OpenOptions { hub: hub.clone(), ..OpenOptions::default() })
}

#[test]
fn an_adapter_of_the_hub_brings_the_backbone_that_it_names() {
    let (server, cache, hub, model) = published_adapter();
    let opened = open(ADAPTER, &hub).unwrap();
    assert!(same(&opened, &model));
    assert_eq!(opened.base(), model.base());
    let asked: Vec<String> = server.requests().into_iter().map(|request| request.path).collect();
    assert!(asked.iter().any(|path| path.ends_with("/adapter.safetensors")), "{asked:?}");
    assert!(!asked.iter().any(|path| path.contains("README") || path.contains("config.json")), "{asked:?}");
    assert!(same(&open(ADAPTER, &hub).unwrap(), &model));
    assert!(server.requests().is_empty(), "the second time nothing is asked");
    // Another process, told by the environment alone; then with the server gone.
    let environment = hub_of(&server.endpoint(), &cache);
    assert!(child_that("what_a_colleague_does", &environment, &[]).wait().unwrap().success());
    drop(server);
    assert!(child_that("what_a_colleague_does", &environment, &[("HF_HUB_OFFLINE", "1")]).wait().unwrap().success());
    assert!(same(&open(ADAPTER, &hub.offline()).unwrap(), &model));
}

#[test]
#[ignore = "another test runs it in a process of its own"]
fn what_a_colleague_does() {
    let model = TADFormer::from_adapter(ADAPTER).unwrap();
    assert_eq!(model.config().tasks.to_string(), "sal=1,depth=1");
    let second = model.with_adapter(ADAPTER).unwrap();
    assert!(same(&model, &second));
}

#[test]
fn an_adapter_of_the_hub_is_put_onto_a_backbone_in_memory() {
    let (server, _cache, hub, model) = published_adapter();
    let second = ModelFile::from_hub(ADAPTER, &hub).unwrap().onto(&model).unwrap();
    assert!(same(&second, &model));
    assert!(server.requests().iter().all(|request| !request.path.contains(ID)), "the backbone is not asked for");
}

#[test]
fn a_backbone_that_is_published_nowhere_is_brought_from_the_adapters_own_model() {
    let (server, cache, hub) = start(transformers());
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("original.pth");
    std::fs::copy(golden("original.pth"), &local).unwrap();
    let model = build(TADFormer::builder_from_pretrained(&local).unwrap());
    server.put(ADAPTER, adapter_model(&model));
    // Another machine has another file at that path, or none.
    std::fs::copy(golden("expected.safetensors"), &local).unwrap();
    let opened = open(ADAPTER, &hub).unwrap();
    assert!(same(&opened, &model));
    assert!(tree(cache.path()).iter().any(|file| file.contains(&format!("{} -> ", model.base().file_name()))));
    // What is trained on from there is written with its backbone once more.
    let again = folder.path().join("again");
    std::fs::create_dir(&again).unwrap();
    opened.save_adapter(again.join("adapter.safetensors")).unwrap();
    drop((server, cache));
    assert!(same(&TADFormer::from_adapter(&again).unwrap(), &model), "a folder is opened by its name");
}

#[test]
fn what_keeps_an_adapter_from_being_had_is_told_apart() {
    let (server, _cache, hub, _model) = published_adapter();
    let refusal = |source: &str, hub: &Hub| open(source, hub).map(drop).unwrap_err();
    let check = |error: Error, is: fn(&Error) -> bool, words: &[&str]| {
        let message = error.to_string();
        assert!(is(&error) && words.iter().all(|word| message.contains(word)), "{message}");
    };
    let no_model = |e: &Error| matches!(e, Error::Hub { problem: HubProblem::NoSuchModel { .. }, .. });
    check(refusal("colleague/none", &hub), no_model, &["colleague/none: no such model"]);
    let no_file = |e: &Error| matches!(e, Error::Hub { problem: HubProblem::NoSuchFile { .. }, .. });
    check(refusal(ID, &hub), no_file, &[ID, "no adapter.safetensors at"]);
    check(refusal("runs/adapter.safetensors", &hub), |e| matches!(e, Error::Io { .. }), &["cannot read"]);
    assert!(server.requests().iter().all(|request| !request.path.contains("runs/")), "a path is not asked for");

    // The backbone is gone, or is another one.
    let inner = |e: &Error| matches!(e, Error::Backbone { .. });
    server.put(ID, transformers().with("README.md", "words"));
    check(refusal(ADAPTER, &hub), inner, &["adapter.safetensors: its backbone: ", ID, "no revision"]);
    let with = |backbone: &str| {
        let options = OpenOptions { backbone: Some(backbone.into()), hub: hub.clone(), ..OpenOptions::default() };
        TADFormer::open(ADAPTER, &options)
    };
    check(with("timm/none").map(drop).unwrap_err(), inner, &["its backbone: timm/none: no such model"]);
    server.put("timm/other", Model::of_folder(&golden("../swin_w7_224/timm")));
    let mismatch = |e: &Error| matches!(e, Error::AdapterMismatch { .. } | Error::Checkpoint(_));
    check(with("timm/other").map(drop).unwrap_err(), mismatch, &[]);
    server.put("timm/same", Model::of_folder(&golden("timm")));
    assert!(with("timm/same").is_ok(), "the same weights under another id and other names");
    let start = Instant::now();
    let empty = tempfile::tempdir().unwrap();
    let offline = |e: &Error| matches!(e, Error::Hub { problem: HubProblem::Offline { .. }, .. });
    check(refusal(ADAPTER, &hub.cache(empty.path()).offline()), offline, &["holds no model"]);
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_backbone_of_the_same_sizes_and_other_weights_is_refused_with_both_named() {
    let (server, _cache, hub, model) = published_adapter();
    let config = std::fs::read(golden("transformers/config.json")).unwrap();
    let mut bytes = weights();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    server.put("someone/retrained", Model::default().with("config.json", config).with("model.safetensors", bytes));
    let options = OpenOptions { backbone: Some("someone/retrained".into()), hub, ..OpenOptions::default() };
    let message = TADFormer::open(ADAPTER, &options).map(drop).unwrap_err().to_string();
    let (digest, commit) = (model.base().short_digest(), transformers().commit());
    let made_for = format!("backbone weights: the adapter has {digest} ({ID} at commit {commit}), the model ");
    assert!(message.contains(&made_for), "{message}");
}

#[test]
fn a_configuration_larger_than_any_is_not_downloaded() {
    let (server, _cache, hub) = start(Model::default().with("config.json", vec![b' '; 9 << 20]));
    let (found, message) = problem(&hub, ID);
    assert!(matches!(found, HubProblem::TooLarge { .. }) && message.contains("9437184 bytes"), "{message}");
    assert!(server.requests().iter().all(|request| !request.path.contains("/resolve/")));
    server.put("someone/deep", Model::default().with("config.json", "[".repeat(10_000)));
    assert!(refusal(&hub, "someone/deep").to_string().contains("no configuration of a Swin"));
}

/// What a child process is told by its environment.
fn hub_of(endpoint: &str, cache: &TempDir) -> Vec<(String, String)> {
    let cache = cache.path().to_str().unwrap();
    vec![("HF_ENDPOINT".into(), endpoint.into()), ("HF_HUB_CACHE".into(), cache.into())]
}

/// This test binary again, as another process that opens the model.
fn child(hub: &[(String, String)], more: &[(&str, &str)]) -> Child {
    child_that("what_another_process_does", hub, more)
}

/// This test binary again, as another process that does what an ignored test says.
fn child_that(does: &str, hub: &[(String, String)], more: &[(&str, &str)]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", does])
        .env_remove("HF_TOKEN")
        .env_remove("HF_HUB_OFFLINE")
        .envs(hub.iter().cloned())
        .envs(more.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "other tests run it in a process of its own"]
fn what_another_process_does() {
    let model = build(TADFormer::builder_from_pretrained(ID).unwrap());
    assert!(same(&model, &build(TADFormer::builder_from_pretrained(golden("transformers")).unwrap())));
}

#[test]
fn of_two_processes_at_once_one_downloads() {
    let (server, cache, _) = start(transformers());
    server.fail("/cdn/", Fault::Pieces(60_000, Duration::from_millis(30)), 100);
    let hub = hub_of(&server.endpoint(), &cache);
    let children: Vec<Child> = (0..3).map(|_| child(&hub, &[])).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let requests = server.requests();
    let downloads = requests.iter().filter(|r| r.method == "GET" && r.path.starts_with("/cdn/")).count();
    assert_eq!(downloads, 1);
    assert!(!tree(cache.path()).iter().any(|file| file.contains("incomplete")));
}

#[test]
fn a_process_that_is_killed_half_way_leaves_nothing_that_another_would_take() {
    let (server, cache, hub) = start(transformers());
    let half = weights().len() / 2;
    server.fail("/cdn/", Fault::StallAfter(half), 1);
    let mut killed = child(&hub_of(&server.endpoint(), &cache), &[]);
    let blobs = cache.path().join("models--someone--swin-small/blobs");
    let incomplete = || {
        let entries = std::fs::read_dir(&blobs).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        entries.filter(|path| path.extension().is_some()).map(|path| path.metadata().unwrap().len()).max()
    };
    let start = Instant::now();
    while incomplete() != Some(half as u64) {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", incomplete());
        std::thread::sleep(Duration::from_millis(5));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!tree(cache.path()).iter().any(|file| file.contains("model.safetensors")));
    assert!(problem(&hub.clone().offline(), ID).1.contains("with config.json"));
    server.requests();
    let model = build(TADFormer::builder_from_hub(ID, &hub).unwrap());
    assert!(same(&model, &build(TADFormer::builder_from_pretrained(golden("transformers")).unwrap())));
    let requests = server.requests();
    let parts: Vec<_> = requests.iter().filter(|r| r.path.starts_with("/cdn/")).filter_map(|r| r.range).collect();
    assert_eq!(parts, [(half, Some(weights().len() - 1))], "it goes on where the other stopped");
}
