//! The two sides a module's weights come from, walking the same prefixes.

use super::ledger::Fate;
use super::{Group, Ledger, Pretrained, Release, random_source};
use crate::ops;
use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use candle_nn::init::ZERO;
use candle_nn::{Init, VarBuilder};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Frozen weights on one side, trained ones on the other: what a module with both is built from.
///
/// A pretrained weight whose group is released is asked of the trained side, which starts it from the frozen side's value.
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::Init;
/// use tadformer::params::{Group, Pretrained, Weights};
/// let weights = Weights::random(0, DType::F32, &Device::Cpu);
/// let here = weights.pp("classifier");
/// let frozen = here.pretrained(Pretrained::Linears, (10, 64), "weight", Init::Const(0.5))?;
/// let trained = here.adapter(Group::Heads).get(10, "bias")?;
/// assert!(!frozen.is_variable() && trained.is_variable());
/// assert_eq!(weights.ledger().trained()[0].name, "classifier.bias");
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Weights {
    source: VarBuilder<'static>,
    ledger: Ledger,
    release: Release,
    /// The float type that frozen matrices are stored in, where it is another than the one they came in.
    storage: Option<DType>,
    held: HeldGroups,
}

/// What is made and does not train for now, though it could.
#[derive(Clone, Debug)]
enum HeldGroups {
    Groups(Arc<BTreeSet<Group>>),
    Everything,
}

impl HeldGroups {
    fn fate(&self, group: Group) -> Fate {
        match self {
            Self::Groups(groups) if !groups.contains(&group) => Fate::Trains,
            Self::Groups(_) | Self::Everything => Fate::IsHeld,
        }
    }
}

impl Weights {
    /// All weights drawn at random, the same for the same seed; the pretrained ones frozen.
    pub fn random(seed: u64, dtype: DType, device: &Device) -> Self {
        Self::new(random_source(seed, dtype, device), Ledger::seeded(seed, dtype, device), Release::none())
    }

    /// All weights asked of a builder of candle's, at its prefix; the pretrained ones frozen, whatever it gives.
    ///
    /// What a `VarMap` gives is saved with it, and what trains of it are its variables: an optimizer over all of them moves no other.
    /// The values of a file are where training starts from.
    ///
    /// ```
    /// use tadformer::candle_core::{DType, Device};
    /// use tadformer::candle_nn::{VarBuilder, VarMap};
    /// use tadformer::heads::{HrNetConfig, HrNetHead};
    /// use tadformer::params::Weights;
    /// let variables = VarMap::new();
    /// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    /// let config = HrNetConfig::new([8, 16]);
    /// let head = HrNetHead::new(&config, &[64, 128], 5, &Weights::over(vb.pp("depth")))?;
    /// assert!(variables.data().lock().is_ok_and(|all| all.contains_key("depth.norm.running_mean")));
    /// # Ok::<(), tadformer::candle_core::Error>(())
    /// ```
    pub fn over(vb: VarBuilder<'static>) -> Self {
        let ledger = Ledger::over(vb.root());
        Self::new(vb, ledger, Release::none())
    }

    /// Pretrained weights from `source`, trained ones recorded in `ledger`. What `source` gives as a variable stays frozen.
    pub fn new(source: VarBuilder<'static>, ledger: Ledger, release: Release) -> Self {
        Self { source, ledger, release, storage: None, held: HeldGroups::Groups(Arc::default()) }
    }

    /// The same with these pretrained groups released to train.
    pub fn with_release(self, release: Release) -> Self {
        Self { release, ..self }
    }

    /// The same with frozen matrices (the linears' and the reductions') stored in this float type; what reads them computes in
    /// the type of its input.
    pub fn with_storage(self, storage: DType) -> Self {
        Self { storage: Some(storage), ..self }
    }

    /// The same, with what could train of these groups kept as it is.
    pub(crate) fn holding(self, groups: BTreeSet<Group>) -> Self {
        Self { held: HeldGroups::Groups(groups.into()), ..self }
    }

    /// The same, with all that could train kept as it is.
    pub(crate) fn held(self) -> Self {
        Self { held: HeldGroups::Everything, ..self }
    }

    /// The same two sides one name further down.
    pub fn pp(&self, name: impl ToString) -> Self {
        Self { source: self.source.pp(name), ..self.clone() }
    }

    /// A weight of the pretrained backbone: frozen, or trained from its pretrained value where its group is released.
    ///
    /// # Errors
    /// A weight that is missing or of another shape; a name made twice.
    pub fn pretrained(&self, group: Pretrained, shape: impl Into<Shape>, name: &str, init: Init) -> Result<Tensor> {
        let value = self.source.get_with_hints(shape, name, init)?;
        self.settle(group, None, name, value)
    }

    /// The bias of what is of `group`, a norm's shift too: trained where that group or [`Pretrained::Biases`] is released.
    ///
    /// # Errors
    /// As [`Weights::pretrained`].
    pub fn bias(&self, group: Pretrained, shape: impl Into<Shape>) -> Result<Tensor> {
        const NAME: &str = "bias";
        let value = self.source.get_with_hints(shape, NAME, ZERO)?;
        self.settle(group, Some(Pretrained::Biases), NAME, value)
    }

    /// A relative position bias table `[(2M-1)², nH]`, resized (bicubic) where the source holds that of another window.
    ///
    /// # Errors
    /// As [`Weights::pretrained`], where a table of another window is no error; a window without a position.
    pub fn position_bias(&self, window: usize, heads: usize) -> Result<Tensor> {
        const NAME: &str = "relative_position_bias_table";
        let (group, side) = (Pretrained::PositionBias, ops::offsets(window)?);
        if self.source.contains_tensor(NAME) {
            let table = self.source.get_unchecked(NAME)?;
            let from = table.dim(0)?.isqrt();
            if table.dims() == [from * from, heads] && from != side {
                tracing::debug!(prefix = self.source.prefix(), from, to = side, "resizing a position bias table");
                return self.settle(group, None, NAME, resize_table(&table, from, side)?);
            }
        }
        self.pretrained(group, (side * side, heads), NAME, Init::Randn { mean: 0.0, stdev: 0.02 })
    }

    /// A builder of new weights of one group, at this place's prefix.
    pub fn adapter(&self, group: Group) -> VarBuilder<'static> {
        let builder = self.ledger.builder_of(group, self.held.fate(group));
        if self.source.prefix().is_empty() { builder } else { builder.set_prefix(self.source.prefix()) }
    }

    /// A trained weight that was made at another place, as a module here reads it: where all of this place is kept as it is, it gives
    /// that weight no gradient.
    pub(crate) fn borrow(&self, weight: &Tensor) -> Tensor {
        match self.held {
            HeldGroups::Groups(_) => weight.clone(),
            HeldGroups::Everything => weight.detach(),
        }
    }

    /// Running statistics that start at `value` everywhere.
    ///
    /// # Errors
    /// A name made twice.
    pub fn statistics(&self, shape: impl Into<Shape>, name: &str, value: f64) -> Result<Var> {
        self.ledger.statistics(self.full_name(name), shape.into(), value)
    }

    /// The record of all weights made so far, under whichever prefix.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The device of all weights.
    pub fn device(&self) -> &Device {
        self.ledger.device()
    }

    /// The float type that new and released weights train in.
    pub fn dtype(&self) -> DType {
        self.ledger.dtype()
    }

    /// A weight of `group`, trained where that or what it is of besides is released.
    fn settle(&self, group: Pretrained, besides: Option<Pretrained>, name: &str, value: Tensor) -> Result<Tensor> {
        let name = self.full_name(name);
        if self.release.contains(group) || besides.is_some_and(|other| self.release.contains(other)) {
            let group = Group::Pretrained(group);
            return self.ledger.train_from(name, group, &value, self.held.fate(group));
        }
        // A variable of somebody's would get a gradient, and their optimizer would move it.
        let value = value.detach();
        let value = match (self.storage, group) {
            (Some(storage), Pretrained::Linears | Pretrained::Reductions) => value.to_dtype(storage)?,
            _ => value,
        };
        self.ledger.freeze(name, Group::Pretrained(group), value)
    }

    fn full_name(&self, name: &str) -> String {
        let prefix = self.source.prefix();
        if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
    }
}

fn resize_table(table: &Tensor, from: usize, to: usize) -> Result<Tensor> {
    let heads = table.dim(1)?;
    let maps = table.to_dtype(DType::F32)?.t()?.reshape((heads, from, from))?;
    ops::bicubic_square(&maps, to)?.reshape((heads, to * to))?.t()?.contiguous()?.to_dtype(table.dtype())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_nn::VarMap;
    use std::collections::HashMap;

    fn weights(release: Release) -> (Weights, Ledger) {
        let weights = Weights::random(1, DType::F32, &Device::Cpu).with_release(release);
        let ledger = weights.ledger().clone();
        (weights, ledger)
    }

    #[test]
    fn a_released_weight_trains_from_the_frozen_sides_value() -> Result<()> {
        let init = Init::Randn { mean: 0.0, stdev: 1.0 };
        let get = |release: Release| -> Result<(Tensor, Ledger)> {
            let (weights, ledger) = weights(release);
            Ok((weights.pp("a").pretrained(Pretrained::Norms, 5, "w", init)?, ledger))
        };
        let (frozen, ledger) = get(Release::none())?;
        assert!(!frozen.track_op() && ledger.trained().is_empty());
        let (released, ledger) = get(Release::tadformer())?;
        assert!(released.is_variable());
        assert_eq!(ledger.trained()[0].name, "a.w");
        assert_eq!(frozen.to_vec1::<f32>()?, released.to_vec1::<f32>()?);
        Ok(())
    }

    #[test]
    fn a_bias_trains_with_its_group_and_with_the_biases() -> Result<()> {
        for (release, trained) in [
            (Release::none(), [false; 3]),
            (Release::none().with(Pretrained::Norms), [true, true, false]),
            (Release::biases(), [false, true, true]),
            (Release::none().with(Pretrained::Linears), [false; 3]),
            (Release::everything(), [true; 3]),
            (Release::everything().without(Pretrained::Biases), [true, true, false]),
        ] {
            let (weights, ledger) = weights(release.clone());
            weights.pretrained(Pretrained::Norms, 5, "weight", ZERO)?;
            weights.bias(Pretrained::Norms, 5)?;
            weights.pp("linear").bias(Pretrained::Biases, 5)?;
            let entries = ledger.entries();
            assert_eq!([0, 1, 2].map(|i| entries[i].trained().is_some()), trained, "{release:?}");
            assert_eq!(entries[1].group, Group::Pretrained(Pretrained::Norms));
            assert_eq!(entries[2].group, Group::Pretrained(Pretrained::Biases));
        }
        Ok(())
    }

    #[test]
    fn a_weight_made_twice_is_refused() -> Result<()> {
        let (weights, _) = weights(Release::none());
        weights.adapter(Group::Heads).get(3, "w")?;
        assert!(weights.adapter(Group::Heads).get(3, "w").unwrap_err().to_string().contains("`w` is made twice"));
        Ok(())
    }

    /// Candle's AdamW moved the frozen weights of a `VarMap`.
    #[test]
    fn variables_on_the_frozen_side_get_no_gradient_and_those_on_the_trained_side_are_the_callers() -> Result<()> {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let init = Init::Randn { mean: 0.0, stdev: 1.0 };
        let alone = Weights::new(vb.clone(), Ledger::seeded(0, DType::F32, &Device::Cpu), Release::none());
        let frozen = alone.pretrained(Pretrained::Linears, 3, "alone", init)?;
        assert!(!frozen.is_variable() && !frozen.track_op());

        let weights = Weights::over(vb.pp("here")).with_release(Release::none().with(Pretrained::Norms));
        let frozen = weights.pretrained(Pretrained::Linears, 3, "frozen", init)?;
        let released = weights.pretrained(Pretrained::Norms, 3, "released", init)?;
        let added = weights.pp("low").adapter(Group::LowRank).get_with_hints(3, "added", init)?;
        weights.statistics(3, "mean", 0.5)?;
        assert!(!frozen.is_variable());
        let all = variables.data().lock().unwrap();
        for (name, tensor) in [("here.released", &released), ("here.low.added", &added)] {
            assert_eq!(all[name].id(), tensor.id(), "{name} is the map's own variable");
        }
        assert_eq!(all["here.mean"].to_vec1::<f32>()?, [0.5; 3]);
        let names: Vec<String> = weights.ledger().trained().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["here.released", "here.low.added"]);
        let gradients = ((frozen * released)? * added)?.sum_all()?.backward()?;
        let with_gradient = all.iter().filter(|(_, var)| gradients.get(var).is_some()).count();
        assert_eq!(with_gradient, 2, "no more than train");
        Ok(())
    }

    #[test]
    fn a_table_of_another_window_is_resized() -> Result<()> {
        let table = Tensor::ones((9, 2), DType::F32, &Device::Cpu)?;
        let tensors = HashMap::from([("relative_position_bias_table".to_owned(), table)]);
        let source = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let weights = Weights::new(source, Ledger::seeded(0, DType::F32, &Device::Cpu), Release::none());
        let table = weights.position_bias(4, 2)?;
        assert_eq!(table.dims(), [49, 2]);
        assert!(table.flatten_all()?.to_vec1::<f32>()?.iter().all(|v| (v - 1.0).abs() < 1e-6));
        Ok(())
    }
}
