//! A hub on loopback: its routes, its redirects to another host, and what can go wrong on the way.

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a model on the hub is like.
#[derive(Clone, Default)]
pub struct Model {
    pub files: BTreeMap<String, Vec<u8>>,
    /// Only this token reads it.
    pub token: Option<String>,
    /// Its files need terms accepted.
    pub gated: bool,
}

impl Model {
    /// The files of a folder.
    pub fn of_folder(folder: &Path) -> Self {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let named = |path: std::path::PathBuf| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap())
        };
        Self { files: entries.map(named).collect(), ..Self::default() }
    }

    pub fn with(mut self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(name.to_owned(), content.into());
        self
    }

    /// Forty digits that follow from the content.
    pub fn commit(&self) -> String {
        let mut hash = Sha256::new();
        self.files.iter().for_each(|(name, content)| hash.update([name.as_bytes(), content].concat()));
        hex(&hash.finalize())[..40].to_owned()
    }
}

/// What goes wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// This status, and nothing more.
    Status(u16),
    /// The connection is closed after so many bytes of the body.
    CutAfter(usize),
    /// Nothing more comes after so many bytes of the body.
    StallAfter(usize),
    /// The body comes in pieces of so many bytes, with a pause between them.
    Pieces(usize, Duration),
    /// Other bytes of the same number.
    Damage,
    /// The whole file, whatever part was asked for.
    NoRanges,
}

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With a leading slash; requests to the other host start with `/cdn/`.
    pub path: String,
    pub range: Option<(usize, Option<usize>)>,
    pub token: Option<String>,
    /// Names in small letters.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// Writes any bytes as an answer.
pub type Script = Arc<dyn Fn(&Request, &mut dyn Write) -> std::io::Result<()> + Send + Sync>;

#[derive(Default)]
struct State {
    models: BTreeMap<String, Model>,
    /// What answers at paths that contain this, before everything else.
    scripts: Vec<(String, Script)>,
    /// What goes wrong with paths that contain this, so many times.
    faults: Vec<(String, Fault, usize)>,
    requests: Vec<Request>,
}

/// Two listeners, the hub's and that of the host where large files are; both close when it is dropped.
pub struct Server {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    scheme: &'static str,
    hub: SocketAddr,
    listeners: Vec<(SocketAddr, JoinHandle<()>)>,
}

/// A connection, with TLS or without.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Server {
    pub fn start() -> Self {
        Self::start_at("127.0.0.1", None)
    }

    /// Behind TLS, with the certificate in `tests/tls`.
    pub fn start_with_tls() -> Self {
        Self::start_at("127.0.0.1", Some(tls()))
    }

    /// At another address of this machine.
    pub fn start_at(ip: &str, tls: Option<Arc<ServerConfig>>) -> Self {
        let (state, stop) = (Arc::new(Mutex::new(State::default())), Arc::new(AtomicBool::new(false)));
        let large = TcpListener::bind((ip, 0)).unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let host = format!("{scheme}://{}", large.local_addr().unwrap());
        let hub = TcpListener::bind((ip, 0)).unwrap();
        let address = hub.local_addr().unwrap();
        let listen = |listener: TcpListener| {
            let (state, stop, host, tls) = (state.clone(), stop.clone(), host.clone(), tls.clone());
            let own = listener.local_addr().unwrap();
            let accept = move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let (state, stop, host, tls) = (state.clone(), stop.clone(), host.clone(), tls.clone());
                    std::thread::spawn(move || {
                        stream.and_then(|stream| serve(connected(stream, tls), &state, &stop, &host))
                    });
                }
            };
            (own, std::thread::spawn(accept))
        };
        let listeners = vec![listen(large), listen(hub)];
        Self { state, stop, scheme, hub: address, listeners }
    }

    pub fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.hub)
    }

    pub fn port(&self) -> u16 {
        self.hub.port()
    }

    /// From now on requests whose path contains this are answered so.
    pub fn answer(
        &self,
        path: &str,
        script: impl Fn(&Request, &mut dyn Write) -> std::io::Result<()> + Send + Sync + 'static,
    ) {
        self.state.lock().unwrap().scripts.push((path.to_owned(), Arc::new(script)));
    }

    /// Puts a model there, in place of one of that id; gives its commit.
    pub fn put(&self, id: &str, model: Model) -> String {
        let commit = model.commit();
        self.state.lock().unwrap().models.insert(id.to_owned(), model);
        commit
    }

    /// The next so many requests whose path contains this go wrong.
    pub fn fail(&self, path: &str, fault: Fault, times: usize) {
        self.state.lock().unwrap().faults.push((path.to_owned(), fault, times));
    }

    /// What was asked since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for (address, listener) in self.listeners.drain(..) {
            let _ = TcpStream::connect(address);
            let _ = listener.join();
        }
    }
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn answer(status: u16, headers: Vec<(&'static str, String)>, body: impl Into<Vec<u8>>) -> Answer {
    Answer { status, headers, body: body.into() }
}

fn refusal(status: u16, code: &str, said: &str) -> Answer {
    let headers = vec![("X-Error-Code", code.to_owned()), ("X-Error-Message", said.to_owned())];
    answer(status, headers, format!(r#"{{"error":"{said}"}}"#))
}

/// The server's side of TLS.
fn tls() -> Arc<ServerConfig> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
    let certificate = CertificateDer::from_pem_file(folder.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
    Arc::new(config.unwrap())
}

fn connected(stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> Box<dyn Stream> {
    match tls {
        Some(tls) => Box::new(StreamOwned::new(ServerConnection::new(tls).unwrap(), stream)),
        None => Box::new(stream),
    }
}

fn serve(mut stream: Box<dyn Stream>, state: &Mutex<State>, stop: &AtomicBool, host: &str) -> std::io::Result<()> {
    let Some(request) = read(&mut stream)? else { return Ok(()) };
    let script = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        state.scripts.iter().find(|(path, _)| request.path.contains(path.as_str())).map(|(_, script)| script.clone())
    };
    if let Some(script) = script {
        return script(&request, &mut stream);
    }
    let (answer, fault) = {
        let mut state = state.lock().unwrap();
        let failing =
            state.faults.iter_mut().find(|(path, _, times)| *times > 0 && request.path.contains(path.as_str()));
        let fault = failing.map(|(_, fault, times)| {
            *times -= 1;
            *fault
        });
        let asked =
            if fault == Some(Fault::NoRanges) { Request { range: None, ..request.clone() } } else { request.clone() };
        (route(&state, &asked, host), fault)
    };
    write(&mut stream, &request, answer, fault, stop)
}

fn read(stream: &mut dyn Stream) -> std::io::Result<Option<Request>> {
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let mut words = line.split(' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut request = Request { method, path, range: None, token: None, headers: BTreeMap::new(), body: vec![] };
    let mut length = 0;
    loop {
        let mut line = String::new();
        lines.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => request.token = Some(value.trim_start_matches("Bearer ").to_owned()),
            "range" => {
                let (from, to) = value.trim_start_matches("bytes=").split_once('-').unwrap();
                request.range = Some((from.parse().unwrap(), to.parse().ok()));
            }
            _ => {}
        }
        request.headers.insert(name.to_lowercase(), value.to_owned());
    }
    request.body.resize(length, 0);
    lines.read_exact(&mut request.body)?;
    Ok(Some(request))
}

fn route(state: &State, request: &Request, host: &str) -> Answer {
    let path = request.path.split('?').next().unwrap();
    if let Some(digest) = path.strip_prefix("/cdn/") {
        let mut files = state.models.values().flat_map(|model| model.files.values());
        return match files.find(|content| sha256(content) == digest) {
            Some(content) => whole_or_part(request, content, vec![]),
            None => answer(404, vec![], "no such object"),
        };
    }
    let api = path.strip_prefix("/api/models/");
    let (id, rest) = if let Some(path) = api {
        path.split_once("/revision/").or_else(|| path.split_once("/paths-info/")).unwrap_or((path, ""))
    } else {
        path[1..].split_once("/resolve/").unwrap_or((&path[1..], ""))
    };
    let Some(model) = state.models.get(id) else {
        return match request.token {
            Some(_) => refusal(404, "RepoNotFound", "Repository not found"),
            None => answer(401, vec![], r#"{"error":"Invalid username or password."}"#),
        };
    };
    if model.token.is_some() && model.token != request.token {
        return answer(401, vec![], r#"{"error":"Invalid username or password."}"#);
    }
    let (revision, file) = rest.split_once('/').unwrap_or((rest, ""));
    let commit = model.commit();
    if revision != "main" && revision != commit {
        return refusal(404, "RevisionNotFound", "Invalid rev id");
    }
    if path.contains("/revision/") {
        return answer(200, vec![], format!(r#"{{"_id":"0","id":"{id}","sha":"{commit}"}}"#));
    }
    if model.gated {
        return refusal(403, "GatedRepo", "Access to this model is restricted");
    }
    if path.contains("/paths-info/") {
        return answer(200, vec![], paths_info(model, &request.body));
    }
    let Some(content) = model.files.get(file) else {
        return refusal(404, "EntryNotFound", "Entry not found");
    };
    let repo = ("X-Repo-Commit", commit);
    if is_large(file) {
        let (digest, size) = (sha256(content), content.len());
        let headers = vec![
            repo,
            ("Location", format!("{host}/cdn/{digest}")),
            ("X-Linked-Etag", format!("\"{digest}\"")),
            ("X-Linked-Size", size.to_string()),
        ];
        return answer(302, headers, "");
    }
    whole_or_part(request, content, vec![repo, ("ETag", format!("\"{}\"", git_id(content)))])
}

fn paths_info(model: &Model, body: &[u8]) -> String {
    let asked: serde_json::Value = serde_json::from_slice(body).unwrap();
    let names = asked["paths"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
    let listed = names.filter_map(|name| {
        let content = model.files.get(name)?;
        let mut entry =
            serde_json::json!({ "type": "file", "path": name, "size": content.len(), "oid": git_id(content) });
        if is_large(name) {
            let pointer = pointer(content);
            entry["oid"] = git_id(pointer.as_bytes()).into();
            entry["lfs"] =
                serde_json::json!({ "oid": sha256(content), "size": content.len(), "pointerSize": pointer.len() });
        }
        Some(entry)
    });
    serde_json::Value::from(listed.collect::<Vec<_>>()).to_string()
}

fn whole_or_part(request: &Request, content: &[u8], mut headers: Vec<(&'static str, String)>) -> Answer {
    let Some((from, to)) = request.range else { return answer(200, headers, content) };
    if from >= content.len() {
        return answer(416, headers, "");
    }
    let to = to.map_or(content.len(), |last| (last + 1).min(content.len()));
    headers.push(("Content-Range", format!("bytes {from}-{}/{}", to - 1, content.len())));
    answer(206, headers, &content[from..to])
}

fn write(
    stream: &mut dyn Stream,
    request: &Request,
    mut answer: Answer,
    fault: Option<Fault>,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    match fault {
        Some(Fault::Status(status)) => {
            answer = Answer { status, headers: vec![], body: b"<html>error</html>".to_vec() }
        }
        Some(Fault::Damage) => answer.body.iter_mut().step_by(1000).for_each(|byte| *byte ^= 1),
        _ => {}
    }
    let mut head =
        format!("HTTP/1.1 {} Status\r\nConnection: close\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
    answer.headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    match fault {
        Some(Fault::CutAfter(bytes)) => stream.write_all(&answer.body[..bytes.min(answer.body.len())]),
        Some(Fault::StallAfter(bytes)) => {
            stream.write_all(&answer.body[..bytes.min(answer.body.len())])?;
            while !stop.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        }
        Some(Fault::Pieces(bytes, pause)) => answer.body.chunks(bytes).try_for_each(|piece| {
            std::thread::sleep(pause);
            stream.write_all(piece)
        }),
        _ => stream.write_all(&answer.body),
    }
}

/// The hub keeps weights outside git, behind a pointer.
fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".bin")
}

fn pointer(content: &[u8]) -> String {
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n", sha256(content), content.len())
}

pub fn sha256(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

pub fn git_id(content: &[u8]) -> String {
    hex(&sha1::Sha1::new_with_prefix(format!("blob {}\0", content.len())).chain_update(content).finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
