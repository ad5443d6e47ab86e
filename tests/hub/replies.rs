//! What a hub that means harm, or is broken, may answer: each answer, what the client says, how often it asks, how much it reads, and
//! what lies on disk afterwards.

use crate::server::{Fault, Model, Request, Server, git_id, sha256};
use crate::{ID, tree};
use std::io::{Result, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tadformer::hub::Hub;
use tadformer::{Error, HubProblem};

const FILE: &str = "model.safetensors";
const PATIENCE: Duration = Duration::from_millis(400);
const MEGABYTE: usize = 1 << 20;

fn weights() -> Vec<u8> {
    (0..300_000usize).map(|i| (i * i % 251) as u8).collect()
}

/// Weights, and a small file that the hub holds in git itself.
fn model() -> Model {
    Model::default().with(FILE, weights()).with("config.json", "{}")
}

/// What becomes of a question for the weights.
enum Want {
    Served,
    /// With these words, after so many requests at most.
    Refused(&'static [&'static str], usize),
}
use Want::{Refused, Served};

type Script = Arc<dyn Fn(&Request, &mut dyn Write) -> Result<()> + Send + Sync>;

struct Case {
    name: &'static str,
    route: &'static str,
    script: Script,
    want: Want,
}

fn case(
    name: &'static str,
    route: &'static str,
    script: impl Fn(&Request, &mut dyn Write) -> Result<()> + Send + Sync + 'static,
    want: Want,
) -> Case {
    Case { name, route, script: Arc::new(script), want }
}

const REVISION: &str = "/revision/";
const LISTING: &str = "/paths-info/";
const FILES: &str = "/resolve/";

/// A head with these lines, and a body.
fn head(status: u16, lines: &[&str], body: &[u8]) -> Vec<u8> {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    [format!("HTTP/1.1 {status} Status\r\nConnection: close\r\n{lines}\r\n").as_bytes(), body].concat()
}

fn whole(status: u16, lines: &[&str], body: &[u8]) -> Vec<u8> {
    let length = format!("Content-Length: {}", body.len());
    head(status, &[&[length.as_str()], lines].concat(), body)
}

/// Always the same bytes.
fn says(bytes: Vec<u8>) -> impl Fn(&Request, &mut dyn Write) -> Result<()> + Send + Sync {
    move |_, stream| stream.write_all(&bytes)
}

fn json(text: &str) -> impl Fn(&Request, &mut dyn Write) -> Result<()> + Send + Sync + use<> {
    says(whole(200, &["Content-Type: application/json"], text.as_bytes()))
}

fn redirect(location: &'static str) -> impl Fn(&Request, &mut dyn Write) -> Result<()> + Send + Sync {
    says(whole(302, &[&format!("Location: {location}")], b""))
}

/// Somewhere else each time.
fn on_and_on(request: &Request, stream: &mut dyn Write) -> Result<()> {
    stream.write_all(&whole(302, &[&format!("Location: {}x", request.path)], b""))
}

/// A listing of the weights, changed.
fn listing(change: impl Fn(serde_json::Value) -> serde_json::Value) -> impl Fn(&Request, &mut dyn Write) -> Result<()> {
    let (size, digest) = (weights().len(), sha256(&weights()));
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n");
    let file = serde_json::json!({ "type": "file", "path": FILE, "size": size, "oid": git_id(pointer.as_bytes()) });
    json(&change(file).to_string())
}

fn with(key: &'static str, value: serde_json::Value) -> impl Fn(&Request, &mut dyn Write) -> Result<()> {
    listing(move |mut file| {
        file[key] = value.clone();
        serde_json::json!([file])
    })
}

/// Endless pieces after a head, until the client hangs up; counts what it took.
fn endless(
    head: Vec<u8>,
    piece: Vec<u8>,
    pause: Duration,
    taken: Arc<AtomicUsize>,
) -> impl Fn(&Request, &mut dyn Write) -> Result<()> {
    move |_, stream| {
        stream.write_all(&head)?;
        loop {
            stream.write_all(&piece)?;
            taken.fetch_add(piece.len(), Ordering::SeqCst);
            std::thread::sleep(pause);
        }
    }
}

/// A megabyte of spaces as a chunk of a body whose end is not announced.
fn chunk() -> Vec<u8> {
    [b"100000\r\n", vec![b' '; MEGABYTE].as_slice(), b"\r\n"].concat()
}

const CHUNKED: &str = "Transfer-Encoding: chunked";

/// A question for the weights, put to a hub of which one route answers as the case says.
fn put(case: &Case) {
    let (server, root) = (Server::start(), tempfile::tempdir().unwrap());
    server.put(ID, model());
    let script = case.script.clone();
    server.answer(case.route, move |request, stream| script(request, stream));
    let cache = root.path().join("cache");
    let hub = Hub::new(server.endpoint(), &cache).patience(PATIENCE).token("hf_secret");
    let start = Instant::now();
    let found = hub.model(ID).and_then(|model| model.file(FILE));
    let (name, took, requests) = (case.name, start.elapsed(), server.requests());
    assert!(took < Duration::from_secs(8), "{name}: {took:?}");
    assert!(requests.iter().all(|request| request.method != "HEAD"), "{name}");
    match (found, &case.want) {
        (Ok(path), Served) => assert!(std::fs::read(path).unwrap() == weights(), "{name}"),
        (Err(error), Refused(words, most)) => {
            let message = error.to_string();
            assert!(words.iter().all(|word| message.contains(word)), "{name}: {message}");
            assert!(!message.contains(char::is_control) && !message.contains("hf_secret"), "{name}: {message:?}");
            assert!(message.len() < 1000, "{name}: {message}");
            assert!(requests.len() <= *most, "{name}: {} requests", requests.len());
        }
        (Ok(_), Refused(..)) => panic!("{name}: served"),
        (Err(error), Served) => panic!("{name}: {error}"),
    }
    check_disk(name, &tree(root.path()), matches!(case.want, Served));
}

/// Nothing lies outside the cache, nothing in it but what belongs there, and no file that is not whole.
fn check_disk(name: &str, tree: &[String], served: bool) {
    let ours = "cache/models--someone--swin-small/";
    for path in tree {
        let below = path.strip_prefix(ours);
        let known = path.starts_with("cache/.locks/models--someone--swin-small/")
            || below.is_some_and(|below| {
                ["blobs/", "refs/", "snapshots/", ".no_exist/"].iter().any(|part| below.starts_with(part))
            });
        assert!(known && !path.contains("..") || path.contains(" -> ../../blobs/"), "{name}: {path}");
        assert!(!path.contains("pwned"), "{name}: {path}");
    }
    assert!(!tree.iter().any(|path| path.ends_with(".incomplete")), "{name}: {tree:?}");
    let linked = tree.iter().any(|path| path.contains("/snapshots/") && path.contains(FILE));
    assert_eq!(linked, served, "{name}: {tree:?}");
}

/// Each case, several at a time: most of them wait.
fn put_all(cases: Vec<Case>) {
    std::thread::scope(|scope| {
        let putting: Vec<_> = cases.iter().map(|case| scope.spawn(|| put(case))).collect();
        for (case, putting) in cases.iter().zip(putting) {
            assert!(putting.join().is_ok(), "{}", case.name);
        }
    });
}

#[test]
fn redirects_are_counted_and_lead_to_http_alone() {
    put_all(vec![
        case("a loop at the revision", REVISION, on_and_on, Refused(&["redirects more than 10 times"], 11)),
        case("a loop at a file", FILES, on_and_on, Refused(&["redirects more than 10 times"], 13)),
        case("a file's address", FILES, redirect("file:///etc/passwd"), Refused(&["of file:"], 3)),
        case("ftp", FILES, redirect("ftp://127.0.0.1/x"), Refused(&["of ftp:"], 3)),
        case("data", REVISION, redirect("data:text/plain,x"), Refused(&["of data:"], 1)),
        case("no address", REVISION, redirect("http://"), Refused(&["redirects to no address"], 1)),
        case("nowhere", REVISION, says(whole(302, &[], b"")), Refused(&["302"], 1)),
    ]);
}

#[test]
fn a_commit_that_is_none_is_refused() {
    let up = format!(r#"{{"sha":"{}x"}}"#, "../".repeat(13));
    put_all(vec![
        case("out of the folder", REVISION, json(r#"{"sha":"../../../../pwned"}"#), Refused(&["names no commit"], 1)),
        case("forty signs out of the folder", REVISION, json(&up), Refused(&["names no commit"], 1)),
        case("a number", REVISION, json(r#"{"sha":5}"#), Refused(&["no JSON of that kind"], 1)),
        case("deep", REVISION, json(&"[".repeat(100_000)), Refused(&["no JSON"], 1)),
        case("a page", REVISION, json("<html>login</html>"), Refused(&["no JSON"], 1)),
        case("nothing", REVISION, says(whole(204, &[], b"")), Refused(&["no JSON"], 1)),
    ]);
}

#[test]
fn a_listing_that_lies_is_refused_or_brings_nothing() {
    let many: Vec<String> =
        (0..300_000).map(|i| format!(r#"{{"type":"file","oid":"","size":1,"path":"x{i}"}}"#)).collect();
    let other_length = &["another length than it lists"];
    put_all(vec![
        case(
            "an object out of the folder",
            LISTING,
            with("oid", format!("{}x", "../".repeat(13)).into()),
            Refused(&["lists no object for"], 2),
        ),
        case("a size of 2^63", LISTING, with("size", (1u64 << 63).into()), Refused(other_length, 10)),
        case("a size of 2^64 - 1", LISTING, with("size", u64::MAX.into()), Refused(other_length, 10)),
        case("a size below nothing", LISTING, with("size", (-1).into()), Refused(&["no JSON"], 2)),
        case("a size of nothing", LISTING, with("size", 0.into()), Refused(&["came damaged"], 2)),
        case(
            "a path out of the folder",
            LISTING,
            with("path", "../../../pwned".into()),
            Refused(&["no model.safetensors at"], 2),
        ),
        case(
            "twice, once another object",
            LISTING,
            listing(|file| {
                let mut other = file.clone();
                other["oid"] = "b".repeat(40).into();
                serde_json::json!([file, other])
            }),
            Served,
        ),
        case(
            "300,000 files",
            LISTING,
            json(&format!("[{}]", many.join(","))),
            Refused(&["no model.safetensors at"], 2),
        ),
    ]);
}

#[test]
fn a_file_that_is_not_the_listed_one_is_not_taken() {
    let other_length = &["another length than it lists"];
    let good = weights();
    let length = |length: &str| head(200, &[&format!("Content-Length: {length}")], &weights());
    let part = format!("Content-Range: bytes 5-{}/{}", good.len() - 1, good.len());
    let names = [
        r#"ETag: "../../../../pwned""#,
        r#"X-Linked-Etag: "../../pwned""#,
        "X-Repo-Commit: ../../../pwned",
        r#"Content-Disposition: attachment; filename="../../pwned""#,
    ];
    put_all(vec![
        case("a page", FILES, says(whole(200, &[], b"<html>login</html>")), Refused(other_length, 6)),
        case("a part that nobody asked for", FILES, says(whole(206, &[&part], &good)), Refused(other_length, 6)),
        case("longer", FILES, says(whole(200, &[], &[good.as_slice(), b"more"].concat())), Refused(other_length, 6)),
        case("shorter than announced", FILES, says(length("1000000000")), Refused(other_length, 6)),
        case("longer than announced", FILES, says(length("1000")), Refused(other_length, 6)),
        case("announced as 2^63", FILES, says(length("9223372036854775808")), Refused(other_length, 6)),
        case("announced as -1", FILES, says(length("-1")), Refused(&["no answer of HTTP"], 3)),
        case("names out of the folder", FILES, says(whole(200, &names, &good)), Served),
        case("a part that is not there", FILES, says(whole(416, &[], b"")), Refused(other_length, 6)),
        case("gone", FILES, says(whole(404, &[], b"")), Refused(&["404 for model.safetensors, which it lists"], 3)),
    ]);
}

#[test]
fn refusals_are_told_in_few_printable_words_and_not_repeated_for_long() {
    let escape = "{\"error\":\"\\u001b[2J\\u001b]0;pwned\\u0007\"}";
    put_all(vec![
        case(
            "wait for years",
            REVISION,
            says(whole(429, &["Retry-After: 1000000000"], b"{}")),
            Refused(&["429", "after 1000000000 seconds"], 1),
        ),
        case(
            "wait for years, at a file",
            FILES,
            says(whole(429, &["Retry-After: 1000000000"], b"{}")),
            Refused(&["429", "1000000000 seconds"], 3),
        ),
        case("an escape sequence", REVISION, says(whole(400, &[], escape.as_bytes())), Refused(&["400"], 1)),
        case(
            "an escape sequence, of a model",
            REVISION,
            says(whole(404, &["X-Error-Message: gone"], escape.as_bytes())),
            Refused(&["no such model"], 1),
        ),
        case(
            "a long story",
            REVISION,
            says(whole(400, &[&format!("X-Error-Message: {}", "x".repeat(20_000))], b"")),
            Refused(&["400", "..."], 1),
        ),
        case("out of order", LISTING, says(whole(503, &[], b"")), Refused(&["503"], 5)),
    ]);
}

#[test]
fn answers_without_end_are_cut_off() {
    let taken: Vec<Arc<AtomicUsize>> = (0..7).map(|_| Arc::default()).collect();
    let json = "Content-Type: application/json";
    let now = Duration::ZERO;
    let at = |i: usize| taken[i].clone();
    put_all(vec![
        case(
            "a description",
            REVISION,
            endless(head(200, &[json, CHUNKED], b""), chunk(), now, at(0)),
            Refused(&["more than 16777216 bytes"], 1),
        ),
        case(
            "a listing",
            LISTING,
            endless(head(200, &[json, CHUNKED], b""), chunk(), now, at(1)),
            Refused(&["more than 16777216 bytes"], 2),
        ),
        case("a file", FILES, endless(head(200, &[CHUNKED], b""), chunk(), now, at(2)), Refused(&["came damaged"], 3)),
        case(
            "words of a refusal",
            REVISION,
            endless(head(404, &[CHUNKED], b""), chunk(), now, at(3)),
            Refused(&["no such model"], 1),
        ),
        case(
            "words of a refusal of a file",
            FILES,
            endless(head(500, &[CHUNKED], b""), chunk(), now, at(4)),
            Refused(&["500"], 6),
        ),
        case(
            "a head",
            REVISION,
            endless(b"HTTP/1.1 200 OK\r\nX-A: ".to_vec(), vec![b'a'; 4096], now, at(5)),
            Refused(&["header is too big"], 1),
        ),
        case(
            "heads before the head",
            REVISION,
            endless(b"".to_vec(), b"HTTP/1.1 102 Wait\r\n\r\n".to_vec(), now, at(6)),
            Refused(&[], 1),
        ),
    ]);
    // Bytes that each case may take, and its connections: on top comes what the system holds of each for the client to read.
    let mosts = [(16, 1), (16, 1), (0, 1), (0, 1), (0, 4), (0, 1), (0, 1)];
    for (i, (taken, (most, connections))) in taken.iter().zip(mosts).enumerate() {
        let taken = taken.load(Ordering::SeqCst);
        assert!(taken <= (most + connections * 12) * MEGABYTE, "{i}: {taken} bytes");
    }
}

#[test]
fn a_packed_answer_is_refused_before_it_is_unpacked() {
    let bomb = whole(200, &["Content-Encoding: gzip"], &[0x1f, 0x8b, 8, 0]);
    put_all(vec![
        case("a description", REVISION, says(bomb.clone()), Refused(&["packed as gzip"], 1)),
        case("a file", FILES, says(bomb), Refused(&["packed as gzip"], 3)),
    ]);
}

#[test]
fn an_answer_that_dribbles_is_given_up() {
    let pause = PATIENCE / 20;
    let none = Arc::<AtomicUsize>::default;
    put_all(vec![
        case(
            "a body",
            REVISION,
            endless(head(200, &["Content-Length: 100000"], b""), b" ".to_vec(), pause, none()),
            Refused(&["less than 1000 bytes a second"], 1),
        ),
        case(
            "a head",
            REVISION,
            endless(b"HTTP/1.1 200 OK\r\nX-A: ".to_vec(), b"a".to_vec(), pause, none()),
            Refused(&["silence for 400ms"], 1),
        ),
        case(
            "words of a refusal",
            REVISION,
            endless(head(403, &["Content-Length: 100000"], b""), b" ".to_vec(), pause, none()),
            Refused(&["the hub refuses"], 1),
        ),
    ]);
}

/// A hub, its cache, and nothing of the client's waits.
fn start() -> (Server, tempfile::TempDir, Hub) {
    let (server, root) = (Server::start(), tempfile::tempdir().unwrap());
    server.put(ID, model());
    let hub = Hub::new(server.endpoint(), root.path()).patience(Duration::from_millis(50));
    (server, root, hub)
}

#[test]
fn a_file_that_dribbles_is_given_up_and_goes_on_the_next_time() {
    let (server, _root, hub) = start();
    server.fail("/cdn/", Fault::Pieces(7, Duration::from_millis(10)), 1);
    let error = hub.model(ID).and_then(|model| model.file(FILE)).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::Hub { problem: HubProblem::Slow { least: 1000, .. }, .. }), "{message}");
    let kept: usize = message.split("second: ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((7..weights().len() / 2).contains(&kept) && message.contains("are kept for the next try"), "{message}");
    server.requests();
    assert_eq!(std::fs::read(hub.model(ID).unwrap().file(FILE).unwrap()).unwrap(), weights());
    assert!(server.requests().iter().any(|request| request.range == Some((kept, Some(weights().len() - 1)))));
    // Whoever has the time may wait.
    let (server, _root, hub) = start();
    server.put(ID, Model::default().with(FILE, vec![1; 400]));
    server.fail("/cdn/", Fault::Pieces(7, Duration::from_millis(10)), 1);
    assert!(hub.clone().least_speed(0).model(ID).and_then(|model| model.file(FILE)).is_ok());
}

#[test]
fn a_server_that_sends_a_byte_and_hangs_up_is_as_slow_as_one_that_waits() {
    let (server, _root, hub) = start();
    server.fail("/cdn/", Fault::CutAfter(1), usize::MAX);
    let error = hub.least_speed(1_000_000).model(ID).and_then(|model| model.file(FILE)).unwrap_err();
    assert!(matches!(error, Error::Hub { problem: HubProblem::Slow { .. }, .. }), "{error}");
}

/// hf-hub 1.0 asked for a token at the address that the file's headers name, and wrote to wherever the answer said.
#[test]
fn other_ways_to_a_file_are_not_taken() {
    for hash in ["ab".repeat(32), "../../../../etc/passwd".to_owned()] {
        let (server, root, hub) = start();
        let other = Server::start();
        let local = root.path().join("local");
        let token = format!(r#"{{"accessToken":"x","exp":9999999999,"casUrl":"local://{}"}}"#, local.display());
        server.answer("xet-read-token", json(&token));
        let (host, good) = (other.endpoint(), weights());
        let links = format!(r#"Link: <{host}/auth>; rel="xet-auth", <{host}/info>; rel="xet-reconstruction-info""#);
        let offers = [format!("X-Xet-Hash: {hash}"), format!("X-Xet-Refresh-Route: {host}/refresh"), links];
        let offers: Vec<&str> = offers.iter().map(String::as_str).collect();
        // By the hub itself, and by the host that it redirects to.
        server.answer("/cdn/", says(whole(200, &offers, &good)));
        let location = "Location: /cdn/x";
        server.answer("/resolve/", says(whole(302, &[offers.as_slice(), &[location]].concat(), b"")));
        let path = hub.cache(root.path().join("cache")).model(ID).unwrap().file(FILE).unwrap();
        assert!(std::fs::read(path).unwrap() == good);
        let asked: Vec<String> = server.requests().into_iter().map(|request| request.path).collect();
        assert!(asked.len() == 4 && !asked.iter().any(|path| path.contains("xet")), "{asked:?}");
        assert!(other.requests().is_empty() && !local.exists());
        assert_eq!(entries(root.path()), [root.path().join("cache")]);
    }
}

fn entries(folder: &std::path::Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}
