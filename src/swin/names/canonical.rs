//! Any family's names as timm's.

use super::family::Family;
use super::place::Place;
use super::recognise::Found;
use super::{recognise, released, timm, torchvision, transformers};
use crate::checkpoint::{Checkpoint, Made};
use crate::{Error, Result};
use std::collections::BTreeMap;

/// Recognises the family from the names alone; gives it, the checkpoint under timm's names, and the names that found no place in that.
///
/// Derived tensors, which no model needs, are in neither. Queries, keys and values that have no bias anywhere get one of zeros.
///
/// # Errors
/// A checkpoint of another network, or of several; SwinV2, which computes attention differently; a Swin with absolute position
/// embeddings; two tensors for one name.
pub fn canonical(checkpoint: Checkpoint) -> Result<(Family, Checkpoint, Vec<String>)> {
    let names = given(&checkpoint);
    let found = recognise::recognise(&checkpoint, &names)?;
    let (renamed, unused) = rename(checkpoint, &names, &found)?;
    Ok((found.family, renamed, unused))
}

/// Tensors of a whole released model, such as the gradients of those that train, under the crate's names.
///
/// # Errors
/// Two tensors for one name.
pub(crate) fn of_released(checkpoint: Checkpoint) -> Result<Checkpoint> {
    let found = Found { family: Family::Released, root: released::BACKBONE.to_owned() };
    let names = given(&checkpoint);
    Ok(rename(checkpoint, &names, &found)?.0)
}

/// Every name but those of derived tensors.
fn given(checkpoint: &Checkpoint) -> Vec<String> {
    checkpoint.names().filter(|name| !is_derived(name)).map(str::to_owned).collect()
}

/// The checkpoint under timm's names, and the names left out.
fn rename(checkpoint: Checkpoint, names: &[String], found: &Found) -> Result<(Checkpoint, Vec<String>)> {
    let (mut made, mut unused, mut fused_with) = (BTreeMap::<String, Made>::new(), Vec::new(), Vec::new());
    for name in names {
        let (new, part) = match place(found, name) {
            Place::As(new) => (new, Some(whole(&checkpoint, name))),
            Place::Query(new, parts) => (new, fused(&checkpoint, name, parts)),
            Place::Fused(new) => {
                fused_with.push((new, name));
                continue;
            }
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
    let orphans = fused_with.iter().filter(|(new, _)| !made.contains_key(new));
    unused.extend(orphans.map(|(_, name)| (*name).clone()));
    if !names.iter().any(|name| is_qkv_bias(&place(found, name), name)) {
        made.extend(absent_biases(&made));
    }
    Ok((checkpoint.renamed(made), unused))
}

/// Made from the window's size alone; the optimizer's step counter of a BatchNorm is of no use either.
fn is_derived(name: &str) -> bool {
    ["relative_position_index", "attn_mask", "num_batches_tracked"].iter().any(|end| name.ends_with(end))
}

fn place(found: &Found, name: &str) -> Place {
    let inside = name.strip_prefix(&found.root);
    match found.family {
        Family::Transformers => transformers::place(&found.root, name),
        Family::Released => released::place(&found.root, name),
        Family::Timm => inside.map_or(Place::Nowhere, |name| Place::As(name.to_owned())),
        Family::Original => inside.map_or(Place::Nowhere, |name| Place::As(timm::of_original(name))),
        Family::Torchvision => inside.map_or(Place::Nowhere, torchvision::place),
    }
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
fn fused(checkpoint: &Checkpoint, query: &str, [q, k, v]: [&str; 3]) -> Option<Made> {
    let parts = [query.to_owned(), query.replace(q, k), query.replace(q, v)];
    let mut shape = checkpoint.shape(query)?;
    if parts.iter().any(|part| checkpoint.shape(part).as_ref() != Some(&shape)) {
        return None;
    }
    *shape.first_mut()? *= 3;
    Some(Made { parts: parts.to_vec(), shape })
}

/// Whether a tensor is a bias of queries, keys or values.
fn is_qkv_bias(place: &Place, name: &str) -> bool {
    match place {
        Place::As(new) | Place::Query(new, _) | Place::Fused(new) => new.ends_with(".attn.qkv.bias"),
        Place::Nowhere => name.ends_with(".bias") && name.contains(".attention."),
    }
}

/// For a network made without biases of queries, keys and values: zeros, which add nothing.
fn absent_biases(made: &BTreeMap<String, Made>) -> Vec<(String, Made)> {
    let bias = |(name, weight): (&String, &Made)| {
        let place = name.strip_suffix(".attn.qkv.weight")?;
        // Of a weight without values, the file has not as many bytes as its zeros would take.
        let rows = weight.shape.first().filter(|_| !weight.shape.contains(&0))?;
        Some((format!("{place}.attn.qkv.bias"), Made { parts: vec![], shape: vec![*rows] }))
    };
    made.iter().filter_map(bias).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};
    use std::collections::HashMap;

    fn checkpoint(names: &[&str]) -> Checkpoint {
        let zeros = |_| Tensor::ones((2, 3), DType::F32, &Device::Cpu).unwrap();
        Checkpoint::from_tensors(names.iter().map(|name| (name.to_string(), zeros(name))).collect::<HashMap<_, _>>())
    }

    fn refuse(names: &[&str]) -> String {
        canonical(checkpoint(names)).unwrap_err().to_string()
    }

    #[test]
    fn old_timm_and_original_files_merge_at_the_end() {
        let block = "layers.0.blocks.0.attn.qkv.weight";
        let family = |merging: &str, head: &str| {
            let (family, renamed, _) = canonical(checkpoint(&[block, merging, head])).unwrap();
            assert!(renamed.shape("layers.1.downsample.norm.weight").is_some());
            assert!(renamed.shape("head.fc.weight").is_some());
            family
        };
        assert_eq!(family("layers.0.downsample.norm.weight", "head.weight"), Family::Original);
        assert_eq!(family("layers.1.downsample.norm.weight", "head.fc.weight"), Family::Timm);
    }

    #[test]
    fn names_start_under_any_prefix() {
        for root in ["", "module.", "backbone.", "encoder.", "model.module."] {
            let names = ["layers.0.blocks.0.attn.qkv.weight", "layers.0.downsample.norm.weight", "mask_token"];
            let names = names.map(|name| format!("{root}{name}"));
            let outside = "teacher.weight";
            let (family, renamed, unused) = canonical(checkpoint(&[&names[0], &names[1], &names[2], outside])).unwrap();
            assert_eq!(family, Family::Original, "{root}");
            assert!(renamed.shape("layers.1.downsample.norm.weight").is_some(), "{root}");
            assert_eq!(unused, if root.is_empty() { vec![] } else { vec![outside.to_owned()] });
        }
        let (family, _, _) =
            canonical(checkpoint(&["my_layers.0.blocks.0.attn.qkv.weight", "layers.0.blocks.0.attn.qkv.weight"]))
                .unwrap();
        assert_eq!(family, Family::Timm);
    }

    #[test]
    fn other_networks_are_refused_by_name() {
        for name in [
            "encoder.layers.0.blocks.0.attention.self.logit_scale",
            "module.layers.0.blocks.0.attn.cpb_mlp.0.weight",
            "swinv2.encoder.layers.0.blocks.0.attention.self.continuous_position_bias_mlp.0.weight",
            "features.1.0.attn.logit_scale",
            "module.features.3.1.attn.cpb_mlp.0.weight",
        ] {
            let message = refuse(&[name]);
            assert!(["SwinV2", "cosines", name].iter().all(|word| message.contains(word)), "{message}");
        }
        let message = refuse(&["conv1.weight", "logit_scale"]);
        assert!(message.contains("no Swin") && message.contains("conv1.weight"), "{message}");
    }

    #[test]
    fn several_swins_in_one_file_are_refused() {
        let message =
            refuse(&["student.layers.0.blocks.0.attn.qkv.weight", "teacher.layers.0.blocks.0.attn.qkv.weight"]);
        assert!(message.contains("`student.`") && message.contains("`teacher.`"), "{message}");
    }

    #[test]
    fn a_query_without_its_key_and_a_key_without_its_query_are_unused() {
        let base = "encoder.layers.0.blocks.0";
        let norm = format!("{base}.layernorm_before.weight");
        for part in ["query", "key", "value"] {
            let lone = format!("{base}.attention.self.{part}.weight");
            let (_, renamed, unused) = canonical(checkpoint(&[&norm, &lone])).unwrap();
            assert_eq!(unused, [lone]);
            assert_eq!(renamed.shape("layers.0.blocks.0.attn.qkv.weight"), None);
        }
    }

    #[test]
    fn absolute_position_embeddings_are_refused_by_name() {
        for names in [
            ["layers.0.blocks.0.attn.qkv.weight", "absolute_pos_embed"],
            ["swin.encoder.layers.0.blocks.0.layernorm_before.weight", "swin.embeddings.position_embeddings"],
        ] {
            let message = refuse(&names);
            assert!(message.contains(names[1]) && message.contains("absolute position"), "{message}");
        }
    }

    #[test]
    fn two_tensors_for_one_name_are_refused() {
        let block = "encoder.layers.0.blocks.0";
        let names = ["layernorm_before.weight", "mlp.fc1.weight", "intermediate.dense.weight"];
        let names = names.map(|name| format!("{block}.{name}"));
        let message = refuse(&[&names[0], &names[1], &names[2]]);
        assert!(message.contains("layers.0.blocks.0.mlp.fc1.weight") && message.contains(&names[2]), "{message}");
    }

    #[test]
    fn queries_keys_and_values_without_a_bias_anywhere_get_zeros() {
        let blocks = ["layers.0.blocks.0.attn.qkv", "layers.0.blocks.1.attn.qkv"];
        let [first, second] = blocks.map(|block| format!("{block}.weight"));
        let (_, renamed, _) = canonical(checkpoint(&[&first, &second])).unwrap();
        let bias = renamed.load("layers.0.blocks.1.attn.qkv.bias", DType::F32, &Device::Cpu).unwrap();
        assert_eq!(bias.to_vec1::<f32>().unwrap(), [0.0; 2]);
        assert_eq!(renamed.source("layers.0.blocks.1.attn.qkv.bias"), None);
        // A file that has lost one of them is damaged.
        let (_, renamed, _) = canonical(checkpoint(&[&first, &second, "layers.0.blocks.0.attn.qkv.bias"])).unwrap();
        assert_eq!(renamed.shape("layers.0.blocks.1.attn.qkv.bias"), None);
        let base = "encoder.layers.0.blocks.0";
        let names = [
            "layernorm_before.weight",
            "attention.self.query.weight",
            "attention.self.key.weight",
            "attention.self.value.weight",
        ];
        let mut names = names.map(|name| format!("{base}.{name}")).to_vec();
        let has_bias = |names: &[String]| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            canonical(checkpoint(&names)).unwrap().1.shape("layers.0.blocks.0.attn.qkv.bias").is_some()
        };
        assert!(has_bias(&names));
        names.push(format!("{base}.attention.self.value.bias"));
        assert!(!has_bias(&names));
    }
}
