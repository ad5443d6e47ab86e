//! The published sizes, in one table.

use super::SwinConfig;
use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// The published sizes.
///
/// | preset | channels | depths | heads | published for images of 224 and 384 with windows of |
/// | --- | --- | --- | --- | --- |
/// | `swin-tiny` | 96 | 2, 2, 6, 2 | 3, 6, 12, 24 | 7 |
/// | `swin-small` | 96 | 2, 2, 18, 2 | 3, 6, 12, 24 | 7 |
/// | `swin-base` | 128 | 2, 2, 18, 2 | 4, 8, 16, 32 | 7 and 12 |
/// | `swin-large` | 192 | 2, 2, 18, 2 | 6, 12, 24, 48 | 7 and 12 |
///
/// Patches are of 4 pixels and an MLP is four times as wide as its input in all of them. What they were pretrained on, ImageNet-1k
/// or 22k, changes the classifier alone, which no dense task uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Preset {
    /// 28 million parameters.
    Tiny,
    /// 50 million.
    Small,
    /// 88 million.
    Base,
    /// 197 million.
    Large,
}

/// A row of the table.
struct Row {
    preset: Preset,
    name: &'static str,
    embed_dim: usize,
    depths: [usize; 4],
    num_heads: [usize; 4],
}

#[rustfmt::skip]
const TABLE: [Row; 4] = [
    Row { preset: Preset::Tiny, name: "swin-tiny", embed_dim: 96, depths: [2, 2, 6, 2], num_heads: [3, 6, 12, 24] },
    Row { preset: Preset::Small, name: "swin-small", embed_dim: 96, depths: [2, 2, 18, 2], num_heads: [3, 6, 12, 24] },
    Row { preset: Preset::Base, name: "swin-base", embed_dim: 128, depths: [2, 2, 18, 2], num_heads: [4, 8, 16, 32] },
    Row { preset: Preset::Large, name: "swin-large", embed_dim: 192, depths: [2, 2, 18, 2], num_heads: [6, 12, 24, 48] },
];

impl Preset {
    /// All of them.
    pub const ALL: &'static [Self] = &[TABLE[0].preset, TABLE[1].preset, TABLE[2].preset, TABLE[3].preset];

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// As written on a command line: `swin-tiny`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The configuration of this size, with windows of 7, patches of 4 and images of 448.
    pub fn config(self) -> SwinConfig {
        let Row { embed_dim, depths, num_heads, .. } = *self.row();
        SwinConfig {
            image_size: 448,
            patch_size: 4,
            embed_dim,
            depths: depths.to_vec(),
            num_heads: num_heads.to_vec(),
            window: 7,
            mlp_ratio: 4.0,
            drop_path: 0.2,
        }
    }

    /// The preset of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.preset)
    }

    /// The preset of this size: `tiny`.
    pub(super) fn sized(size: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.name.strip_prefix("swin-") == Some(size)).map(|row| row.preset)
    }

    /// The preset whose sizes a configuration has, whatever its windows and images.
    pub(super) fn of(config: &SwinConfig) -> Option<Self> {
        let same = |row: &&Row| {
            config.embed_dim == row.embed_dim && config.depths == row.depths && config.num_heads == row.num_heads
        };
        TABLE.iter().find(same).map(|row| row.preset)
    }
}

impl Default for SwinConfig {
    fn default() -> Self {
        Preset::Tiny.config()
    }
}

/// `swin-tiny`, or with another window `swin-base-window12`.
impl FromStr for SwinConfig {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, window) = text.split_once("-window").map_or((text, None), |(name, window)| (name, Some(window)));
        let unknown = || {
            let names = Preset::ALL.iter().map(|preset| preset.name()).collect::<Vec<_>>().join(", ");
            Error::config("backbone", format!("one of {names}"), text, "append -window12 for windows of 12")
        };
        let mut config = Preset::named(name).ok_or_else(unknown)?.config();
        if let Some(window) = window {
            config.window = window.parse().map_err(|_| unknown())?;
        }
        Ok(config)
    }
}

impl SwinConfig {
    /// Swin-T: 96 channels, depths 2, 2, 6, 2.
    pub fn tiny() -> Self {
        Preset::Tiny.config()
    }

    /// Swin-S: 96 channels, depths 2, 2, 18, 2.
    pub fn small() -> Self {
        Preset::Small.config()
    }

    /// Swin-B: 128 channels, depths 2, 2, 18, 2.
    pub fn base() -> Self {
        Preset::Base.config()
    }

    /// Swin-L: 192 channels, depths 2, 2, 18, 2.
    pub fn large() -> Self {
        Preset::Large.config()
    }
}

impl fmt::Display for SwinConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Preset::of(self) {
            Some(preset) => write!(f, "{}-window{}", preset.name(), self.window),
            None => write!(f, "swin {} {:?} window {}", self.embed_dim, self.depths, self.window),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_parse_and_print() {
        for text in ["swin-tiny-window7", "swin-small-window7", "swin-base-window12", "swin-large-window12"] {
            assert_eq!(text.parse::<SwinConfig>().unwrap().to_string(), text);
        }
        assert_eq!("swin-tiny".parse::<SwinConfig>().unwrap(), SwinConfig::tiny());
        assert!("swin-huge".parse::<SwinConfig>().unwrap_err().to_string().contains("swin-tiny, swin-small"));
    }

    #[test]
    fn every_lookup_finds_its_row() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(Preset::ALL[i] as usize, i);
            assert_eq!((row.preset.name(), row.preset as usize), (row.name, i));
            assert_eq!(Preset::named(row.name), Some(row.preset));
            assert_eq!(Preset::sized(&row.name["swin-".len()..]), Some(row.preset));
            assert_eq!(Preset::of(&row.preset.config()), Some(row.preset));
            row.preset.config().check().unwrap();
        }
        assert_eq!((Preset::named("swin-huge"), Preset::sized("s3")), (None, None));
    }
}
