//! A model started from a pretrained Swin, its sizes read off what lies beside the weights.

use super::location::Location;
#[cfg(feature = "hub")]
use super::origin::WEIGHTS;
use crate::Result;
use crate::model::{TADFormer, TADFormerBuilder};
use crate::swin::SwinConfig;
use std::path::Path;

/// The sizes that a Swin is published with.
pub(in crate::model) const CONFIG: &str = "config.json";

impl TADFormer {
    /// Starts a model on a pretrained Swin, its sizes included: a folder, a file, or a model of the Hugging Face hub by its id.
    ///
    /// The sizes are those of `config.json`, transformers' or timm's, and without one those of the tensors. A path that exists is
    /// taken as one, and so is what reads like one (absolute, from a dot downwards, of more than two parts, or with the ending of
    /// a checkpoint); anything else is an id, `OWNER/NAME` or `OWNER/NAME@REVISION`, and taken from [`crate::hub::Hub::default`].
    ///
    /// ```no_run
    /// use tadformer::TADFormer;
    /// let builder = TADFormer::builder_from_pretrained("microsoft/swin-tiny-patch4-window7-224")?;
    /// let model = builder.tasks("semseg=21,depth=1".parse()?).rank(16).image_size(448).build()?;
    /// # Ok::<(), tadformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// Another architecture, which is named; a path or model that cannot be read or had.
    pub fn builder_from_pretrained(source: impl AsRef<Path>) -> Result<TADFormerBuilder> {
        let path = match Location::of(source.as_ref()) {
            Location::Path(path) => path,
            Location::Id(id) => return by_id(id),
        };
        let config = path.join(CONFIG);
        let swin = if config.exists() { SwinConfig::of_config(config)? } else { SwinConfig::of_checkpoint(path)? };
        Ok(Self::builder(swin).pretrained(path))
    }

    /// Starts a model on a pretrained Swin of the Hugging Face hub, its sizes included.
    ///
    /// The configuration comes first: of another architecture nothing more is downloaded.
    ///
    /// ```no_run
    /// use tadformer::{TADFormer, hub::Hub};
    /// let hub = Hub::default().cache("models").progress(|file| println!("{}: {} of {}", file.file, file.done, file.total));
    /// let model = TADFormer::builder_from_hub("timm/swin_base_patch4_window12_384.ms_in22k_ft_in1k", &hub)?.rank(16).build()?;
    /// # Ok::<(), tadformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// Another architecture, which is named; whatever keeps the model from being had, as [`crate::HubProblem`] tells apart.
    #[cfg(feature = "hub")]
    pub fn builder_from_hub(id: &str, hub: &crate::hub::Hub) -> Result<TADFormerBuilder> {
        let model = hub.model(id)?;
        let config = model.first_of(&[CONFIG], crate::swin::MOST_CONFIG_BYTES)?;
        let config = config.map(SwinConfig::of_config).transpose()?;
        let path = weights(&model)?;
        let swin = config.map_or_else(|| SwinConfig::of_checkpoint(&path), Ok)?;
        let origin = super::Origin::Hub { id: model.id().name().to_owned(), revision: model.commit().to_owned() };
        Ok(Self::builder(swin).pretrained_from(path, origin))
    }
}

#[cfg(feature = "hub")]
fn by_id(id: &str) -> Result<TADFormerBuilder> {
    TADFormer::builder_from_hub(id, &Default::default())
}

#[cfg(not(feature = "hub"))]
fn by_id(id: &str) -> Result<TADFormerBuilder> {
    super::location::no_hub(id)
}

/// The file of a model's weights.
#[cfg(feature = "hub")]
pub(in crate::model) fn weights(model: &crate::hub::HubModel) -> Result<std::path::PathBuf> {
    model.first_of(&WEIGHTS, u64::MAX)?.ok_or_else(|| model.missing(&WEIGHTS))
}
