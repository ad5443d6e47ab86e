//! What loading costs: every frozen weight goes from its file to its place once, and a second adapter brings its own weights alone;
//! photos and labels cost a few bytes a pixel, and nothing where their headers announce too many.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/counting.rs"]
mod counting;

use candle_core::{DType, Device, Tensor};
use common::swin;
use counting::Counting;
#[cfg(feature = "data")]
use counting::peak_of_all as peak_of;
use std::path::Path;
use tadformer::TADFormer;
use tadformer::files::write_tensors;
use tadformer::heads::HrNetConfig;
use tadformer::params::{Checkpoint, Ledger, Release, Role, Weights, checkpoint_source, random_source};
use tadformer::swin::{Swin, SwinConfig, names};
#[cfg(feature = "data")]
use tadformer::{
    Predictor,
    data::{read_label, read_photo},
    image::{GrayImage, Luma, Rgb, RgbImage},
};

#[global_allocator]
static COUNTING: Counting = Counting;

/// A Swin of seven megabytes.
fn medium() -> SwinConfig {
    SwinConfig { embed_dim: 32, depths: vec![2, 2, 2, 2], num_heads: vec![1, 2, 4, 8], ..swin() }
}

/// Its weights, by timm's names.
fn drawn() -> Vec<(String, Tensor)> {
    let ledger = Ledger::seeded(0, DType::F32, &Device::Cpu);
    let source = random_source(0, DType::F32, &Device::Cpu);
    Swin::new(&medium(), &Weights::new(source, ledger.clone(), Release::none())).unwrap();
    ledger.entries().into_iter().map(|entry| (entry.name.clone(), entry.tensor().clone())).collect()
}

/// As transformers names them, query, key and value apart.
fn as_transformers(tensors: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    let renames = [
        ("norm1", "layernorm_before"),
        ("norm2", "layernorm_after"),
        ("attn.proj", "attention.output.dense"),
        ("attn.relative", "attention.self.relative"),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
        ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
        ("patch_embed.norm", "embeddings.norm"),
    ];
    let rename = |(name, tensor): (String, Tensor)| -> Vec<(String, Tensor)> {
        if let Some((block, end)) = name.split_once(".attn.qkv.") {
            let part = |(i, part): (usize, &str)| {
                let rows = tensor.dim(0).unwrap() / 3;
                (format!("encoder.{block}.attention.self.{part}.{end}"), tensor.narrow(0, i * rows, rows).unwrap())
            };
            return ["query", "key", "value"].into_iter().enumerate().map(part).collect();
        }
        let name = renames.iter().fold(name, |name, (timm, hub)| name.replace(timm, hub));
        let name = match name.split_once(".downsample.") {
            Some((stage, rest)) => {
                let stage: usize = stage.strip_prefix("layers.").unwrap().parse().unwrap();
                format!("layers.{}.downsample.{rest}", stage - 1)
            }
            None => name,
        };
        vec![(if name.starts_with("layers.") { format!("encoder.{name}") } else { name }, tensor)]
    };
    tensors.into_iter().flat_map(rename).collect()
}

/// Bytes of the weights, and bytes of the large pieces that loading them asked for.
fn cost_of_loading(path: &Path) -> (usize, usize) {
    let (_, checkpoint, _) = names::canonical(Checkpoint::open(path).unwrap()).unwrap();
    let config = SwinConfig::of_checkpoint(path).unwrap();
    let ledger = Ledger::seeded(0, DType::F32, &Device::Cpu);
    let source = checkpoint_source(checkpoint.into(), DType::F32, &Device::Cpu);
    let weights = Weights::new(source, ledger.clone(), Release::none());
    let (_, bytes) = counting::during(|| Swin::new(&config, &weights).unwrap());
    (ledger.entries().iter().map(|entry| 4 * entry.tensor().elem_count()).sum(), bytes.large)
}

#[test]
fn every_weight_is_copied_once_whatever_the_format() {
    let folder = tempfile::tempdir().unwrap();
    let (timm, transformers) = (folder.path().join("timm.safetensors"), folder.path().join("hub.safetensors"));
    write_tensors(&timm, drawn(), None).unwrap();
    write_tensors(&transformers, as_transformers(drawn()), None).unwrap();
    for path in [timm, transformers] {
        let (bytes, asked) = cost_of_loading(&path);
        assert!(bytes > 6_000_000);
        // What is smaller than a page is not counted.
        assert!(asked <= bytes && asked * 100 >= bytes * 95, "{}: {asked} for {bytes}", path.display());
    }
}

#[test]
fn a_second_adapter_holds_the_bytes_of_its_own_weights_alone() {
    let head = HrNetConfig { channels: vec![4, 4, 8, 8] };
    let build = |tasks: &str| {
        let builder = TADFormer::builder(medium()).tasks(tasks.parse().unwrap()).rank(4).head(head.clone());
        builder.seed(3).build().unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("second.safetensors");
    build("depth=1,sal=1").save_adapter(&path).unwrap();
    let first = build("semseg=7");
    // What is made once for the whole process is not the adapter's.
    drop(first.with_adapter(&path).unwrap());
    let (second, bytes) = counting::during(|| first.with_adapter(&path).unwrap());
    let held = bytes.held as usize;
    let own = second.ledger().entries().into_iter().filter(|entry| !matches!(entry.role, Role::Frozen(_)));
    let own: usize = own.map(|entry| 4 * entry.tensor().elem_count()).sum();
    let names = 400_000;
    assert!((own..own + names).contains(&held), "{held} bytes for {own} of weights");
    assert!(held < first.parameters().frozen(), "{held}: less than a quarter of the backbone");
}

/// A PNG's or JPEG's header of this size and little else.
#[cfg(feature = "data")]
mod headers {
    pub fn png(width: u32, height: u32, bits: u8) -> Vec<u8> {
        let chunk = |name: &[u8], content: &[u8]| {
            let named = [name, content].concat();
            [&(content.len() as u32).to_be_bytes()[..], &named, &crc(&named).to_be_bytes()].concat()
        };
        let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
        let header = chunk(b"IHDR", &[&size[..], &[bits, 0, 0, 0, 0]].concat());
        // Zeros, as zlib keeps them.
        let content = chunk(b"IDAT", b"\x78\x9c\x63\x60\x00\x00\x00\x01\x00\x01");
        [b"\x89PNG\r\n\x1a\n", &header[..], &content, &chunk(b"IEND", b"")].concat()
    }

    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
        })
    }

    pub fn jpeg(width: u16, height: u16) -> Vec<u8> {
        let (w, h) = (width.to_be_bytes(), height.to_be_bytes());
        let table = [&b"\xff\xdb\x00\x43\x00"[..], &[1; 64]].concat();
        let frame = [&b"\xff\xc0\x00\x0b\x08"[..], &h, &w, b"\x01\x01\x11\x00"].concat();
        let codes = |class: u8| [&[0xff, 0xc4, 0, 20, class, 0, 1][..], &[0; 15]].concat();
        let scan = [&b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"[..], &[0; 1000], b"\xff\xd9"].concat();
        [&b"\xff\xd8"[..], &table, &frame, &codes(0), &codes(16), &scan].concat()
    }
}

/// 1,140 bytes of a JPEG, and 49 kB of a PNG, took over 5 GB.
#[cfg(feature = "data")]
#[test]
fn sizes_that_a_header_announces_are_not_made_room_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb");
    let is_refused = |(result, peak): (tadformer::Result<()>, usize)| {
        let message = result.unwrap_err().to_string();
        assert!(
            message.contains("more than the limit of 100000000") || message.contains("a side of more"),
            "{message}"
        );
        assert!(peak < 1_000_000, "{peak} bytes");
    };
    for bytes in [headers::jpeg(12_000, 12_000), headers::png(20_000, 20_000, 1), headers::png(1 << 30, 1 << 30, 16)] {
        std::fs::write(&path, &bytes).unwrap();
        is_refused(peak_of(|| read_photo(&path).map(drop)));
    }
    for task in ["sal=1", "depth=1"].map(|task| task.parse().unwrap()) {
        is_refused(peak_of(|| read_label(&path, &task).map(drop)));
    }
    // The same headers with fewer pixels are read, or at least begun.
    std::fs::write(&path, headers::jpeg(120, 120)).unwrap();
    assert_eq!(read_photo(&path).unwrap().width(), 120);
}

/// The maps of six tasks at the photo's own size took 40 bytes a pixel and more, all at once: 15 are 1.5 GB for 100 megapixels.
#[cfg(feature = "data")]
#[test]
fn a_photo_takes_a_few_bytes_a_pixel_and_its_maps_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let photo = RgbImage::from_fn(2000, 1500, |x, y| Rgb([(x ^ y) as u8, (x * y) as u8, x as u8]));
    photo.save(path("photo.png")).unwrap();
    photo.save(path("photo.jpg")).unwrap();
    let predictor = Predictor::new(common::builder().build().unwrap()).unwrap();
    for name in ["photo.png", "photo.jpg"] {
        let ((), peak) = peak_of(|| {
            for prediction in predictor.predict_file(path(name)).unwrap() {
                prediction.save_picture(path("map.png")).unwrap();
                prediction.save_npy(path("map.npy")).unwrap();
            }
        });
        assert!(peak < 15 * 3_000_000, "{name}: {peak}");
    }
}

#[cfg(feature = "data")]
#[test]
fn a_label_takes_its_own_bytes_until_it_is_small() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("label.png");
    GrayImage::from_fn(2000, 1500, |x, y| Luma([((x / 100 + y / 100) % 7) as u8])).save(&path).unwrap();
    let task = "semseg=7".parse().unwrap();
    let (label, peak) =
        peak_of(|| read_label(&path, &task).unwrap().crop(100, 0, 1800, 1500).unwrap().resize(200, 200).unwrap());
    assert!(peak < 7_000_000, "{peak} bytes");
    assert_eq!(label.tensor().unwrap().dims(), [1, 200, 200]);
}
