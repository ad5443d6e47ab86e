//! An adapter whose metadata is any text, over tensors of a real one's number of values.
#![no_main]

use tadformer::model::{ModelFile, OpenOptions};

/// Values of the one tensor: enough for the configurations of the seeds.
const VALUES: usize = 40_000;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let quoted: String = text.chars().map(|c| format!("\\u{:04x}", (c as u32).min(0xffff))).collect();
    let tensor = format!(r#"{{"dtype":"F32","shape":[{VALUES}],"data_offsets":[0,{}]}}"#, 4 * VALUES);
    let header = format!(r#"{{"__metadata__":{{"tadformer":"{quoted}"}},"values":{tensor}}}"#);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + 4 * VALUES, 0);
    if let Ok(file) = ModelFile::open(tadformer_fuzz::file("safetensors", &bytes)) {
        assert!(file.config().check().is_ok());
        let _ = file.into_model(&OpenOptions::default());
    }
});
