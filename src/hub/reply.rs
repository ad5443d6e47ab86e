//! What a hub says, read without trust.

use super::failure::Refusal;
use super::id::{is_commit, shown};
use super::listed::Listed;
use serde::Deserialize;
use std::time::Duration;

/// The commit that a description of a model names.
pub(super) fn commit(json: &[u8]) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Info {
        sha: Option<String>,
    }
    let info: Info = serde_json::from_slice(json).map_err(|e| no_json("a model", &e))?;
    let commit = info.sha.map(|sha| sha.to_lowercase()).filter(|sha| is_commit(sha));
    commit.ok_or_else(|| "names no commit".to_owned())
}

/// Those of the files that a listing has.
pub(super) fn listing(json: &[u8], names: &[&str]) -> Result<Vec<Listed>, String> {
    #[derive(Deserialize)]
    struct Item {
        #[serde(rename = "type")]
        kind: String,
        path: String,
        #[serde(default)]
        oid: String,
        #[serde(default)]
        size: u64,
    }
    let entries: Vec<Item> = serde_json::from_slice(json).map_err(|e| no_json("its files", &e))?;
    let asked = entries.into_iter().filter(|entry| entry.kind == "file" && names.contains(&entry.path.as_str()));
    let listed: Vec<Listed> =
        asked.map(|Item { path, oid, size, .. }| Listed { name: path, size, oid: oid.to_lowercase() }).collect();
    match listed.iter().find(|file| !is_commit(&file.oid)) {
        Some(file) => Err(format!("lists no object for {}", file.name)),
        None => Ok(listed),
    }
}

/// Why a hub refuses, from its headers and the start of its answer.
pub(super) fn refusal<'a>(status: u16, header: impl Fn(&str) -> Option<&'a str>, body: &[u8]) -> Refusal {
    #[derive(Deserialize)]
    struct Said {
        error: String,
    }
    let in_body = || serde_json::from_slice(body).ok().map(|said: Said| said.error);
    let said = header("x-error-message").map(str::to_owned).or_else(in_body);
    let seconds = header("retry-after").and_then(|seconds| seconds.trim().parse().ok());
    Refusal {
        status,
        code: header("x-error-code").map(str::to_owned),
        said: said.map(|said| shown(&said)).filter(|said| !said.trim().is_empty()),
        wait: seconds.map(Duration::from_secs),
    }
}

/// The part of a file that an answer to a question for a part holds: its first byte, and the whole file's length.
pub(super) fn content_range(header: &str) -> Option<(u64, u64)> {
    let (range, total) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.parse().ok()?, total.parse().ok()?))
}

/// Where the text stops being JSON; the text itself stays away from messages.
fn no_json(of: &str, error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    format!("describes {of} by what is no JSON of that kind (line {line}, column {column})")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OID: &str = "F2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f";

    #[test]
    fn a_listing_gives_what_was_asked_for_and_nothing_else() {
        let json = format!(
            r#"[{{"type":"directory","path":"config.json"}},
                {{"type":"file","path":"../config.json","size":1,"oid":"{OID}"}},
                {{"type":"file","path":"config.json","size":3,"oid":"{OID}","lfs":{{"size":9}},"more":[{{}}]}}]"#
        );
        let want = Listed { name: "config.json".into(), size: 3, oid: OID.to_lowercase() };
        assert_eq!(listing(json.as_bytes(), &["config.json", "none"]), Ok(vec![want]));
        assert_eq!(listing(b"[]", &["config.json"]), Ok(vec![]));
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        let entry = |fields: &str| format!(r#"[{{"type":"file","path":"a",{fields}}}]"#);
        for (json, words) in [
            (String::new(), "no JSON"),
            ("[".repeat(100_000), "no JSON"),
            (r#"{"error":"x"}"#.to_owned(), "no JSON"),
            (entry(r#""size":-1"#), "no JSON"),
            (entry(r#""size":18446744073709551616"#), "no JSON"),
            (entry(r#""size":1"#), "no object for a"),
            (entry(r#""size":1,"oid":"../../../../../../../../../../../../../x""#), "no object for a"),
        ] {
            let problem = listing(json.as_bytes(), &["a"]).unwrap_err();
            assert!(problem.contains(words), "{problem}");
        }
    }

    #[test]
    fn a_commit_is_forty_digits() {
        assert_eq!(commit(format!(r#"{{"sha":"{OID}","id":"x"}}"#).as_bytes()), Ok(OID.to_lowercase()));
        for json in [r#"{"sha":5}"#, r#"{"sha":"main"}"#, r#"{"id":"x"}"#, "[]", "<html>", ""] {
            assert!(commit(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn a_refusal_is_in_the_servers_words_cut_short() {
        let none = |_: &str| None;
        assert_eq!(refusal(500, none, b"<html>"), Refusal { status: 500, ..Refusal::default() });
        assert_eq!(refusal(401, none, br#"{"error":"who?"}"#).said.as_deref(), Some("who?"));
        let headers = |name: &str| match name {
            "x-error-code" => Some("GatedRepo"),
            "x-error-message" => Some("gated\t"),
            "retry-after" => Some(" 7"),
            _ => None,
        };
        let found = refusal(403, headers, br#"{"error":"other"}"#);
        assert_eq!(found.code.as_deref(), Some("GatedRepo"));
        assert_eq!((found.said.as_deref(), found.wait), (Some("gated "), Some(Duration::from_secs(7))));
        let long = format!(r#"{{"error":"{}"}}"#, "x".repeat(5000));
        assert!(refusal(500, none, long.as_bytes()).said.unwrap().len() < 250);
    }

    #[test]
    fn a_part_says_where_it_lies() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, 10)));
        for odd in ["", "bytes */10", "bytes 5-9", "bytes -5-9/10", "bits 5-9/10", "bytes 5-9/*"] {
            assert_eq!(content_range(odd), None, "{odd}");
        }
    }
}
