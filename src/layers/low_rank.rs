//! The task-shared module: a frozen linear map with a trained low-rank path beside it.

use super::{Fold, Mode};
use crate::ops::{Dropout, LowRankMap, LowRankPath};
use crate::params::{Group, Pretrained, Weights};
use candle_core::{Module, Result, Tensor};
use candle_nn::init::ZERO;
use candle_nn::{Init, Linear, VarBuilder};

/// The size of a low-rank path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LowRankConfig {
    /// Rank r of B A.
    pub rank: usize,
    /// What multiplies B A x; it is not divided by the rank.
    pub scale: f64,
    /// Dropout on the path's input, in training.
    pub dropout: f64,
}

/// A linear map whose weights are pretrained, and beside it a trained path of low rank.
///
/// `y = W x + b + s B (A dropout(x))`, W and b frozen where they are not released; at first A is uniform in ±1/sqrt(in), and B zero.
///
/// # Shapes
/// `x` `[.., in]`, W `[out, in]`, A `[r, in]`, B `[out, r]`, y `[.., out]`.
///
/// In a model of candle's it takes a linear's place, as a [`Module`] without dropout; its A and B train with the `VarMap` that they are
/// asked of, and are saved by it:
/// ```
/// use tadformer::candle_core::{DType, Device, Module, Tensor};
/// use tadformer::candle_nn::{AdamW, Optimizer, ParamsAdamW, VarBuilder, VarMap, linear, loss};
/// use tadformer::layers::{LowRankConfig, LowRankLinear};
/// # let pretrained = VarMap::new();
/// # let pretrained = VarBuilder::from_varmap(&pretrained, DType::F32, &Device::Cpu);
/// let classifier = linear(64, 10, pretrained.pp("classifier"))?; // of any model
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let config = LowRankConfig { rank: 4, scale: 4.0, dropout: 0.0 };
/// let classifier = LowRankLinear::from_linear(classifier, config, vb.pp("classifier"))?;
///
/// let (x, classes) = (Tensor::randn(0f32, 1., (8, 64), &Device::Cpu)?, Tensor::arange(0u32, 8, &Device::Cpu)?);
/// let mut optimizer = AdamW::new(variables.all_vars(), ParamsAdamW { lr: 0.01, ..Default::default() })?;
/// let loss = || loss::cross_entropy(&classifier.forward(&x)?, &classes);
/// let before = loss()?.to_scalar::<f32>()?;
/// for _ in 0..10 {
///     optimizer.backward_step(&loss()?)?;
/// }
/// assert!(loss()?.to_scalar::<f32>()? < before);
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("low-rank.safetensors");
/// variables.save(&path)?; // `classifier.low_rank.a` and `classifier.low_rank.b`
/// # assert_eq!(tadformer::candle_core::safetensors::load(&path, &Device::Cpu)?.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: TS-Module, section 3.1 of the paper, after MTLoRA. Without a low-rank path it is the plain pretrained linear.
#[derive(Clone, Debug)]
pub struct LowRankLinear {
    map: LowRankMap,
    /// What the path drops of its input, in training.
    dropout: f64,
    /// The weights as inference reads them.
    inference: Option<LowRankMap>,
}

impl LowRankLinear {
    /// A linear map with a bias, from `weights` at this place; `low_rank` adds the trained path.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice.
    pub fn new(n_in: usize, n_out: usize, low_rank: Option<LowRankConfig>, weights: &Weights) -> Result<Self> {
        let init = Init::Randn { mean: 0.0, stdev: (n_in as f64).powf(-0.5) };
        let weight = weights.pretrained(Pretrained::Linears, (n_out, n_in), "weight", init)?;
        let bias = Some(weights.bias(Pretrained::Biases, n_out)?);
        let dropout = low_rank.map_or(0.0, |config| config.dropout);
        let path = |config| path(n_in, n_out, config, weights.adapter(Group::LowRank));
        let path = low_rank.map(path).transpose()?;
        Ok(Self { map: LowRankMap { weight, bias, path }, dropout, inference: None })
    }

    /// A linear map of any model with a trained path beside it: W and b are frozen, A and B are asked of `vb` as `low_rank.a` and
    /// `low_rank.b`.
    ///
    /// W keeps its float type; b is read in that of `vb`, in which inputs are expected.
    ///
    /// # Errors
    /// A rank of 0, or above the linear map's smaller side; weights that are missing or of another shape.
    pub fn from_linear(linear: Linear, config: LowRankConfig, vb: VarBuilder) -> Result<Self> {
        let weight = linear.weight().detach();
        let bias = linear.bias().map(|bias| bias.detach().to_dtype(vb.dtype())).transpose()?;
        let (n_out, n_in) = weight.dims2()?;
        let (most, rank) = (n_in.min(n_out), config.rank);
        if !(1..=most).contains(&rank) {
            candle_core::bail!(
                "`rank`: expected a number from 1 to {most}, got {rank} (of {n_in} inputs and {n_out} outputs no higher rank says more)"
            )
        }
        let path = Some(path(n_in, n_out, config, vb)?);
        Ok(Self { map: LowRankMap { weight, bias, path }, dropout: config.dropout, inference: None })
    }

    /// The trained path, where there is one.
    pub(crate) fn low_rank(&self) -> Option<&LowRankPath> {
        self.map.path.as_ref()
    }

    /// Makes the weight that inference reads, W with the path folded in and laid out for products, or drops it again.
    ///
    /// # Errors
    /// A device without room for the folded weight.
    pub fn fold(&mut self, how: Fold) -> Result<()> {
        self.inference = match how {
            Fold::Folded => Some(self.map.folded()?.turned()?),
            Fold::Unfolded => None,
        };
        Ok(())
    }

    /// [`LowRankLinear::fold`] where tasks read `W x + b` alone: the path stays beside W, which is only laid out.
    pub(crate) fn lay_out(&mut self, how: Fold) -> Result<()> {
        self.inference = match how {
            Fold::Folded => Some(self.map.turned()?),
            Fold::Unfolded => None,
        };
        Ok(())
    }

    /// The weights that a pass in this mode reads, with what it drops: in training, each call draws anew.
    pub(crate) fn map(&self, mode: Mode) -> LowRankMap {
        if let (Mode::Eval, Some(map)) = (mode, &self.inference) {
            return map.clone();
        }
        let mut map = self.map.clone();
        if let (Mode::Train(rng), Some(path)) = (mode, &mut map.path) {
            path.dropout = (self.dropout > 0.0).then(|| Dropout { rate: self.dropout, seed: rng.seed() });
        }
        map
    }

    /// The pretrained part alone: `W x + b`.
    ///
    /// # Errors
    /// A last dimension other than `in`.
    pub fn pretrained(&self, x: &Tensor) -> Result<Tensor> {
        self.map.pretrained(x)
    }

    /// `[.., in]` to `[.., out]` in this mode.
    ///
    /// # Errors
    /// A last dimension other than `in`.
    pub fn forward_in(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.map(mode).forward(x)
    }
}

impl Module for LowRankLinear {
    /// In evaluation: nothing is dropped. It trains as well; for dropout there is [`LowRankLinear::forward_in`].
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_in(x, Mode::Eval)
    }
}

/// The trained path beside a linear map from `n_in` to `n_out`.
fn path(n_in: usize, n_out: usize, config: LowRankConfig, vb: VarBuilder) -> Result<LowRankPath> {
    let vb = vb.pp("low_rank");
    let a = vb.get_with_hints((config.rank, n_in), "a", crate::params::uniform_by_fan_in(n_in))?;
    let b = vb.get_with_hints((n_out, config.rank), "b", ZERO)?;
    Ok(LowRankPath { a, b, scale: config.scale, dropout: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use candle_nn::{AdamW, Optimizer, ParamsAdamW, VarMap, linear};

    fn builder(variables: &VarMap) -> VarBuilder<'static> {
        VarBuilder::from_varmap(variables, DType::F32, &Device::Cpu)
    }

    fn config(rank: usize) -> LowRankConfig {
        LowRankConfig { rank, scale: 2.0, dropout: 0.0 }
    }

    /// Candle's AdamW over the variables of a model moved W, which was called frozen, and saved neither A nor B.
    #[test]
    fn beside_a_linear_of_a_var_map_a_and_b_train_and_w_stays() -> Result<()> {
        let variables = VarMap::new();
        let plain = linear(6, 4, builder(&variables).pp("classifier"))?;
        let (w, b) = (plain.weight().to_vec2::<f32>()?, plain.bias().map(Tensor::to_vec1::<f32>).transpose()?);
        let x = Tensor::randn(0f32, 1., (5, 6), &Device::Cpu)?;
        let adapted = LowRankLinear::from_linear(plain.clone(), config(3), builder(&variables).pp("classifier"))?;
        let start = adapted.forward(&x)?;
        assert_eq!(start.to_vec2::<f32>()?, plain.forward(&x)?.to_vec2::<f32>()?, "B starts from zero");

        let mut optimizer = AdamW::new(variables.all_vars(), ParamsAdamW { lr: 0.1, ..Default::default() })?;
        let before = |name: &str| variables.data().lock().unwrap()[name].as_detached_tensor().copy();
        let (a, up) = (before("classifier.low_rank.a")?, before("classifier.low_rank.b")?);
        for _ in 0..3 {
            optimizer.backward_step(&adapted.forward(&x)?.sqr()?.sum_all()?)?;
        }
        let moved =
            |name: &str, from: &Tensor| -> Result<f32> { (before(name)? - from)?.abs()?.max_all()?.to_scalar::<f32>() };
        assert!(moved("classifier.low_rank.a", &a)? > 0.05 && moved("classifier.low_rank.b", &up)? > 0.05);
        assert_eq!(plain.weight().to_vec2::<f32>()?, w);
        assert_eq!(plain.bias().map(Tensor::to_vec1::<f32>).transpose()?, b);
        Ok(())
    }

    #[test]
    fn a_rank_that_says_no_more_is_refused() -> Result<()> {
        let variables = VarMap::new();
        let plain = linear(6, 4, builder(&variables))?;
        for rank in [0, 5] {
            let refused = LowRankLinear::from_linear(plain.clone(), config(rank), builder(&variables));
            let message = refused.map(drop).unwrap_err().to_string();
            assert!(message.contains(&format!("`rank`: expected a number from 1 to 4, got {rank}")), "{message}");
        }
        LowRankLinear::from_linear(plain, config(4), builder(&variables)).map(drop)
    }
}
