//! The one place that runs a step: checks it, chooses the definition, and hands its outputs to a tape or to candle's graph.

use super::checkpointing::GradientCheckpointing;
use super::definition::{Definition, Runs};
use super::gradients::InputGradients;
use super::output::Output;
use super::seeds;
use super::step::{CpuKernel, Keep, Made, Passed, Step};
use super::trace::{self, Pass};
use super::{leaves, tape};
use crate::ops::cpu::Real;
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};
use std::marker::PhantomData;

/// Checks a step and makes its outputs, by its kernel where it has one for the device and the float type of its first tensor.
pub(in crate::ops) fn apply<S: CpuKernel<f32> + CpuKernel<f64>>(step: S) -> Result<Vec<Tensor>> {
    let (inputs, runs) = checked(&step)?;
    match runs {
        Runs::CpuF32 => run::<S, OnCpu<f32>>(step, inputs),
        Runs::CpuF64 => run::<S, OnCpu<f64>>(step, inputs),
        Runs::Composed => composed(step, inputs),
    }
}

/// By candle's primitives; where nothing asks for more, the outputs stand in candle's graph as these made them.
fn composed<S: Step>(step: S, inputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
    if !tape::gives_nodes() || GradientCheckpointing::asked() == GradientCheckpointing::On {
        return run::<S, ByCandle>(step, inputs);
    }
    let bytes = |outputs: &Vec<Tensor>| trace::bytes(inputs.iter().chain(outputs));
    trace::pass((step.name(), Pass::Forward, Definition::Composed), || ByCandle::outputs(&step), bytes)
}

/// A step's tensors and what runs it, where all of them fit.
fn checked<S: Step>(step: &S) -> Result<(Vec<Tensor>, Runs)> {
    let inputs = step.inputs()?;
    let Some(first) = inputs.first() else { candle_core::bail!("{}: expected tensors, got none", step.name()) };
    step.check(Shapes::of(step.name(), first)?)?;
    let runs = Runs::of(first);
    Ok((inputs, runs))
}

/// A step that leads to a variable by a tensor that its `map` does not visit, and whose gradient would be lost.
fn forgotten<S: Step, R>(step: &S) -> Result<R> {
    candle_core::bail!("{}: expected `map` to visit each tensor that may train, and it leaves one out", step.name())
}

/// The two passes of a step by one of its definitions.
trait Passes<S: Step>: Send + 'static {
    const DEFINITION: Definition;

    /// What backward needs beside the inputs.
    type Saved: Send;

    fn forward(step: &S, keep: Keep) -> Result<Passed<Self::Saved>>;

    fn backward(step: &S, saved: Self::Saved, outputs: Vec<Option<Tensor>>) -> Result<InputGradients>;

    /// Of a step's inputs, the tensors that backward gives gradients of.
    fn leaves(inputs: Vec<Tensor>) -> Vec<Tensor>;
}

/// By the step's kernels.
struct OnCpu<T>(PhantomData<T>);

impl<T: Real, S: CpuKernel<T>> Passes<S> for OnCpu<T> {
    const DEFINITION: Definition = Definition::Fused;

    type Saved = S::Saved;

    fn forward(step: &S, keep: Keep) -> Result<Passed<Self::Saved>> {
        step.forward(keep)
    }

    fn backward(step: &S, saved: Self::Saved, outputs: Vec<Option<Tensor>>) -> Result<InputGradients> {
        let mut grads = InputGradients::default();
        step.backward(saved, outputs, &mut grads)?;
        if grads.are_of(&step.inputs()?) { Ok(grads) } else { forgotten(step) }
    }

    fn leaves(inputs: Vec<Tensor>) -> Vec<Tensor> {
        inputs
    }
}

/// By candle's primitives all the way down, whose graph lives from the step's inputs to its outputs and goes when its backward is made.
struct ByCandle;

impl ByCandle {
    fn outputs<S: Step>(step: &S) -> Result<Vec<Tensor>> {
        Definition::Composed.run(|| tape::paused(|| step.composed()))
    }
}

impl<S: Step> Passes<S> for ByCandle {
    const DEFINITION: Definition = Definition::Composed;

    /// The outputs with their graph.
    type Saved = Vec<Tensor>;

    fn forward(step: &S, keep: Keep) -> Result<Passed<Vec<Tensor>>> {
        let step = match keep {
            Keep::All => step.clone(),
            Keep::Nothing => step.map(&mut |tensor| Ok(tensor.detach()))?,
        };
        let outputs = Self::outputs(&step)?;
        if !leaves::are_of(&outputs, &step.inputs()?) {
            return forgotten(&step);
        }
        let values = outputs.iter().map(|output| Output::Tensor(output.detach())).collect();
        Ok((values, (keep == Keep::All).then_some(outputs)))
    }

    fn backward(_: &S, saved: Vec<Tensor>, outputs: Vec<Option<Tensor>>) -> Result<InputGradients> {
        let mut grads = InputGradients::default();
        seeds::backward(saved.iter().zip(outputs), &mut grads)?;
        Ok(grads)
    }

    /// Candle goes back to the leaves at once.
    fn leaves(inputs: Vec<Tensor>) -> Vec<Tensor> {
        leaves::of(&inputs)
    }
}

/// Runs a step by one definition, and hands what it made to the tape or to candle's graph.
fn run<S: Step, P: Passes<S>>(step: S, inputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
    let (outputs, saved) = forward::<S, P>(&step, tape::keep(&inputs))?;
    tape::give(Box::new(Ran::<S, P> { inputs: P::leaves(inputs), step, saved }), outputs)
}

fn forward<S: Step, P: Passes<S>>(step: &S, keep: Keep) -> Result<Passed<P::Saved>> {
    let bytes = |(outputs, _): &Passed<P::Saved>| {
        trace::bytes(&step.inputs().unwrap_or_default()) + outputs.iter().map(Output::bytes).sum::<usize>()
    };
    trace::pass((step.name(), Pass::Forward, P::DEFINITION), || P::forward(step, keep), bytes)
}

/// A step whose forward pass was made, and what that kept.
struct Ran<S: Step, P: Passes<S>> {
    step: S,
    inputs: Vec<Tensor>,
    saved: Option<P::Saved>,
}

impl<S: Step, P: Passes<S>> Made for Ran<S, P> {
    fn name(&self) -> &'static str {
        self.step.name()
    }

    fn inputs(&self) -> &[Tensor] {
        &self.inputs
    }

    /// A second backward over the same graph makes the forward pass again, as does one with checkpointing.
    fn backward(&mut self, outputs: Vec<Option<Tensor>>) -> Result<InputGradients> {
        let saved = match self.saved.take() {
            Some(saved) => Some(saved),
            None => forward::<S, P>(&self.step, Keep::All)?.1,
        };
        let Some(saved) = saved else {
            candle_core::bail!("{}: backward needs what forward did not keep", self.name())
        };
        let read = trace::bytes(outputs.iter().flatten());
        let bytes = |grads: &InputGradients| read + trace::bytes(self.inputs.iter().chain(grads.values()));
        let pass = || P::backward(&self.step, saved, outputs);
        trace::pass((self.step.name(), Pass::Backward, P::DEFINITION), pass, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::values;
    use crate::ops::finite_difference::{close, normal};
    use crate::ops::graph::{OnTensor, only, recorded, without_graph};
    use candle_core::Var;

    /// `x + y`, whose `map` visits y or leaves it out.
    #[derive(Clone)]
    struct Sum {
        x: Tensor,
        y: Tensor,
        visits_y: bool,
    }

    impl Step for Sum {
        fn name(&self) -> &'static str {
            "sum"
        }

        fn map(&self, f: &mut OnTensor) -> Result<Self> {
            let x = f(&self.x)?;
            Ok(Self { x, y: if self.visits_y { f(&self.y)? } else { self.y.clone() }, ..*self })
        }

        fn check(&self, shapes: Shapes) -> Result<()> {
            shapes.expect("y", &self.y, self.x.dims())
        }

        fn composed(&self) -> Result<Vec<Tensor>> {
            Ok(vec![(&self.x + &self.y)?])
        }
    }

    impl<T: Real> CpuKernel<T> for Sum {
        type Saved = ();

        fn forward(&self, _: Keep) -> Result<Passed<()>> {
            let (x, y) = (values::<T>(&self.x)?, values::<T>(&self.y)?);
            let sum = x.iter().zip(y.iter()).map(|(x, y)| *x + *y).collect();
            Ok((vec![Output::new::<T>(sum, self.x.shape())], Some(())))
        }

        fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
            let dy = only(outputs.into_iter().flatten().collect())?;
            grads.give(&self.x, dy.clone())?;
            grads.give(&self.y, dy)
        }
    }

    type Graph = fn(&dyn Fn() -> Result<Tensor>) -> Result<Tensor>;

    const GRAPHS: [(&str, Graph); 4] = [
        ("candle's", |f| f()),
        ("a tape", |f| only(recorded(GradientCheckpointing::Off, || Ok(vec![f()?]))?)),
        ("made again", |f| GradientCheckpointing::On.run(f)),
        ("none", |f| without_graph(f)),
    ];

    #[test]
    fn a_tensor_that_a_steps_map_forgets_loses_no_gradient_in_silence() -> Result<()> {
        let [x, y] = [Var::from_tensor(&normal(1, &[3])?)?, Var::from_tensor(&normal(2, &[3])?)?];
        let sum = |visits_y| only(apply(Sum { x: x.as_tensor().clone(), y: y.as_tensor().clone(), visits_y })?);
        for (graph, under) in GRAPHS {
            for definition in Definition::ALL {
                let gradients = |visits_y| {
                    let store = definition.run(|| under(&|| sum(visits_y)))?.sum_all()?.backward()?;
                    Ok::<_, candle_core::Error>([&x, &y].map(|of| store.get(of).cloned()))
                };
                let ways = format!("{} in {graph} graph", definition.name());
                let right = gradients(true)?;
                match gradients(false) {
                    Err(error) => {
                        assert!(error.to_string().contains("sum: expected `map` to visit"), "{ways}: {error}")
                    }
                    Ok(got) => {
                        assert_eq!(
                            got.each_ref().map(Option::is_some),
                            right.each_ref().map(Option::is_some),
                            "{ways}"
                        );
                        for (got, right) in got.iter().flatten().zip(right.iter().flatten()) {
                            close(got, right, 0.0)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
