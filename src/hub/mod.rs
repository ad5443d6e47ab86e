//! Models of the Hugging Face hub by their id, and what is cached of them.
//!
//! ```no_run
//! use tadformer::hub::Hub;
//! let model = Hub::default().model("microsoft/swin-tiny-patch4-window7-224")?;
//! println!("{} at commit {}", model.file("config.json")?.display(), model.commit());
//! # Ok::<(), tadformer::Error>(())
//! ```
//!
//! The cache is the one that the hub's Python tools fill and read: `models--OWNER--NAME/{blobs,refs,snapshots}` and `.locks`. What it
//! holds is used without asking the hub. What is downloaded is checked against the object id that the hub lists for it before any
//! reader can find it, and once in each process a blob is compared with the digest that names it; a download that was cut goes on
//! where it stopped, in this process or the next, and one process downloads while others wait for it.
//!
//! A hub is not trusted with anything but the content of its models: every answer is bounded in size and in time, redirects are
//! followed to `http` and `https` alone, never from the second to the first, and nothing is written outside the cache folder.
//! Proxies are those of `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`.

mod address;
mod cache;
mod checked;
mod client;
mod content;
mod environment;
mod failure;
mod fetch;
#[allow(clippy::module_inception)] // the type is the module's own
mod hub;
mod id;
mod listed;
mod lock;
mod model;
mod pace;
mod partial;
mod regular;
mod reply;
mod tries;

pub use hub::{Hub, Progress};
pub use id::ModelId;
pub use model::HubModel;
