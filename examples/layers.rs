//! The paper's modules on their own, in somebody else's model.
//!
//!     cargo run --release --example layers
//!
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Module, VarBuilder, VarMap, conv2d, linear};
use tadformer::heads::{Head, HrNetConfig, HrNetHead};
use tadformer::layers::{FeatureMap, LowRankConfig, LowRankLinear, Mode};
use tadformer::params::Weights;
use tadformer::swin::{StagePlan, SwinConfig, Tokens};
use tadformer::tad::{Method, PerTask, Prompts};
use tadformer::{DynamicTaskFilter, TADBlock, TaskPrompt, TaskSet};

/// A convolution whose 16 channels are filtered by their own context.
struct ContextConv {
    conv: Conv2d,
    filter: DynamicTaskFilter,
}

impl ContextConv {
    fn new(vb: VarBuilder) -> Result<Self> {
        let conv = conv2d(3, 16, 3, Conv2dConfig { padding: 1, ..Default::default() }, vb.pp("conv"))?;
        Ok(Self { conv, filter: DynamicTaskFilter::new(16, 3, vb.pp("filter"))? })
    }
}

impl Module for ContextConv {
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        self.filter.forward(&self.conv.forward(images)?)
    }
}

/// A filter in a convolutional network.
fn dynamic_filter(device: &Device) -> Result<()> {
    let variables = VarMap::new();
    let model = ContextConv::new(VarBuilder::from_varmap(&variables, DType::F32, device))?;
    let maps = model.forward(&Tensor::randn(0f32, 1., (2, 3, 32, 48), device)?)?;
    println!("DynamicTaskFilter: {:?} from {} trained tensors", maps.dims(), variables.all_vars().len());
    Ok(())
}

/// Prompts before the tokens of any transformer.
fn prompts(device: &Device) -> Result<()> {
    let variables = VarMap::new();
    let prompts = TaskPrompt::new(3, 64, 2, VarBuilder::from_varmap(&variables, DType::F32, device))?;
    let tokens = Tensor::zeros((2, 100, 64), DType::F32, device)?;
    let first = prompts.first(2)?;
    let sequence = Tensor::cat(&[&first, &tokens], 1)?;
    println!("TaskPrompt: {:?}, and {:?} for the next stage", sequence.dims(), prompts.next(0, &first)?.dims());
    Ok(())
}

/// A low-rank path beside the linear of any model, which is frozen by it: A and B train, and are saved, with their `VarMap`.
fn low_rank(device: &Device) -> Result<()> {
    let (pretrained, variables) = (VarMap::new(), VarMap::new());
    let classifier = linear(64, 10, VarBuilder::from_varmap(&pretrained, DType::F32, device))?;
    let path = LowRankConfig { rank: 4, scale: 4.0, dropout: 0.0 };
    let adapted =
        LowRankLinear::from_linear(classifier, path, VarBuilder::from_varmap(&variables, DType::F32, device))?;
    let y = adapted.forward(&Tensor::ones((2, 64), DType::F32, device)?)?;
    println!("LowRankLinear: {:?} from {} trained tensors", y.dims(), variables.all_vars().len());
    Ok(())
}

/// One task-adapting block on its own: shared tokens on, and tokens for each task.
fn block(device: &Device, tasks: &TaskSet) -> anyhow::Result<()> {
    let weights = Weights::random(0, DType::F32, device);
    let config = StagePlan::new(&SwinConfig::tiny(), 0, Method::tadformer(8).block_low_rank(0))?.block(1)?;
    let block = TADBlock::new(config, &PerTask::default().prompts(Prompts::None), tasks, None, &weights.pp("block"))?;
    let patches = Tensor::randn(0f32, 1., (1, 28 * 20, 96), device)?;
    let (shared, task) = block.forward(&Tokens { patches, prompts: None, size: (28, 20) }, Mode::Eval)?;
    println!("TADBlock: shared {:?}, tasks {:?}", shared.patches.dims(), task.tokens.dims());
    Ok(())
}

/// A decoder over two maps of any backbone; its weights are the `VarMap`'s.
fn head(device: &Device) -> Result<()> {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, device);
    let head = HrNetHead::new(&HrNetConfig::new([16, 32]), &[64, 128], 5, &Weights::over(vb.pp("head")))?;
    let map = |c, size: (usize, usize)| {
        Ok::<_, candle_core::Error>(FeatureMap {
            tokens: Tensor::zeros((1, size.0 * size.1, c), DType::F32, device)?,
            size,
        })
    };
    let scores = head.forward(&[map(64, (24, 32))?.into(), map(128, (12, 16))?.into()], Mode::Eval)?;
    println!("HrNetHead: {:?} from {} tensors of a VarMap", scores.dims(), variables.all_vars().len());
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let device = Device::Cpu;
    dynamic_filter(&device)?;
    prompts(&device)?;
    low_rank(&device)?;
    block(&device, &"semseg=21,depth=1".parse()?)?;
    Ok(head(&device)?)
}
