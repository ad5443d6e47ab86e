//! The `config.json` that transformers and timm look for beside a backbone's weights.

use super::read::Published;
use crate::swin::names::Naming;
use crate::swin::{Preset, SwinConfig};
use crate::{Error, Result};
use serde_json::{Value, json};

/// Windows and image sizes that timm has each size of network registered with.
const TIMM: [(Preset, &[(usize, usize)]); 4] = [
    (Preset::Tiny, &[(7, 224)]),
    (Preset::Small, &[(7, 224)]),
    (Preset::Base, &[(7, 224), (12, 384)]),
    (Preset::Large, &[(7, 224), (12, 384)]),
];

impl Published {
    /// The document in the words of the library whose names these are; `None` for the crate's own, which need none.
    ///
    /// # Errors
    /// Windows that differ from stage to stage, of which transformers knows nothing.
    pub(crate) fn document(&self, naming: Naming) -> Result<Option<Value>> {
        match naming {
            Naming::Own => Ok(None),
            Naming::Timm => Ok(Some(self.timm())),
            Naming::Transformers => self.transformers().map(Some),
        }
    }

    fn transformers(&self) -> Result<Value> {
        let swin = &self.config;
        let windows: Vec<usize> = (0..swin.stages()).map(|i| swin.stage_window(i)).collect();
        if windows.iter().any(|window| *window != swin.window) {
            let expected = format!("{} in every stage, which is all that transformers builds", swin.window);
            return Err(Error::config("window", expected, format!("{windows:?}"), "write it under timm's names"));
        }
        let mut document = json!({
            "architectures": [if self.classes.is_some() { "SwinForImageClassification" } else { "SwinModel" }],
            "model_type": "swin",
            "image_size": swin.image_size,
            "patch_size": swin.patch_size,
            "num_channels": 3,
            "embed_dim": swin.embed_dim,
            "depths": swin.depths,
            "num_heads": swin.num_heads,
            "window_size": swin.window,
            "mlp_ratio": swin.mlp_ratio,
            "qkv_bias": self.qkv_bias,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-5,
            "drop_path_rate": swin.drop_path,
            "use_absolute_embeddings": false,
        });
        if let Some(classes) = self.classes {
            document["num_labels"] = classes.into();
        }
        Ok(document)
    }

    fn timm(&self) -> Value {
        let (swin, classes) = (&self.config, self.classes.unwrap_or(0));
        let mut document = json!({
            "architecture": architecture(swin),
            "num_classes": classes,
            "num_features": swin.channels(swin.stages().saturating_sub(1)),
            "model_args": {
                "img_size": swin.image_size,
                "patch_size": swin.patch_size,
                "window_size": swin.window,
                "embed_dim": swin.embed_dim,
                "depths": swin.depths,
                "num_heads": swin.num_heads,
                "mlp_ratio": swin.mlp_ratio,
                "drop_path_rate": swin.drop_path,
            },
            "pretrained_cfg": {
                "num_classes": classes,
                "input_size": [3, swin.image_size, swin.image_size],
                "fixed_input_size": true,
                "first_conv": "patch_embed.proj",
                "classifier": "head.fc",
            },
        });
        if !self.qkv_bias {
            document["model_args"]["qkv_bias"] = false.into();
        }
        document
    }
}

/// The nearest that timm has registered; `model_args` say every size once more.
fn architecture(swin: &SwinConfig) -> String {
    let preset = Preset::of(swin).unwrap_or(Preset::Tiny);
    let registered = TIMM.iter().find(|(registered, _)| *registered == preset).map_or(&[][..], |(_, sizes)| sizes);
    let same = registered.iter().find(|(window, image)| (*window, *image) == (swin.window, swin.image_size));
    let (window, image) = same.copied().unwrap_or((7, 224));
    format!("{}_patch4_window{window}_{image}", preset.name().replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write_atomically;

    fn published() -> Vec<Published> {
        let mut all = Vec::new();
        for &preset in Preset::ALL {
            for (window, image_size) in [(7, 224), (12, 384), (8, 512)] {
                let config = SwinConfig { window, image_size, drop_path: 0.25, ..preset.config() };
                all.push(Published { config: config.clone(), classes: Some(1000), qkv_bias: true });
                let other = SwinConfig { depths: vec![1, 3], num_heads: vec![2, 4], mlp_ratio: 2.5, ..config };
                all.push(Published { config: other, classes: None, qkv_bias: false });
            }
        }
        all
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        for published in published() {
            for naming in [Naming::Timm, Naming::Transformers] {
                let text = published.document(naming).unwrap().unwrap().to_string();
                write_atomically(&path, |file| std::io::Write::write_all(file, text.as_bytes())).unwrap();
                assert_eq!(SwinConfig::of_config(&path).unwrap(), published.config);
                let (library, mut read) = Published::read(&path).unwrap();
                assert_eq!(library, naming);
                // A network without a classifier has the library's own number of classes, or none.
                if published.classes.is_none() {
                    read.classes = None;
                }
                assert_eq!(read, published);
            }
            assert_eq!(published.document(Naming::Own).unwrap(), None);
        }
    }

    #[test]
    fn architectures_are_those_that_timm_has() {
        let name = |config: SwinConfig| architecture(&config);
        assert_eq!(name(SwinConfig { image_size: 224, ..SwinConfig::small() }), "swin_small_patch4_window7_224");
        let large = SwinConfig { image_size: 384, window: 12, ..SwinConfig::large() };
        assert_eq!(name(large.clone()), "swin_large_patch4_window12_384");
        assert_eq!(name(SwinConfig { image_size: 448, ..large }), "swin_large_patch4_window7_224");
        assert_eq!(
            name(SwinConfig { window: 12, image_size: 384, ..SwinConfig::tiny() }),
            "swin_tiny_patch4_window7_224"
        );
        assert_eq!(name(SwinConfig { depths: vec![1], ..SwinConfig::base() }), "swin_tiny_patch4_window7_224");
    }

    #[test]
    fn windows_that_differ_from_stage_to_stage_are_timms_alone() {
        let config = SwinConfig { image_size: 128, ..SwinConfig::tiny() };
        let published = Published { config, classes: None, qkv_bias: true };
        let message = published.document(Naming::Transformers).unwrap_err().to_string();
        assert!(message.contains("[7, 7, 7, 4]") && message.contains("timm's names"), "{message}");
        assert!(published.document(Naming::Timm).unwrap().is_some());
    }
}
