//! Which sample stands at which place of a pass over a data set.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Which sample stands at which place.
#[derive(Clone, Debug)]
pub(super) enum Order {
    Once,
    Shuffled { seed: u64 },
}

/// An order over a number of samples; keeps the epoch that it drew last.
pub(super) struct Sequence {
    order: Order,
    count: usize,
    drawn: Option<(usize, Vec<usize>)>,
}

/// A sample's index, and which time it is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub epoch: usize,
    pub index: usize,
}

impl Sequence {
    /// Over so many samples.
    pub fn new(order: Order, count: usize) -> Self {
        Self { order, count, drawn: None }
    }

    /// The samples at places `from..from + size`; fewer at the end of a single pass.
    pub fn places(&mut self, from: usize, size: usize) -> Vec<Place> {
        match self.order {
            Order::Once => {
                let indices = from..self.count.min(from.saturating_add(size));
                indices.map(|index| Place { epoch: 0, index }).collect()
            }
            Order::Shuffled { seed } => {
                (from..from.saturating_add(size)).map(|place| self.shuffled(seed, place)).collect()
            }
        }
    }

    fn shuffled(&mut self, seed: u64, place: usize) -> Place {
        let (epoch, within) = (place / self.count, place % self.count);
        if self.drawn.as_ref().is_none_or(|(drawn, _)| *drawn != epoch) {
            let mut order: Vec<usize> = (0..self.count).collect();
            order.shuffle(&mut StdRng::seed_from_u64(seed.wrapping_add(epoch as u64)));
            self.drawn = Some((epoch, order));
        }
        Place { epoch, index: self.drawn.as_ref().map_or(0, |(_, order)| order[within]) }
    }
}
