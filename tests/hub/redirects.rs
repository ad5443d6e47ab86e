//! Where a redirect leads, and what goes along: the token and the password of the hub's own server stay with it.

use crate::ID;
use crate::server::{Model, Request, Server};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tadformer::hub::Hub;
use tadformer::{Error, HubProblem};

const TOKEN: &str = "hf_SECRETTOKEN12345";
const FILE: &str = "model.safetensors";

fn model() -> Model {
    Model::default().with(FILE, vec![7; 5000]).with("config.json", "{}")
}

fn secret_in(request: &Request, secret: &str) -> bool {
    let values = request.headers.values();
    request.path.contains(secret) || values.into_iter().any(|value| value.contains(secret))
}

fn redirect(code: u16, location: String) -> impl Fn(&Request, &mut dyn Write) -> std::io::Result<()> {
    move |request, stream| {
        let location = if location.ends_with('/') { &location[..location.len() - 1] } else { &location };
        let head = format!("HTTP/1.1 {code} X\r\nConnection: close\r\nContent-Length: 0\r\n");
        write!(stream, "{head}Location: {location}{}\r\n\r\n", request.path)
    }
}

/// Hosts that are not the hub's: of another port, of another name, of another number.
fn others() -> Vec<(Server, String)> {
    let named = |server: Server, host: &str| {
        let address = format!("http://{host}:{}/", server.port());
        (server, address)
    };
    let mut others = vec![named(Server::start(), "127.0.0.1"), named(Server::start(), "localhost")];
    if cfg!(target_os = "linux") {
        others.push(named(Server::start_at("127.0.0.2", None), "127.0.0.2"));
    }
    others
}

#[test]
fn no_redirect_takes_the_token_to_another_host() {
    let mut seen = 0;
    for place in ["/revision/", "/paths-info/", "/resolve/", "/"] {
        for code in [301, 302, 303, 307, 308] {
            for (other, address) in others() {
                let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
                server.put(ID, Model { token: Some(TOKEN.into()), ..model() });
                other.put(ID, model());
                server.answer(place, redirect(code, address.clone()));
                let hub = Hub::new(server.endpoint(), cache.path()).token(TOKEN);
                let found = hub.model(ID).and_then(|model| model.file(FILE));
                assert!(found.is_ok(), "{place} {code} {address}: {found:?}");
                let (here, there) = (server.requests(), other.requests());
                assert!(here.iter().all(|r| secret_in(r, TOKEN) || r.path.starts_with("/cdn/")), "{place} {code}");
                assert!(!there.is_empty() && !there.iter().any(|r| secret_in(r, TOKEN)), "{place} {code} {address}");
                seen += there.len();
            }
        }
    }
    assert!(seen >= 100, "{seen}");
}

#[test]
fn a_host_that_the_hub_redirects_to_does_not_get_the_token_sent_back() {
    let (server, other, cache) = (Server::start(), Server::start(), tempfile::tempdir().unwrap());
    server.put(ID, model());
    let back = server.endpoint();
    other.answer("/revision/", move |_, stream| {
        let head = "HTTP/1.1 302 X\r\nConnection: close\r\nContent-Length: 0";
        write!(stream, "{head}\r\nLocation: {back}/api/models/{ID}\r\n\r\n")
    });
    server.answer("/revision/", redirect(302, other.endpoint()));
    let hub = Hub::new(server.endpoint(), cache.path()).token(TOKEN);
    let _ = hub.model(ID);
    let tokens: Vec<bool> = server.requests().iter().map(|request| request.token.is_some()).collect();
    assert_eq!(tokens, [true, false]);
}

/// As the hub does for models that were renamed.
#[test]
fn a_redirect_within_the_hub_keeps_the_token() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    server.put("new/name", Model { token: Some(TOKEN.into()), ..model() });
    server.answer(ID, |request, stream| {
        let to = request.path.replace(ID, "new/name");
        write!(stream, "HTTP/1.1 307 X\r\nConnection: close\r\nContent-Length: 0\r\nLocation: {to}\r\n\r\n")
    });
    let hub = Hub::new(server.endpoint(), cache.path()).token(TOKEN);
    assert_eq!(std::fs::read(hub.model(ID).unwrap().file(FILE).unwrap()).unwrap(), [7; 5000]);
}

#[test]
fn a_password_in_the_endpoint_goes_to_it_alone_and_is_never_shown() {
    let (server, other, cache) = (Server::start(), Server::start(), tempfile::tempdir().unwrap());
    let with_password = |server: &Server| server.endpoint().replace("://", "://user:s3cret%2F@");
    other.put(ID, model());
    server.put(ID, model());
    server.answer("/resolve/", redirect(302, other.endpoint()));
    let hub = Hub::new(with_password(&server), cache.path()).token(TOKEN);
    hub.model(ID).unwrap().file(FILE).unwrap();
    for request in server.requests() {
        // user:s3cret/, and not the token, which is of another hub.
        assert_eq!(request.headers.get("authorization").map(String::as_str), Some("Basic dXNlcjpzM2NyZXQv"));
    }
    let there = other.requests();
    assert!(!there.is_empty() && there.iter().all(|request| !request.headers.contains_key("authorization")));

    // Whatever goes wrong.
    server.put("someone/gated", Model { gated: true, ..model() });
    server.answer("/odd/", |_, stream| write!(stream, "HTTP/1.1 400 X\r\nContent-Length: 0\r\n\r\n"));
    server.answer("/loop/", |_, stream| {
        write!(stream, "HTTP/1.1 302 X\r\nContent-Length: 0\r\nLocation: ftp://x\r\n\r\n")
    });
    let gone = Hub::new("http://user:s3cret@127.0.0.1:9", cache.path());
    let nowhere = Hub::new("ftp://user:s3cret@127.0.0.1:9", cache.path());
    for (hub, id) in [
        (&hub, "someone/none"),
        (&hub, "someone/gated"),
        (&hub, "someone/swin-small@v9"),
        (&hub, "odd/x"),
        (&hub, "loop/x"),
        (&gone, "someone/none"),
        (&nowhere, "someone/none"),
    ] {
        let error = hub.model(id).and_then(|model| model.file("config.json")).unwrap_err();
        let all = format!("{error} {error:?} {hub:?}");
        assert!(!all.contains("s3cret") && all.contains("127.0.0.1"), "{all}");
    }
}

fn tls(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

#[test]
fn a_hub_behind_https_is_trusted_by_its_certificate_alone() {
    let (server, cache) = (Server::start_with_tls(), tempfile::tempdir().unwrap());
    server.put(ID, model());
    let hub = Hub::new(server.endpoint(), cache.path()).patience(Duration::from_secs(5));
    let error = hub.model(ID).unwrap_err();
    assert!(matches!(error, Error::Hub { problem: HubProblem::NoNetwork { .. }, .. }), "{error}");
    assert!(error.to_string().contains("certificate") && server.requests().is_empty(), "{error}");
    let known = hub.clone().certificates(tls("authority.pem"));
    assert_eq!(std::fs::read(known.model(ID).unwrap().file(FILE).unwrap()).unwrap(), [7; 5000]);
    for (file, words) in [("README.md", "holds no certificate"), ("none.pem", "cannot read")] {
        let message = hub.clone().newest().certificates(tls(file)).model(ID).unwrap_err().to_string();
        assert!(message.contains(file) && message.contains(words), "{message}");
    }
}

#[test]
fn a_hub_behind_https_does_not_lead_out_of_it() {
    let (server, open) = (Server::start_with_tls(), Server::start());
    open.put(ID, model());
    server.put(ID, model());
    for place in ["/revision/", "/resolve/"] {
        let cache = tempfile::tempdir().unwrap();
        server.answer(place, redirect(302, open.endpoint()));
        let hub = Hub::new(server.endpoint(), cache.path()).certificates(tls("authority.pem")).token(TOKEN);
        let message = hub.model(ID).and_then(|model| model.file(FILE)).unwrap_err().to_string();
        assert!(message.contains("redirects from https to http"), "{message}");
        assert!(open.requests().is_empty());
    }
}
