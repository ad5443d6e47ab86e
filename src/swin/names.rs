//! Whose names a checkpoint uses, and timm's for each of them.
//!
//! | family | q, k, v | merging of stage I at |
//! | --- | --- | --- |
//! | transformers (hub files, and transformers 5's own names) | apart | `encoder.layers.I.downsample` |
//! | timm | together | `layers.I+1.downsample` |
//! | original, and timm of old | together | `layers.I.downsample` |
//! | released TADFormer and MTLoRA | together, under `backbone.`, linears under `.linear` | `backbone.layers.I.downsample` |

use crate::params::{Checkpoint, Made};
use crate::{Error, Result};
use std::collections::BTreeMap;

/// Whose names a checkpoint uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Hugging Face transformers.
    Transformers,
    /// timm, and this crate.
    Timm,
    /// The original code's, merging at a stage's end.
    Original,
    /// The released TADFormer's and MTLoRA's.
    Released,
}

/// Recognises the family from the names alone, and gives the checkpoint under timm's names with the names left out: derived
/// tensors, which no model needs, are not among them.
///
/// # Errors
/// A checkpoint of another network; SwinV2, which computes attention differently; a Swin with absolute position embeddings; two
/// tensors for one name.
pub fn canonical(checkpoint: Checkpoint) -> Result<(Family, Checkpoint, Vec<String>)> {
    let names: Vec<String> = checkpoint.names().map(str::to_owned).collect();
    let family = recognise(&checkpoint, &names)?;
    let (mut made, mut unused) = (BTreeMap::<String, Made>::new(), Vec::new());
    for name in names.iter().filter(|name| !is_derived(name)) {
        let (new, part) = match place(family, name) {
            Place::As(new) => (new, Some(whole(&checkpoint, name))),
            Place::Query(new) => (new, fused(&checkpoint, name)),
            Place::Fused => continue,
            Place::Nowhere => (String::new(), None),
        };
        let Some(part) = part else {
            unused.push(name.clone());
            continue;
        };
        if let Some(other) = made.get(&new) {
            let problem = format!("`{}` and `{name}` are both `{new}`", other.parts[0]);
            return Err(Error::file(checkpoint.path(), problem, "keep the tensors of one model in it"));
        }
        made.insert(new, part);
    }
    Ok((family, checkpoint.renamed(made), unused))
}

/// Where a tensor of the file goes.
#[derive(Debug, PartialEq)]
enum Place {
    /// Under this name.
    As(String),
    /// Under this name, with key and value after it.
    Query(String),
    /// Key or value: taken with the query.
    Fused,
    /// The model has no use for it.
    Nowhere,
}

fn recognise(checkpoint: &Checkpoint, names: &[String]) -> Result<Family> {
    let any = |test: &dyn Fn(&str) -> bool| names.iter().any(|name| test(name));
    let contains = |part: &str| any(&|name| name.contains(part));
    if ["logit_scale", "cpb_mlp", "continuous_position_bias_mlp"].into_iter().any(contains) {
        let cure =
            "take a Swin, not a SwinV2: it scales attention by cosines and makes its position biases with a network";
        return Err(Error::file(checkpoint.path(), "a SwinV2", cure));
    }
    // Left out silently, they would be missed in every prediction.
    if let Some(name) = names.iter().find(|name| is_absolute_position(name)) {
        let cure = "take a Swin made without them, as nearly all are";
        return Err(Error::file(checkpoint.path(), format!("absolute position embeddings, `{name}`"), cure));
    }
    let merges = |stage: usize| any(&|name| name.starts_with(&format!("layers.{stage}.downsample.")));
    if any(&|name| name.starts_with("backbone.layers.") && name.contains(".blocks.")) {
        Ok(Family::Released)
    } else if any(&|name| name.contains("encoder.layers.") && name.contains(".layernorm_before.")) {
        Ok(Family::Transformers)
    } else if any(&|name| name.starts_with("layers.0.blocks.0.attn.qkv.")) {
        Ok(if merges(0) { Family::Original } else { Family::Timm })
    } else {
        let some: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
        let problem = format!("no Swin: it holds {} tensors such as {}", names.len(), some.join(", "));
        Err(Error::file(checkpoint.path(), problem, "give a Swin of transformers, timm or the original code"))
    }
}

/// Made from the window's size alone; the optimizer's step counter of a BatchNorm is of no use either.
fn is_derived(name: &str) -> bool {
    ["relative_position_index", "attn_mask", "num_batches_tracked"].iter().any(|end| name.ends_with(end))
}

fn is_absolute_position(name: &str) -> bool {
    ["absolute_pos_embed", "embeddings.position_embeddings"].iter().any(|end| name.ends_with(end))
}

fn place(family: Family, name: &str) -> Place {
    match family {
        Family::Timm => Place::As(name.to_owned()),
        Family::Original => Place::As(merging_at_start(name)),
        Family::Transformers => transformers(name),
        Family::Released => released(name).map_or(Place::Nowhere, Place::As),
    }
}

/// `layers.I.downsample` at the end of stage I to the start of the next.
fn merging_at_start(name: &str) -> String {
    let moved = || {
        let (stage, rest) = name.strip_prefix("layers.")?.split_once(".downsample.")?;
        Some(format!("layers.{}.downsample.{rest}", stage.parse::<usize>().ok()?.checked_add(1)?))
    };
    moved().unwrap_or_else(|| name.to_owned())
}

fn transformers(name: &str) -> Place {
    let name = name.strip_prefix("swin.").unwrap_or(name);
    if let Some(rest) = name.strip_prefix("embeddings.") {
        let rest = rest.replace("patch_embeddings.projection.", "proj.");
        let used = rest.starts_with("proj.") || rest.starts_with("norm.");
        return if used { Place::As(format!("patch_embed.{rest}")) } else { Place::Nowhere };
    }
    let Some(name) = name.strip_prefix("encoder.") else { return Place::Nowhere };
    let merged = merging_at_start(name);
    let Some((block, part)) = merged.split_once(".attention.") else { return Place::As(block_part(&merged)) };
    let attn = |part: &str| format!("{block}.attn.{part}");
    let (layer, end) = part.rsplit_once('.').unwrap_or((part, ""));
    match layer {
        "self.query" | "q_proj" => Place::Query(attn(&format!("qkv.{end}"))),
        "self.key" | "self.value" | "k_proj" | "v_proj" => Place::Fused,
        "output.dense" | "o_proj" => Place::As(attn(&format!("proj.{end}"))),
        "self" | "relative_position_bias" => Place::As(attn(end)),
        _ => Place::Nowhere,
    }
}

/// A part of a block that is not its attention.
fn block_part(name: &str) -> String {
    let renames = [
        (".layernorm_before.", ".norm1."),
        (".layernorm_after.", ".norm2."),
        (".intermediate.dense.", ".mlp.fc1."),
        (".output.dense.", ".mlp.fc2."),
    ];
    renames.into_iter().fold(name.to_owned(), |name, (theirs, ours)| name.replace(theirs, ours))
}

fn released(name: &str) -> Option<String> {
    if let Some(name) = name.strip_prefix("backbone.") {
        return released_backbone(name);
    }
    if let Some(name) = name.strip_prefix("downsampler.") {
        let (task, stage) = name.split_once(".downsample_")?;
        return Some(format!("heads.{task}.projections.{stage}"));
    }
    let (task, layer) = name.strip_prefix("decoders.decoders.")?.split_once(".last_layer.")?;
    let (index, end) = layer.split_once('.')?;
    let layer = match index {
        "0" => "hidden",
        "1" => "norm",
        "3" => "output",
        _ => return None,
    };
    Some(format!("heads.{task}.{layer}.{end}"))
}

fn released_backbone(name: &str) -> Option<String> {
    if name == "task_prompts" {
        return Some("prompts.table".to_owned());
    }
    if let Some((stage, _)) = name.split_once(".downsample.task_prompts_up.") {
        return Some(format!("prompts.up.{}.weight", stage.strip_prefix("layers.")?));
    }
    if let Some(stage) = name.strip_suffix(".prompt_gate") {
        return Some(format!("{stage}.gate"));
    }
    let known = ["layers.", "patch_embed."].iter().any(|start| name.starts_with(start));
    let renames = [
        (".proj.prompt_layernorm.", ".prompt_norm."),
        (".linear.", "."),
        (".lora_shared_A", ".low_rank.a"),
        (".lora_shared_B", ".low_rank.b"),
        (".chan_FilterNorm.std", ".norm.scale"),
        (".chan_FilterNorm.mean", ".norm.shift"),
        (".conv2d.", "."),
        (".lora_filter.", ".filter."),
    ];
    known.then(|| renames.into_iter().fold(merging_at_start(name), |name, (theirs, ours)| name.replace(theirs, ours)))
}

/// One tensor of the file; a 1x1 convolution as the matrix it is.
fn whole(checkpoint: &Checkpoint, name: &str) -> Made {
    let mut shape = checkpoint.shape(name).unwrap_or_default();
    if shape.len() == 4 && shape[2..] == [1, 1] {
        shape.truncate(2);
    }
    Made { parts: vec![name.to_owned()], shape }
}

/// Query, key and value one after the other; `None` where one is missing or of another shape.
fn fused(checkpoint: &Checkpoint, query: &str) -> Option<Made> {
    let swap = |theirs: &str, other: &str| query.replace(theirs, other);
    let parts = if query.contains(".self.query.") {
        [query.to_owned(), swap(".query.", ".key."), swap(".query.", ".value.")]
    } else {
        [query.to_owned(), swap(".q_proj.", ".k_proj."), swap(".q_proj.", ".v_proj.")]
    };
    let mut shape = checkpoint.shape(query)?;
    if parts.iter().any(|part| checkpoint.shape(part).as_ref() != Some(&shape)) {
        return None;
    }
    *shape.first_mut()? *= 3;
    Some(Made { parts: parts.to_vec(), shape })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};
    use std::collections::HashMap;

    #[test]
    fn transformers_names_of_both_kinds() {
        let block = "encoder.layers.2.blocks.3";
        for (theirs, ours) in [
            ("layernorm_before.weight", "norm1.weight"),
            ("layernorm_after.bias", "norm2.bias"),
            ("attention.output.dense.weight", "attn.proj.weight"),
            ("attention.o_proj.weight", "attn.proj.weight"),
            ("attention.self.relative_position_bias_table", "attn.relative_position_bias_table"),
            ("attention.relative_position_bias.relative_position_bias_table", "attn.relative_position_bias_table"),
            ("intermediate.dense.bias", "mlp.fc1.bias"),
            ("mlp.fc1.bias", "mlp.fc1.bias"),
            ("output.dense.weight", "mlp.fc2.weight"),
        ] {
            for prefix in ["", "swin."] {
                let want = Place::As(format!("layers.2.blocks.3.{ours}"));
                assert_eq!(transformers(&format!("{prefix}{block}.{theirs}")), want, "{theirs}");
            }
        }
        let query = Place::Query("layers.2.blocks.3.attn.qkv.bias".into());
        assert_eq!(transformers(&format!("{block}.attention.self.query.bias")), query);
        assert_eq!(transformers(&format!("{block}.attention.q_proj.bias")), query);
        assert_eq!(transformers(&format!("{block}.attention.k_proj.bias")), Place::Fused);
        let merging = transformers("swin.encoder.layers.0.downsample.reduction.weight");
        assert_eq!(merging, Place::As("layers.1.downsample.reduction.weight".into()));
        let patch = transformers("swin.embeddings.patch_embeddings.projection.weight");
        assert_eq!(patch, Place::As("patch_embed.proj.weight".into()));
        for unused in ["classifier.weight", "swin.layernorm.bias", "swin.embeddings.mask_token"] {
            assert_eq!(transformers(unused), Place::Nowhere);
        }
    }

    #[test]
    fn released_names() {
        for (theirs, ours) in [
            ("backbone.task_prompts", "prompts.table"),
            ("backbone.layers.1.downsample.task_prompts_up.weight", "prompts.up.1.weight"),
            ("backbone.layers.0.downsample.norm.bias", "layers.1.downsample.norm.bias"),
            ("backbone.layers.3.prompt_gate", "layers.3.gate"),
            ("backbone.patch_embed.proj.weight", "patch_embed.proj.weight"),
            ("backbone.layers.0.blocks.1.attn.qkv.linear.weight", "layers.0.blocks.1.attn.qkv.weight"),
            ("backbone.layers.0.blocks.1.mlp.fc1.lora_shared_A", "layers.0.blocks.1.mlp.fc1.low_rank.a"),
            ("backbone.layers.0.blocks.1.attn.proj.prompt_layernorm.bias", "layers.0.blocks.1.attn.prompt_norm.bias"),
            ("backbone.layers.0.blocks.1.mlp.fc2.lora_filter.conv.bias", "layers.0.blocks.1.mlp.fc2.filter.conv.bias"),
            (
                "backbone.layers.0.blocks.1.mlp.fc2.lora_filter.chan_FilterNorm.std",
                "layers.0.blocks.1.mlp.fc2.filter.norm.scale",
            ),
            (
                "backbone.layers.0.blocks.1.mlp.fc2.lora_filter.sal.conv2d.weight",
                "layers.0.blocks.1.mlp.fc2.filter.sal.weight",
            ),
            ("downsampler.sal.downsample_2.weight", "heads.sal.projections.2.weight"),
            ("decoders.decoders.sal.last_layer.0.bias", "heads.sal.hidden.bias"),
            ("decoders.decoders.sal.last_layer.1.running_var", "heads.sal.norm.running_var"),
            ("decoders.decoders.sal.last_layer.3.weight", "heads.sal.output.weight"),
        ] {
            assert_eq!(released(theirs).as_deref(), Some(ours));
        }
        assert_eq!(released("backbone.norm.weight"), None);
        assert_eq!(released("decoders.decoders.sal.last_layer.2.weight"), None);
    }

    fn checkpoint(names: &[&str]) -> Checkpoint {
        let zeros = |_| Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        Checkpoint::from_tensors(names.iter().map(|name| (name.to_string(), zeros(name))).collect::<HashMap<_, _>>())
    }

    #[test]
    fn old_timm_and_original_files_merge_at_the_end() {
        let block = "layers.0.blocks.0.attn.qkv.weight";
        let family = |merging: &str| {
            let (family, renamed, _) = canonical(checkpoint(&[block, merging])).unwrap();
            assert!(renamed.shape("layers.1.downsample.norm.weight").is_some());
            family
        };
        assert_eq!(family("layers.0.downsample.norm.weight"), Family::Original);
        assert_eq!(family("layers.1.downsample.norm.weight"), Family::Timm);
    }

    #[test]
    fn other_networks_are_refused_by_name() {
        let refuse = |names: &[&str]| canonical(checkpoint(names)).unwrap_err().to_string();
        let message = refuse(&["encoder.layers.0.blocks.0.attention.self.logit_scale"]);
        assert!(message.contains("SwinV2") && message.contains("cosines"), "{message}");
        let message = refuse(&["conv1.weight", "layer1.0.conv1.weight"]);
        assert!(message.contains("no Swin") && message.contains("conv1.weight"), "{message}");
    }

    #[test]
    fn a_query_without_its_key_is_unused() {
        let base = "encoder.layers.0.blocks.0";
        let names = [format!("{base}.layernorm_before.weight"), format!("{base}.attention.self.query.weight")];
        let (_, renamed, unused) = canonical(checkpoint(&[&names[0], &names[1]])).unwrap();
        assert_eq!(unused, [names[1].clone()]);
        assert_eq!(renamed.shape("layers.0.blocks.0.attn.qkv.weight"), None);
    }

    #[test]
    fn absolute_position_embeddings_are_refused_by_name() {
        for names in [
            ["layers.0.blocks.0.attn.qkv.weight", "absolute_pos_embed"],
            ["swin.encoder.layers.0.blocks.0.layernorm_before.weight", "swin.embeddings.position_embeddings"],
        ] {
            let message = canonical(checkpoint(&names)).unwrap_err().to_string();
            assert!(message.contains(names[1]) && message.contains("absolute position"), "{message}");
        }
    }

    #[test]
    fn two_tensors_for_one_name_are_refused() {
        let names = [
            "swin.encoder.layers.0.blocks.0.layernorm_before.weight",
            "encoder.layers.0.blocks.0.layernorm_before.weight",
        ];
        let message = canonical(checkpoint(&names)).unwrap_err().to_string();
        assert!(message.contains("layers.0.blocks.0.norm1.weight") && message.contains(names[1]), "{message}");
    }
}
