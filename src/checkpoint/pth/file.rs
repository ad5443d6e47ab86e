//! A file of torch.save.

use super::archive::Archive;
use super::tensor::StoredTensor;
use super::{archive, tensor};
use crate::checkpoint::format::TensorFile;
use crate::checkpoint::opened::Opened;
use crate::checkpoint::pickle::Pickle;
use crate::checkpoint::pickle::json;
use crate::{Error, Result};
use safetensors::Dtype;
use std::collections::BTreeMap;

/// The tensors of a `.pth`, found but not yet read.
#[derive(Debug)]
pub(crate) struct PthFile {
    pub(super) file: Opened,
    tensors: BTreeMap<String, StoredTensor>,
    config: Option<serde_json::Value>,
}

pub(crate) const CURE: &str = "take another copy, or save it again with a current PyTorch";

impl PthFile {
    /// Reads the pickle and finds the tensors under `model`, `state_dict` or `module`, or at the top.
    ///
    /// # Errors
    /// A file that is no zip of `torch.save`, is damaged, compressed or of a big-endian machine; a tensor beyond its storage; views that
    /// ask for many times the file.
    pub(crate) fn open(file: Opened) -> Result<Self> {
        let bad = |problem: String| Error::file(file.path(), problem, CURE);
        let mut archive = Archive::of(file.handle()?, file.length()).map_err(bad)?;
        let order = archive.entry("byteorder", 16).map_err(bad)?;
        if let Some(order) = order.filter(|order| order != b"little") {
            let order = String::from_utf8_lossy(&order).into_owned();
            return Err(bad(format!("values in `{order}` byte order, expected `little`")));
        }
        let pickle = archive.entry(archive::PICKLE, Pickle::MAX_BYTES).map_err(bad)?;
        let pickle = pickle.ok_or_else(|| bad("a zip without data.pkl".into()))?;
        let pickle = Pickle::read(&pickle).map_err(bad)?;
        let storages = archive.storages().map_err(bad)?;
        let tensors = tensor::stored(&pickle, &storages).map_err(bad)?;
        if tensors.is_empty() {
            let problem = "no tensors under `model`, `state_dict` or `module`, nor at the top";
            return Err(Error::file(
                file.path(),
                problem,
                "save the model's state_dict() rather than the model itself",
            ));
        }
        check_total(&file, &tensors)?;
        let config = tensor::named(&pickle, pickle.root()).get("config").and_then(|id| json(&pickle, *id));
        Ok(Self { file, tensors, config })
    }
}

impl TensorFile for PthFile {
    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn tensor(&self, name: &str) -> Option<(Dtype, &[usize])> {
        self.tensors.get(name).map(|tensor| (tensor.dtype.into(), tensor.shape.as_slice()))
    }

    /// A storage of which a tensor is a part is read whole before the first of its parts, and compared with the zip's checksum.
    fn read(&self, name: &str, bytes: &mut [u8]) -> Result<()> {
        self.tensors.get(name).map_or(Ok(()), |tensor| self.read_tensor(tensor, bytes))
    }

    /// What a training's checkpoint holds under `config`, where it is a configuration.
    fn config(&self) -> Option<&serde_json::Value> {
        self.config.as_ref().filter(|config| config.is_object())
    }
}

/// Refuses tensors that view the same storages over and over: read one by one, they are copies, of gigabytes where the file has
/// megabytes. Of a real file every value is read about once.
pub(crate) fn check_total(file: &Opened, tensors: &BTreeMap<String, StoredTensor>) -> Result<()> {
    const MOST: u64 = 4;
    let total = tensors.values().fold(0u64, |total, tensor| total.saturating_add(tensor.bytes_read()));
    if total / MOST <= file.length() {
        return Ok(());
    }
    let problem = format!(
        "its tensors ask for {total} bytes, over {MOST} times the {} of the file: they share storages",
        file.length()
    );
    Err(Error::file(file.path(), problem, "save copies: {name: tensor.clone() for name, tensor in state_dict.items()}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::format::elements;
    use crate::checkpoint::values::values;
    use candle_core::{DType, Tensor};
    use proptest::prelude::*;
    use std::fs::File;
    use std::io::Write;
    use std::path::{Path, PathBuf};
    use zip::CompressionMethod;
    use zip::write::{SimpleFileOptions, ZipWriter};

    /// A `.pth` of the given entries.
    fn archive(entries: &[(&str, &[u8])], method: CompressionMethod) -> PathBuf {
        let path = tempfile::tempdir().unwrap().keep().join("file.pth");
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        for (name, bytes) in entries {
            zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
        path
    }

    /// `{'w': tensor}` of float32 with this offset, shape and strides, in protocol 0.
    fn pickle(offset: i64, shape: &str, strides: &str) -> Vec<u8> {
        let storage = "(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\ntQ";
        format!("(S'w'\nctorch._utils\n_rebuild_tensor_v2\n({storage}I{offset}\n({shape}t({strides}tI00\nNtRd.")
            .into_bytes()
    }

    fn of(path: &Path) -> Result<PthFile> {
        PthFile::open(Opened::open(path)?)
    }

    fn loaded(file: &PthFile, name: &str) -> Result<Tensor> {
        let (dtype, shape) = file.tensor(name).unwrap();
        let count = elements(shape).unwrap();
        Ok(values(file.file.path(), dtype, count, |bytes| file.read(name, bytes))?.reshape(shape)?)
    }

    pub(super) fn open(pickle: &[u8], storage: &[u8]) -> Result<PthFile> {
        of(&archive(&[("a/data.pkl", pickle), ("a/data/0", storage)], CompressionMethod::Stored))
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn a_transposed_view_is_read_row_by_row() {
        let file = open(&pickle(1, "I2\nI2\n", "I1\nI2\n"), &floats(&[9., 1., 2., 3., 4.])).unwrap();
        let tensor = loaded(&file, "w").unwrap();
        assert_eq!(tensor.to_vec2::<f32>().unwrap(), [[1., 3.], [2., 4.]]);
    }

    #[test]
    fn each_damaged_file_is_refused() {
        let four = floats(&[0.; 4]);
        let message = |result: Result<PthFile>| result.unwrap_err().to_string();
        for (shape, strides, offset, words) in [
            ("I5\n", "I1\n", 0, "needs more than the 4 values"),
            ("I4\n", "I1\n", 1, "needs more than the 4 values"),
            ("I2\nI2\n", "I9\nI1\n", 0, "needs more than the 4 values"),
            ("I1000000\nI1000000\n", "I0\nI0\n", 0, "needs more than the 4 values"),
            ("I4611686018427387904\nI4611686018427387904\n", "I1\nI1\n", 0, "overflows"),
            ("I2\nI2\n", "I1\n", 0, "strides that do not fit"),
            ("I-2\n", "I1\n", 0, "no tuple of up to 8 sizes"),
            ("I2\n", "I1\n", -1, "no size"),
        ] {
            let message = message(open(&pickle(offset, shape, strides), &four));
            assert!(message.contains("`w`") && message.contains(words), "{message}");
        }
        let good = pickle(0, "I4\n", "I1\n");
        assert!(open(&good, &four).is_ok());
        let with = |entries: &[(&str, &[u8])]| message(of(&archive(entries, CompressionMethod::Stored)));
        assert!(with(&[("a/data/0", &four)]).contains("without data.pkl"));
        assert!(with(&[("a/data.pkl", &good)]).contains("storage 0 is not in the file"));
        assert!(with(&[("a/data.pkl", &good), ("a/byteorder", b"big"), ("a/data/0", &four)]).contains("`big`"));
        assert!(with(&[("a/data.pkl", b"h\x01.")]).contains("memo 1"));
    }

    #[test]
    fn a_name_or_a_shape_shared_by_many_is_not_copied_for_each() {
        let started = std::time::Instant::now();
        // A megabyte of name for each of 200,000 entries: 200 GB if copied or compared.
        let mut long = b"(S'model'\n(X\x00\x00\x10\x00".to_vec();
        long.extend(std::iter::repeat_n(b'a', 1 << 20));
        long.extend(b"p0\n1".iter().chain(b"(".iter()).chain(&b"g0\nN".repeat(200_000)).chain(b"dd."));
        assert!(open(&long, &[]).unwrap_err().to_string().len() < 400);
        // A hundred thousand sides for each of 50,000 tensors: 80 GB if copied.
        let sides = "I1\n".repeat(100_000);
        let tensor = String::from_utf8(pickle(0, &sides, &sides)).unwrap();
        let tensor = tensor.trim_start_matches("(S'w'\n").trim_end_matches("d.");
        let names: String = (0..50_000).map(|i| format!("S'{i}'\ng0\n")).collect();
        let message = open(format!("(S'first'\n{tensor}p0\n{names}d.").as_bytes(), &[0; 16]).unwrap_err().to_string();
        assert!(message.contains("up to 8 sizes"), "{message}");
        assert!(started.elapsed().as_secs() < 5);
    }

    /// Changes a field of an entry's two headers: its place after each signature, and the new value.
    fn with_field(path: &Path, entry: &str, [local, central]: [usize; 2], value: &[u8]) {
        let mut bytes = std::fs::read(path).unwrap();
        for (signature, name_at, field) in [(b"PK\x03\x04", 30, local), (b"PK\x01\x02", 46, central)] {
            let named =
                |at: &usize| bytes[*at..].starts_with(signature) && bytes[at + name_at..].starts_with(entry.as_bytes());
            let at = (0..bytes.len() - 50).find(named).unwrap() + field;
            bytes[at..at + value.len()].copy_from_slice(value);
        }
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn compressed_entries_and_sizes_that_lie_are_refused() {
        let good = pickle(0, "I4\n", "I1\n");
        for (entry, fields, value, words) in [
            ("a/data.pkl", [8, 10], [8, 0].as_slice(), "ompress"),
            ("a/data/0", [8, 10], &[8, 0], "compressed"),
            ("a/data/0", [22, 24], &[0, 1, 0, 0], "storage 0"),
            ("a/data/0", [18, 20], &[0, 1, 0, 0], "storage 0"),
        ] {
            let path = archive(&[("a/data.pkl", &good), ("a/data/0", &[0; 16])], CompressionMethod::Stored);
            with_field(&path, entry, fields, value);
            let message = of(&path).unwrap_err().to_string();
            assert!(message.contains(words), "{entry} {fields:?}: {message}");
        }
        let path = archive(&[("a/data.pkl", &good), ("a/data/0", &[0; 16])], CompressionMethod::Stored);
        with_field(&path, "a/data/0", [18, 20], &[0, 0, 1, 0, 0, 0, 1, 0]);
        assert!(of(&path).unwrap_err().to_string().contains("beyond the end"));
    }

    #[test]
    fn damage_is_found_by_the_zips_checksums_where_it_carries_them() {
        let good = pickle(0, "I4\n", "I1\n");
        let entries: [(&str, &[u8]); 2] = [("a/data.pkl", &good), ("a/data/0", &floats(&[7.5; 4]))];
        let path = archive(&entries, CompressionMethod::Stored);
        let whole = std::fs::read(&path).unwrap();
        let load = || of(&path).and_then(|file| loaded(&file, "w"));
        assert_eq!(load().unwrap().to_vec1::<f32>().unwrap(), [7.5; 4]);
        let damage = |needle: &[u8]| {
            let mut bytes = whole.clone();
            let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        };
        // One bit of a value, and one of the pickle: "cpu" becomes "bpu", which nothing reads.
        for (needle, words) in [(floats(&[7.5]), "storage 0 is damaged"), (b"cpu".to_vec(), "a/data.pkl is damaged")] {
            damage(&needle);
            let message = load().unwrap_err().to_string();
            assert!(message.contains(words) && message.contains("checksum"), "{message}");
        }
        // PyTorch writes zeros for checksums where `set_crc32_options(False)` was called.
        damage(&floats(&[7.5]));
        with_field(&path, "a/data/0", [14, 16], &[0; 4]);
        assert!(load().is_ok());
    }

    /// `{'w0': tensor, ...}`: views of one storage, each of so many values from the one before on.
    fn parts(count: usize, values: usize) -> Vec<u8> {
        let part = |i: usize| {
            let tensor = String::from_utf8(pickle((i * values) as i64, &format!("I{values}\n"), "I1\n")).unwrap();
            tensor.trim_start_matches("(S'w'\n").trim_end_matches("d.").to_owned()
        };
        let entries: String = (0..count).map(|i| format!("S'w{i}'\n{}", part(i))).collect();
        format!("({entries}d.").into_bytes()
    }

    #[test]
    fn damage_anywhere_in_a_shared_storage_is_found_by_each_of_its_parts() {
        let values: Vec<f32> = (0..40_000).map(|i| i as f32).collect();
        let path =
            archive(&[("a/data.pkl", &parts(2, 100)), ("a/data/0", &floats(&values))], CompressionMethod::Stored);
        let load = |name: &str| of(&path).and_then(|file| loaded(&file, name));
        assert_eq!(load("w1").unwrap().to_vec1::<f32>().unwrap(), values[100..200]);
        let whole = std::fs::read(&path).unwrap();
        // In the first part, in the second, and where no tensor lies.
        for value in [50.0f32, 150.0, 39_999.0] {
            let mut bytes = whole.clone();
            let needle = floats(&[value, value + 1.0]);
            let needle = if value == 39_999.0 { &needle[..4] } else { &needle[..] };
            let at = bytes.windows(needle.len()).rposition(|window| window == needle).unwrap();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let file = of(&path).unwrap();
            for _ in 0..2 {
                for name in ["w0", "w1"] {
                    let message = loaded(&file, name).unwrap_err().to_string();
                    assert!(message.contains("storage 0 is damaged") && message.contains("checksum"), "{message}");
                }
            }
        }
        // Without a checksum nothing is compared.
        with_field(&path, "a/data/0", [14, 16], &[0; 4]);
        assert!(load("w0").is_ok());
    }

    #[test]
    fn a_storage_shared_by_many_is_checked_once() {
        let started = std::time::Instant::now();
        let count = 5_000;
        let path =
            archive(&[("a/data.pkl", &parts(count, 1)), ("a/data/0", &vec![0; 32 << 20])], CompressionMethod::Stored);
        let file = of(&path).unwrap();
        assert_eq!(file.tensors.len(), count);
        // 160 GB if it were read for each of them.
        file.tensors.keys().for_each(|name| drop(loaded(&file, name).unwrap()));
        assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
        std::fs::remove_file(path).unwrap();
    }

    /// `{'w0': tensor, ...}`: views of one storage, all of this shape and these strides.
    fn views(count: usize, shape: &str, strides: &str) -> Vec<u8> {
        let one = String::from_utf8(pickle(0, shape, strides)).unwrap();
        let tensor = one.trim_start_matches("(S'w'\n").trim_end_matches("d.");
        let entries: String = (0..count).map(|i| format!("S'w{i}'\n{tensor}")).collect();
        format!("({entries}d.").into_bytes()
    }

    #[test]
    fn views_that_ask_for_many_times_their_file_are_refused() {
        let storage = vec![0; 4 << 16];
        let open = |count, shape: &str, strides: &str| open(&views(count, shape, strides), &storage);
        // Two names for one weight are usual; a few views of one storage are read.
        let file = open(4, "I65536\n", "I1\n").unwrap();
        assert!(file.tensors.keys().all(|name| loaded(&file, name).unwrap().dims() == [1 << 16]));
        for (shape, strides) in
            [("I65536\n", "I1\n"), ("I256\nI256\n", "I1\nI256\n"), ("I2\n", "I65535\n"), ("I65536\n", "I0\n")]
        {
            let message = open(2000, shape, strides).unwrap_err().to_string();
            assert!(message.contains("ask for 524288000 bytes") && message.contains("share storages"), "{message}");
        }
    }

    #[test]
    fn storages_that_lie_over_each_other_are_refused() {
        let path = archive(
            &[("a/data.pkl", &parts(1, 1)), ("a/data/0", &[0; 64]), ("a/data/1", &[0; 64])],
            CompressionMethod::Stored,
        );
        let mut bytes = std::fs::read(&path).unwrap();
        let central = |bytes: &[u8], name: &str| {
            let named =
                |at: &usize| bytes[*at..].starts_with(b"PK\x01\x02") && bytes[at + 46..].starts_with(name.as_bytes());
            (0..bytes.len() - 50).find(named).unwrap()
        };
        let (first, second) = (central(&bytes, "a/data/0"), central(&bytes, "a/data/1"));
        // The second's local header becomes the first's.
        let place: [u8; 4] = bytes[first + 42..first + 46].try_into().unwrap();
        bytes[second + 42..second + 46].copy_from_slice(&place);
        std::fs::write(&path, bytes).unwrap();
        let message = of(&path).unwrap_err().to_string();
        assert!(message.contains("over each other"), "{message}");
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let whole = archive(
            &[("a/data.pkl", &pickle(0, "I4\n", "I1\n")), ("a/data/0", &floats(&[0.; 4]))],
            CompressionMethod::Stored,
        );
        let bytes = std::fs::read(&whole).unwrap();
        for end in 0..bytes.len() {
            std::fs::write(&whole, &bytes[..end]).unwrap();
            assert!(of(&whole).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn parameters_within_parameters_do_not_exhaust_the_stack() {
        let mut bytes = b"(S'w'\nctorch._utils\n_rebuild_parameter\np0\n".to_vec();
        let depth = 100_000;
        bytes.extend(b"h\x00".repeat(depth));
        bytes.extend(b"N\x85R");
        bytes.extend(b"\x85R".repeat(depth));
        bytes.extend(b"d.");
        assert!(open(&bytes, &[]).unwrap_err().to_string().contains("no tensors"));
    }

    #[test]
    fn a_parameter_is_its_tensor() {
        let tensor = String::from_utf8(pickle(0, "I2\n", "I1\n")).unwrap();
        let tensor = tensor.trim_start_matches("(S'w'\n").trim_end_matches("d.");
        let parameter = format!("(S'w'\nctorch._utils\n_rebuild_parameter\n({tensor}I01\nNtRd.");
        let file = open(parameter.as_bytes(), &floats(&[1., 2., 0., 0.])).unwrap();
        assert_eq!(loaded(&file, "w").unwrap().to_vec1::<f32>().unwrap(), [1., 2.]);
    }

    #[test]
    fn an_empty_tensor_with_an_overflowing_shape_is_refused() {
        let strides = "I1\nI1099511627776\nI1\n";
        let message = open(&pickle(0, "I0\nI1099511627776\nI1099511627776\n", strides), &floats(&[0.; 4]))
            .and_then(|file| loaded(&file, "w"))
            .unwrap_err()
            .to_string();
        assert!(message.contains("overflows"), "{message}");
        let file = open(&pickle(0, "I0\nI3\n", "I3\nI1\n"), &[]).unwrap();
        assert_eq!(loaded(&file, "w").unwrap().dims(), [0, 3]);
    }

    #[test]
    fn every_storage_that_candle_has_a_type_for_is_read() {
        for (class, dtype) in [
            ("FloatStorage", DType::F32),
            ("DoubleStorage", DType::F64),
            ("HalfStorage", DType::F16),
            ("BFloat16Storage", DType::BF16),
            ("LongStorage", DType::I64),
            ("IntStorage", DType::I32),
            ("ShortStorage", DType::I16),
            ("ByteStorage", DType::U8),
            ("BoolStorage", DType::U8),
        ] {
            let bytes =
                String::from_utf8(pickle(0, "I2\n", "I1\n")).unwrap().replace("\nFloatStorage", &format!("\n{class}"));
            let file = open(bytes.as_bytes(), &[0; 32]).unwrap();
            let tensor = loaded(&file, "w").unwrap();
            assert_eq!((tensor.dtype(), tensor.dims()), (dtype, [2].as_slice()));
        }
    }

    #[test]
    fn a_file_without_tensors_says_what_to_save() {
        for bytes in [b"}.".as_slice(), b"ctorchvision\nSwinTransformer\n)\x81}b.", b"(S'model'\n}d."] {
            let message = open(bytes, &[]).unwrap_err().to_string();
            assert!(message.contains("no tensors") && message.contains("state_dict()"), "{message}");
        }
    }

    #[test]
    fn a_model_key_without_tensors_hides_none() {
        let nested = String::from_utf8(pickle(0, "I4\n", "I1\n")).unwrap().replacen("(S'w'", "(S'model'\n}S'w'", 1);
        let file = open(nested.as_bytes(), &floats(&[0.; 4])).unwrap();
        assert_eq!(file.tensors.keys().collect::<Vec<_>>(), ["w"]);
    }

    #[test]
    fn no_changed_byte_of_a_file_makes_it_panic() {
        let entries: [(&str, &[u8]); 3] =
            [("a/data.pkl", &pickle(0, "I2\nI2\n", "I1\nI2\n")), ("a/byteorder", b"little"), ("a/data/0", &[0; 16])];
        let path = archive(&entries, CompressionMethod::Stored);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= mask;
                std::fs::write(&path, &bytes).unwrap();
                let _ = of(&path)
                    .map(|file| file.tensors.keys().map(|name| loaded(&file, name).is_ok()).collect::<Vec<_>>());
            }
        }
    }

    /// A whole training checkpoint: a pickled configuration, an optimizer's state and a scheduler lie beside the weights.
    fn released() -> Vec<u8> {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/released_w4_64.pth");
        std::fs::read(golden).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]
        #[test]
        fn no_damage_to_a_training_checkpoint_makes_it_panic(
            changes in prop::collection::vec((0..48_000usize, any::<u8>()), 1..4),
            end in 0..1600usize,
        ) {
            let mut bytes = released();
            changes.into_iter().for_each(|(at, byte)| bytes[at] = byte);
            let length = bytes.len();
            // The zip's directory lies at the end: half of the cases change it too, the others leave it readable.
            if end < 800 {
                bytes[length - 1 - end] ^= 0x41;
            }
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("damaged.pth");
            std::fs::write(&path, bytes).unwrap();
            if let Ok(file) = of(&path) {
                file.tensors.keys().for_each(|name| drop(loaded(&file, name)));
            }
        }
    }
}
