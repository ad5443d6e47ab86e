//! What the released code's configuration says of a model and no tensor tells.

use crate::checkpoint::Checkpoint;
use crate::params::{Pretrained, Release};
use crate::{Error, Result};
use serde::Deserialize;

/// The parts of a pickled configuration that are read here; whatever a file leaves out is as the released code has it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "UPPERCASE")]
pub(in crate::model) struct ReleasedConfig {
    data: Data,
    model: Model,
    train: Train,
    /// In the order of the prompts.
    pub(in crate::model) tasks: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "UPPERCASE")]
struct Data {
    img_size: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "UPPERCASE")]
struct Model {
    r#type: Option<String>,
    drop_path_rate: Option<f64>,
    swin: Swin,
    tadmtl: Adapters,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "UPPERCASE")]
struct Swin {
    qk_scale: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "UPPERCASE")]
struct Adapters {
    shared_scale: Vec<f64>,
    dropout: Vec<f64>,
    ablation: Ablation,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "UPPERCASE")]
struct Ablation {
    skipconnection: Option<bool>,
    stagewisegating: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "UPPERCASE")]
struct Train {
    freeze_patch_embed: Option<bool>,
    freeze_layer_norm: Option<bool>,
    freeze_relative_position_bias: Option<bool>,
    freeze_downsample_reduction: Option<bool>,
}

impl ReleasedConfig {
    /// Reads the configuration beside a checkpoint's weights; of a file without one, nothing is said.
    ///
    /// # Errors
    /// A field of another type, a network that is no Swin, or one that this crate computes otherwise.
    pub(in crate::model) fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let problem = |(problem, cure): (String, &str)| Error::file(checkpoint.path(), problem, cure);
        checkpoint.training_config().map_or(Ok(Self::default()), |config| Self::read(config).map_err(problem))
    }

    /// What a configuration says; else the problem and the cure.
    fn read(config: &serde_json::Value) -> std::result::Result<Self, (String, &'static str)> {
        let foreign = |e| (format!("its configuration is not the released code's: {e}"), "save its `model` alone");
        let config = Self::deserialize(config).map_err(foreign)?;
        if let Some(network) = config.model.r#type.as_ref().filter(|network| *network != "swin") {
            let problem = format!("its MODEL.TYPE is `{network:.100}`");
            return Err((problem, "take a model of type `swin`"));
        }
        if let Some(scale) = config.model.swin.qk_scale {
            let problem = format!("its MODEL.SWIN.QK_SCALE is {scale}");
            return Err((problem, "only the inverse root of a head's channels is built here"));
        }
        let scales = &config.model.tadmtl.shared_scale;
        if scales.iter().any(|scale| *scale != scales[0]) {
            let problem = format!("its MODEL.TADMTL.SHARED_SCALE is {scales:?}");
            return Err((problem, "only one scale for all stages is built here"));
        }
        Ok(config)
    }

    pub(in crate::model) fn image_size(&self) -> Option<usize> {
        self.data.img_size
    }

    pub(in crate::model) fn drop_path(&self) -> f64 {
        self.model.drop_path_rate.unwrap_or(0.2)
    }

    pub(in crate::model) fn scale(&self) -> f64 {
        self.model.tadmtl.shared_scale.first().copied().unwrap_or(4.0)
    }

    pub(in crate::model) fn dropout(&self) -> f64 {
        self.model.tadmtl.dropout.first().copied().unwrap_or(0.05)
    }

    /// Whether the stages mix the TPC feature in at all.
    pub(in crate::model) fn mixes(&self) -> bool {
        self.model.tadmtl.ablation.skipconnection.unwrap_or(true)
    }

    /// Whether they mix it by a learned gate.
    pub(in crate::model) fn gates(&self) -> bool {
        self.model.tadmtl.ablation.stagewisegating.unwrap_or(true)
    }

    /// Which pretrained groups trained.
    pub(in crate::model) fn release(&self) -> Release {
        let (train, paper) = (&self.train, Release::tadformer());
        [
            (Pretrained::PatchEmbedding, train.freeze_patch_embed),
            (Pretrained::Norms, train.freeze_layer_norm),
            (Pretrained::PositionBias, train.freeze_relative_position_bias),
            (Pretrained::Reductions, train.freeze_downsample_reduction),
        ]
        .into_iter()
        .fold(paper, |release, (group, frozen)| match frozen {
            Some(true) => release.without(group),
            Some(false) => release.with(group),
            None => release,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_said_is_as_the_released_code_has_it() {
        let config = ReleasedConfig::read(&json!({"SEED": 1})).unwrap();
        assert_eq!((config.image_size(), config.drop_path(), config.scale(), config.dropout()), (None, 0.2, 4.0, 0.05));
        assert!(config.mixes() && config.gates() && config.tasks.is_empty());
        assert_eq!(config.release(), Release::tadformer());
    }

    #[test]
    fn what_is_said_counts() {
        let config = ReleasedConfig::read(&json!({
            "TASKS": ["sal", "edge"],
            "DATA": {"IMG_SIZE": 448},
            "MODEL": {"TYPE": "swin", "DROP_PATH_RATE": 0.1, "SWIN": {"QK_SCALE": null}, "TADMTL": {
                "SHARED_SCALE": [2.0, 2.0], "DROPOUT": [0.5],
                "ABLATION": {"SKIPCONNECTION": false, "STAGEWISEGATING": false},
            }},
            "TRAIN": {"FREEZE_PATCH_EMBED": true, "FREEZE_LAYER_NORM": false, "FREEZE_DOWNSAMPLE_REDUCTION": false},
        }))
        .unwrap();
        assert_eq!(
            (config.image_size(), config.drop_path(), config.scale(), config.dropout()),
            (Some(448), 0.1, 2.0, 0.5)
        );
        assert!(!config.mixes() && !config.gates());
        assert_eq!(config.tasks, ["sal", "edge"]);
        let release = Release::tadformer().without(Pretrained::PatchEmbedding).with(Pretrained::Reductions);
        assert_eq!(config.release(), release);
    }

    #[test]
    fn what_would_be_computed_otherwise_is_refused() {
        for (config, words) in [
            (json!({"MODEL": {"TYPE": "swinv2"}}), "MODEL.TYPE is `swinv2`"),
            (json!({"MODEL": {"SWIN": {"QK_SCALE": 0.5}}}), "QK_SCALE is 0.5"),
            (json!({"MODEL": {"TADMTL": {"SHARED_SCALE": [4.0, 1.0]}}}), "SHARED_SCALE is [4.0, 1.0]"),
            (json!({"DATA": {"IMG_SIZE": "large"}}), "not the released code's"),
            (json!({"TASKS": 3}), "not the released code's"),
        ] {
            assert!(ReleasedConfig::read(&config).unwrap_err().0.contains(words), "{config}");
        }
    }
}
