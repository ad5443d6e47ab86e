//! One Swin in three formats beside the features that transformers and timm computed.

use super::golden::{EXPECTED, Golden, output_row};
use super::row::Row;
use crate::model::BackboneFile;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::path::Path;

pub(super) fn compare(folder: &Path, dtype: DType, device: &Device) -> Result<Vec<Row>> {
    let expected = folder.join(EXPECTED);
    if !expected.is_file() {
        return Err(Error::file(folder, "a folder without expected.safetensors", "give a folder of make_golden.py"));
    }
    let golden = Golden::open(&expected)?;
    let mut rows = Vec::new();
    for format in ["transformers", "timm", "original.pth"] {
        let swin = BackboneFile::open(folder.join(format))?.swin(dtype, device)?;
        for name in golden.tensors.names().filter(|name| name.contains("stage.")) {
            let (run, stage) = name.split_once("stage.").unwrap_or_default();
            let input = golden.get(&format!("{run}input"))?.to_device(device)?.to_dtype(dtype)?;
            let features = swin.forward(&input)?;
            let (index, what) = stage.split_once('.').unwrap_or_default();
            let feature = index.parse().ok().and_then(|i: usize| features.get(i));
            let feature = feature.ok_or_else(|| golden.foreign(&format!("`{name}` is of no stage")))?;
            let got: Tensor = match what {
                "merged" => feature.merged.tokens.clone(),
                _ => feature.before_merging.to_nchw()?,
            };
            rows.push(output_row(format!("{format}: {name}"), &got, &golden.get(name)?, None)?);
        }
    }
    Ok(rows)
}
