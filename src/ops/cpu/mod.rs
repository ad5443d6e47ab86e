//! What any CPU kernel is made of: float types and their registers, tensors as slices, memory that threads share, products.

pub(in crate::ops) mod bands;
mod blocks;
mod buffers;
pub(in crate::ops) mod channels;
mod float;
mod parts;
mod product;
pub(in crate::ops) mod registers;
mod rows;
pub(in crate::ops) mod simd;
mod slices;
pub(in crate::ops) mod tile;
mod weight;

pub(in crate::ops) use blocks::Blocks;
pub(in crate::ops) use buffers::{resize, zeroed};
pub(in crate::ops) use float::{Real, all_of};
pub(in crate::ops) use parts::{Fresh, Parts, Place, copies, unwritten};
pub(in crate::ops) use product::{Into, Matrix, add_product, new_product, product, product_into};
pub(in crate::ops) use rows::{for_rows, sum_rows};
pub(in crate::ops) use slices::{Values, values};
pub(in crate::ops) use weight::{BothWays, FrozenMatrix};
