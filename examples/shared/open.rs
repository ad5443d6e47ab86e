//! How an adapter is opened from the command line: on which device, on which backbone, and with a bar for what is downloaded.

use crate::download;
use std::path::PathBuf;
use tadformer::hub::Hub;
use tadformer::model::OpenOptions;

pub fn options(backbone: Option<PathBuf>, device: &str) -> tadformer::Result<OpenOptions> {
    let device = tadformer::runtime::parse_device(device)?;
    let hub = Hub::default().progress(download::bar());
    Ok(OpenOptions { backbone, device, hub, ..Default::default() })
}
