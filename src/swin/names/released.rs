//! The names of the released TADFormer and of MTLoRA, from which its code came.

use super::place::Place;
use super::timm::merging_at_start;

/// What stands before the backbone's names in a whole model.
pub(super) const BACKBONE: &str = "backbone.";

/// Queries, keys and values where MTLoRA keeps them apart.
const SPLIT: [&str; 3] = [".qkv.q.", ".qkv.k.", ".qkv.v."];

/// Where a tensor goes whose backbone starts at `root`.
pub(super) fn place(root: &str, name: &str) -> Place {
    if let Some(inner) = name.strip_prefix(root) {
        return backbone(inner);
    }
    let outer = root.strip_suffix(BACKBONE).and_then(|outer| name.strip_prefix(outer));
    outer.and_then(decoder).map_or(Place::Nowhere, Place::As)
}

/// Of what decodes each task.
fn decoder(name: &str) -> Option<String> {
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

fn backbone(name: &str) -> Place {
    if !["layers.", "patch_embed."].iter().any(|start| name.starts_with(start)) {
        return if name == "task_prompts" { Place::As("prompts.table".to_owned()) } else { Place::Nowhere };
    }
    for (i, part) in SPLIT.iter().enumerate() {
        let Some((block, end)) = name.split_once(part).and_then(|(b, end)| Some((b, end.strip_prefix("linear.")?)))
        else {
            continue;
        };
        let fused = format!("{block}.qkv.{end}");
        return if i == 0 { Place::Query(fused, SPLIT) } else { Place::Fused(fused) };
    }
    Place::As(stage(name).unwrap_or_else(|| layer(name)))
}

/// What a stage has one of.
fn stage(name: &str) -> Option<String> {
    if let Some((stage, end)) = name.split_once(".downsample.task_prompts_up.") {
        return Some(format!("prompts.up.{}.{end}", stage.strip_prefix("layers.")?));
    }
    name.strip_suffix(".prompt_gate").map(|stage| format!("{stage}.gate"))
}

fn layer(name: &str) -> String {
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
    renames.into_iter().fold(merging_at_start(name), |name, (theirs, ours)| name.replace(theirs, ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_whole_model() {
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
            for outer in ["", "module."] {
                let place = place(&format!("{outer}backbone."), &format!("{outer}{theirs}"));
                assert_eq!(place, Place::As(ours.to_owned()));
            }
        }
        for unused in ["backbone.norm.weight", "decoders.decoders.sal.last_layer.2.weight", "criterion.weight"] {
            assert_eq!(place("backbone.", unused), Place::Nowhere);
        }
    }

    #[test]
    fn split_queries_take_their_keys_and_values_along() {
        let fused = "layers.0.blocks.1.attn.qkv.weight".to_owned();
        let place =
            |part: &str| place("backbone.", &format!("backbone.layers.0.blocks.1.attn.qkv.{part}.linear.weight"));
        assert_eq!(place("q"), Place::Query(fused.clone(), SPLIT));
        assert_eq!([place("k"), place("v")], [Place::Fused(fused.clone()), Place::Fused(fused)]);
    }
}
