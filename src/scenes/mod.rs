//! Rendered scenes: a data set without a download, exact labels for all six tasks.
//!
//! A small ray caster of the crate's own draws spheres, boxes, cylinders, cones, tori and jointed human figures on the
//! floor of a room, under one or two lights that cast shadows, seen by a camera placed at random. Index and seed settle
//! every pixel, whatever the number of threads; different splits are different seeds.
//!
//! | task | label |
//! | --- | --- |
//! | `semseg=7` | index into [`CLASSES`] |
//! | `human_parts=7` | index into [`PARTS`]; an image that shows no figure is ignored whole |
//! | `sal=1` | 1 on the one or two things in vivid colours (a figure: its clothes); all else, walls and floor too, is muted |
//! | `normals=3` | unit normal: x right, y down, z towards the viewer |
//! | `edge=1` | 1 on a pixel one of whose four neighbours belongs to another thing, part of a person, wall, or smooth face of a shape (or lies over 0.1 m, and over two pixels' width, off the tangent plane), and is as far away or farther; so a line runs inside the outline of what is in front |
//! | `depth=1` | metres along the camera's axis |
//!
//! Labels are those of the ray through the pixel's centre; colours are the mean of three rays where they change abruptly.

mod compose;
mod figure;
mod labels;
mod render;
mod scene;
mod shape;
mod texture;
mod vector;

use crate::sample::{Classes, Dataset, scatter};
use crate::{Error, Result, Sample, Task, TaskKind, TaskSet};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

/// The classes of `semseg`, by index; the background is floor, walls and ceiling.
pub const CLASSES: [&str; 7] = ["background", "sphere", "box", "cylinder", "cone", "torus", "figure"];

/// The parts of `human_parts`, by index; the neck counts as torso, hands as lower arms, feet as lower legs.
pub const PARTS: [&str; 7] = ["no person", "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs"];

/// A data set of rendered scenes.
///
/// ```
/// use tadformer::data::Dataset;
/// use tadformer::scenes::Scenes;
/// let scenes = Scenes::new(7, 100, (64, 96))?;
/// let sample = scenes.get(0)?;
/// assert_eq!(sample.image.dims(), [3, 64, 96]);
/// assert_eq!(sample.labels["normals"].dims(), [3, 64, 96]);
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Scenes {
    seed: u64,
    count: usize,
    size: (usize, usize),
    tasks: TaskSet,
    classes: Classes,
    parts: Classes,
}

impl Scenes {
    /// The least height and width.
    pub const MIN_SIDE: usize = 8;

    /// `count` scenes of `size` (height, width).
    ///
    /// # Errors
    /// A side below [`Scenes::MIN_SIDE`], a count of 0.
    pub fn new(seed: u64, count: usize, size: (usize, usize)) -> Result<Self> {
        let (height, width) = size;
        if height.min(width) < Self::MIN_SIDE {
            let expected = format!("sides of at least {}", Self::MIN_SIDE);
            return Err(Error::config("size", expected, format!("{height}x{width}"), "such as 96x96"));
        }
        if count == 0 {
            let cure = "scenes are rendered when asked for, so a large count costs nothing";
            return Err(Error::config("count", "at least 1", count, cure));
        }
        let outputs = |kind: TaskKind| match kind {
            TaskKind::Semseg => CLASSES.len(),
            TaskKind::HumanParts => PARTS.len(),
            TaskKind::Normals => 3,
            TaskKind::Sal | TaskKind::Edge | TaskKind::Depth => 1,
        };
        let kinds =
            [TaskKind::Semseg, TaskKind::HumanParts, TaskKind::Sal, TaskKind::Normals, TaskKind::Edge, TaskKind::Depth];
        let tasks = TaskSet::new(kinds.map(|kind| Task::new(kind, outputs(kind))).into_iter().collect::<Result<_>>()?)?;
        Ok(Self { seed, count, size, tasks, classes: Classes::new(CLASSES), parts: Classes::new(PARTS) })
    }

    /// Renders the scene of this index.
    ///
    /// # Errors
    /// An index beyond the count.
    pub fn render(&self, index: usize) -> Result<Sample> {
        if index >= self.count {
            let expected = format!("below {}, the number of scenes", self.count);
            return Err(Error::config("index", expected, index, "indices count from 0"));
        }
        let mut rng = StdRng::seed_from_u64(scatter(self.seed).wrapping_add(index as u64));
        let scene = compose::compose(&mut rng, self.size);
        let hits = render::hits(&scene, self.size);
        Ok(Sample { image: render::image(&hits, rng.next_u32() as i32)?, labels: hits.labels()? })
    }
}

impl Dataset for Scenes {
    fn len(&self) -> usize {
        self.count
    }

    fn tasks(&self) -> &TaskSet {
        &self.tasks
    }

    fn get(&self, index: usize) -> Result<Sample> {
        self.render(index)
    }

    fn classes(&self, task: &str) -> Option<&Classes> {
        match task {
            "semseg" => Some(&self.classes),
            "human_parts" => Some(&self.parts),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::IGNORE;
    use candle_core::DType;
    use rayon::prelude::*;

    fn values(sample: &Sample, name: &str) -> Vec<f32> {
        sample.labels[name].flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
    }

    fn pixels(sample: &Sample) -> Vec<f32> {
        sample.image.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn rendered(count: usize) -> Vec<Sample> {
        let scenes = Scenes::new(11, count, (64, 64)).unwrap();
        (0..count).into_par_iter().map(|index| scenes.render(index).unwrap()).collect()
    }

    #[test]
    fn sizes_counts_and_indices_that_cannot_work_are_refused() {
        for (count, size, word) in [(1, (7, 64), "`size`"), (1, (64, 7), "`size`"), (0, (64, 64), "`count`")] {
            let message = Scenes::new(0, count, size).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
        assert!(Scenes::new(0, 3, (8, 8)).unwrap().render(3).unwrap_err().to_string().contains("below 3"));
    }

    #[test]
    fn tasks_and_labels_agree_in_names_and_shapes() {
        let scenes = Scenes::new(1, 2, (24, 40)).unwrap();
        assert_eq!(scenes.tasks().to_string(), "semseg=7,human_parts=7,sal=1,normals=3,edge=1,depth=1");
        let sample = scenes.get(1).unwrap();
        assert_eq!(sample.image.dims(), [3, 24, 40]);
        assert_eq!(sample.labels.len(), scenes.tasks().len());
        for task in scenes.tasks() {
            assert_eq!(sample.labels[&task.name].dims(), [task.kind.label_channels(), 24, 40], "{task}");
        }
    }

    #[test]
    fn seed_and_index_settle_every_bit_on_any_thread() {
        let scenes = Scenes::new(5, 8, (48, 48)).unwrap();
        let alone: Vec<Sample> = (0..8).map(|i| scenes.render(i).unwrap()).collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        let together: Vec<Sample> =
            pool.install(|| (0..8).into_par_iter().map(|i| scenes.render(i).unwrap()).collect());
        for (a, b) in alone.iter().zip(&together) {
            assert_eq!(pixels(a), pixels(b));
            for name in a.labels.keys() {
                assert_eq!(values(a, name), values(b, name), "{name}");
            }
        }
        assert_ne!(pixels(&alone[0]), pixels(&alone[1]));
        assert_ne!(pixels(&alone[0]), pixels(&Scenes::new(6, 8, (48, 48)).unwrap().render(0).unwrap()));
        assert_ne!(pixels(&alone[1]), pixels(&Scenes::new(6, 8, (48, 48)).unwrap().render(0).unwrap()));
    }

    #[test]
    fn every_class_and_part_appears_and_no_other_value() {
        let samples = rendered(60);
        for (name, count) in [("semseg", CLASSES.len()), ("human_parts", PARTS.len())] {
            let mut seen = vec![0usize; 256];
            samples.iter().flat_map(|sample| values(sample, name)).for_each(|v| seen[v as usize] += 1);
            assert!(seen[..count].iter().all(|n| *n > 200), "{name}: {:?}", &seen[..count]);
            assert!(seen[count..255].iter().all(|n| *n == 0));
        }
    }

    #[test]
    fn parts_lie_on_figures_and_cover_them() {
        let mut ignored = 0;
        for sample in rendered(40) {
            let (classes, parts) = (values(&sample, "semseg"), values(&sample, "human_parts"));
            if classes.contains(&6.0) {
                assert!(classes.iter().zip(&parts).all(|(class, part)| (*class == 6.0) == (1.0..=6.0).contains(part)));
            } else {
                ignored += 1;
                assert!(parts.iter().all(|v| *v == IGNORE));
            }
        }
        assert!((4..32).contains(&ignored), "{ignored} of 40 without a figure");
    }

    #[test]
    fn labels_lie_in_their_ranges_and_fill_a_sane_share() {
        let (mut salient, mut edges) = (0.0, 0.0);
        let samples = rendered(40);
        for sample in &samples {
            let share = |map: &[f32]| map.iter().sum::<f32>() / map.len() as f32;
            let (sal, edge) = (values(sample, "sal"), values(sample, "edge"));
            assert!(sal.iter().chain(&edge).all(|v| *v == 0.0 || *v == 1.0));
            assert!((0.005..0.7).contains(&share(&sal)), "{}", share(&sal));
            (salient, edges) = (salient + share(&sal) / 40.0, edges + share(&edge) / 40.0);
            assert!(values(sample, "depth").iter().all(|v| (0.2..12.0).contains(v)));
            let n = values(sample, "normals");
            for (x, (y, z)) in n[..4096].iter().zip(n[4096..8192].iter().zip(&n[8192..])) {
                assert!((x.hypot(*y).hypot(*z) - 1.0).abs() < 1e-4);
            }
            assert!(pixels(sample).iter().all(|v| (0.0..=1.0).contains(v)));
        }
        assert!((0.06..0.35).contains(&salient) && (0.03..0.15).contains(&edges), "{salient} {edges}");
    }

    #[test]
    fn visible_surfaces_face_the_viewer() {
        for sample in rendered(10) {
            let n = values(&sample, "normals");
            // Seen through the middle column, the ray is close to the axis.
            let towards = (0..64).filter(|row| n[8192 + row * 64 + 32] > -0.5).count();
            assert_eq!(towards, 64);
        }
    }

    #[test]
    fn images_are_neither_dark_nor_glaring() {
        for (index, sample) in rendered(40).iter().enumerate() {
            let mean = pixels(sample).iter().sum::<f32>() / (3.0 * 4096.0);
            assert!((0.2..0.85).contains(&mean), "scene {index}: {mean}");
        }
    }
}
