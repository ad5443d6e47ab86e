//! The largest one-to-one matching of true and predicted pixels that are near each other.

use super::disc::{Disc, Walk};
use crate::bitmap::Bitmap;
use std::collections::VecDeque;

const NOBODY: u32 = u32::MAX;

/// Matches one truth with several predictions, one after the other. A pixel goes by its place, `y * width + x`.
///
/// From every free true pixel a tree of alternating ways grows, breadth first, all trees at once and none over another's pixels. One that
/// meets a free predicted pixel pairs the pixels on the way to it anew, one pair more than before, and falls apart; the others keep their
/// pixels, and what became free near them is grafted on. When no tree meets a free pixel the matching is the largest (Azad, Buluç and
/// Pothen, "Computing maximum cardinality matchings in parallel on bipartite graphs via tree grafting", 2017).
///
/// Who is near whom is read off the bitmaps, 64 pixels at a time, so that growing costs a look at each row of each true pixel's disc and
/// one visit of each predicted pixel, however many pairs are near. A matching starts from the last prediction's: what is still there of
/// it is a matching already, and predictions at neighbouring thresholds share most of their pixels.
pub(super) struct Matching {
    distance: f64,
    disc: Disc,
    width: usize,
    truth: Vec<u32>,
    /// The predicted pixel that a true one is matched with.
    partner: Vec<u32>,
    /// The true pixel that a predicted one is matched with.
    owner: Vec<u32>,
    /// The true pixel from which a tree came to a predicted one.
    parent: Vec<u32>,
    /// The free true pixel from which the tree of a true one grew.
    root: Vec<u32>,
    /// The free predicted pixel that the tree of a free true one has met.
    met: Vec<u32>,
}

/// The trees that grow from free true pixels.
struct Forest {
    /// Predicted pixels in no tree.
    unseen: Bitmap,
    /// Predicted pixels in trees.
    seen: Vec<u32>,
    /// True pixels in trees.
    truth: Bitmap,
    /// True pixels in trees that have not been looked around yet.
    queue: VecDeque<u32>,
}

impl Matching {
    /// For pixels at most `distance` apart; no pair yet.
    pub(super) fn new(truth: &Bitmap, distance: f64) -> Self {
        let nobody = vec![NOBODY; truth.height() * truth.width()];
        Self {
            distance,
            disc: Disc::new(distance, truth.height().max(truth.width())),
            width: truth.width(),
            truth: truth.pixels().map(|(y, x)| (y * truth.width() + x) as u32).collect(),
            partner: nobody.clone(),
            owner: nobody.clone(),
            parent: nobody.clone(),
            root: nobody.clone(),
            met: nobody,
        }
    }

    /// The size of the largest matching with a prediction.
    pub(super) fn largest(&mut self, predicted: &Bitmap) -> u64 {
        self.keep(predicted);
        self.pair_near(predicted);
        let mut forest = self.plant(predicted);
        loop {
            let ends = self.grow(&mut forest);
            if ends.is_empty() {
                return (self.truth.len() - self.free().count()) as u64;
            }
            ends.into_iter().for_each(|end| self.lengthen(end));
            self.graft(&mut forest);
        }
    }

    fn pixel(&self, place: u32) -> (usize, usize) {
        (place as usize / self.width, place as usize % self.width)
    }

    fn place(&self, (y, x): (usize, usize)) -> u32 {
        (y * self.width + x) as u32
    }

    /// True pixels without a partner.
    fn free(&self) -> impl Iterator<Item = u32> + '_ {
        self.truth.iter().copied().filter(|truth| self.partner[*truth as usize] == NOBODY)
    }

    fn pair(&mut self, truth: u32, predicted: u32) {
        self.partner[truth as usize] = predicted;
        self.owner[predicted as usize] = truth;
    }

    /// Parts the pairs whose predicted pixel is gone.
    fn keep(&mut self, predicted: &Bitmap) {
        for i in 0..self.truth.len() {
            let truth = self.truth[i] as usize;
            let partner = self.partner[truth];
            let (y, x) = self.pixel(partner);
            if partner != NOBODY && !predicted.contains(y, x) {
                self.owner[partner as usize] = NOBODY;
                self.partner[truth] = NOBODY;
            }
        }
    }

    /// Pairs free pixels that are near, the nearest first: few are left for the trees.
    fn pair_near(&mut self, predicted: &Bitmap) {
        let mut unpaired = predicted.clone();
        for partner in self.truth.iter().map(|truth| self.partner[*truth as usize]).filter(|place| *place != NOBODY) {
            let (y, x) = self.pixel(partner);
            unpaired.remove(y, x);
        }
        let adjacent = self.distance.min(std::f64::consts::SQRT_2);
        for disc in [Disc::new(0.0, 1), Disc::new(adjacent, 2), self.disc.clone()] {
            for truth in self.free().collect::<Vec<_>>() {
                if let Some((y, x)) = disc.next(&mut Walk::about(self.pixel(truth)), &unpaired) {
                    unpaired.remove(y, x);
                    self.pair(truth, self.place((y, x)));
                }
            }
        }
    }

    /// A tree of one pixel at each free true one.
    fn plant(&mut self, predicted: &Bitmap) -> Forest {
        let queue: VecDeque<u32> = self.free().collect();
        let mut truth = Bitmap::empty(predicted.height(), predicted.width());
        for place in &queue {
            let (y, x) = self.pixel(*place);
            truth.insert(y, x);
            self.root[*place as usize] = *place;
            self.met[*place as usize] = NOBODY;
        }
        Forest { unseen: predicted.clone(), seen: Vec::new(), truth, queue }
    }

    /// Grows the trees until each has met a free predicted pixel or can grow no more; the pixels that were met.
    fn grow(&mut self, forest: &mut Forest) -> Vec<u32> {
        let mut ends = Vec::new();
        while let Some(truth) = forest.queue.pop_front() {
            let (root, mut walk) = (self.root[truth as usize], Walk::about(self.pixel(truth)));
            while self.met[root as usize] == NOBODY
                && let Some(pixel) = self.disc.next(&mut walk, &forest.unseen)
            {
                self.join(forest, pixel, truth);
                let predicted = self.place(pixel);
                if self.owner[predicted as usize] == NOBODY {
                    self.met[root as usize] = predicted;
                    ends.push(predicted);
                }
            }
        }
        ends
    }

    /// A predicted pixel joins the tree of a true one, and with it the true pixel that it is matched with.
    fn join(&mut self, forest: &mut Forest, (y, x): (usize, usize), truth: u32) {
        let predicted = self.place((y, x));
        forest.unseen.remove(y, x);
        forest.seen.push(predicted);
        self.parent[predicted as usize] = truth;
        let owner = self.owner[predicted as usize];
        if owner != NOBODY {
            let (y, x) = self.pixel(owner);
            forest.truth.insert(y, x);
            forest.queue.push_back(owner);
            self.root[owner as usize] = self.root[truth as usize];
        }
    }

    /// Pairs the pixels anew on the way from a free predicted one back to its tree's root.
    fn lengthen(&mut self, end: u32) {
        let mut predicted = end;
        while predicted != NOBODY {
            let truth = self.parent[predicted as usize];
            let before = self.partner[truth as usize];
            self.pair(truth, predicted);
            predicted = before;
        }
    }

    /// Takes the trees apart that have met a free pixel; what is near another tree joins it.
    fn graft(&mut self, forest: &mut Forest) {
        let root = |predicted: u32| self.root[self.parent[predicted as usize] as usize];
        let is_loose = |predicted: &u32| self.met[root(*predicted) as usize] != NOBODY;
        let (loose, kept) = std::mem::take(&mut forest.seen).into_iter().partition::<Vec<_>, _>(is_loose);
        forest.seen = kept;
        for place in &loose {
            let (y, x) = self.pixel(*place);
            forest.unseen.insert(y, x);
            // Each true pixel of such a tree is matched by now, with one of its predicted pixels.
            let (y, x) = self.pixel(self.owner[*place as usize]);
            forest.truth.remove(y, x);
        }
        for pixel in loose.into_iter().map(|place| self.pixel(place)).collect::<Vec<_>>() {
            if let Some(truth) = self.disc.next(&mut Walk::about(pixel), &forest.truth) {
                self.join(forest, pixel, self.place(truth));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng as _, SeedableRng as _};

    /// Pairs added one at a time, from each true pixel over whatever way there is.
    fn by_brute_force(truth: &Bitmap, predicted: &Bitmap, distance: f64) -> u64 {
        let (truth, predicted): (Vec<_>, Vec<_>) = (truth.pixels().collect(), predicted.pixels().collect());
        let near = |a: (usize, usize), b: (usize, usize)| {
            (a.0.abs_diff(b.0).pow(2) + a.1.abs_diff(b.1).pow(2)) as f64 <= distance * distance
        };
        fn grows(t: usize, near: &[Vec<usize>], owner: &mut [Option<usize>], seen: &mut [bool]) -> bool {
            near[t].iter().any(|p| {
                !std::mem::replace(&mut seen[*p], true)
                    && (owner[*p].is_none_or(|other| grows(other, near, owner, seen)) && {
                        owner[*p] = Some(t);
                        true
                    })
            })
        }
        let near: Vec<Vec<usize>> =
            truth.iter().map(|t| (0..predicted.len()).filter(|p| near(*t, predicted[*p])).collect()).collect();
        let mut owner = vec![None; predicted.len()];
        (0..truth.len()).filter(|t| grows(*t, &near, &mut owner, &mut vec![false; predicted.len()])).count() as u64
    }

    #[test]
    fn as_large_as_by_brute_force_from_nothing_and_from_the_last_prediction() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        let mut grown = 0;
        for round in 0..200 {
            let (height, width) = (rng.random_range(1..14), rng.random_range(1..90));
            let share = rng.random_range(0.02..0.5);
            let mut map = |share: f64| {
                let values: Vec<bool> = (0..height * width).map(|_| rng.random_bool(share)).collect();
                Bitmap::of(&values, height, width, |v| v)
            };
            let truth = map(share);
            let distance = [0.0, 1.0, 1.5, 2.3, 6.0][round % 5];
            let mut matching = Matching::new(&truth, distance);
            for _ in 0..4 {
                let predicted = map(share / 2.0 + 0.05);
                let largest = by_brute_force(&truth, &predicted, distance);
                assert_eq!(matching.largest(&predicted), largest, "round {round}");
                assert_eq!(Matching::new(&truth, distance).largest(&predicted), largest, "round {round}");
                let mut greedy = Matching::new(&truth, distance);
                greedy.pair_near(&predicted);
                grown += u64::from(truth.count() - (greedy.free().count() as u64) < largest);
            }
        }
        assert!(grown > 100, "only {grown} matchings needed trees");
    }
}
