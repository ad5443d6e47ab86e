//! torchvision's names: one list of features, in which stages stand at odd places and each one's merging after it.

use super::place::Place;

/// Where a tensor of the Swin goes.
pub(super) fn place(name: &str) -> Place {
    timms(name).map_or(Place::Nowhere, Place::As)
}

fn timms(name: &str) -> Option<String> {
    if let Some(end) = name.strip_prefix("head.") {
        return Some(format!("head.fc.{end}"));
    }
    let Some(feature) = name.strip_prefix("features.") else {
        return name.starts_with("norm.").then(|| name.to_owned());
    };
    let (number, rest) = feature.split_once('.')?;
    let number: usize = number.parse().ok()?;
    if number > 0 && number.is_multiple_of(2) {
        return Some(format!("layers.{}.downsample.{rest}", number / 2));
    }
    let (inner, part) = rest.split_once('.')?;
    match (number, inner) {
        (0, "0") => Some(format!("patch_embed.proj.{part}")),
        (0, "2") => Some(format!("patch_embed.norm.{part}")),
        (0, _) => None,
        _ => Some(format!("layers.{}.blocks.{inner}.{}", number / 2, in_block(part))),
    }
}

/// An MLP is a list as well: linear, GELU, dropout, linear.
fn in_block(part: &str) -> String {
    let linear = |(theirs, ours): (&str, &str)| Some(format!("{ours}{}", part.strip_prefix(theirs)?));
    [("mlp.0.", "mlp.fc1."), ("mlp.3.", "mlp.fc2.")].into_iter().find_map(linear).unwrap_or_else(|| part.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_name() {
        for (theirs, ours) in [
            ("features.0.0.weight", "patch_embed.proj.weight"),
            ("features.0.2.bias", "patch_embed.norm.bias"),
            ("features.1.0.norm1.weight", "layers.0.blocks.0.norm1.weight"),
            ("features.7.1.attn.qkv.bias", "layers.3.blocks.1.attn.qkv.bias"),
            ("features.3.1.attn.relative_position_bias_table", "layers.1.blocks.1.attn.relative_position_bias_table"),
            ("features.5.17.mlp.0.weight", "layers.2.blocks.17.mlp.fc1.weight"),
            ("features.5.17.mlp.3.bias", "layers.2.blocks.17.mlp.fc2.bias"),
            ("features.2.reduction.weight", "layers.1.downsample.reduction.weight"),
            ("features.6.norm.bias", "layers.3.downsample.norm.bias"),
            ("norm.weight", "norm.weight"),
            ("head.bias", "head.fc.bias"),
        ] {
            assert_eq!(place(theirs), Place::As(ours.to_owned()), "{theirs}");
        }
        for unused in ["features.0.1.weight", "features.0", "features.x.0.weight", "features.1", "criterion.weight"] {
            assert_eq!(place(unused), Place::Nowhere, "{unused}");
        }
    }
}
