//! Requests over HTTP, with limits on everything that a server decides: the one file that asks ureq.
//!
//! Nothing but plain requests: what a server says of other ways to its files, such as Xet, is not read. Redirects are followed here
//! rather than by ureq, which has no rule against the way from https to http and knows servers by their host alone.

use super::address::{Address, Endpoint};
use super::failure::{Failure, Outcome};
use super::hub::Hub;
use super::pace::Pace;
use super::reply;
use crate::files::read_start;
use crate::{Error, Result};
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, HeaderValue, Request, Response, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, AsSendBody, Body};

/// How often a request may be sent elsewhere.
const MOST_REDIRECTS: usize = 10;

/// The largest description of a model or its files: the hub's have some kilobytes.
const MOST_JSON_BYTES: u64 = 16 << 20;

/// What is read of an error's words.
const MOST_ERROR_BYTES: u64 = 64 << 10;

/// The largest file of certificates.
const MOST_CERTIFICATE_BYTES: u64 = 16 << 20;

/// What is asked for at an address.
pub(super) enum Question<'a> {
    /// What is there.
    Get,
    /// Some bytes of it.
    Part(Range<u64>),
    /// An answer to this JSON.
    Post(&'a str),
}

/// Asks one hub, and the servers that it redirects to.
pub(super) struct Client {
    agent: Agent,
    /// A token, or a user's name and password; the hub's own server alone is shown it.
    secret: Option<HeaderValue>,
    patience: Duration,
    least_speed: u64,
}

impl Client {
    pub(super) fn new(hub: &Hub) -> Result<Self> {
        let roots = hub.certificates.as_deref().map(roots).transpose()?.unwrap_or(RootCerts::WebPki);
        let patience = Some(hub.patience);
        let config = Agent::config_builder()
            .user_agent(concat!("tadformer/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_resolve(patience)
            .timeout_connect(patience)
            .timeout_per_read(patience)
            .timeout_per_write(patience)
            .timeout_send_request(patience)
            .timeout_send_body(patience)
            .timeout_recv_response(patience)
            .tls_config(TlsConfig::builder().root_certs(roots).build());
        let secret = secret(&hub.endpoint, hub.token.as_deref())?;
        Ok(Self { agent: config.build().into(), secret, patience: hub.patience, least_speed: hub.least_speed })
    }

    /// A description in JSON, bounded in size and in time.
    pub(super) fn json(&self, address: &Address, question: &Question) -> Outcome<Vec<u8>> {
        let mut reply = self.ask(address, question)?;
        let json = self.read(&mut reply.body, MOST_JSON_BYTES + 1)?;
        if json.len() as u64 > MOST_JSON_BYTES {
            return Err(Failure::Nonsense(format!("answers with more than {MOST_JSON_BYTES} bytes")));
        }
        Ok(json)
    }

    /// An answer that is no refusal, wherever the hub redirects to for it.
    pub(super) fn ask(&self, address: &Address, question: &Question) -> Outcome<Reply> {
        let (home, mut address, mut at_home) = (address, address.clone(), true);
        for _ in 0..=MOST_REDIRECTS {
            // Whom the hub sends us to does not send us back with its secret.
            at_home &= address.is_beside(home);
            let response = self.send(&address, question, at_home)?;
            if response.status().is_success() {
                return Reply::new(response);
            }
            let Some(location) = location(&response) else { return Err(self.refusal(response)) };
            address = address.redirected(location).map_err(Failure::Nonsense)?;
        }
        Err(Failure::Nonsense(format!("redirects more than {MOST_REDIRECTS} times")))
    }

    /// A refusal, which stands however its words come.
    fn refusal(&self, mut response: Response<Body>) -> Failure {
        let words = self.read(response.body_mut(), MOST_ERROR_BYTES).unwrap_or_default();
        let header = |name: &str| text(response.headers(), name);
        Failure::Refused(reply::refusal(response.status().as_u16(), header, &words))
    }

    /// One request to one server.
    fn send(&self, address: &Address, question: &Question, at_home: bool) -> Outcome<Response<Body>> {
        let mut request = Request::get(address.uri().clone());
        if let (true, Some(secret)) = (at_home, &self.secret) {
            request = request.header(header::AUTHORIZATION, secret);
        }
        match question {
            Question::Get => self.run(request.body(())),
            Question::Part(part) => {
                self.run(request.header(header::RANGE, format!("bytes={}-{}", part.start, part.end - 1)).body(()))
            }
            Question::Post(json) => {
                self.run(request.method("POST").header(header::CONTENT_TYPE, "application/json").body(*json))
            }
        }
    }

    fn run(&self, request: ureq::http::Result<Request<impl AsSendBody>>) -> Outcome<Response<Body>> {
        Ok(self.agent.run(request.map_err(ureq::Error::from)?)?)
    }

    /// A body, or as much of it as `most`.
    fn read(&self, body: &mut Body, most: u64) -> Outcome<Vec<u8>> {
        let mut pace = Pace::new(self.least_speed, self.patience, Instant::now());
        let mut bytes = Vec::new();
        let mut piece = vec![0; 1 << 14];
        let mut body = body.as_reader().take(most);
        loop {
            let read = body.read(&mut piece)?;
            bytes.extend_from_slice(&piece[..read]);
            if read == 0 {
                return Ok(bytes);
            }
            if !pace.keeps_up(read, Instant::now()) {
                return Err(Failure::Slow("nothing of its answer is kept".to_owned()));
            }
        }
    }
}

/// An answer whose body is still to come.
pub(super) struct Reply {
    body: Body,
    headers: HeaderMap,
    /// Whether it is a part of what lies at the address.
    is_part: bool,
}

impl Reply {
    fn new(response: Response<Body>) -> Outcome<Self> {
        let (head, body) = response.into_parts();
        // None was asked for, so that no small answer becomes a large one.
        if let Some(packed) = text(&head.headers, "content-encoding").filter(|packed| *packed != "identity") {
            return Err(Failure::Nonsense(format!("answers packed as {}", super::id::shown(packed))));
        }
        Ok(Self { body, headers: head.headers, is_part: head.status.as_u16() == 206 })
    }

    /// How long the body will be, where the server says so.
    pub(super) fn length(&self) -> Option<u64> {
        self.body.content_length()
    }

    /// The part that the body is, as its first byte and the length of the whole; `None` where it is the whole.
    pub(super) fn part(&self) -> Option<(u64, u64)> {
        let said = || text(&self.headers, "content-range").and_then(reply::content_range);
        self.is_part.then(|| said().unwrap_or_default())
    }

    /// The body's next bytes; none at its end.
    pub(super) fn read(&mut self, piece: &mut [u8]) -> Outcome<usize> {
        Ok(self.body.as_reader().read(piece)?)
    }
}

/// Where an answer sends the question, which is asked there as it is.
fn location(response: &Response<Body>) -> Option<&[u8]> {
    let redirects = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    response.headers().get(header::LOCATION).filter(|_| redirects).map(HeaderValue::as_bytes)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// What the hub's own server is shown: the user of its address, who is meant for it alone, or else the token.
fn secret(endpoint: &Endpoint, token: Option<&str>) -> Result<Option<HeaderValue>> {
    let Some(text) = endpoint.basic().or_else(|| token.map(|token| format!("Bearer {token}"))) else {
        return Ok(None);
    };
    let cure = "give it once more, without quotes and line ends";
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| Error::config("token", "visible characters", "others among them", cure))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// The certificates of a file, in place of those that come with the crate.
fn roots(path: &Path) -> Result<RootCerts> {
    let pem = read_start(path, MOST_CERTIFICATE_BYTES)?;
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    let certificates: Vec<Certificate> = parse_pem(&pem).filter_map(certificate).collect();
    if certificates.is_empty() {
        return Err(Error::file(path, "holds no certificate in PEM", "name a file of certificates, see SSL_CERT_FILE"));
    }
    Ok(RootCerts::from(certificates))
}
