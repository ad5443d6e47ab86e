//! Whose names a checkpoint uses and where in it they start; what is refused by name.

use super::family::Family;
use crate::checkpoint::Checkpoint;
use crate::{Error, Result};
use std::collections::BTreeMap;

/// A family, and what stands before each of its names.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) family: Family,
    /// Empty, or ends with a dot: `module.`, `swin.`, `module.backbone.`.
    pub(super) root: String,
}

/// A tensor that every Swin of a library has once.
const FIRST: [(&str, Library); 5] = [
    ("encoder.layers.0.blocks.0.layernorm_before.weight", Library::Transformers),
    ("features.1.0.attn.qkv.weight", Library::Torchvision),
    ("layers.0.blocks.0.attn.qkv.weight", Library::Others),
    ("layers.0.blocks.0.attn.qkv.linear.weight", Library::Others),
    ("layers.0.blocks.0.attn.qkv.q.linear.weight", Library::Others),
];

#[derive(Clone, Copy)]
enum Library {
    Transformers,
    Torchvision,
    Others,
}

/// Finds the one Swin in a checkpoint.
///
/// # Errors
/// A SwinV2, another network, absolute position embeddings, several Swins.
pub(super) fn recognise(checkpoint: &Checkpoint, names: &[String]) -> Result<Found> {
    refuse_v2(checkpoint, names)?;
    let mut found = names.iter().flat_map(|name| first_tensor(name)).collect::<BTreeMap<_, _>>().into_iter();
    let Some((root, library)) = found.next() else {
        let some: Vec<String> = names.iter().take(3).map(|name| format!("{name:.80}")).collect();
        let problem = format!("no Swin: it holds {} tensors such as {}", names.len(), some.join(", "));
        return Err(Error::file(
            checkpoint.path(),
            problem,
            "give a Swin of transformers, timm, torchvision or the original code",
        ));
    };
    if let Some((other, _)) = found.next() {
        let problem = format!("several Swins, one under `{root}` and one under `{other}`");
        return Err(Error::file(checkpoint.path(), problem, "keep the tensors of one model in it"));
    }
    let inside: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix(root)).collect();
    // Left out silently, they would be missed in every prediction.
    if let Some(name) = inside.iter().find(|name| is_absolute_position(name)) {
        let problem = format!("absolute position embeddings, `{root}{name}`");
        return Err(Error::file(checkpoint.path(), problem, "take a Swin made without them, as nearly all are"));
    }
    let family = match library {
        Library::Transformers => Family::Transformers,
        Library::Torchvision => Family::Torchvision,
        Library::Others if is_released(root, names) => Family::Released,
        Library::Others if inside.iter().any(|name| name.starts_with("layers.0.downsample.")) => Family::Original,
        Library::Others => Family::Timm,
    };
    Ok(Found { family, root: root.to_owned() })
}

/// What stands before the name, where it is one of [`FIRST`].
fn first_tensor(name: &str) -> Option<(&str, Library)> {
    let root = |(first, library)| Some((name.strip_suffix(first)?, library));
    FIRST.into_iter().find_map(root).filter(|(root, _)| root.is_empty() || root.ends_with('.'))
}

fn refuse_v2(checkpoint: &Checkpoint, names: &[String]) -> Result<()> {
    let of_v2 = ["logit_scale", "cpb_mlp", "continuous_position_bias_mlp"];
    // Networks that compare pictures with texts have a `logit_scale` as well, outside their blocks.
    let in_block = |name: &'_ str| name.contains(".blocks.") || name.contains("features.") && name.contains(".attn.");
    let is_v2 = |name: &str| in_block(name) && name.split('.').any(|part| of_v2.contains(&part));
    match names.iter().find(|name| is_v2(name)) {
        None => Ok(()),
        Some(name) => {
            let cure = "take a Swin, not a SwinV2: it scales attention by cosines and makes its position biases with a network";
            Err(Error::file(checkpoint.path(), format!("a SwinV2, as `{name}` tells"), cure))
        }
    }
}

fn is_absolute_position(name: &str) -> bool {
    ["absolute_pos_embed", "embeddings.position_embeddings"].contains(&name)
}

/// Whether linears lie inside adapters, or the released code's decoders beside the backbone.
fn is_released(root: &str, names: &[String]) -> bool {
    let adapted = |name: &&str| name.contains(".blocks.") && (name.contains(".linear.") || name.contains(".lora_"));
    let decoder = |name: &&str| ["decoders.decoders.", "downsampler."].iter().any(|start| name.starts_with(start));
    let beside = root.strip_suffix(super::released::BACKBONE);
    names.iter().filter_map(|name| name.strip_prefix(root)).any(|name| adapted(&name))
        || beside.is_some_and(|outer| names.iter().filter_map(|n| n.strip_prefix(outer)).any(|name| decoder(&name)))
}
