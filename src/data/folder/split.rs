//! Which images belong to a split: those of a list, or a share of all.

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

/// Bytes of the longest name that file systems allow.
const LONGEST_NAME: usize = 255;

/// A part of a folder's images.
///
/// A share takes the images whose place in 0 to 1, by a digest of the name, falls to it; the shares stand one after another in the order
/// of their splits' names. So an image stays where it is whatever others come or go. What a list names belongs to no share.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Split {
    /// Of the images that no list names, from 0 to 1.
    Share(f64),
    /// Images by name, without the ending, in order.
    Names(Vec<String>),
}

impl<'de> Deserialize<'de> for Split {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SplitVisitor)
    }
}

struct SplitVisitor;

impl<'de> Visitor<'de> for SplitVisitor {
    type Value = Split;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a share such as 0.8, or a list of images' names")
    }

    fn visit_f64<E>(self, share: f64) -> Result<Split, E> {
        Ok(Split::Share(share))
    }

    fn visit_i64<E: serde::de::Error>(self, share: i64) -> Result<Split, E> {
        match share {
            0 | 1 => Ok(Split::Share(share as f64)),
            _ => Err(E::invalid_value(serde::de::Unexpected::Signed(share), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Split, A::Error> {
        let mut list = Vec::new();
        while let Some(name) = names.next_element::<String>()? {
            if name.is_empty() {
                return Err(A::Error::custom("an image without a name"));
            }
            if name.len() > LONGEST_NAME {
                return Err(A::Error::custom(format!("an image's name of {} bytes: no file has one", name.len())));
            }
            list.push(name);
        }
        Ok(Split::Names(list))
    }
}

/// A name's place in 0 to 1, the same for ever.
fn place(name: &str) -> f64 {
    let digest = Sha256::digest(name.as_bytes());
    let number = digest.iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    number as f64 / 2f64.powi(64)
}

/// The names, among all of them, of a split that is a share: where it begins and ends, and what the lists name.
pub(super) struct Share<'a> {
    range: Range<f64>,
    listed: BTreeSet<&'a str>,
}

impl<'a> Share<'a> {
    /// Of the split of this name; none if it is no share.
    pub fn of(name: &str, splits: &'a BTreeMap<String, Split>) -> Option<Self> {
        let share = |split: &Split| match split {
            Split::Share(share) => *share,
            Split::Names(_) => 0.0,
        };
        let Some(Split::Share(own)) = splits.get(name) else { return None };
        let start: f64 =
            splits.iter().take_while(|(other, _)| other.as_str() != name).map(|(_, split)| share(split)).sum();
        let listed = splits.values().flat_map(|split| match split {
            Split::Names(names) => names.as_slice(),
            Split::Share(_) => &[],
        });
        Some(Self { range: start..start + own, listed: listed.map(String::as_str).collect() })
    }

    /// Whether an image of this name belongs to it.
    pub fn has(&self, name: &str) -> bool {
        self.range.contains(&place(name)) && !self.listed.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(split: &str, splits: &BTreeMap<String, Split>, count: usize) -> Vec<String> {
        let share = Share::of(split, splits).unwrap();
        (0..count).map(|i| format!("image-{i}")).filter(|name| share.has(name)).collect()
    }

    #[test]
    fn shares_part_the_images_and_more_images_move_none() {
        let splits: BTreeMap<String, Split> = toml::from_str("train = 0.7\nval = 0.2\nmore = 0.1").unwrap();
        let [train, val, more] = ["train", "val", "more"].map(|split| members(split, &splits, 2000));
        assert_eq!(train.len() + val.len() + more.len(), 2000);
        assert!(
            (1300..1500).contains(&train.len()) && (330..470).contains(&val.len()),
            "{} {}",
            train.len(),
            val.len()
        );
        let mut all: Vec<&String> = train.iter().chain(&val).chain(&more).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 2000, "no image is in two");
        let fewer = members("val", &splits, 1000);
        assert_eq!(val[..fewer.len()], fewer);
        // What this file promises to people whose figures rest on it.
        assert_eq!(members("more", &splits, 40), ["image-1", "image-9", "image-15", "image-32"]);
    }

    #[test]
    fn what_a_list_names_belongs_to_no_share() {
        let splits: BTreeMap<String, Split> = toml::from_str("all = 1\ntest = [\"image-3\", \"image-5\"]").unwrap();
        assert_eq!(members("all", &splits, 8), ["image-0", "image-1", "image-2", "image-4", "image-6", "image-7"]);
        assert!(Share::of("test", &splits).is_none() && Share::of("none", &splits).is_none());
    }

    #[test]
    fn what_is_neither_share_nor_list_is_refused() {
        for wrong in ["train = 2", "train = \"all\"", "train = [1]", "train = [\"\"]", "train = true", "train = {}"] {
            assert!(toml::from_str::<BTreeMap<String, Split>>(wrong).is_err(), "{wrong}");
        }
    }
}
