//! What is done to an image and its labels together before training sees them.

mod canvas;
mod choices;
mod colour;
mod geometry;
mod list;
mod normals;
mod recipe;
mod step;
mod transformed;
mod values;

pub use choices::{Outside, Place, Scale, Shrink};
pub use list::Transforms;
pub use recipe::Recipe;
pub use step::Transform;
pub use transformed::Transformed;
