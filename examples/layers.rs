//! The paper's modules on their own, in somebody else's model.
//!
//!     cargo run --release --example layers
//!
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Module, VarBuilder, VarMap, conv2d};
use tadformer::heads::{Head, HrNetConfig, HrNetHead};
use tadformer::layers::{FeatureMap, LowRankConfig, LowRankLinear, Mode};
use tadformer::params::{Ledger, Release, Weights, random_source};
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

/// A low-rank path beside a frozen linear: only A and B are in the ledger's trained list.
fn low_rank(device: &Device) -> Result<()> {
    let ledger = Ledger::seeded(0, DType::F32, device);
    let weights = Weights::new(random_source(0, DType::F32, device), ledger.clone(), Release::none());
    let path = LowRankConfig { rank: 4, scale: 4.0, dropout: 0.0 };
    let linear = LowRankLinear::new(64, 10, Some(path), &weights.pp("classifier"))?;
    let y = linear.forward(&Tensor::ones((2, 64), DType::F32, device)?, Mode::Eval)?;
    let trained: Vec<String> = ledger.trained().into_iter().map(|entry| entry.name).collect();
    println!("LowRankLinear: {:?}, trains {}", y.dims(), trained.join(" and "));
    Ok(())
}

/// One task-adapting block on its own: shared tokens on, and tokens for each task.
fn block(device: &Device, tasks: &TaskSet) -> Result<()> {
    let ledger = Ledger::seeded(0, DType::F32, device);
    let weights = Weights::new(random_source(0, DType::F32, device), ledger, Release::none());
    let plan = StagePlan::new(&SwinConfig::tiny(), 0, Method::tadformer(8).block_low_rank(0)).block(1);
    let block = TADBlock::new(plan, &PerTask::default().prompts(Prompts::None), tasks, None, &weights.pp("block"))?;
    let patches = Tensor::randn(0f32, 1., (1, 28 * 20, 96), device)?;
    let (shared, task) = block.forward(&Tokens { patches, prompts: None, size: (28, 20) }, Mode::Eval)?;
    println!("TADBlock: shared {:?}, tasks {:?}", shared.patches.dims(), task.tokens.dims());
    Ok(())
}

/// A decoder over two maps of any backbone.
fn head(device: &Device) -> Result<()> {
    let ledger = Ledger::seeded(0, DType::F32, device);
    let weights = Weights::new(random_source(0, DType::F32, device), ledger, Release::none());
    let head = HrNetHead::new(&HrNetConfig::new([16, 32]), &[64, 128], 5, &weights.pp("head"))?;
    let map = |c, size: (usize, usize)| {
        Ok::<_, candle_core::Error>(FeatureMap {
            tokens: Tensor::zeros((1, size.0 * size.1, c), DType::F32, device)?,
            size,
        })
    };
    let scores = head.forward(&[map(64, (24, 32))?.into(), map(128, (12, 16))?.into()], Mode::Eval)?;
    println!("HrNetHead: {:?}", scores.dims());
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
