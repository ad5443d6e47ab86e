//! The ledger: every weight of a model in the order it was made, with its group and whether it trains.

use super::{Group, initial};
use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What becomes of a weight.
#[derive(Clone, Debug)]
pub enum Role {
    /// An optimizer moves it.
    Trained(Var),
    /// It could train and is kept as it is for now: saved with an adapter, moved by no optimizer.
    Held(Var),
    /// Nothing moves it.
    Frozen(Tensor),
    /// Running statistics: training moves it, no optimizer does.
    Statistics(Var),
    /// It would train, had the ledger not only counted: a shape without memory.
    Counted(Tensor),
}

/// Whether a weight that could train does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Trains,
    IsHeld,
}

/// One weight of a model.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The full name, as in an adapter file.
    pub name: String,
    /// What it is for.
    pub group: Group,
    /// What becomes of it.
    pub role: Role,
}

impl Entry {
    /// The value.
    pub fn tensor(&self) -> &Tensor {
        match &self.role {
            Role::Trained(var) | Role::Held(var) | Role::Statistics(var) => var.as_tensor(),
            Role::Frozen(tensor) | Role::Counted(tensor) => tensor,
        }
    }

    /// The variable, where an optimizer moves it.
    pub fn trained(&self) -> Option<&Var> {
        if let Role::Trained(var) = &self.role { Some(var) } else { None }
    }
}

/// An ordered record of every weight asked for; the optimizer's groups, the parameter table and the adapter file all read it.
///
/// A clone is another handle on the same ledger.
///
/// ```
/// use candle_core::{DType, Device};
/// use tadformer::params::{Group, Ledger};
/// let ledger = Ledger::seeded(7, DType::F32, &Device::Cpu);
/// let vb = ledger.builder(Group::Filters);
/// let weight = vb.pp("filter").get((9, 2), "weight")?;
/// assert_eq!(ledger.entries()[0].name, "filter.weight");
/// assert!(weight.is_variable());
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ledger {
    entries: Arc<Mutex<Entries>>,
    values: InitialValues,
    dtype: DType,
    device: Device,
}

/// The entries in order, and their names: a configuration can ask for tens of thousands.
#[derive(Debug, Default)]
struct Entries {
    list: Vec<Entry>,
    names: HashSet<String>,
}

/// Where a new weight's value comes from.
#[derive(Clone)]
enum InitialValues {
    Drawn { seed: u64 },
    None,
    Asked(VarBuilder<'static>),
}

impl fmt::Debug for InitialValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drawn { seed } => write!(f, "drawn with seed {seed}"),
            Self::None => write!(f, "none"),
            Self::Asked(_) => write!(f, "asked of a builder"),
        }
    }
}

impl Ledger {
    /// An empty ledger whose weights start from values drawn with this seed.
    pub fn seeded(seed: u64, dtype: DType, device: &Device) -> Self {
        Self { entries: Arc::default(), values: InitialValues::Drawn { seed }, dtype, device: device.clone() }
    }

    /// An empty ledger that counts: its weights have shapes and no memory, and none can train.
    pub fn counting() -> Self {
        Self { entries: Arc::default(), values: InitialValues::None, dtype: DType::F32, device: Device::Cpu }
    }

    /// An empty ledger whose weights are asked of this builder: what it gives as a variable is the one that trains.
    pub(super) fn over(source: VarBuilder<'static>) -> Self {
        let (dtype, device) = (source.dtype(), source.device().clone());
        Self { entries: Arc::default(), values: InitialValues::Asked(source), dtype, device }
    }

    /// A builder of trained weights of one group, to hand to a module.
    pub fn builder(&self, group: Group) -> VarBuilder<'static> {
        self.builder_of(group, Fate::Trains)
    }

    /// [`Ledger::builder`] of weights with this fate.
    pub(super) fn builder_of(&self, group: Group, fate: Fate) -> VarBuilder<'static> {
        let side = TrainedSide { ledger: self.clone(), group, fate };
        VarBuilder::from_backend(Box::new(side), self.dtype, self.device.clone())
    }

    /// All weights in the order they were made.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().list.clone()
    }

    /// The weights an optimizer moves, in order.
    pub fn trained(&self) -> Vec<Entry> {
        self.lock().list.iter().filter(|entry| entry.trained().is_some()).cloned().collect()
    }

    /// The float type of trained weights.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the weights live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Records a weight that starts from `value` and could train; gives what the module computes with.
    pub(super) fn train_from(&self, name: String, group: Group, value: &Tensor, fate: Fate) -> Result<Tensor> {
        if matches!(self.values, InitialValues::None) {
            return self.record(name, group, Role::Counted(value.clone()));
        }
        let var = Var::from_tensor(&value.to_dtype(self.dtype)?)?;
        match fate {
            Fate::Trains => self.record(name, group, Role::Trained(var)),
            // The same values, and no gradient of them is ever made.
            Fate::IsHeld => Ok(self.record(name, group, Role::Held(var))?.detach()),
        }
    }

    /// Records a weight that stays as it is.
    pub(super) fn freeze(&self, name: String, group: Group, value: Tensor) -> Result<Tensor> {
        self.record(name, group, Role::Frozen(value))
    }

    /// Records running statistics and gives the variable that training updates.
    pub(super) fn statistics(&self, name: String, shape: Shape, value: f64) -> Result<Var> {
        let start = match &self.values {
            InitialValues::Drawn { .. } => Tensor::full(value, shape, &self.device)?.to_dtype(self.dtype)?,
            // They are no parameters, and counting needs no memory for them.
            InitialValues::None => Tensor::zeros((), self.dtype, &self.device)?,
            InitialValues::Asked(source) => source.get_with_hints(shape, &name, Init::Const(value))?,
        };
        let var = Var::from_tensor(&start)?;
        self.record(name, Group::Statistics, Role::Statistics(var.clone()))?;
        Ok(var)
    }

    fn value(&self, name: &str, group: Group, shape: Shape, init: Init) -> Result<Tensor> {
        match &self.values {
            InitialValues::Drawn { seed } => {
                let values = initial::draw(*seed, name, Some(group), &shape, init)?;
                initial::tensor(values, &shape, self.dtype, &self.device)
            }
            InitialValues::None => Tensor::zeros((), self.dtype, &self.device)?.broadcast_as(shape),
            InitialValues::Asked(source) => source.get_with_hints(shape, name, init),
        }
    }

    fn record(&self, name: String, group: Group, role: Role) -> Result<Tensor> {
        let mut entries = self.lock();
        if !entries.names.insert(name.clone()) {
            candle_core::bail!("weight `{name}` is made twice")
        }
        let entry = Entry { name, group, role };
        let tensor = entry.tensor().clone();
        entries.list.push(entry);
        Ok(tensor)
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The trained side as candle's modules see it: a builder whose every request is recorded under one group.
struct TrainedSide {
    ledger: Ledger,
    group: Group,
    fate: Fate,
}

impl SimpleBackend for TrainedSide {
    fn get(&self, shape: Shape, name: &str, init: Init, _: DType, _: &Device) -> Result<Tensor> {
        let value = self.ledger.value(name, self.group, shape, init)?;
        self.ledger.train_from(name.to_owned(), self.group, &value, self.fate)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("{name}: a new weight needs a shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}
