//! The model that is trained.

use crate::download;
use crate::options::Options;
use anyhow::Context;
use candle_core::Device;
use std::path::Path;
use tadformer::heads::HrNetConfig;
use tadformer::hub::Hub;
use tadformer::swin::SwinConfig;
use tadformer::{TADFormer, TaskSet};

/// A small model by default, else a preset, a checkpoint or a model of the hub.
pub fn build(options: &Options, tasks: &TaskSet, device: &Device) -> anyhow::Result<TADFormer> {
    let builder = match options.backbone.as_str() {
        "small" => {
            let sizes = SwinConfig {
                embed_dim: 48,
                depths: vec![2, 2, 2, 2],
                num_heads: vec![2, 4, 8, 16],
                window: 6,
                drop_path: 0.0,
                ..SwinConfig::tiny()
            };
            TADFormer::builder(sizes).head(HrNetConfig::new([16, 24, 32, 48]))
        }
        path if Path::new(path).exists() => TADFormer::builder_from_pretrained(path)?,
        id if id.contains('/') => TADFormer::builder_from_hub(id, &Hub::default().progress(download::bar()))?,
        preset => {
            let unknown = "--backbone: no file or folder of this name, no OWNER/NAME of the hub, and no preset";
            TADFormer::builder(preset.parse().context(unknown)?)
        }
    };
    let builder = match &options.head {
        Some(head) => builder.head(head.clone()),
        None => builder,
    };
    let builder = builder.image_size(options.image()).tasks(tasks.clone()).tuning(options.tuning, options.rank);
    Ok(builder.seed(options.seed).dtype(options.dtype).device(device).build()?)
}
