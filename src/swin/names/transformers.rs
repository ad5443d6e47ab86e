//! The names of transformers: those of the hub's files, and those that transformers 5 has in memory.

use super::place::Place;
use super::timm::{merging_at_end, merging_at_start};

/// What stands before a backbone's names in a model with a head.
const MODEL: &str = "swin.";

/// A block's parts beside queries, keys and values: the hub's names and timm's.
const PARTS: [(&str, &str); 6] = [
    ("layernorm_before.", "norm1."),
    ("layernorm_after.", "norm2."),
    ("attention.output.dense.", "attn.proj."),
    ("attention.self.relative_position_bias_table", "attn.relative_position_bias_table"),
    ("intermediate.dense.", "mlp.fc1."),
    ("output.dense.", "mlp.fc2."),
];

/// The same parts where transformers 5 names them otherwise.
const OWN_PARTS: [(&str, &str); 4] = [
    ("attention.o_proj.", "attn.proj."),
    ("attention.relative_position_bias.relative_position_bias_table", "attn.relative_position_bias_table"),
    ("mlp.fc1.", "mlp.fc1."),
    ("mlp.fc2.", "mlp.fc2."),
];

/// Queries, keys and values: the hub's names and transformers 5's.
const QKV: [[&str; 3]; 2] = [
    ["attention.self.query.", "attention.self.key.", "attention.self.value."],
    ["attention.q_proj.", "attention.k_proj.", "attention.v_proj."],
];

/// Where a tensor goes whose backbone starts at `root`.
pub(super) fn place(root: &str, name: &str) -> Place {
    let model = root.strip_suffix(MODEL).unwrap_or(root);
    let Some(inner) = name.strip_prefix(root) else {
        return beside(name.strip_prefix(model).unwrap_or_default());
    };
    if let Some(end) = inner.strip_prefix("embeddings.patch_embeddings.projection.") {
        return Place::As(format!("patch_embed.proj.{end}"));
    }
    if let Some(end) = inner.strip_prefix("embeddings.norm.") {
        return Place::As(format!("patch_embed.norm.{end}"));
    }
    match inner.strip_prefix("encoder.") {
        Some(layer) => in_layer(layer),
        // A backbone of transformers 5 keeps its last norm where a model has it.
        None => beside(inner),
    }
}

/// What no block has: the last norm and the classifier.
fn beside(name: &str) -> Place {
    let norm = name.strip_prefix(MODEL).unwrap_or(name).strip_prefix("layernorm.");
    match (norm, name.strip_prefix("classifier.")) {
        (Some(end), _) => Place::As(format!("norm.{end}")),
        (None, Some(end)) => Place::As(format!("head.fc.{end}")),
        (None, None) => Place::Nowhere,
    }
}

fn in_layer(name: &str) -> Place {
    let Some((block, part)) = in_block(name) else { return Place::As(merging_at_start(name)) };
    for names in QKV {
        for (i, theirs) in names.iter().enumerate() {
            let Some(end) = part.strip_prefix(theirs) else { continue };
            let fused = format!("{block}attn.qkv.{end}");
            return if i == 0 { Place::Query(fused, names) } else { Place::Fused(fused) };
        }
    }
    let mut parts = PARTS.iter().chain(&OWN_PARTS);
    match parts.find_map(|(theirs, ours)| Some((ours, part.strip_prefix(theirs)?))) {
        Some((ours, end)) => Place::As(format!("{block}{ours}{end}")),
        None => Place::Nowhere,
    }
}

/// `layers.I.blocks.J.` and the rest.
fn in_block(name: &str) -> Option<(&str, &str)> {
    let (_, after) = name.split_once(".blocks.")?;
    let (_, part) = after.split_once('.')?;
    Some((&name[..name.len() - part.len()], part))
}

/// The hub's names of what timm calls `name`: three for queries, keys and values, one after the other; `None` for what its models
/// have no place for.
pub(super) fn hub_names(name: &str) -> Option<Vec<String>> {
    let one = |name: String| Some(vec![name]);
    for (ours, theirs) in [
        ("patch_embed.proj.", "swin.embeddings.patch_embeddings.projection."),
        ("patch_embed.norm.", "swin.embeddings.norm."),
        ("norm.", "swin.layernorm."),
        ("head.fc.", "classifier."),
    ] {
        if let Some(end) = name.strip_prefix(ours) {
            return one(format!("{theirs}{end}"));
        }
    }
    let Some((block, part)) = in_block(name) else {
        return name.contains(".downsample.").then(|| vec![format!("swin.encoder.{}", merging_at_end(name))]);
    };
    if let Some(end) = part.strip_prefix("attn.qkv.") {
        return Some(QKV[0].map(|theirs| format!("swin.encoder.{block}{theirs}{end}")).to_vec());
    }
    let (theirs, end) = PARTS.iter().find_map(|(theirs, ours)| Some((theirs, part.strip_prefix(ours)?)))?;
    one(format!("swin.encoder.{block}{theirs}{end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &str = "encoder.layers.2.blocks.3";

    #[test]
    fn blocks_of_both_kinds() {
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
            for root in ["", "swin.", "module.swin."] {
                let want = Place::As(format!("layers.2.blocks.3.{ours}"));
                assert_eq!(place(root, &format!("{root}{BLOCK}.{theirs}")), want, "{theirs}");
            }
        }
    }

    #[test]
    fn queries_take_their_keys_and_values_along() {
        let fused = "layers.2.blocks.3.attn.qkv.bias".to_owned();
        let query = |names| Place::Query(fused.clone(), names);
        assert_eq!(place("", &format!("{BLOCK}.attention.self.query.bias")), query(QKV[0]));
        assert_eq!(place("", &format!("{BLOCK}.attention.q_proj.bias")), query(QKV[1]));
        for other in ["k_proj", "v_proj", "self.key", "self.value"] {
            assert_eq!(place("", &format!("{BLOCK}.attention.{other}.bias")), Place::Fused(fused.clone()));
        }
    }

    #[test]
    fn what_no_block_has() {
        for (root, theirs, ours) in [
            ("swin.", "swin.encoder.layers.0.downsample.reduction.weight", "layers.1.downsample.reduction.weight"),
            ("swin.", "swin.embeddings.patch_embeddings.projection.weight", "patch_embed.proj.weight"),
            ("swin.", "swin.embeddings.norm.bias", "patch_embed.norm.bias"),
            ("swin.", "swin.layernorm.bias", "norm.bias"),
            ("", "layernorm.bias", "norm.bias"),
            ("", "swin.layernorm.bias", "norm.bias"),
            ("swin.", "classifier.weight", "head.fc.weight"),
            ("module.swin.", "module.classifier.weight", "head.fc.weight"),
        ] {
            assert_eq!(place(root, theirs), Place::As(ours.to_owned()), "{theirs}");
        }
        for unused in [
            "swin.embeddings.mask_token",
            "decoder.0.weight",
            "hidden_states_norms.stage1.weight",
            "swin.encoder.layers.0.blocks.0.attention.rotary.weight",
        ] {
            assert_eq!(place("swin.", unused), Place::Nowhere, "{unused}");
        }
    }

    #[test]
    fn the_hubs_names_are_read_as_they_were_written() {
        for name in [
            "patch_embed.proj.weight",
            "patch_embed.norm.bias",
            "layers.1.blocks.0.norm1.weight",
            "layers.1.blocks.0.norm2.bias",
            "layers.0.blocks.1.attn.proj.weight",
            "layers.0.blocks.1.attn.relative_position_bias_table",
            "layers.0.blocks.1.mlp.fc1.bias",
            "layers.0.blocks.1.mlp.fc2.weight",
            "layers.1.downsample.reduction.weight",
            "norm.weight",
            "head.fc.bias",
        ] {
            let written = hub_names(name).unwrap();
            assert_eq!(written.len(), 1);
            assert_eq!(place("swin.", &written[0]), Place::As(name.to_owned()));
        }
        let parts = hub_names("layers.0.blocks.1.attn.qkv.bias").unwrap();
        assert_eq!(parts[2], "swin.encoder.layers.0.blocks.1.attention.self.value.bias");
        for none in ["prompts.table", "heads.sal.output.weight", "layers.0.blocks.1.mlp.fc1x", "layers.0.gate"] {
            assert_eq!(hub_names(none), None, "{none}");
        }
    }
}
