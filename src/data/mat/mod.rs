//! MATLAB 5 files, as MATLAB writes them (`-v6`, and compressed `-v7`), and SciPy and Octave do.
//!
//! One variable is read by its name; the others are passed over. What a file says of itself buys nothing: a variable takes no more
//! memory than the file gives bytes for and [`BYTE_LIMIT`] allows, and what lies in it is looked at where somebody asks, so that
//! nothing nests.
//!
//! ```no_run
//! use tadformer::data::mat::Variable;
//! let anno = Variable::read("human_parts/2008_000003.mat", "anno")?;
//! let objects = anno.matrix()?.one_struct()?.field("objects")?.structs()?;
//! for object in objects {
//!     println!("{}", object?.field("class")?.text()?);
//! }
//! # Ok::<(), tadformer::Error>(())
//! ```

mod element;
mod grid;
mod matrix;
mod structs;
mod variable;

pub use grid::Numbers;
pub use matrix::Matrix;
pub use structs::{Struct, Structs};
pub use variable::{BYTE_LIMIT, Variable};
