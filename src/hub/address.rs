//! Addresses on the network: of the hub, of what is on it, and where it redirects to.

use super::id::shown;
use crate::{Error, Result};
use base64::Engine;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::fmt;
use ureq::http::Uri;

/// What stands in a part of a path as it is (RFC 3986, 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The start of a hub's addresses as somebody gave it. A user's name and password in it are kept apart and never shown.
#[derive(Clone)]
pub(super) struct Endpoint {
    shown: String,
    user: Option<String>,
}

impl Endpoint {
    pub(super) fn new(text: &str) -> Self {
        let text = text.trim_end_matches('/');
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        // The last sign counts, wherever it stands: what is before it could be of a password, and is not shown.
        let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user.to_owned()), rest));
        let shown = if scheme.is_empty() { rest.to_owned() } else { format!("{scheme}://{rest}") };
        Self { shown, user }
    }

    /// The commit of a revision is asked for here.
    pub(super) fn revision(&self, id: &str, revision: &str) -> Result<Address> {
        self.at(&format!("api/models/{id}/revision/{}?expand=sha", escaped(revision)))
    }

    /// Sizes and object ids of files are asked for here.
    pub(super) fn listing(&self, id: &str, commit: &str) -> Result<Address> {
        self.at(&format!("api/models/{id}/paths-info/{commit}"))
    }

    /// A file's content is asked for here.
    pub(super) fn file(&self, id: &str, commit: &str, name: &str) -> Result<Address> {
        let parts: Vec<String> = name.split('/').map(escaped).collect();
        self.at(&format!("{id}/resolve/{commit}/{}", parts.join("/")))
    }

    /// An address below this one.
    fn at(&self, path: &str) -> Result<Address> {
        let whole = Address::parse(&format!("{}/{path}", self.shown)).filter(|_| self.is_one());
        whole.ok_or_else(|| {
            let expected = "an address such as https://huggingface.co";
            Error::config("endpoint", expected, shown(&self.shown), "see HF_ENDPOINT; a password's signs are escaped")
        })
    }

    /// A start has no query or fragment, and a user's name no sign that ends a host.
    fn is_one(&self) -> bool {
        !self.shown.contains(['?', '#']) && !self.user.iter().any(|user| user.contains(['/', '?', '#', '@']))
    }

    /// What the user's name and password are as a header.
    pub(super) fn basic(&self) -> Option<String> {
        let (name, password) = self.user.as_ref().map(|user| user.split_once(':').unwrap_or((user, "")))?;
        let plain = [name, password].map(|part| percent_decode_str(part).collect::<Vec<u8>>()).join(&b':');
        Some(format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(plain)))
    }
}

/// Without a user's name and password.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shown, f)
    }
}

fn escaped(part: &str) -> String {
    utf8_percent_encode(part, ESCAPED).to_string()
}

/// A whole address of `http` or `https`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address(Uri);

impl Address {
    fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        // No user, and a port that is one where there is any.
        let plain = authority.as_str() == authority.host() || authority.port_u16().is_some();
        let server = !authority.host().is_empty() && !authority.as_str().contains('@') && plain;
        (known && server).then_some(Self(uri))
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }

    /// Whether both are on one server: scheme, host and port.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        let server = |Self(uri): &Self| {
            let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
            (uri.scheme_str().map(str::to_owned), uri.host().map(str::to_ascii_lowercase), port)
        };
        server(self) == server(other)
    }

    /// Where an answer of this address redirects to; else what is wrong with that.
    pub(super) fn redirected(&self, location: &[u8]) -> std::result::Result<Self, String> {
        let location = std::str::from_utf8(location).map_err(|_| "redirects to no address".to_owned())?;
        let location = location.split('#').next().unwrap_or_default();
        if let Some(scheme) = scheme(location)
            && !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str())
        {
            return Err(format!("redirects to an address of {}:, which is neither http nor https", shown(scheme)));
        }
        let next = Self::parse(&self.joined(location)).ok_or_else(|| "redirects to no address".to_owned())?;
        if self.0.scheme_str() == Some("https") && next.0.scheme_str() != Some("https") {
            return Err("redirects from https to http".to_owned());
        }
        Ok(next)
    }

    /// A location, relative to this address where it is (RFC 3986, 5.2).
    fn joined(&self, location: &str) -> String {
        let scheme_of_this = self.0.scheme_str().unwrap_or_default();
        let server = self.0.authority().map_or("", |authority| authority.as_str());
        let path = self.0.path();
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        match location.as_bytes() {
            _ if scheme(location).is_some() => location.to_owned(),
            [b'/', b'/', ..] => format!("{scheme_of_this}:{location}"),
            [b'/', ..] => format!("{scheme_of_this}://{server}{location}"),
            [b'?', ..] | [] => format!("{scheme_of_this}://{server}{path}{location}"),
            _ => format!("{scheme_of_this}://{server}{folder}/{location}"),
        }
    }
}

/// The scheme that an address starts with.
fn scheme(location: &str) -> Option<&str> {
    let (scheme, _) = location.split_once(':')?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let starts = scheme.starts_with(|first: char| first.is_ascii_alphabetic());
    (starts && scheme.bytes().all(allowed)).then_some(scheme)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn a_redirect_goes_where_the_standard_says() {
        let from = address("https://hub.co/a/b/c?x=1");
        for (location, want) in [
            ("https://cdn.co/x?sign=%2F", "https://cdn.co/x?sign=%2F"),
            ("HTTPS://cdn.co/x", "https://cdn.co/x"),
            ("//cdn.co/x", "https://cdn.co/x"),
            ("/x/y", "https://hub.co/x/y"),
            ("x", "https://hub.co/a/b/x"),
            ("x:y/z", ""),
            ("?y=2", "https://hub.co/a/b/c?y=2"),
            ("/x#part", "https://hub.co/x"),
            ("https://cdn.co", "https://cdn.co/"),
        ] {
            assert_eq!(from.redirected(location.as_bytes()).ok(), Address::parse(want), "{location}");
        }
    }

    #[test]
    fn a_redirect_to_another_kind_of_address_is_refused() {
        let from = address("https://hub.co/a");
        for (location, words) in [
            ("http://hub.co/a", "from https to http"),
            ("//user:secret@cdn.co/", "to no address"),
            ("file:///etc/passwd", "of file:"),
            ("FTP://cdn.co/x", "of FTP:"),
            ("data:text/plain,x", "of data:"),
            ("https://", "to no address"),
            ("https:///x", "to no address"),
            ("https://cdn.co:99999/", "to no address"),
            ("/a b", "to no address"),
            ("\u{1b}[2J", "to no address"),
        ] {
            let problem = from.redirected(location.as_bytes()).unwrap_err();
            assert!(problem.contains(words) && !problem.contains("secret"), "{location}: {problem}");
        }
        assert!(from.redirected(b"https://\xff/").is_err());
        assert!(address("http://hub.co/a").redirected(b"http://cdn.co/").is_ok());
        assert!(address("http://hub.co/a").redirected(b"https://cdn.co/").is_ok());
    }

    proptest! {
        #[test]
        fn whatever_a_server_says_it_leads_to_http_without_a_user_or_nowhere(
            tls: bool, location in "(http|https|HTTP|ftp|)(:|://|//|/|)[a-z@:/?#%\\[\\].0-9\\\\ é-]{0,30}",
        ) {
            let from = address(if tls { "https://hub.co/a/b" } else { "http://hub.co/a/b" });
            if let Ok(Address(next)) = from.redirected(location.as_bytes()) {
                let scheme = next.scheme_str().unwrap();
                prop_assert!(scheme == "https" || scheme == "http" && !tls, "{next}");
                let authority = next.authority().unwrap();
                prop_assert!(!authority.host().is_empty() && !authority.as_str().contains('@'), "{next}");
            }
        }
    }

    #[test]
    fn a_server_is_its_scheme_its_host_and_its_port() {
        let server = address("https://hub.co/a");
        for (other, beside) in [
            ("https://hub.co/b?c", true),
            ("https://HUB.co:443/", true),
            ("http://hub.co/a", false),
            ("https://hub.co:444/a", false),
            ("https://cdn.hub.co/a", false),
            ("https://hub.com/a", false),
        ] {
            assert_eq!(server.is_beside(&address(other)), beside, "{other}");
        }
    }

    #[test]
    fn names_are_escaped_in_addresses() {
        let endpoint = Endpoint::new("http://mirror:8080/hub/");
        let file = endpoint.file("a/b", "c", "folder/a b%2F?#é.json").unwrap();
        assert_eq!(file.uri(), "http://mirror:8080/hub/a/b/resolve/c/folder/a%20b%252F%3F%23%C3%A9.json");
        let revision = endpoint.revision("a/b", "refs/pr/1").unwrap();
        assert_eq!(revision.uri(), "http://mirror:8080/hub/api/models/a/b/revision/refs%2Fpr%2F1?expand=sha");
    }

    #[test]
    fn a_password_is_a_header_and_never_shown() {
        let endpoint = Endpoint::new("https://us%40er:s3c%2Fret@mirror/hub");
        let address = endpoint.listing("a/b", "c").unwrap();
        assert_eq!(endpoint.basic().as_deref(), Some("Basic dXNAZXI6czNjL3JldA==")); // us@er:s3c/ret
        assert_eq!(format!("{endpoint} {endpoint:?}"), r#"https://mirror/hub "https://mirror/hub""#);
        assert_eq!(address.uri(), "https://mirror/hub/api/models/a/b/paths-info/c");
        assert_eq!(Endpoint::new("https://mirror").basic(), None);
        // Those that cannot be meant are refused, without the password too.
        for text in [
            "https://user:s3c/ret@mirror",
            "https://user:s3c@ret@mirror",
            "user:s3cret@mirror",
            "ftp://user:s3cret@mirror",
            "https://user:s3cret@",
            "https://user:s3cret@mirror?x",
        ] {
            let endpoint = Endpoint::new(text);
            let message = endpoint.listing("a/b", "c").unwrap_err().to_string();
            let all = format!("{message} {endpoint} {endpoint:?}");
            assert!(!all.contains("s3c") && message.contains("HF_ENDPOINT"), "{all}");
        }
    }
}
