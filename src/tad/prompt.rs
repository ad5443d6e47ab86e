//! Task prompts, and how they grow from stage to stage.

use crate::bounds::{MOST_VALUES, check_product};
use crate::ops;
use candle_core::{Error, Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// Learned prompts that travel with the tokens: one table for all images, and a linear map between stages.
///
/// `prompts_0 = table`, and after stage i `prompts_{i+1} = U_i prompts_i`, which doubles their channels.
///
/// # Shapes
/// Table `[P, C]` with P = tasks x prompts a task, rows in the tasks' order; `U_i` `[2C_i, C_i]`, no bias.
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::{VarBuilder, VarMap};
/// use tadformer::TaskPrompt;
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let prompts = TaskPrompt::new(4, 96, 4, vb)?;
/// let first = prompts.first(2)?;
/// assert_eq!(first.dims(), [2, 4, 96]);
/// assert_eq!(prompts.next(0, &first)?.dims(), [2, 4, 192]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// Source: section 3.2 of the paper. Initial values as in the released code: the table normal with mean 1 and deviation 1, the
/// maps with deviation 0.02, both truncated to [-2, 2] where the crate's own ledger draws them.
#[derive(Clone, Debug)]
pub struct TaskPrompt {
    table: Tensor,
    up: Vec<Tensor>,
}

impl TaskPrompt {
    /// `prompts` rows of `channels` for an encoder of `stages` stages.
    ///
    /// # Errors
    /// More stages than any model doubles its channels for; weights that are missing or of another shape; a name made twice.
    pub fn new(prompts: usize, channels: usize, stages: usize, vb: VarBuilder) -> Result<Self> {
        check_widest(channels, stages).map_err(Error::wrap)?;
        let table = vb.get_with_hints((prompts, channels), "table", Init::Randn { mean: 1.0, stdev: 1.0 })?;
        let init = Init::Randn { mean: 0.0, stdev: 0.02 };
        let grow = |i: usize| vb.pp("up").pp(i).get_with_hints((channels << (i + 1), channels << i), "weight", init);
        Ok(Self { table, up: (0..stages.saturating_sub(1)).map(grow).collect::<Result<_>>()? })
    }

    /// The prompts that enter the first stage: `[B, P, C]`, the same for every image.
    ///
    /// # Errors
    /// A device without room for the batch.
    pub fn first(&self, batch: usize) -> Result<Tensor> {
        let (p, c) = self.table.dims2()?;
        self.table.unsqueeze(0)?.broadcast_as((batch, p, c))?.contiguous()
    }

    /// The prompts that leave stage `i`, `[B, P, C]`, with the channels of the next: `[B, P, 2C]`; unchanged after the last.
    ///
    /// # Errors
    /// Prompts of other channels than stage i's.
    pub fn next(&self, i: usize, prompts: &Tensor) -> Result<Tensor> {
        match self.up.get(i) {
            Some(up) => ops::linear(prompts, up, None),
            None => Ok(prompts.clone()),
        }
    }
}

/// Refuses stages over which the channels double to more than a map between the last two can hold.
fn check_widest(channels: usize, stages: usize) -> crate::Result<()> {
    let doublings = u32::try_from(stages.saturating_sub(1)).unwrap_or(u32::MAX);
    let widest = channels.saturating_mul(2usize.saturating_pow(doublings));
    let map = [("channels", widest), ("channels before", widest / 2)];
    check_product("prompts of the last stage: ", &map, MOST_VALUES, "values", "use fewer stages or channels")
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    /// The channels were shifted out of their number, a panic.
    #[test]
    fn stages_that_no_channels_double_for_are_refused() {
        for (channels, stages) in [(4, 100), (1, usize::MAX), (8192, 6), (usize::MAX, 2)] {
            let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
            let message = TaskPrompt::new(2, channels, stages, vb).map(drop).unwrap_err().to_string();
            assert!(message.contains("prompts of the last stage: channels x channels before"), "{message}");
            assert!(message.contains("use fewer stages or channels"), "{message}");
        }
    }
}
