//! Any bytes as the answers of a hub on loopback, one after another.
//!
//! Run it with `-detect_leaks=0`: the client looks names up in threads that may still be ending when leaks are counted.
#![no_main]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;
use tadformer::hub::Hub;

/// What stands between two answers.
const BETWEEN: &[u8] = b"\n%%\n";

static ANSWERS: Mutex<VecDeque<Vec<u8>>> = Mutex::new(VecDeque::new());

/// Where the hub listens.
static ENDPOINT: LazyLock<String> = LazyLock::new(|| {
    // An answer may redirect to anywhere: whatever is not on loopback goes by a proxy that is not there.
    // SAFETY: no other thread of this process reads or writes the environment yet.
    unsafe {
        std::env::set_var("ALL_PROXY", "http://127.0.0.1:9");
        std::env::set_var("NO_PROXY", "127.0.0.1");
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answer(stream);
        }
    });
    format!("http://{address}")
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let endpoint = ENDPOINT.as_str();
    let root = tempfile::tempdir().expect("a folder for temporary files");
    *ANSWERS.lock().unwrap_or_else(PoisonError::into_inner) = split(bytes);
    let hub = Hub::new(endpoint, root.path().join("cache")).token("hf_secret").patience(Duration::from_millis(30));
    match hub.model("owner/name") {
        Err(error) => check(&error),
        Ok(model) => {
            for name in ["config.json", "model.safetensors"] {
                match model.file(name) {
                    Ok(path) => assert!(path.starts_with(root.path())),
                    Err(error) => check(&error),
                }
            }
        }
    }
    let entries = std::fs::read_dir(root.path()).expect("it is there").flatten();
    assert!(entries.map(|entry| entry.file_name()).all(|name| name == "cache"));
});

/// A message is short and printable, whatever a server says.
fn check(error: &tadformer::Error) {
    let message = error.to_string();
    assert!(message.len() < 2000 && !message.contains(char::is_control), "{message:?}");
    assert!(!message.contains("hf_secret"));
}

fn split(bytes: &[u8]) -> VecDeque<Vec<u8>> {
    let (mut answers, mut rest) = (VecDeque::new(), bytes);
    while let Some(end) = rest.windows(BETWEEN.len()).position(|window| window == BETWEEN) {
        answers.push_back(rest[..end].to_vec());
        rest = &rest[end + BETWEEN.len()..];
    }
    answers.push_back(rest.to_vec());
    answers
}

/// Reads a request whole, so that the connection is closed without a word lost, and sends the next answer.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let (mut request, mut piece) = (Vec::new(), [0; 4096]);
    while !is_whole(&request) {
        match stream.read(&mut piece)? {
            0 => break,
            read => request.extend_from_slice(&piece[..read]),
        }
    }
    let next = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    stream.write_all(&next.unwrap_or_default())?;
    stream.shutdown(Shutdown::Both)
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    body.len() >= length.unwrap_or(0)
}
