//! What a step is, which of its definitions runs, and how candle's graph or a tape sees it.

pub(in crate::ops) mod definition;
pub(in crate::ops) mod node;
pub(in crate::ops) mod run;
pub(in crate::ops) mod step;
pub(in crate::ops) mod tape;
pub(in crate::ops) mod trace;
