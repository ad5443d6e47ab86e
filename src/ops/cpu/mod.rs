//! What any CPU kernel is made of: float types and their registers, tensors as slices, memory that threads share, products.

pub(in crate::ops) mod bands;
pub(in crate::ops) mod blocks;
pub(in crate::ops) mod both_ways;
pub(in crate::ops) mod buffers;
pub(in crate::ops) mod channels;
pub(in crate::ops) mod float;
pub(in crate::ops) mod parts;
pub(in crate::ops) mod product;
pub(in crate::ops) mod registers;
pub(in crate::ops) mod rows;
pub(in crate::ops) mod simd;
pub(in crate::ops) mod slices;
pub(in crate::ops) mod tile;
pub(in crate::ops) mod weight;
