//! A config.json of any bytes.
#![no_main]

use tadformer::SwinConfig;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(config) = SwinConfig::of_config(tadformer_fuzz::file("json", bytes)) {
        assert!(config.check().is_ok());
    }
});
