//! What PyTorch computed.

use crate::checks::Verdict;
use serde_json::json;
use std::path::Path;
use tadformer::candle_core::{DType, Device};
use tadformer::parity;

pub fn check(on: &Device, folder: &Path) -> anyhow::Result<Verdict> {
    let (mut files, mut rows) = (0, Vec::new());
    for path in parity::golden_in(folder)? {
        rows.extend(parity::compare(&path, DType::F32, on)?);
        files += 1;
    }
    let worst = rows.iter().max_by(|a, b| (a.error / a.limit).total_cmp(&(b.error / b.limit)));
    let worst = worst.map(|row| json!({ "name": row.name, "error": row.error, "limit": row.limit }));
    let above: Vec<&str> = rows.iter().filter(|row| !row.passes()).map(|row| row.name.as_str()).collect();
    let figures = json!({ "files": files, "compared": rows.len(), "worst": worst, "above": above });
    Ok(Verdict { passes: above.is_empty() && !rows.is_empty(), figures })
}
