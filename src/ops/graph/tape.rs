//! A stretch of the model as one node of candle's graph: a tape of its steps, played backwards.
//!
//! Candle's driver adds every gradient to zeros first and keeps all of them in one store. A tape hands a gradient from the step
//! that made it to the step that asked for it. Its steps read and give leaves, so that candle sees nothing of what lies
//! between; what candle's own ops do between two steps is a small graph that ends at leaves, and goes back by candle's means.

use super::checkpointing::GradientCheckpointing;
use super::gradients::InputGradients;
use super::leaves::Leaves;
use super::output::Output;
use super::step::{Keep, Made};
use super::{node, seeds};
use candle_core::{Result, Tensor, TensorId, Var};
use std::borrow::BorrowMut;
use std::cell::RefCell;

thread_local! {
    static TAPE: RefCell<Tape> = const { RefCell::new(Tape::None) };
}

/// What becomes of this thread's steps.
enum Tape {
    /// They are nodes of candle's graph.
    None,
    /// They are recorded.
    Records(Vec<TapedStep>),
    /// They will be made again: nothing is kept but what they depend on.
    Forgets(Leaves),
    /// Nothing will go back: nothing is kept at all.
    Off,
}

impl Tape {
    fn runs(&self) -> bool {
        matches!(self, Self::Records(_) | Self::Forgets(_))
    }

    /// Adds a step that gave these leaves.
    fn push(&mut self, made: Box<dyn Made>, outputs: Vec<TensorId>) {
        match self {
            Self::None | Self::Off => {}
            Self::Records(entries) => entries.push(TapedStep { made, outputs }),
            Self::Forgets(leaves) => {
                leaves.add(made.inputs());
                leaves.made(&outputs);
            }
        }
    }
}

/// A step that was made, and the leaves that it gave.
struct TapedStep {
    made: Box<dyn Made>,
    outputs: Vec<TensorId>,
}

/// Runs `f` with its steps recorded on a tape, and gives its results as those of one node of candle's graph: backward then hands
/// gradients from step to step without candle's sums.
///
/// The values and the gradients are those of `f` alone, on every device; steps in it keep what `checkpointing` says. A tensor of `f`
/// that is not among its results must not be used after it in what trains: it is a leaf there. Where a tape runs already, and inside
/// [`without_graph`], this runs `f` with `checkpointing` and no more.
///
/// ```
/// use candle_core::{DType, Device, Tensor, Var};
/// use tadformer::ops::{self, GradientCheckpointing};
/// let x = Var::ones(3, DType::F32, &Device::Cpu)?;
/// let y = ops::recorded(GradientCheckpointing::Off, || Ok(vec![(x.as_tensor() * 2.0)?]))?;
/// assert_eq!(y[0].backward()?.get(&x).unwrap().to_vec1::<f32>()?, [2.0; 3]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// Those of `f`.
pub fn recorded(checkpointing: GradientCheckpointing, f: impl FnOnce() -> Result<Vec<Tensor>>) -> Result<Vec<Tensor>> {
    let f = || checkpointing.run(f);
    if !gives_nodes() {
        return f();
    }
    let (outputs, tape) = under(Tape::Records(Vec::new()), f)?;
    let Tape::Records(entries) = tape else { return Ok(outputs) };
    if entries.is_empty() {
        return Ok(outputs); // candle's own ops alone
    }
    let mut leaves = Leaves::default();
    for entry in &entries {
        leaves.add(entry.made.inputs());
        leaves.made(&entry.outputs);
    }
    let trained: Vec<Tensor> = outputs.iter().filter(|output| output.track_op()).cloned().collect();
    leaves.add(&trained);
    let values = trained.iter().map(|output| Output::Tensor(output.clone())).collect();
    let recording = Recording { entries, inputs: leaves.found, outputs: trained };
    let mut trained = node::graph(Box::new(recording), values)?.into_iter();
    Ok(outputs.into_iter().filter_map(|output| if output.track_op() { trained.next() } else { Some(output) }).collect())
}

/// Runs `f` as one step of the tape, of which nothing is kept: backward runs `f` again, its steps recorded, and goes back through them.
///
/// `f` has to give the same each time: what it draws, it draws from a generator of its own. Where no tape of [`recorded`] runs, this is
/// `f` and no more.
///
/// # Errors
/// Those of `f`.
pub fn recomputed(f: impl Fn() -> Result<Vec<Tensor>> + Send + 'static) -> Result<Vec<Tensor>> {
    if !TAPE.with_borrow(|tape| matches!(tape, Tape::Records(_))) {
        return f();
    }
    let (outputs, tape) = under(Tape::Forgets(Leaves::default()), &f)?;
    let Tape::Forgets(mut leaves) = tape else { return Ok(outputs) };
    leaves.add(&outputs);
    let as_leaf = |output: Tensor| if output.track_op() { to_leaf(&output) } else { Ok(output) };
    let outputs = outputs.into_iter().map(as_leaf).collect::<Result<Vec<_>>>()?;
    let checkpointing = GradientCheckpointing::asked();
    push(Box::new(Recomputed { f, inputs: leaves.found, checkpointing }), outputs.iter().map(Tensor::id).collect());
    Ok(outputs)
}

/// Runs `f` with steps that keep nothing and belong to no graph: no gradient goes back through them.
///
/// For prediction and validation, where adapters are variables and no backward pass will follow.
///
/// # Errors
/// Those of `f`.
pub fn without_graph<R>(f: impl FnOnce() -> Result<R>) -> Result<R> {
    under(Tape::Off, f).map(|(result, _)| result)
}

/// `x` as a leaf of the tape that runs: what follows goes back to it once, and candle's own ops before it go back once from there.
///
/// For a tensor that candle's ops made and several steps read. Where no tape runs, or nothing before `x` trains, it is `x`.
///
/// # Errors
/// Memory that runs out.
pub fn leaf(x: &Tensor) -> Result<Tensor> {
    if !TAPE.with_borrow(Tape::runs) || !x.track_op() {
        return Ok(x.clone());
    }
    let leaf = to_leaf(x)?;
    if leaf.id() != x.id() {
        push(Box::new(Same([x.clone()])), vec![leaf.id()]);
    }
    Ok(leaf)
}

fn to_leaf(x: &Tensor) -> Result<Tensor> {
    if x.is_variable() { Ok(x.clone()) } else { Var::from_tensor(&x.detach()).map(Var::into_inner) }
}

/// Whether this thread's steps are nodes of candle's graph.
pub(super) fn gives_nodes() -> bool {
    TAPE.with_borrow(|tape| matches!(tape, Tape::None))
}

/// Whether a step of these inputs keeps what backward needs: not where nothing goes back, or where it will be made again.
pub(super) fn keep(inputs: &[Tensor]) -> Keep {
    let all = GradientCheckpointing::asked() == GradientCheckpointing::Off
        && inputs.iter().any(Tensor::track_op)
        && TAPE.with_borrow(|tape| matches!(tape, Tape::None | Tape::Records(_)));
    if all { Keep::All } else { Keep::Nothing }
}

/// What this thread's steps give: leaves of the tape, outputs of a node, or no more than values where nothing goes back.
pub(super) fn give(made: Box<dyn Made>, outputs: Vec<Output>) -> Result<Vec<Tensor>> {
    TAPE.with_borrow_mut(|tape| match tape {
        Tape::None => node::graph(made, outputs),
        Tape::Records(_) | Tape::Forgets(_) if made.inputs().iter().any(Tensor::track_op) => {
            let leaves = outputs.into_iter().map(Output::into_leaf).collect::<Result<Vec<_>>>()?;
            tape.push(made, leaves.iter().map(Tensor::id).collect());
            Ok(leaves)
        }
        Tape::Records(_) | Tape::Forgets(_) | Tape::Off => Ok(outputs.into_iter().map(Output::into_tensor).collect()),
    })
}

/// Runs `f` as if no tape ran.
pub(super) fn paused<R>(f: impl FnOnce() -> Result<R>) -> Result<R> {
    under(Tape::None, f).map(|(result, _)| result)
}

fn push(made: Box<dyn Made>, outputs: Vec<TensorId>) {
    TAPE.with_borrow_mut(|tape| tape.push(made, outputs));
}

/// Runs `f` under a tape, and gives that back with the result; what ran before runs again afterwards, also after an error or panic.
fn under<R>(tape: Tape, f: impl FnOnce() -> Result<R>) -> Result<(R, Tape)> {
    struct Before(Tape);
    impl Drop for Before {
        fn drop(&mut self) {
            TAPE.set(std::mem::replace(&mut self.0, Tape::None));
        }
    }
    let before = Before(TAPE.replace(tape));
    let result = f()?;
    let tape = TAPE.replace(Tape::None);
    drop(before);
    Ok((result, tape))
}

/// All steps of a tape as one.
struct Recording {
    entries: Vec<TapedStep>,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

impl Made for Recording {
    fn name(&self) -> &'static str {
        "recorded"
    }

    fn inputs(&self) -> &[Tensor] {
        &self.inputs
    }

    fn backward(&mut self, outputs: Vec<Option<Tensor>>) -> Result<InputGradients> {
        play_back(self.entries.iter_mut(), &self.outputs, outputs)
    }
}

/// InputGradients of the leaves that `outputs` depend on, from those of `outputs`.
fn play_back<E: BorrowMut<TapedStep>>(
    entries: impl DoubleEndedIterator<Item = E>,
    outputs: &[Tensor],
    of_outputs: Vec<Option<Tensor>>,
) -> Result<InputGradients> {
    let mut grads = InputGradients::default();
    seeds::backward(outputs.iter().zip(of_outputs), &mut grads)?;
    for mut entry in entries.rev() {
        let TapedStep { made, outputs } = entry.borrow_mut();
        let outputs: Vec<_> = outputs.iter().map(|output| grads.take(*output)).collect();
        if outputs.iter().all(Option::is_none) {
            continue;
        }
        let mut given = made.backward(outputs)?;
        seeds::backward(made.inputs().iter().map(|input| (input, given.take(input.id()))), &mut grads)?;
    }
    Ok(grads)
}

/// Steps that backward makes again.
struct Recomputed<F> {
    f: F,
    inputs: Vec<Tensor>,
    checkpointing: GradientCheckpointing,
}

impl<F: Fn() -> Result<Vec<Tensor>> + Send> Made for Recomputed<F> {
    fn name(&self) -> &'static str {
        "recomputed"
    }

    fn inputs(&self) -> &[Tensor] {
        &self.inputs
    }

    fn backward(&mut self, grads: Vec<Option<Tensor>>) -> Result<InputGradients> {
        let (outputs, tape) = under(Tape::Records(Vec::new()), || self.checkpointing.run(&self.f))?;
        let entries = if let Tape::Records(entries) = tape { entries } else { Vec::new() };
        play_back(entries.into_iter(), &outputs, grads)
    }
}

/// A step that hands its input on.
struct Same([Tensor; 1]);

impl Made for Same {
    fn name(&self) -> &'static str {
        "leaf"
    }

    fn inputs(&self) -> &[Tensor] {
        &self.0
    }

    fn backward(&mut self, outputs: Vec<Option<Tensor>>) -> Result<InputGradients> {
        let mut grads = InputGradients::default();
        for grad in outputs.into_iter().flatten() {
            grads.give(&self.0[0], grad)?;
        }
        Ok(grads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;
    use crate::ops::finite_difference::{close, normal};
    use crate::ops::{Definition, Factor, LayerNorm, TaskPath};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Chain {
        x: Var,
        a: Var,
        b: Var,
        norm: LayerNorm,
    }

    impl Chain {
        fn new() -> Result<Self> {
            let [x, a, b] =
                [normal(1, &[2, 5, 6])?, normal(2, &[3, 6])?, normal(3, &[6, 3])?].map(|v| Var::from_tensor(&v));
            let norm = LayerNorm::new(normal(4, &[6])?, normal(5, &[6])?);
            Ok(Self { x: x?, a: a?, b: b?, norm })
        }

        /// Steps with candle's own ops between them: one result of a step, one of candle, read twice on the way.
        fn run(&self) -> Result<Vec<Tensor>> {
            let shared = |factor: &Var| Factor::Shared(factor.as_tensor().clone());
            let path = TaskPath { a: shared(&self.a), b: shared(&self.b), scale: 0.5 };
            let u = ops::norm_down(self.x.as_tensor(), &self.norm, &path.a)?;
            let shared = leaf(&(&u * 2.0)?)?;
            let y = ops::task_update(self.x.as_tensor(), &normal(6, &[2, 5, 6])?, &shared, &path, None)?;
            let again = ops::norm_down(&(&y + self.x.as_tensor())?, &self.norm, &path.a)?;
            Ok(vec![y, (again + shared)?, normal(7, &[2])?])
        }

        fn gradients(&self, outputs: &[Tensor], of: usize) -> Result<Vec<Tensor>> {
            let store = (&outputs[of] * normal(8, outputs[of].dims())?)?.sum_all()?.backward()?;
            let of = |var: &Var| store.get(var).cloned().map_or_else(|| var.zeros_like(), Ok);
            [&self.x, &self.a, &self.b].into_iter().map(of).collect()
        }
    }

    fn same(got: &[Tensor], want: &[Tensor]) -> Result<()> {
        assert_eq!(got.len(), want.len());
        got.iter().zip(want).try_for_each(|(got, want)| close(got, want, 1e-12))
    }

    #[test]
    fn values_and_gradients_are_those_of_candles_graph_each_time_and_by_either_definition() -> Result<()> {
        let chain = Chain::new()?;
        let want = chain.run()?;
        for definition in Definition::ALL {
            let got = definition.run(|| recorded(GradientCheckpointing::Off, || chain.run()))?;
            same(&got, &want)?;
            assert!(!got[2].track_op(), "what does not train stays out of the graph");
            for of in [0, 1, 0] {
                same(&chain.gradients(&got, of)?, &chain.gradients(&want, of)?)?;
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_made_again_has_the_same_gradients() -> Result<()> {
        let (chain, runs) = (Arc::new(Chain::new()?), Arc::new(AtomicUsize::new(0)));
        let want = chain.run()?;
        let (again, counted) = (chain.clone(), runs.clone());
        let f = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            again.run()
        };
        same(&recomputed(f.clone())?, &want)?;
        assert_eq!(runs.load(Ordering::Relaxed), 1, "without a tape it runs once");
        let got = recorded(GradientCheckpointing::Off, || recomputed(f))?;
        same(&got, &want)?;
        assert_eq!(runs.load(Ordering::Relaxed), 2);
        for (of, count) in [(1, 3), (0, 4)] {
            same(&chain.gradients(&got, of)?, &chain.gradients(&want, of)?)?;
            assert_eq!(runs.load(Ordering::Relaxed), count, "backward runs it again");
        }
        Ok(())
    }

    #[test]
    fn nothing_goes_back_from_what_was_made_without_a_graph() -> Result<()> {
        let chain = Chain::new()?;
        let got = without_graph(|| chain.run())?;
        same(&got, &chain.run()?)?;
        assert!(got[0].sum_all()?.backward()?.get(&chain.x).is_none());
        assert!(gives_nodes());
        Ok(())
    }

    #[test]
    fn gradients_go_on_to_what_made_an_input() -> Result<()> {
        let (chain, v) = (Chain::new()?, Var::from_tensor(&normal(9, &[2, 5, 6])?)?);
        let input = (v.as_tensor() * 3.0)?;
        let run = || Ok(vec![ops::norm_down(&input, &chain.norm, &chain.a.as_tensor().clone().into())?]);
        let gradient = |y: &Tensor| Ok::<_, candle_core::Error>(y.sqr()?.sum_all()?.backward()?.get(&v).cloned());
        let (got, want) = (gradient(&recorded(GradientCheckpointing::Off, run)?[0])?, gradient(&run()?[0])?);
        close(&got.unwrap(), &want.unwrap(), 1e-12)
    }

    #[test]
    fn an_error_or_a_panic_ends_the_tape() {
        assert!(recorded(GradientCheckpointing::Off, || candle_core::bail!("no")).is_err());
        assert!(gives_nodes());
        assert!(
            std::panic::catch_unwind(|| recorded(GradientCheckpointing::Off, || std::panic::resume_unwind(Box::new(
                ()
            ))))
            .is_err()
        );
        assert!(gives_nodes());
    }
}
