//! Each kind of decoder against PyTorch's, with PyTorch's weights: outputs, running statistics, and every gradient.
#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::VarBuilder;
use std::collections::HashMap;
use std::path::Path;
use tadformer::checkpoint::Checkpoint;
use tadformer::heads::{AsppConfig, Head, HeadConfig, HrNetConfig, LinearConfig, SegFormerConfig, SharedHidden};
use tadformer::layers::{FeatureMap, Mode, TrainingPass};
use tadformer::ops::Definition;
use tadformer::params::{Role, Weights};

const WIDTHS: [usize; 4] = [4, 6, 8, 8];

struct Golden {
    file: Checkpoint,
    dtype: DType,
}

impl Golden {
    fn open(dtype: DType) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/heads/heads.safetensors");
        Self { file: Checkpoint::open(path).unwrap(), dtype }
    }

    fn load(&self, name: &str) -> Tensor {
        self.file.load(name, self.dtype, &Device::Cpu).unwrap()
    }

    /// PyTorch's weights of a kind, under the names that the decoders ask for.
    fn weights(&self, kind: &str) -> Weights {
        let prefix = format!("{kind}.weight.");
        let names = self.file.names().filter_map(|name| Some((name, name.strip_prefix(&prefix)?)));
        let tensors: HashMap<String, Tensor> = names.map(|(name, short)| (short.to_owned(), self.load(name))).collect();
        Weights::over(VarBuilder::from_tensors(tensors, self.dtype, &Device::Cpu))
    }

    /// The stages' maps as variables, and as what a decoder reads.
    fn maps(&self) -> Vec<(Var, (usize, usize))> {
        let map = |i| FeatureMap::from_nchw(&self.load(&format!("map.{i}"))).unwrap();
        (0..WIDTHS.len()).map(map).map(|map| (Var::from_tensor(&map.tokens).unwrap(), map.size)).collect()
    }

    /// Fails unless `got` is what the file has under this name.
    fn compare(&self, name: &str, got: &Tensor) {
        let want = self.load(name);
        assert_eq!(got.dims(), want.dims(), "{name}");
        let largest = |x: &Tensor| x.abs().unwrap().max_all().unwrap().to_dtype(DType::F64).unwrap().to_scalar::<f64>();
        let error = largest(&(got - &want).unwrap()).unwrap();
        // Some gradients are nothing but rounding: what a BatchNorm takes away again.
        let tolerance = if self.dtype == DType::F64 { 2e-7 } else { 1e-5 } * largest(&want).unwrap().max(0.1);
        assert!(error <= tolerance, "{name}, {:?}: {error:.1e} is above {tolerance:.1e}", self.dtype);
    }
}

/// A kind's decoders: each with the place of its outputs in the file.
type Decoders = Vec<(&'static str, Box<dyn Head>)>;

fn alone(config: impl Into<HeadConfig>, weights: &Weights) -> Result<Decoders> {
    Ok(vec![("", config.into().build(&WIDTHS, 3, None, weights)?)])
}

fn segformer(weights: &Weights) -> Result<Decoders> {
    alone(SegFormerConfig::new(5).dropout(0.0), weights)
}

fn aspp(weights: &Weights) -> Result<Decoders> {
    alone(AsppConfig::new([2, 3, 2, 2]).width(4).rates([1, 3, 12]).dropout(0.0), weights)
}

fn linear(weights: &Weights) -> Result<Decoders> {
    alone(LinearConfig::default(), weights)
}

fn hrnet_shared(weights: &Weights) -> Result<Decoders> {
    let config = HeadConfig::HrNetShared(HrNetConfig::new([1, 2, 2, 1]));
    let shared = SharedHidden::new(&config.shared().unwrap().channels, &weights.pp(SharedHidden::NAME))?;
    let head = |task, outputs| config.build(&WIDTHS, outputs, Some(&shared), &weights.pp(task));
    Ok(vec![(".a", head("a", 3)?), (".b", head("b", 1)?)])
}

/// Outputs in evaluation, then a training step.
fn agrees(kind: &str, decoders: fn(&Weights) -> Result<Decoders>, dtype: DType) -> Result<()> {
    let golden = Golden::open(dtype);
    let (weights, maps) = (golden.weights(kind), golden.maps());
    let stages: Vec<_> =
        maps.iter().map(|(var, size)| FeatureMap { tokens: var.as_tensor().clone(), size: *size }.into()).collect();
    let heads = decoders(&weights)?;
    for (task, head) in &heads {
        golden.compare(&format!("{kind}.output{task}"), &head.forward(&stages, Mode::Eval)?);
    }
    let (pass, mut loss) = (TrainingPass::seeded(0), Tensor::zeros((), dtype, &Device::Cpu)?);
    for (task, head) in &heads {
        let y = head.forward(&stages, Mode::Train(&pass))?;
        golden.compare(&format!("{kind}.train.output{task}"), &y);
        loss = (loss + y.sqr()?.mean_all()?)?;
    }
    let grads = loss.backward()?;
    let entries = weights.ledger().entries();
    let in_file = golden.file.names().filter(|name| name.starts_with(&format!("{kind}.weight."))).count();
    assert_eq!(entries.len(), in_file, "every weight of PyTorch's is a weight here");
    for entry in entries {
        match &entry.role {
            Role::Statistics(var) => golden.compare(&format!("{kind}.train.{}", entry.name), var),
            _ => golden.compare(&format!("{kind}.grad.{}", entry.name), grads.get(entry.tensor()).unwrap()),
        }
    }
    for (i, (var, size)) in maps.iter().enumerate() {
        let gradient = FeatureMap { tokens: grads.get(var).unwrap().clone(), size: *size };
        golden.compare(&format!("{kind}.grad.map.{i}"), &gradient.to_nchw()?);
    }
    Ok(())
}

fn by_both_definitions(kind: &str, decoders: fn(&Weights) -> Result<Decoders>) -> Result<()> {
    for dtype in [DType::F64, DType::F32] {
        for by in Definition::ALL {
            by.run(|| agrees(kind, decoders, dtype))?;
        }
    }
    Ok(())
}

#[test]
fn segformers_head() -> Result<()> {
    by_both_definitions("segformer", segformer)
}

#[test]
fn the_aspp_head() -> Result<()> {
    by_both_definitions("aspp", aspp)
}

#[test]
fn the_linear_head() -> Result<()> {
    by_both_definitions("linear", linear)
}

#[test]
fn hrnet_heads_with_a_shared_layer() -> Result<()> {
    by_both_definitions("hrnet-shared", hrnet_shared)
}
