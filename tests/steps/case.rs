//! A random case: sizes, types and views of a step's inputs, and at most one of them wrong.

use candle_core::{DType, Device, Result, Tensor, Var};
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tadformer::ops::GradientCheckpointing;

/// What a case is drawn from; shrinking makes sizes small and takes the wrong thing away.
#[derive(Clone, Debug)]
pub struct Case {
    /// Of values, views, and what is there at all.
    seed: u64,
    pub dtype: DType,
    /// With which of the inputs, counted around.
    wrong: Option<(usize, Wrong)>,
    pub graph: Graph,
    pub checkpointing: GradientCheckpointing,
    pub sizes: Sizes,
}

/// The sizes that steps are made of.
#[derive(Clone, Debug)]
pub struct Sizes {
    pub images: usize,
    pub height: usize,
    pub width: usize,
    pub heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    pub window: usize,
    pub kernel: usize,
    pub tasks: usize,
    /// Prompts of a task.
    pub prompts: usize,
    pub rank: usize,
    pub hidden: usize,
}

impl Sizes {
    pub fn channels(&self) -> usize {
        self.heads * self.head_dim
    }

    pub fn tokens(&self) -> usize {
        self.height * self.width
    }

    /// Patches of a window.
    pub fn patches(&self) -> usize {
        self.window * self.window
    }

    /// Windows of one image.
    pub fn windows(&self) -> usize {
        self.height.div_ceil(self.window) * self.width.div_ceil(self.window)
    }
}

/// What is wrong with the tensor or number that it befalls.
#[derive(Clone, Copy, Debug)]
pub enum Wrong {
    /// One size, or the number.
    Size(usize, Off),
    /// A dimension too many, or one too few.
    Dimensions(bool),
    /// Another type.
    Type(DType),
}

/// How a number is off.
#[derive(Clone, Copy, Debug)]
pub enum Off {
    Zero,
    Less,
    More,
    Twice,
    Endless,
}

impl Off {
    fn of(self, right: usize) -> usize {
        match self {
            Self::Zero => 0,
            Self::Less => right.saturating_sub(1),
            Self::More => right + 1,
            Self::Twice => right * 2,
            Self::Endless => usize::MAX,
        }
    }
}

/// What graph is made; the oracle makes candle's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Graph {
    Candle,
    Tape,
    MadeAgain,
    None,
}

/// Cases with no tensor larger than some hundred thousand values.
pub fn cases() -> impl Strategy<Value = Case> {
    let side = || prop_oneof![12 => 1..9usize, 1 => 9..40usize];
    let map = (1..4usize, side(), side(), 1..6usize);
    let channels = (prop_oneof![Just(1usize), Just(2), Just(4)], prop_oneof![6 => 1..9usize, 1 => 9..20usize]);
    let filter =
        (prop_oneof![8 => Just(3usize), 2 => Just(5), 1 => Just(7)], prop_oneof![4 => 1..9usize, 1 => 16..18usize]);
    let tasks = (1..4usize, 1..3usize, 1..24usize);
    let sizes = (map, channels, filter, tasks).prop_map(|(map, channels, filter, tasks)| {
        let ((images, height, width, window), (heads, head_dim)) = (map, channels);
        let ((kernel, rank), (tasks, prompts, hidden)) = (filter, tasks);
        Sizes { images, height, width, heads, head_dim, window, kernel, tasks, prompts, rank, hidden }
    });
    let off = prop_oneof![Just(Off::Zero), Just(Off::Less), Just(Off::More), Just(Off::Twice), Just(Off::Endless)];
    let other = vec![DType::F32, DType::F64, DType::BF16, DType::F16, DType::U8, DType::I64];
    let wrong = prop_oneof![
        6 => (0..5usize, off).prop_map(|(at, off)| Wrong::Size(at, off)),
        1 => any::<bool>().prop_map(Wrong::Dimensions),
        3 => prop::sample::select(other).prop_map(Wrong::Type),
    ];
    let dtype =
        prop_oneof![4 => Just(DType::F64), 4 => Just(DType::F32), 1 => Just(DType::F16), 1 => Just(DType::BF16)];
    let graph = prop_oneof![4 => Just(Graph::Candle), 2 => Just(Graph::Tape), 1 => Just(Graph::MadeAgain), 1 => Just(Graph::None)];
    let checkpointing = prop_oneof![2 => Just(GradientCheckpointing::Off), 1 => Just(GradientCheckpointing::On)];
    (any::<u64>(), dtype, prop::option::weighted(0.4, (any::<usize>(), wrong)), (graph, checkpointing), sizes).prop_map(
        |(seed, dtype, wrong, (graph, checkpointing), sizes)| Case { seed, dtype, wrong, graph, checkpointing, sizes },
    )
}

/// A step's inputs, drawn one after the other.
pub struct Draws<'a> {
    pub case: &'a Case,
    rng: StdRng,
    /// How many tensors and numbers have been drawn, and which of them is wrong.
    drawn: usize,
    at: Option<usize>,
    /// What gradients are compared of.
    pub variables: Vec<Var>,
}

impl<'a> Draws<'a> {
    /// With nothing wrong.
    pub fn right(case: &'a Case) -> Self {
        Self { case, rng: StdRng::seed_from_u64(case.seed), drawn: 0, at: None, variables: Vec::new() }
    }

    /// As the case has it, for a step of as many inputs as were drawn.
    pub fn again(self) -> Self {
        let at = self.case.wrong.map(|(at, _)| at % self.drawn.max(1));
        Self { at, ..Self::right(self.case) }
    }

    pub fn sizes(&self) -> &'a Sizes {
        &self.case.sizes
    }

    /// Whether something is there that need not be.
    pub fn flag(&mut self) -> bool {
        self.rng.random()
    }

    pub fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.random_range(0..of.len())]
    }

    /// A seed of what the step draws itself.
    pub fn seed(&mut self) -> u64 {
        self.rng.random()
    }

    /// A number that should be `right`.
    pub fn number(&mut self, right: usize) -> usize {
        match self.wrong() {
            Some(Wrong::Size(_, off)) => off.of(right),
            _ => right,
        }
    }

    /// A map's height and width, which should be these.
    pub fn size(&mut self, (height, width): (usize, usize)) -> (usize, usize) {
        (self.number(height), self.number(width))
    }

    /// A tensor that should have these sizes, in the case's float type; often a variable, or a view.
    pub fn tensor(&mut self, dims: &[usize]) -> Result<Tensor> {
        let stretched = self.rng.random_bool(0.05);
        self.tensor_of(dims, self.case.dtype, stretched)
    }

    /// As [`Draws::tensor`], and no two values the same: of taps that are, a norm amplifies what rounding left.
    pub fn varied(&mut self, dims: &[usize]) -> Result<Tensor> {
        self.tensor_of(dims, self.case.dtype, false)
    }

    /// A weight that may be stored in another float type.
    pub fn stored(&mut self, dims: &[usize]) -> Result<Tensor> {
        let dtype = self.one_of(&[self.case.dtype, self.case.dtype, DType::F32, DType::F64, DType::BF16, DType::F16]);
        self.tensor_of(dims, dtype, false)
    }

    /// Positive values of the case's float type that nothing goes back to.
    pub fn positive(&mut self, dims: &[usize]) -> Result<Tensor> {
        let (dims, dtype) = self.befall(dims, self.case.dtype);
        (self.values(&dims, 1.0)? + 1.5)?.to_dtype(dtype)
    }

    /// A mask of some float type: 0 and -100.
    pub fn mask(&mut self, dims: &[usize]) -> Result<Tensor> {
        let dtype = self.one_of(&[DType::F32, DType::F64]);
        let (dims, dtype) = self.befall(dims, dtype);
        (self.values(&dims, 1.0)?.ge(0.5)?.to_dtype(DType::F64)? * -100.0)?.to_dtype(dtype)
    }

    /// Whole numbers below `end` as a label has them, some of them marked to be ignored.
    pub fn label(&mut self, dims: &[usize], end: usize) -> Result<Tensor> {
        let dtype = self.one_of(&[DType::F32, DType::F32, DType::F64]);
        let (dims, dtype) = self.befall(dims, dtype);
        let rng = &mut self.rng;
        let mut value = || if rng.random_bool(0.2) { 255.0 } else { rng.random_range(0..end) as f32 };
        let values: Vec<f32> = (0..dims.iter().product()).map(|_| value()).collect();
        Tensor::from_vec(values, dims, &Device::Cpu)?.to_dtype(dtype)
    }

    /// `stretched` says whether the first dimension repeats one row.
    fn tensor_of(&mut self, dims: &[usize], dtype: DType, stretched: bool) -> Result<Tensor> {
        let (dims, dtype) = self.befall(dims, dtype);
        let turned = !stretched && dims.len() >= 2 && self.rng.random_bool(0.15);
        let part = self.rng.random_bool(0.15);
        let mut laid = dims.clone();
        if turned {
            laid.swap(0, 1);
        } else if let Some(first) = laid.first_mut() {
            *first = if stretched { 1 } else { *first + 3 * usize::from(part) };
        }
        let values = self.values(&laid, 2.0)?.to_dtype(dtype)?;
        let floats = matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16);
        let base = if floats && self.rng.random_bool(0.5) { self.variable(&values)? } else { values };
        match dims.first() {
            _ if turned => base.transpose(0, 1),
            Some(_) if stretched => base.broadcast_as(dims),
            Some(first) if part => base.narrow(0, 2, *first),
            _ => Ok(base),
        }
    }

    fn variable(&mut self, values: &Tensor) -> Result<Tensor> {
        let variable = Var::from_tensor(values)?;
        self.variables.push(variable.clone());
        Ok(variable.into_inner())
    }

    fn values(&mut self, dims: &[usize], most: f64) -> Result<Tensor> {
        let values: Vec<f64> = (0..dims.iter().product()).map(|_| self.rng.random_range(-most..most)).collect();
        Tensor::from_vec(values, dims, &Device::Cpu)
    }

    /// Sizes and type, unless this is what the case has wrong.
    fn befall(&mut self, dims: &[usize], dtype: DType) -> (Vec<usize>, DType) {
        let (mut dims, mut dtype) = (dims.to_vec(), dtype);
        match self.wrong() {
            Some(Wrong::Size(_, Off::Endless)) | None => {}
            Some(Wrong::Size(at, off)) => {
                let at = at % dims.len().max(1);
                dims.iter_mut().skip(at).take(1).for_each(|size| *size = off.of(*size));
            }
            Some(Wrong::Dimensions(true)) => dims.push(1),
            Some(Wrong::Dimensions(false)) => drop(dims.pop()),
            Some(Wrong::Type(other)) => dtype = other,
        }
        (dims, dtype)
    }

    /// What is wrong with what is drawn next.
    fn wrong(&mut self) -> Option<Wrong> {
        let now = self.at == Some(self.drawn);
        self.drawn += 1;
        self.case.wrong.filter(|_| now).map(|(_, wrong)| wrong)
    }
}
