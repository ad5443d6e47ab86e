//! A file of any bytes as a checkpoint: safetensors, zip or neither.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tadformer_fuzz::read(&tadformer_fuzz::file("bin", bytes)));
