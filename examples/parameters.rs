//! What trains: the parameters of a configuration by group, without making the model.
//!
//!     cargo run --release --example parameters -- --backbone swin-tiny --rank 16
//!
use clap::Parser;
use serde_json::json;
use tadformer::model::{TADFormerConfig, Tuning};
use tadformer::params::Pretrained;
use tadformer::swin::SwinConfig;
use tadformer::{TADFormer, TaskSet};

#[derive(Parser)]
#[command(about = "Counts a configuration's parameters by group")]
struct Options {
    /// swin-tiny, swin-small, swin-base or swin-large; append -window12 for other windows
    #[arg(long, default_value = "swin-tiny")]
    backbone: SwinConfig,
    /// Rank of the low-rank paths
    #[arg(long, default_value_t = 16)]
    rank: usize,
    /// Side of the images, which settles the windows of small maps
    #[arg(long, default_value_t = 448)]
    image: usize,
    /// Tasks and their outputs
    #[arg(long, default_value = "semseg=21,normals=3,sal=1,human_parts=7")]
    tasks: TaskSet,
    /// decoders-only, bitfit, low-rank-only, tadformer or everything
    #[arg(long, default_value = "tadformer")]
    tuning: Tuning,
    /// Further pretrained groups to release: norms, position_bias, patch_embedding, reductions, linears, biases
    #[arg(long, value_delimiter = ',')]
    release: Vec<Pretrained>,
    /// Print one line of JSON instead of the table
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut config = TADFormerConfig::new(SwinConfig { image_size: options.image, ..options.backbone });
    let (method, release) = options.tuning.settings(options.rank);
    (config.method, config.tasks) = (method, options.tasks);
    config.release = options.release.into_iter().fold(release, |release, group| release.with(group));
    let table = TADFormer::count(&config)?;
    if options.json {
        let groups: serde_json::Map<String, serde_json::Value> = table
            .groups()
            .map(|(group, count)| {
                (group.name().to_owned(), json!({ "trained": count.trained, "frozen": count.frozen }))
            })
            .collect();
        let line = json!({
            "trainable": table.trained(), "frozen": table.frozen(), "total": table.total(), "groups": groups,
        });
        println!("{line}");
    } else {
        println!("{table}");
    }
    Ok(())
}
