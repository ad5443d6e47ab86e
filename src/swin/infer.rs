//! The sizes of a Swin, read off its checkpoint.

use super::{SwinConfig, names};
use crate::params::Checkpoint;
use crate::{Error, Result};
use std::path::Path;

impl SwinConfig {
    /// The sizes of the Swin in a checkpoint, from its tensors' shapes alone.
    ///
    /// `image_size` is the smallest that gives the bias tables of the file; raise it for larger images.
    ///
    /// # Errors
    /// A file that cannot be read or is no Swin, or whose shapes no Swin has.
    pub fn of_checkpoint(path: impl AsRef<Path>) -> Result<Self> {
        let (_, checkpoint, _) = names::canonical(Checkpoint::open(path)?)?;
        let config = infer(&checkpoint).ok_or_else(|| {
            let cure = "name the preset and give the file as the checkpoint: the error then names the tensor";
            Error::file(checkpoint.path(), "shapes that are no Swin's", cure)
        })?;
        config.check()?;
        Ok(config)
    }
}

fn infer(checkpoint: &Checkpoint) -> Option<SwinConfig> {
    let patch_embed = checkpoint.shape("patch_embed.proj.weight")?;
    let (embed_dim, patch_size) = (*patch_embed.first()?, *patch_embed.get(2)?);
    let block = |i: usize, j: usize, end: &str| checkpoint.shape(&format!("layers.{i}.blocks.{j}.{end}"));
    let depth = |i: usize| (0..).take_while(|j| block(i, *j, "norm1.weight").is_some()).count();
    let depths: Vec<usize> = (0..).map(depth).take_while(|depth| *depth > 0).collect();
    let tables: Vec<Vec<usize>> =
        (0..depths.len()).map(|i| block(i, 0, "attn.relative_position_bias_table")).collect::<Option<_>>()?;
    let windows: Vec<usize> = tables.iter().map(|table| table[0].isqrt().div_ceil(2)).collect();
    let hidden = *block(0, 0, "mlp.fc1.weight")?.first()?;
    Some(SwinConfig {
        image_size: windows.iter().enumerate().map(|(i, window)| (patch_size * window) << i).max()?,
        patch_size,
        embed_dim,
        num_heads: tables.iter().map(|table| table.get(1).copied()).collect::<Option<_>>()?,
        window: *windows.iter().max()?,
        mlp_ratio: hidden as f64 / embed_dim.max(1) as f64,
        depths,
        ..SwinConfig::tiny()
    })
}
