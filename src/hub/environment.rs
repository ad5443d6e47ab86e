//! What the environment says, by the variables of the hub's own tools.

use super::address::Endpoint;
use super::hub::{Hub, Lookup};
use crate::files::read_start;
use hf_hub::Cache;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest token, with room to spare.
const MOST_TOKEN_BYTES: u64 = 4096;

impl Default for Hub {
    fn default() -> Self {
        hub(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }
}

impl Hub {
    /// A hub by its address, with its cache, and nothing from the environment: no token, and not offline.
    pub fn new(endpoint: impl Into<String>, cache: impl Into<PathBuf>) -> Self {
        hub(|_| None).endpoint(endpoint).cache(cache).token("")
    }
}

/// The hub that these variables describe; a variable that is set but empty counts as not set.
fn hub(variable: impl Fn(&str) -> Option<String>) -> Hub {
    let folder = |name: &str| variable(name).map(PathBuf::from);
    let user_cache =
        || folder("XDG_CACHE_HOME").unwrap_or_else(|| std::env::home_dir().unwrap_or_default().join(".cache"));
    let home = folder("HF_HOME").unwrap_or_else(|| user_cache().join("huggingface"));
    let home = Cache::new(home.join("hub"));
    let cache = folder("HF_HUB_CACHE").or_else(|| folder("HUGGINGFACE_HUB_CACHE"));
    let token =
        variable("HF_TOKEN").or_else(|| token_in(&folder("HF_TOKEN_PATH")?)).or_else(|| token_in(&home.token_path()));
    let on = |value: String| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str());
    let offline = variable("HF_HUB_OFFLINE").is_some_and(on);
    let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
    let hub = Hub {
        endpoint: Endpoint::new(&endpoint),
        cache: cache.unwrap_or_else(|| home.path().clone()),
        token: None,
        lookup: if offline { Lookup::Offline } else { Lookup::Missing },
        patience: Duration::from_secs(20),
        least_speed: 1000,
        certificates: folder("SSL_CERT_FILE"),
        report: None,
    };
    hub.token(token.unwrap_or_default())
}

/// A token on a line of its own in a file.
fn token_in(path: &Path) -> Option<String> {
    let token = String::from_utf8(read_start(path, MOST_TOKEN_BYTES).ok()?).ok()?;
    Some(token).filter(|token| !token.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn with(variables: &[(&str, &str)]) -> Hub {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
        hub(find)
    }

    #[test]
    fn the_cache_is_where_the_most_specific_variable_says() {
        let all =
            [("HF_HUB_CACHE", "/a"), ("HUGGINGFACE_HUB_CACHE", "/b"), ("HF_HOME", "/c"), ("XDG_CACHE_HOME", "/d")];
        let wants = ["/a", "/b", "/c/hub", "/d/huggingface/hub"];
        for (first, want) in wants.iter().enumerate() {
            assert_eq!(with(&all[first..]).cache, Path::new(want));
        }
        assert!(with(&[]).cache.ends_with(".cache/huggingface/hub"));
    }

    #[test]
    fn the_token_comes_from_the_environment_or_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        assert_eq!(with(&[("HF_HOME", home)]).token, None);
        std::fs::write(folder.path().join("token"), "hf_home\n").unwrap();
        assert_eq!(with(&[("HF_HOME", home)]).token.as_deref(), Some("hf_home"));
        let other = folder.path().join("other");
        std::fs::write(&other, "hf_other").unwrap();
        let named = [("HF_HOME", home), ("HF_TOKEN_PATH", other.to_str().unwrap())];
        assert_eq!(with(&named).token.as_deref(), Some("hf_other"));
        assert_eq!(with(&[named[0], named[1], ("HF_TOKEN", "hf_said")]).token.as_deref(), Some("hf_said"));
    }

    #[test]
    fn endpoint_and_offline_mode() {
        assert_eq!(with(&[]).endpoint.to_string(), "https://huggingface.co");
        assert_eq!(with(&[("HF_ENDPOINT", "http://mirror:8080/")]).endpoint.to_string(), "http://mirror:8080");
        for (value, lookup) in [("1", Lookup::Offline), ("TRUE", Lookup::Offline), ("0", Lookup::Missing)] {
            assert_eq!(with(&[("HF_HUB_OFFLINE", value)]).lookup, lookup);
        }
    }

    #[test]
    fn a_token_and_a_password_are_not_printed() {
        let hub = with(&[("HF_TOKEN", "hf_secret"), ("HF_ENDPOINT", "https://user:secret@mirror")]);
        assert!(!format!("{hub:?}").contains("secret"));
        assert!(format!("{hub:?}").contains("https://mirror"));
    }
}
