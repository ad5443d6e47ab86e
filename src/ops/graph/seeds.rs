//! Candle's own backward pass, started from given gradients.

use super::gradients::InputGradients;
use super::token::{self, Token, on_every_device};
use candle_core::{CustomOp2, Result, Tensor};

/// Takes tensors' gradients to the leaves that they were made of, in one pass.
pub(super) fn backward<'a>(
    tensors: impl IntoIterator<Item = (&'a Tensor, Option<Tensor>)>,
    grads: &mut InputGradients,
) -> Result<()> {
    let mut root: Option<Tensor> = None;
    for (tensor, grad) in tensors {
        let Some(grad) = grad.filter(|_| tensor.track_op()) else { continue };
        if tensor.is_variable() {
            grads.give(tensor, grad)?;
            continue;
        }
        let before = root.map_or_else(|| token::of(tensor.device()), Ok)?;
        root = Some(tensor.apply_op2(&before, Seed(grad.contiguous()?))?);
    }
    let Some(root) = root else { return Ok(()) };
    let store = root.backward()?;
    for id in store.get_ids() {
        if let Some(grad) = store.get_id(*id) {
            grads.give_id(*id, grad.detach())?;
        }
    }
    Ok(())
}

/// A tensor's gradient, tied to the seeds before it.
struct Seed(Tensor);

impl CustomOp2 for Seed {
    fn name(&self) -> &'static str {
        "seed"
    }

    on_every_device!(|_this, _x: _lx, before: _layout| before.beside());

    fn bwd(&self, _: &Tensor, before: &Tensor, _: &Tensor, _: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(self.0.clone()), before.track_op().then(|| before.zeros_like()).transpose()?))
    }
}
