//! A backbone's tensors under the names of another library.

use super::transformers::hub_names;
use crate::checkpoint::Checkpoint;
use crate::named::find_named;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::str::FromStr;

/// Whose names a backbone is written under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Naming {
    /// The crate's: timm's, of what the crate uses alone.
    Own,
    /// timm's from 0.9 on, with the last norm and the classifier where the checkpoint has them.
    Timm,
    /// Those of transformers' files on the hub, `swin.encoder...`, with norm and classifier likewise.
    Transformers,
}

impl Naming {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Own, Self::Timm, Self::Transformers];

    /// As written on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Timm => "timm",
            Self::Transformers => "transformers",
        }
    }

    /// Whether a tensor that no backbone computes with is written as well.
    pub fn carries(self, name: &str) -> bool {
        let head = ["norm.weight", "norm.bias", "head.fc.weight", "head.fc.bias"].contains(&name);
        head && self != Self::Own
    }
}

impl FromStr for Naming {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        find_named("names", Self::ALL, Self::name, name, "timm's and the crate's differ in norm and classifier alone")
    }
}

/// The tensor that a checkpoint under timm's names has at `name`, as f32, under its names in `naming`: three tensors for queries, keys
/// and values where those stand apart.
///
/// # Errors
/// A name that the checkpoint does not hold, or `naming` has no place for.
pub fn written(checkpoint: &Checkpoint, name: &str, naming: Naming) -> Result<Vec<(String, Tensor)>> {
    let tensor = checkpoint.load(name, DType::F32, &Device::Cpu)?;
    if naming != Naming::Transformers {
        return Ok(vec![(name.to_owned(), tensor)]);
    }
    let no_place = || Error::config("names", "a tensor of a Swin", name, "write it under timm's names");
    let names = hub_names(name).ok_or_else(no_place)?;
    let parts = tensor.chunk(names.len(), 0)?;
    Ok(names.into_iter().zip(parts).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn queries_keys_and_values_come_apart_in_order() {
        let name = "layers.0.blocks.0.attn.qkv.bias";
        let tensor = Tensor::arange(0f32, 6.0, &Device::Cpu).unwrap();
        let checkpoint = Checkpoint::from_tensors(HashMap::from([(name.to_owned(), tensor)]));
        let parts = written(&checkpoint, name, Naming::Transformers).unwrap();
        let last = (parts[2].0.as_str(), parts[2].1.to_vec1::<f32>().unwrap());
        assert_eq!(last, ("swin.encoder.layers.0.blocks.0.attention.self.value.bias", vec![4.0, 5.0]));
        assert_eq!(written(&checkpoint, name, Naming::Timm).unwrap()[0].0, name);
    }

    #[test]
    fn names_without_a_place_are_refused() {
        let tensor = Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
        let checkpoint = Checkpoint::from_tensors(HashMap::from([("prompts.table".to_owned(), tensor)]));
        let message = written(&checkpoint, "prompts.table", Naming::Transformers).unwrap_err().to_string();
        assert!(message.contains("prompts.table"), "{message}");
        assert!("keras".parse::<Naming>().unwrap_err().to_string().contains("own, timm, transformers"));
        assert_eq!("timm".parse::<Naming>().unwrap(), Naming::Timm);
    }
}
