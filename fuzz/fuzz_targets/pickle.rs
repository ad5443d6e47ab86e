//! A pickle of any bytes in an otherwise whole file of torch.save.
#![no_main]

use std::io::{Cursor, Write};
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

libfuzzer_sys::fuzz_target!(|pickle: &[u8]| {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let entries: [(&str, &[u8]); 4] =
        [("a/data.pkl", pickle), ("a/byteorder", b"little"), ("a/data/0", &[1; 64]), ("a/data/1", &[2; 256])];
    for (name, bytes) in entries {
        zip.start_file(name, stored).expect("a name that is new");
        zip.write_all(bytes).expect("memory");
    }
    let bytes = zip.finish().expect("memory").into_inner();
    tadformer_fuzz::read(&tadformer_fuzz::file("pth", &bytes));
});
