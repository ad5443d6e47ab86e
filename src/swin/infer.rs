//! The sizes of a Swin, read off its checkpoint.

use super::{SwinConfig, names};
use crate::checkpoint::Checkpoint;
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
        Self::of_tensors(&checkpoint)
    }

    /// [`SwinConfig::of_checkpoint`] for a checkpoint under timm's names.
    pub(crate) fn of_tensors(checkpoint: &Checkpoint) -> Result<Self> {
        let config = infer(checkpoint).ok_or_else(|| {
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
    let tables: Vec<(usize, usize)> = (0..depths.len())
        .map(|i| window_and_heads(&block(i, 0, "attn.relative_position_bias_table")?))
        .collect::<Option<_>>()?;
    // A map halves from stage to stage, so the smallest image that fills stage I's window is `window * patch * 2^I` wide.
    let filled = |(i, (window, _)): (usize, &(usize, usize))| {
        patch_size.checked_mul(*window)?.checked_mul(2usize.checked_pow(u32::try_from(i).ok()?)?)
    };
    let image_sizes: Vec<usize> = tables.iter().enumerate().map(filled).collect::<Option<_>>()?;
    let hidden = *block(0, 0, "mlp.fc1.weight")?.first()?;
    Some(SwinConfig {
        image_size: image_sizes.into_iter().max()?,
        patch_size,
        embed_dim,
        num_heads: tables.iter().map(|(_, heads)| *heads).collect(),
        window: tables.iter().map(|(window, _)| *window).max()?,
        mlp_ratio: hidden as f64 / embed_dim.max(1) as f64,
        depths,
        ..SwinConfig::tiny()
    })
}

/// Of a bias table `[(2 * window - 1)^2, heads]`.
fn window_and_heads(table: &[usize]) -> Option<(usize, usize)> {
    let [offsets, heads] = table else { return None };
    let side = offsets.isqrt();
    (side * side == *offsets && side % 2 == 1).then_some((side.div_ceil(2), *heads))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};
    use std::collections::HashMap;

    fn golden(name: &str) -> Checkpoint {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        names::canonical(Checkpoint::open(path).unwrap()).unwrap().1
    }

    #[test]
    fn sizes_of_the_golden_files() {
        for (name, window, image_size) in [
            ("swin_w4_128/timm", 4, 128),
            ("swin_w4_128/transformers", 4, 128),
            ("swin_w4_128/original.pth", 4, 128),
            ("swin_w7_224/original.pth", 7, 224),
        ] {
            let config = infer(&golden(name)).unwrap();
            assert_eq!((config.embed_dim, config.patch_size, config.mlp_ratio), (8, 4, 4.0), "{name}");
            assert_eq!((config.depths, config.num_heads), (vec![2; 4], vec![1, 2, 4, 4]), "{name}");
            assert_eq!((config.window, config.image_size), (window, image_size), "{name}");
        }
    }

    fn of(tensors: &[(String, &[usize])]) -> Option<SwinConfig> {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let tensors = tensors.iter().map(|(name, shape)| (name.clone(), zeros(shape)));
        infer(&Checkpoint::from_tensors(tensors.collect::<HashMap<_, _>>()))
    }

    fn stages(count: usize, table: &'static [usize]) -> Vec<(String, &'static [usize])> {
        let mut tensors: Vec<(String, &'static [usize])> = vec![("patch_embed.proj.weight".into(), &[8, 3, 4, 4])];
        tensors.push(("layers.0.blocks.0.mlp.fc1.weight".into(), &[32, 8]));
        for i in 0..count {
            tensors.push((format!("layers.{i}.blocks.0.norm1.weight"), &[8]));
            tensors.push((format!("layers.{i}.blocks.0.attn.relative_position_bias_table"), table));
        }
        tensors
    }

    #[test]
    fn shapes_that_no_swin_has_give_nothing() {
        assert!(of(&stages(4, &[49, 1])).is_some());
        assert!(of(&stages(4, &[])).is_none());
        assert!(of(&stages(4, &[49])).is_none());
        assert!(of(&stages(4, &[48, 1])).is_none());
        assert!(of(&stages(4, &[64, 1])).is_none());
        assert!(of(&stages(0, &[49, 1])).is_none());
        assert!(of(&stages(70, &[49, 1])).is_none());
    }
}
