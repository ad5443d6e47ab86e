//! Fine-tune one frozen Swin Transformer for many dense vision tasks at once, training an eighth of its parameters.
//!
//! This is TADFormer ([arXiv 2501.04293](https://arxiv.org/abs/2501.04293), CVPR 2025) on [candle](candle_core): prompts for each
//! task that travel with the tokens, an operator that conditions each task's features on them, and a Dynamic Task Filter made from
//! each input's own context, in the last block of every stage.
//!
//! # Train
//! ```no_run
//! # #[cfg(all(feature = "data", feature = "hub", feature = "scenes", feature = "train"))]
//! # fn main() -> tadformer::Result<()> {
//! use std::sync::Arc;
//! use tadformer::data::{BatchOptions, Batches};
//! use tadformer::scenes::Scenes;
//! use tadformer::train::{ProgressBar, TrainConfig, Trainer};
//! use tadformer::TADFormer;
//!
//! // An id on the Hugging Face hub, or a folder or file of transformers, timm, torchvision or the original code.
//! let model = TADFormer::builder_from_pretrained("microsoft/swin-tiny-patch4-window7-224")?
//!     .tasks("semseg=7,normals=3,depth=1".parse()?)
//!     .rank(16)
//!     .build()?;
//! println!("{}", model.parameters());
//!
//! let options = BatchOptions::new(8);
//! let scenes = Arc::new(Scenes::new(0, 10_000, (224, 224))?);
//! let held_out = Arc::new(Scenes::new(1, 64, (224, 224))?);
//! let mut trainer = Trainer::new(&model, TrainConfig::new(1e-3, 1000, "adapter.safetensors"))?;
//! let validation = || Batches::once(held_out.clone(), &options);
//! trainer.run(Batches::shuffled(scenes, 0, &options)?, validation, &mut ProgressBar::new(1000))?;
//! # Ok(()) }
//! # #[cfg(not(all(feature = "data", feature = "hub", feature = "scenes", feature = "train")))]
//! # fn main() {}
//! ```
//!
//! Data of one's own are a [`data::Folder`] of images and labels, which [`data::inspect`] and the example `dataset` look through, or
//! implement [`data::Dataset`]: photos by [`data::read_photo`] and [`data::image_tensor`], labels by [`data::read_label`], which tells how
//! each kind is stored.
//!
//! # Predict
//! ```no_run
//! # #[cfg(feature = "data")]
//! # fn main() -> tadformer::Result<()> {
//! let predictor = tadformer::Predictor::open("adapter.safetensors", &Default::default())?;
//! for prediction in predictor.predict_file("photo.jpg")? {
//!     prediction.save_picture(format!("{}.png", prediction.task().name()))?;
//! }
//! # Ok(()) }
//! # #[cfg(not(feature = "data"))]
//! # fn main() {}
//! ```
//!
//! # Pass an adapter on
//! ```no_run
//! # fn main() -> tadformer::Result<()> {
//! use tadformer::TADFormer;
//! let rooms = TADFormer::from_adapter("OWNER/NAME")?; // an id on the hub or a path; the backbone that it names comes with it
//! let people = rooms.with_adapter("people.safetensors")?; // on the same frozen tensors
//! let more = rooms.with_tasks(rooms.config().tasks.with("sal=1".parse()?)?, 0)?; // the other tasks keep their weights
//! # Ok(()) }
//! ```
//! What the file holds is told in [`model::format`]; [`report::ModelCard`] writes the card beside it.
//!
//! # Choose what is added and what trains
//! [`Tuning`] names the usual answers, from the decoders alone to full fine-tuning; a [`tad::Method`], a [`params::Release`] and
//! [`heads`] say what it does not:
//! ```
//! use tadformer::heads::{HeadConfig, SegFormerConfig};
//! use tadformer::params::{Pretrained, Release};
//! use tadformer::tad::{LowRank, Method, PerTask, Prompts};
//! use tadformer::{SwinConfig, TADFormer, Tuning};
//! let tasks = || "semseg=21,depth=1".parse();
//! let bitfit = TADFormer::builder(SwinConfig::tiny()).tasks(tasks()?).tuning(Tuning::BitFit, 0);
//! let method = Method::none().linears(LowRank::new(8)).task_paths(PerTask::default().prompts(Prompts::learned(4)));
//! let mine = TADFormer::builder(SwinConfig::tiny())
//!     .tasks(tasks()?)
//!     .method(method)
//!     .release(Release::tadformer().with(Pretrained::Reductions))
//!     .head("hrnet-shared".parse::<HeadConfig>()?)
//!     .own_head("depth", SegFormerConfig::new(128));
//! println!("{}\n{}", TADFormer::count(bitfit.config())?, TADFormer::count(mine.config())?);
//! # Ok::<(), tadformer::Error>(())
//! ```
//!
//! # Take one module
//! ```
//! use tadformer::candle_core::{DType, Device, Tensor};
//! use tadformer::candle_nn::{VarBuilder, VarMap};
//! let variables = VarMap::new();
//! let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
//! let filter = tadformer::DynamicTaskFilter::new(16, 3, vb)?;
//! let filtered = filter.forward(&Tensor::randn(0f32, 1., (1, 16, 24, 24), &Device::Cpu)?)?;
//! # Ok::<(), candle_core::Error>(())
//! ```
//! [`layers::LowRankLinear::from_linear`] puts a low-rank path beside the linear of any candle model; [`params::Weights::over`] takes the
//! weights of a [`TADBlock`] or a [decoder](heads) from a `VarBuilder`. The example `layers` shows each of them.
//!
//! # What it holds to
//! - **What trains is data.** Every weight is recorded in a [`params::Ledger`] with its group when it is made; the optimizer, the
//!   printed table and the adapter file read that ledger. Frozen tensors never get a gradient and stay as they are, bit for bit.
//! - **Any size.** Maps that no window divides are padded and cropped as transformers does.
//! - **Seeded.** The same seed, machine and number of threads give the same run.
//! - **Files are whole or not there**, and nothing read from one is trusted before it is checked.
//! - **Downloaded once.** What the hub's cache holds is used without the network; what is downloaded is checked against its digest.
//!
//! # Two corrections to the released PyTorch code
//! It builds a static depth-wise convolution for each task where the paper has the Dynamic Task Filter, and it reads the
//! conditioned features with channels and positions swapped. Here both are as the paper has them, and the parameter counts are the
//! paper's; [`tad::TaskFilterKind::Static`] and [`tad::TpcReading::Swapped`] give the released model's predictions, and
//! [`model::ReleasedFile`] imports its checkpoints with both.
//!
//! # See where time goes
//! Parts of the model and the [steps](ops) inside them are spans of [`tracing`], level trace, entered on the thread that calls. Parts
//! (`patch-embedding`, `stage` with its `index`, `heads`, `outputs`) have the target `tadformer::model`. Steps, of backward passes and
//! of the optimizer too, have the target `tadformer::op` and the fields `kind`, `pass` (`forward`, `backward`, `update`), `definition`
//! (`fused`, `composed`) and `bytes`, what a step reads and writes.
//! The example `profile` sums them with `--trace`.
//!
//! # Features
//! | feature | brings | default |
//! | --- | --- | --- |
//! | `data` | photos, label files, folders of data, batches, pictures, [`Predictor`] | yes |
//! | `hub` | models by their id on the Hugging Face hub, and its cache | yes |
//! | `report` | evaluations as tables, Markdown, JSON and HTML | yes |
//! | `scenes` | rendered scenes with their labels | yes |
//! | `train` | the training loop, optimizer and progress bar | yes |
//! | `cuda`, `cudnn`, `metal`, `accelerate`, `mkl` | candle's backends | no |

#![cfg_attr(docsrs, feature(doc_cfg))]

pub use candle_core;
pub use candle_nn;
#[cfg(feature = "data")]
pub use image;

mod bitmap;
mod bounds;
pub mod checkpoint;
#[cfg(feature = "data")]
pub mod data;
mod decode;
mod error;
#[doc(hidden)] // for the examples; what a program reads and writes has a function of its own
pub mod files;
mod finite;
pub mod heads;
#[cfg(feature = "hub")]
pub mod hub;
pub mod layers;
pub mod loss;
pub mod metrics;
pub mod model;
mod named;
pub mod ops;
pub mod params;
#[doc(hidden)] // for the example of that name
pub mod parity;
#[cfg(feature = "data")]
pub mod picture;
pub mod predict;
mod readback;
pub mod report;
pub mod runtime;
pub mod sample;
#[cfg(feature = "scenes")]
pub mod scenes;
pub mod swin;
pub mod tad;
mod task;
#[cfg(feature = "train")]
pub mod train;

pub use error::{Error, HubProblem, Printable, Result};
pub use model::{InferenceModel, Outputs, TADFormer, TADFormerBuilder, TADFormerConfig, Tuning};
#[cfg(feature = "data")]
pub use predict::Predictor;
pub use sample::{Batch, Sample};
pub use swin::SwinConfig;
pub use tad::{DynamicTaskFilter, TADBlock, TaskPrompt};
pub use task::{Task, TaskKind, TaskSet};

/// The README's code, compiled and run with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
