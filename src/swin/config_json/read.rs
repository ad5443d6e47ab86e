//! Reading a published config.json.

use crate::files::read_start;
use crate::swin::names::Naming;
use crate::swin::{Preset, SwinConfig};
use crate::{Error, Result};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use std::path::Path;

/// The most bytes of a `config.json` that is read: twice the largest that is published, with the names of 22 thousand classes in both
/// directions.
pub const MOST_CONFIG_BYTES: u64 = 8 << 20;

pub(crate) const V2: &str =
    "it scales attention by cosines and makes its position biases with a network (take a Swin, not a SwinV2)";
pub(crate) const OTHER: &str = "take one such as microsoft/swin-tiny-patch4-window7-224";

/// What a field holds that this crate does not build.
pub(crate) type Reason = String;

impl SwinConfig {
    /// The sizes in a `config.json` of transformers or timm; what it leaves out is as that library has it.
    ///
    /// # Errors
    /// Another architecture, SwinV2 among them, which is named; a file that cannot be read, is no JSON or larger than any such file.
    pub fn of_config(path: impl AsRef<Path>) -> Result<Self> {
        Published::read(path.as_ref()).map(|(_, published)| published.config)
    }
}

/// What a `config.json` says of a network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Published {
    pub(crate) config: SwinConfig,
    /// Of its classifier.
    pub(crate) classes: Option<usize>,
    /// Whether queries, keys and values have biases.
    pub(crate) qkv_bias: bool,
}

impl Published {
    /// As [`SwinConfig::of_config`], with the library whose words they are.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn read(path: &Path) -> Result<(Naming, Self)> {
        let text = read(path)?;
        let damaged = |e| Error::file(path, format!("no configuration of a Swin: {e}"), "take another copy");
        let names: Names = serde_json::from_slice(&text).map_err(damaged)?;
        let refuse = |architecture: &str, reason: Reason| Error::NotSwin {
            path: path.to_owned(),
            architecture: architecture.chars().take(100).collect(),
            reason,
        };
        let (library, published) = if let Some(architecture) = &names.architecture {
            let preset = timm_preset(architecture).map_err(|reason| refuse(architecture, reason))?;
            let config: Timm = serde_json::from_slice(&text).map_err(damaged)?;
            (Naming::Timm, config.published(preset).map_err(|reason| refuse(architecture, reason))?)
        } else if let Some(model_type) = &names.model_type {
            let architecture = names.architectures.iter().flatten().next().unwrap_or(model_type);
            check_type(model_type, architecture).map_err(|reason| refuse(architecture, reason))?;
            let config: Transformers = serde_json::from_slice(&text).map_err(damaged)?;
            (Naming::Transformers, config.published().map_err(|reason| refuse(architecture, reason))?)
        } else {
            let cure = "give the folder of a Swin of transformers or timm, or the checkpoint's file alone";
            return Err(Error::file(path, "it names no architecture", cure));
        };
        published.config.check()?;
        Ok((library, published))
    }
}

/// No more than such a file can hold.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let text = read_start(path, MOST_CONFIG_BYTES + 1)?;
    if text.len() as u64 > MOST_CONFIG_BYTES {
        let problem = format!("more than {MOST_CONFIG_BYTES} bytes, which no configuration of a Swin has");
        return Err(Error::file(path, problem, "give the checkpoint's file alone"));
    }
    Ok(text)
}

/// What tells the libraries and the architectures apart.
#[derive(Deserialize)]
pub(crate) struct Names {
    /// timm's.
    architecture: Option<String>,
    /// Transformers'.
    model_type: Option<String>,
    architectures: Option<Vec<String>>,
}

/// One number, or one for each direction.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
pub(crate) enum Side {
    Both(usize),
    Each([usize; 2]),
}

impl Side {
    fn square(self, field: &str) -> std::result::Result<usize, Reason> {
        match self {
            Self::Both(side) => Ok(side),
            Self::Each([height, width]) if height == width => Ok(height),
            Self::Each([height, width]) => Err(format!("its `{field}` is {height} x {width}, and no square")),
        }
    }
}

/// Sets a size to what the configuration says of it.
pub(crate) fn set(size: &mut usize, said: Option<Side>, field: &str) -> std::result::Result<(), Reason> {
    if let Some(side) = said {
        *size = side.square(field)?;
    }
    Ok(())
}

/// Of a configuration of transformers; what is left out has that library's default.
#[derive(Deserialize)]
pub(crate) struct Transformers {
    image_size: Option<Side>,
    patch_size: Option<Side>,
    window_size: Option<Side>,
    embed_dim: Option<usize>,
    depths: Option<Vec<usize>>,
    num_heads: Option<Vec<usize>>,
    mlp_ratio: Option<f64>,
    drop_path_rate: Option<f64>,
    num_channels: Option<usize>,
    layer_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    use_absolute_embeddings: Option<bool>,
    qkv_bias: Option<bool>,
    num_labels: Option<usize>,
    /// A name for each class.
    id2label: Option<BTreeMap<String, IgnoredAny>>,
}

impl Transformers {
    fn published(self) -> std::result::Result<Published, Reason> {
        let named = self.id2label.as_ref().map(BTreeMap::len);
        // Of a configuration that says nothing, the library makes two.
        let (classes, qkv_bias) = (self.num_labels.or(named).unwrap_or(2), self.qkv_bias.unwrap_or(true));
        Ok(Published { config: self.sizes()?, classes: Some(classes), qkv_bias })
    }

    fn sizes(self) -> std::result::Result<SwinConfig, Reason> {
        self.check()?;
        let mut config = SwinConfig { image_size: 224, drop_path: 0.1, ..SwinConfig::tiny() };
        set(&mut config.image_size, self.image_size, "image_size")?;
        set(&mut config.patch_size, self.patch_size, "patch_size")?;
        set(&mut config.window, self.window_size, "window_size")?;
        Ok(SwinConfig {
            embed_dim: self.embed_dim.unwrap_or(config.embed_dim),
            depths: self.depths.unwrap_or(config.depths),
            num_heads: self.num_heads.unwrap_or(config.num_heads),
            mlp_ratio: self.mlp_ratio.unwrap_or(config.mlp_ratio),
            drop_path: self.drop_path_rate.unwrap_or(config.drop_path),
            ..config
        })
    }

    /// Refuses what would be computed otherwise than the network was trained with.
    fn check(&self) -> std::result::Result<(), Reason> {
        let refuse = |field: &str, value: &dyn std::fmt::Display, expected: &str| {
            Err(format!("its `{field}` is {value}, and only {expected} is built here"))
        };
        match self {
            Self { num_channels: Some(n), .. } if *n != 3 => refuse("num_channels", n, "3"),
            Self { layer_norm_eps: Some(eps), .. } if *eps != 1e-5 => refuse("layer_norm_eps", eps, "1e-5"),
            Self { hidden_act: Some(act), .. } if act != "gelu" => {
                refuse("hidden_act", &format_args!("{act:.100}"), "gelu")
            }
            Self { use_absolute_embeddings: Some(true), .. } => refuse("use_absolute_embeddings", &true, "false"),
            _ => Ok(()),
        }
    }
}

pub(crate) fn check_type(model_type: &str, architecture: &str) -> std::result::Result<(), Reason> {
    match model_type {
        "swin" if architecture == "swin" || architecture.starts_with("Swin") => Ok(()),
        "swinv2" => Err(V2.to_owned()),
        _ => Err(OTHER.to_owned()),
    }
}

/// Of a configuration of timm: what differs from the architecture that it names.
#[derive(Deserialize)]
pub(crate) struct Timm {
    num_classes: Option<usize>,
    #[serde(default)]
    model_args: TimmArgs,
    #[serde(default)]
    pretrained_cfg: TimmPretrained,
}

#[derive(Default, Deserialize)]
pub(crate) struct TimmArgs {
    img_size: Option<Side>,
    patch_size: Option<Side>,
    window_size: Option<Side>,
    embed_dim: Option<usize>,
    depths: Option<Vec<usize>>,
    num_heads: Option<Vec<usize>>,
    mlp_ratio: Option<f64>,
    drop_path_rate: Option<f64>,
    in_chans: Option<usize>,
    ape: Option<bool>,
    qkv_bias: Option<bool>,
}

#[derive(Default, Deserialize)]
pub(crate) struct TimmPretrained {
    /// Channels, height, width.
    input_size: Option<[usize; 3]>,
}

impl Timm {
    fn published(self, preset: SwinConfig) -> std::result::Result<Published, Reason> {
        let classes = Some(self.num_classes.unwrap_or(1000)).filter(|classes| *classes > 0);
        let qkv_bias = self.model_args.qkv_bias.unwrap_or(true);
        Ok(Published { config: self.sizes(preset)?, classes, qkv_bias })
    }

    fn sizes(self, mut config: SwinConfig) -> std::result::Result<SwinConfig, Reason> {
        let args = self.model_args;
        if args.ape == Some(true) || args.in_chans.is_some_and(|channels| channels != 3) {
            return Err("only 3 channels and no absolute position embeddings are built here".to_owned());
        }
        let input = self.pretrained_cfg.input_size.map(|[_, height, width]| Side::Each([height, width]));
        set(&mut config.image_size, args.img_size.or(input), "img_size")?;
        set(&mut config.patch_size, args.patch_size, "patch_size")?;
        set(&mut config.window, args.window_size, "window_size")?;
        Ok(SwinConfig {
            embed_dim: args.embed_dim.unwrap_or(config.embed_dim),
            depths: args.depths.unwrap_or(config.depths),
            num_heads: args.num_heads.unwrap_or(config.num_heads),
            mlp_ratio: args.mlp_ratio.unwrap_or(config.mlp_ratio),
            drop_path: args.drop_path_rate.unwrap_or(config.drop_path),
            ..config
        })
    }
}

/// `swin_base_patch4_window12_384`, and whatever follows a dot.
pub(crate) fn timm_preset(architecture: &str) -> std::result::Result<SwinConfig, Reason> {
    let name = architecture.split('.').next().unwrap_or_default();
    if name.starts_with("swinv2_") {
        return Err(V2.to_owned());
    }
    if name.starts_with("swin_s3_") {
        return Err("its windows differ from stage to stage (take a Swin of one window)".to_owned());
    }
    let parse = || {
        let mut parts = name.strip_prefix("swin_")?.split('_');
        let preset = Preset::sized(parts.next()?)?;
        Some(SwinConfig {
            patch_size: parts.next()?.strip_prefix("patch")?.parse().ok()?,
            window: parts.next()?.strip_prefix("window")?.parse().ok()?,
            image_size: parts.next()?.parse().ok()?,
            drop_path: 0.1,
            ..preset.config()
        })
    };
    parse().ok_or_else(|| OTHER.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<SwinConfig> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        SwinConfig::of_config(path)
    }

    fn refusal(text: &str) -> String {
        of(text).unwrap_err().to_string()
    }

    #[test]
    fn the_golden_files_of_both_libraries_say_what_their_tensors_say() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        for folder in ["swin_w4_128", "swin_w7_224"] {
            for library in ["timm", "transformers"] {
                let folder = golden.join(folder).join(library);
                let said = SwinConfig::of_config(folder.join("config.json")).unwrap();
                let found = SwinConfig::of_checkpoint(&folder).unwrap();
                assert_eq!(SwinConfig { drop_path: found.drop_path, ..said }, found);
            }
        }
    }

    #[test]
    fn published_configurations_of_timm() {
        let config =
            of(r#"{"architecture": "swin_base_patch4_window12_384", "num_classes": 1000, "num_features": 1024,
            "pretrained_cfg": {"tag": "ms_in22k_ft_in1k", "input_size": [3, 384, 384], "fixed_input_size": true}}"#);
        let want = SwinConfig { image_size: 384, window: 12, drop_path: 0.1, ..SwinConfig::base() };
        assert_eq!(config.unwrap(), want);
        let config = of(r#"{"architecture": "swin_small_patch4_window7_224", "pretrained_cfg": {},
            "model_args": {"img_size": [448, 448], "window_size": 14, "drop_path_rate": 0.3}}"#);
        let want = SwinConfig { image_size: 448, window: 14, drop_path: 0.3, ..SwinConfig::small() };
        assert_eq!(config.unwrap(), want);
    }

    #[test]
    fn published_configurations_of_transformers() {
        let config = of(r#"{"architectures": ["SwinForImageClassification"], "model_type": "swin", "image_size": 384,
            "patch_size": 4, "embed_dim": 192, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48], "window_size": 12,
            "mlp_ratio": 4.0, "qkv_bias": true, "hidden_act": "gelu", "layer_norm_eps": 1e-05, "path_norm": true}"#);
        let want = SwinConfig { image_size: 384, window: 12, drop_path: 0.1, ..SwinConfig::large() };
        assert_eq!(config.unwrap(), want);
        let want = SwinConfig { image_size: 224, drop_path: 0.1, ..SwinConfig::tiny() };
        for architecture in ["SwinModel", "SwinForMaskedImageModeling", "SwinBackbone"] {
            let text = format!(r#"{{"model_type": "swin", "architectures": ["{architecture}"]}}"#);
            assert_eq!(of(&text).unwrap(), want);
        }
        assert_eq!(of(r#"{"model_type": "swin"}"#).unwrap(), want);
        // Missing biases of queries, keys and values are seen in the tensors.
        let config = of(r#"{"model_type": "swin", "qkv_bias": false, "image_size": [256, 256], "window_size": 8}"#);
        assert_eq!(config.unwrap(), SwinConfig { image_size: 256, window: 8, ..want });
    }

    #[test]
    fn other_architectures_are_refused_by_name() {
        for (text, words) in [
            (
                r#"{"model_type": "vit", "architectures": ["ViTModel"], "patch_size": "16"}"#,
                ["ViTModel", "take one such as"],
            ),
            (
                r#"{"model_type": "swinv2", "architectures": ["Swinv2ForImageClassification"]}"#,
                ["Swinv2For", "cosines"],
            ),
            (r#"{"model_type": "swin", "architectures": ["UperNetForSemanticSegmentation"]}"#, ["UperNet", "take one"]),
            (r#"{"architecture": "resnet50", "model_args": 3}"#, ["resnet50", "take one such as"]),
            (r#"{"architecture": "swinv2_tiny_window8_256"}"#, ["swinv2_tiny_window8_256", "SwinV2"]),
            (r#"{"architecture": "swin_s3_tiny_224"}"#, ["swin_s3_tiny_224", "windows differ"]),
            (r#"{"model_type": "\u001b[2Jvit"}"#, ["[2Jvit is no Swin", "take"]),
        ] {
            let message = refusal(text);
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
            assert!(!message.contains('\u{1b}'));
        }
        assert!(refusal("{}").contains("names no architecture"));
    }

    #[test]
    fn what_would_be_computed_otherwise_is_refused() {
        for field in [
            r#""num_channels": 4"#,
            r#""layer_norm_eps": 1e-6"#,
            r#""hidden_act": "relu""#,
            r#""use_absolute_embeddings": true"#,
            r#""image_size": [224, 192]"#,
        ] {
            let message = refusal(&format!(r#"{{"model_type": "swin", {field}}}"#));
            let name = field.split('"').nth(1).unwrap();
            assert!(message.contains(name), "{message}");
        }
        let timm = |args: &str| {
            refusal(&format!(r#"{{"architecture": "swin_tiny_patch4_window7_224", "model_args": {{{args}}}}}"#))
        };
        assert!(timm(r#""in_chans": 1"#).contains("3 channels"));
        assert!(timm(r#""ape": true"#).contains("absolute position"));
        assert!(refusal(r#"{"model_type": "swin", "depths": [2, 2, 99999999, 2]}"#).contains("`depths`"));
    }

    #[test]
    fn hostile_configurations_are_refused_at_once() {
        let start = std::time::Instant::now();
        let deep = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
        for text in [
            String::new(),
            deep("[", "]"),
            deep(r#"{"model_type":"#, "}"),
            format!(r#"{{"model_type": "swin", "depths": {}}}"#, deep("[", "]")),
            format!(r#"{{"model_type": "swin", "image_size": {}}}"#, deep("[", "]")),
            r#"{"model_type": "swin", "embed_dim": 1e999}"#.to_owned(),
            r#"{"model_type": "swin", "embed_dim": -1}"#.to_owned(),
        ] {
            assert!(refusal(&text).contains("no configuration of a Swin"));
        }
        // What nobody reads may be as deep as it likes.
        let ignored = format!(r#"{{"model_type": "swin", "x": {}}}"#, deep("[", "]"));
        assert!(of(&ignored).is_ok() || refusal(&ignored).contains("recursion"));
        let folder = tempfile::tempdir().unwrap();
        let huge = folder.path().join("config.json");
        std::fs::File::create(&huge).unwrap().set_len(1 << 30).unwrap();
        assert!(SwinConfig::of_config(&huge).unwrap_err().to_string().contains("more than 8388608 bytes"));
        assert!(start.elapsed().as_secs() < 2);
    }
}
