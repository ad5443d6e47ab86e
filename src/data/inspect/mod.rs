//! What is in a data set, and all that is wrong with it.

mod contents;
mod finding;
mod table;

pub use contents::{Contents, TaskContents};
pub use finding::Finding;

use super::Dataset;
use crate::sample::{Examined, Fault, FaultKind};
use crate::{Error, Sample};
use finding::Findings;
use rayon::prelude::*;

/// Samples that are read between two calls of the progress.
const CHUNK: usize = 64;

/// What [`inspect`] finds; printed, it is a table.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// Images that can be read.
    pub images: usize,
    /// Images that there are.
    pub all_images: usize,
    /// Width and height of the image of the fewest pixels, and of the one of the most.
    pub sizes: Option<[(usize, usize); 2]>,
    /// What the labels of each task hold.
    pub tasks: Vec<TaskContents>,
    /// What is wrong, by kind and task.
    pub findings: Vec<Finding>,
}

impl Inspection {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Reads every sample of a data set, on all of rayon's threads, and tells what is there and all that is wrong.
///
/// A few samples are in memory at a time. `progress` is told how many samples are read.
///
/// ```
/// use tadformer::data::inspect;
/// use tadformer::scenes::Scenes;
/// let inspection = inspect(&Scenes::new(0, 4, (24, 32))?, &mut |_| ());
/// assert_eq!((inspection.images, inspection.is_sound()), (4, true));
/// println!("{inspection}");
/// # Ok::<(), tadformer::Error>(())
/// ```
pub fn inspect(dataset: &dyn Dataset, progress: &mut dyn FnMut(usize)) -> Inspection {
    let mut total = Tally::new(dataset);
    dataset.faults().into_iter().for_each(|fault| total.findings.add(fault));
    let count = dataset.len();
    for start in (0..count).step_by(CHUNK) {
        let end = count.min(start + CHUNK);
        let of_one = |index| Tally::of_sample(dataset, index);
        let chunk = (start..end).into_par_iter().map(of_one).reduce(|| Tally::new(dataset), Tally::with);
        total = total.with(chunk);
        progress(end);
    }
    Inspection {
        images: total.images,
        all_images: count,
        sizes: total.sizes,
        tasks: total.tasks,
        findings: total.findings.listed(),
    }
}

/// What was found in some samples.
struct Tally {
    images: usize,
    sizes: Option<[(usize, usize); 2]>,
    tasks: Vec<TaskContents>,
    findings: Findings,
}

impl Tally {
    fn new(dataset: &dyn Dataset) -> Self {
        let contents = |task: &crate::Task| TaskContents::new(task, dataset.classes(task.name()));
        let tasks = dataset.tasks().iter().map(contents).collect();
        Self { images: 0, sizes: None, tasks, findings: Findings::default() }
    }

    fn of_sample(dataset: &dyn Dataset, index: usize) -> Self {
        let mut tally = Self::new(dataset);
        let Examined { sample, faults } = dataset.examine(index);
        faults.into_iter().for_each(|fault| tally.findings.add(fault));
        if let Some(sample) = sample
            && let Err(error) = tally.count(dataset, index, &sample)
        {
            let error = Error::dataset(index, error);
            tally.findings.add(Fault::of_image(FaultKind::Unreadable, error));
        }
        tally
    }

    fn count(&mut self, dataset: &dyn Dataset, index: usize, sample: &Sample) -> crate::Result<()> {
        let (height, width) = sample.size()?;
        (self.images, self.sizes) = (1, Some([(width, height); 2]));
        for contents in &mut self.tasks {
            let Some(label) = sample.labels.get(contents.task.name()) else { continue };
            if let Err((kind, error)) = contents.count(label) {
                let error = Error::dataset(index, format!("{}: {error}", dataset.name(index)));
                self.findings.add(Fault::of_label(contents.task.name(), kind, error));
            }
        }
        Ok(())
    }

    /// With what was found in the samples after these.
    fn with(mut self, later: Self) -> Self {
        self.images += later.images;
        self.sizes = match (self.sizes, later.sizes) {
            (Some([small, large]), Some([smaller, larger])) => {
                let pixels = |size: &(usize, usize)| size.0 * size.1;
                Some([[small, smaller].into_iter().min_by_key(pixels), [large, larger].into_iter().max_by_key(pixels)])
                    .map(|sizes| sizes.map(Option::unwrap_or_default))
            }
            (sizes, None) | (None, sizes) => sizes,
        };
        self.tasks.iter_mut().zip(later.tasks).for_each(|(contents, later)| contents.add(later));
        self.findings.append(later.findings);
        self
    }
}
