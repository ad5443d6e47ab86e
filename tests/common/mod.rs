//! A model small enough for tests.
#![allow(dead_code)]

use candle_core::{DType, Device, Result, Tensor};
use tadformer::heads::HrNetConfig;
use tadformer::swin::SwinConfig;
use tadformer::{TADFormer, TADFormerBuilder};

pub const TASKS: &str = "semseg=7,human_parts=7,sal=1,normals=3,edge=1,depth=1";

/// Four stages of 8 to 64 channels for images of 64.
pub fn swin() -> SwinConfig {
    SwinConfig {
        image_size: 64,
        embed_dim: 8,
        depths: vec![1, 2, 1, 1],
        num_heads: vec![1, 2, 2, 4],
        window: 4,
        drop_path: 0.0, // a residual dropped by chance has no gradient
        ..SwinConfig::tiny()
    }
}

/// Six tasks at rank 2.
pub fn builder() -> TADFormerBuilder {
    TADFormer::builder(swin()).tasks(TASKS.parse().unwrap()).rank(2).head(HrNetConfig::new([2, 2, 4, 4])).seed(3)
}

/// Different values everywhere, the same each time.
pub fn images(batch: usize, height: usize, width: usize) -> Result<Tensor> {
    let n = batch * 3 * height * width;
    let values: Vec<f32> = (0..n).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0) * (i as f32 * 0.01).cos()).collect();
    Tensor::from_vec(values, (batch, 3, height, width), &Device::Cpu)
}

/// Gives every low-rank B values: fresh ones are zero and hide what depends on them.
pub fn randomise_b(model: &TADFormer) -> Result<()> {
    for entry in model.ledger().trained() {
        if entry.name.ends_with("low_rank.b")
            && let Some(var) = entry.trained()
        {
            let wave = Tensor::arange(0f32, var.elem_count() as f32, &Device::Cpu)?.sin()?;
            var.set(&(wave * 0.1)?.reshape(var.shape())?.to_dtype(var.dtype())?)?;
        }
    }
    Ok(())
}

/// The largest difference of two tensors.
pub fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    (a.to_dtype(DType::F64)? - b.to_dtype(DType::F64)?)?.abs()?.max_all()?.to_scalar()
}
