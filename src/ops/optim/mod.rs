//! The optimizer's arithmetic.

pub(in crate::ops) mod adamw;
pub(in crate::ops) mod square_sum;
