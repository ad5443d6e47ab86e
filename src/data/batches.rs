//! Batches read ahead by background threads, in an order that the seed alone settles.

use super::Dataset;
use super::ahead::{Ahead, Make, Wanted};
use super::order::{Order, Place, Sequence};
use crate::sample::unknown;
use crate::{Batch, Error, Result, Sample, TaskSet};
use candle_core::{DType, Device};
use std::ops::Range;
use std::sync::Arc;

/// How batches are made.
#[derive(Clone, Debug)]
pub struct BatchOptions {
    /// Samples in a batch.
    pub size: usize,
    /// The float type of the images; labels stay f32 or u8, as their samples have them.
    pub dtype: DType,
    /// Where batches go.
    pub device: Device,
    /// Threads that read samples. Each is at most two batches ahead: one waiting, one in the making.
    pub workers: usize,
    /// What becomes of a sample that cannot be read.
    pub unreadable: Unreadable,
}

/// What becomes of a sample that cannot be read: an image or a label that is missing, damaged or wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unreadable {
    /// Its error takes the place of its batch.
    #[default]
    Refuse,
    /// Its batch goes without it; [`Batches::skipped`] counts it and tells why.
    Skip,
}

/// The samples that were left out because they could not be read.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Skipped {
    /// How many; a sample that is asked for in several epochs counts each time.
    pub count: usize,
    /// What was wrong with the first ones, ten at most, each with its file.
    pub reasons: Vec<String>,
}

impl Skipped {
    const MOST_REASONS: usize = 10;

    pub(crate) fn add(&mut self, reason: String) {
        tracing::warn!("left out: {reason}");
        self.count += 1;
        if self.reasons.len() < Self::MOST_REASONS {
            self.reasons.push(reason);
        }
    }
}

impl BatchOptions {
    /// Batches of this size in f32 on the CPU, read by half of the cores, four at most.
    pub fn new(size: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let workers = (cores / 2).clamp(1, 4);
        Self { size, dtype: DType::F32, device: Device::Cpu, workers, unreadable: Unreadable::Refuse }
    }

    fn check(&self) -> Result<()> {
        let zero = |field: &str, cure: &str| Err(Error::config(field, "at least 1", 0, cure));
        match (self.size, self.workers) {
            (0, _) => zero("batch size", "a batch holds at least one sample"),
            (_, 0) => zero("workers", "one thread is enough for small images"),
            _ => Ok(()),
        }
    }
}

/// An iterator over batches, which background threads make ahead of time.
///
/// Seed, data set and batch size settle which samples come in which batch, and what is drawn for them, whatever the number of workers.
/// An error, which names the sample ([`Error::Dataset`]), or a panic of the data set takes the place of its batch, and the iteration
/// goes on after it; with [`Unreadable::Skip`] a sample's error only takes the sample.
/// Dropping the iterator ends the threads: it waits for the one sample that each may be reading.
#[derive(Debug)]
pub struct Batches {
    made: Ahead<Made>,
    device: Device,
    skipped: Skipped,
    /// Samples left out since the last batch, and how many there are: a set of which nothing can be read is an error.
    in_vain: usize,
    samples: usize,
}

/// What a thread makes of a batch's samples.
#[derive(Debug)]
struct Made {
    /// None if every sample was left out.
    batch: Option<Batch>,
    /// Why samples were left out.
    skipped: Vec<String>,
}

impl Batches {
    /// Batches without end: every sample once in an epoch, each epoch in a new order.
    ///
    /// All batches have the full size; one may hold the end of an epoch and the beginning of the next.
    ///
    /// # Errors
    /// An empty data set, a size or number of workers of 0, no thread to be had.
    pub fn shuffled(dataset: Arc<dyn Dataset>, seed: u64, options: &BatchOptions) -> Result<Self> {
        Self::shuffled_from(dataset, seed, 0, options)
    }

    /// [`Batches::shuffled`] without the first so many batches: where an iteration that stood at [`Batches::position`] goes on.
    ///
    /// # Errors
    /// As [`Batches::shuffled`].
    pub fn shuffled_from(
        dataset: Arc<dyn Dataset>,
        seed: u64,
        position: usize,
        options: &BatchOptions,
    ) -> Result<Self> {
        Self::start(dataset, Order::Shuffled { seed }, position..usize::MAX, options)
    }

    /// Every sample once, in order; the last batch may be smaller.
    ///
    /// # Errors
    /// As [`Batches::shuffled`].
    pub fn once(dataset: Arc<dyn Dataset>, options: &BatchOptions) -> Result<Self> {
        options.check()?;
        let end = dataset.len().div_ceil(options.size);
        Self::start(dataset, Order::Once, 0..end, options)
    }

    /// How many batches of the data set's order have been given, those left out whole among them.
    pub fn position(&self) -> usize {
        self.made.position()
    }

    /// The samples that were left out so far: see [`Unreadable::Skip`].
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    fn start(dataset: Arc<dyn Dataset>, order: Order, numbers: Range<usize>, options: &BatchOptions) -> Result<Self> {
        options.check()?;
        if dataset.is_empty() {
            let cure = "check the folder or list that it reads";
            return Err(Error::config("data set", "at least one sample", "an empty one", cure));
        }
        let job = || Job {
            sequence: Sequence::new(order.clone(), dataset.len()),
            dataset: dataset.clone(),
            size: options.size,
            dtype: options.dtype,
            unreadable: options.unreadable,
        };
        Ok(Self {
            made: Ahead::start(numbers, options.workers, job)?,
            device: options.device.clone(),
            skipped: Skipped::default(),
            in_vain: 0,
            samples: dataset.len(),
        })
    }

    /// The batch that was made, on its device; none if every sample was left out.
    fn delivered(&mut self, made: Made) -> Result<Option<Batch>> {
        self.in_vain += made.skipped.len();
        let last = made.skipped.last().cloned();
        made.skipped.into_iter().for_each(|reason| self.skipped.add(reason));
        if let Some(batch) = made.batch {
            self.in_vain = 0;
            return batch.to(batch.images.dtype(), &self.device).map(Some);
        }
        match last {
            Some(reason) if self.in_vain >= self.samples => {
                let cure = "look at the data set with the example `dataset`";
                Err(Error::config("data set", "a sample that can be read", reason, cure))
            }
            _ => Ok(None),
        }
    }
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let made = self.made.next()?;
            if let Some(batch) = made.and_then(|made| self.delivered(made)).transpose() {
                return Some(batch);
            }
        }
    }

    /// How many come at most: fewer where samples are left out.
    fn size_hint(&self) -> (usize, Option<usize>) {
        match self.made.left() {
            None => (usize::MAX, None),
            some => (0, some),
        }
    }
}

/// What a thread does.
struct Job {
    dataset: Arc<dyn Dataset>,
    sequence: Sequence,
    size: usize,
    dtype: DType,
    unreadable: Unreadable,
}

impl Make<Made> for Job {
    /// The batch on the CPU.
    fn make(&mut self, number: usize, wanted: &Wanted) -> Option<Result<Made>> {
        let places = self.sequence.places(number.saturating_mul(self.size), self.size);
        let (mut samples, mut skipped) = (Vec::with_capacity(places.len()), Vec::new());
        for place in &places {
            if !wanted.is_true() {
                return None;
            }
            match (self.sample(place), self.unreadable) {
                (Ok(sample), _) => samples.push(sample),
                (Err(error), Unreadable::Refuse) => return Some(Err(error)),
                (Err(error), Unreadable::Skip) => skipped.push(error.to_string()),
            }
        }
        let stacked = (!samples.is_empty()).then(|| Batch::of_checked(&samples, self.dtype, &Device::Cpu)).transpose();
        Some(stacked.map(|batch| Made { batch, skipped }))
    }

    fn name(&mut self, number: usize) -> String {
        let places = self.sequence.places(number.saturating_mul(self.size), self.size);
        format!("samples {:?}", places.iter().map(|place| place.index).collect::<Vec<_>>())
    }
}

impl Job {
    fn sample(&self, place: &Place) -> Result<Sample> {
        let sample = self.dataset.draw(place.index, place.epoch).and_then(Sample::checked);
        let sample = sample.and_then(|sample| labelled_for(sample, self.dataset.tasks()));
        sample.map_err(Error::of_sample(place.index))
    }
}

/// A sample with a label for each of these tasks: one that it lacks is unknown everywhere.
fn labelled_for(mut sample: Sample, tasks: &TaskSet) -> Result<Sample> {
    if let Some(name) = sample.labels.keys().find(|name| tasks.get(name).is_none()) {
        let cure = "name the label as the data set's task is named";
        return Err(Error::config("label", format!("one of the data set's tasks, {tasks}"), name, cure));
    }
    let (_, h, w) = sample.image.dims3()?;
    for task in tasks.iter() {
        if !sample.labels.contains_key(task.name()) {
            let unknown = unknown(task.kind(), (h, w))?;
            sample.labels.insert(task.name().to_owned(), unknown);
        }
    }
    Ok(sample)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Tensor;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    /// Samples whose depth is their index plus 1000 an epoch; 13 fails, 14 is of i64, 17 panics, 18 has none, and 19 is labelled for another task.
    struct Numbers {
        count: usize,
        tasks: TaskSet,
        read: AtomicUsize,
    }

    fn numbers(count: usize) -> Arc<Numbers> {
        Arc::new(Numbers { count, tasks: "depth=1".parse().unwrap(), read: AtomicUsize::new(0) })
    }

    impl Dataset for Numbers {
        fn len(&self) -> usize {
            self.count
        }

        fn tasks(&self) -> &TaskSet {
            &self.tasks
        }

        fn get(&self, index: usize) -> Result<Sample> {
            self.read.fetch_add(1, Ordering::Relaxed);
            assert_ne!(index, 17, "seventeen is no number");
            if index == 13 {
                return Err(Error::config("index", "luck", index, "skip it"));
            }
            let dtype = if index == 14 { DType::I64 } else { DType::F32 };
            let image = Tensor::zeros((3, 2, 2), dtype, &Device::Cpu)?;
            let depth = Tensor::full(index as f32, (1, 2, 2), &Device::Cpu)?;
            let labels = match index {
                18 => vec![],
                19 => vec![("dept".to_owned(), depth)],
                _ => vec![("depth".to_owned(), depth)],
            };
            Ok(Sample { image, labels: labels.into_iter().collect() })
        }

        fn draw(&self, index: usize, epoch: usize) -> Result<Sample> {
            let mut sample = self.get(index)?;
            for depth in sample.labels.values_mut() {
                *depth = (depth.clone() + 1000.0 * epoch as f64)?;
            }
            Ok(sample)
        }
    }

    fn options(size: usize, workers: usize) -> BatchOptions {
        BatchOptions { workers, ..BatchOptions::new(size) }
    }

    fn indices(batch: &Batch) -> Vec<usize> {
        let depth = batch.labels["depth"].to_device(&Device::Cpu).unwrap();
        let all: Vec<f32> = depth.flatten_all().unwrap().to_vec1().unwrap();
        all.chunks(4).map(|pixels| pixels[0] as usize).collect()
    }

    #[test]
    fn an_epoch_holds_every_sample_once_and_the_next_has_another_order() {
        let batches = Batches::shuffled(numbers(10), 4, &options(4, 2)).unwrap();
        let drawn: Vec<usize> = batches.take(5).flat_map(|batch| indices(&batch.unwrap())).collect();
        let (first, second) = drawn.split_at(10);
        for (number, epoch) in [first, second].into_iter().enumerate() {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            let drawn_in_this_epoch = 1000 * number..1000 * number + 10;
            assert_eq!(sorted, drawn_in_this_epoch.collect::<Vec<_>>());
        }
        assert_ne!(first, second.iter().map(|index| index - 1000).collect::<Vec<_>>());
    }

    #[test]
    fn an_iteration_goes_on_from_its_position_whatever_the_number_of_workers() {
        let mut whole = Batches::shuffled(numbers(10), 4, &options(3, 2)).unwrap();
        let drawn: Vec<Vec<usize>> = whole.by_ref().take(9).map(|batch| indices(&batch.unwrap())).collect();
        assert_eq!(whole.position(), 9);
        for workers in [1, 2, 3] {
            let rest = Batches::shuffled_from(numbers(10), 4, 4, &options(3, workers)).unwrap();
            let rest: Vec<Vec<usize>> = rest.take(5).map(|batch| indices(&batch.unwrap())).collect();
            assert_eq!(rest, drawn[4..]);
        }
    }

    #[test]
    fn what_cannot_be_read_is_left_out_counted_and_named_where_that_was_asked_for() {
        let skipping = |size, workers| BatchOptions { unreadable: Unreadable::Skip, ..options(size, workers) };
        for (size, workers) in [(4, 1), (4, 3), (1, 2)] {
            let mut batches = Batches::once(numbers(16), &skipping(size, workers)).unwrap();
            let drawn: Vec<usize> = batches.by_ref().flat_map(|batch| indices(&batch.unwrap())).collect();
            assert_eq!(drawn, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15]);
            let Skipped { count, reasons, .. } = batches.skipped();
            assert_eq!(*count, 2);
            assert!(reasons[0].starts_with("sample 13: ") && reasons[1].starts_with("sample 14: "), "{reasons:?}");
        }
    }

    /// An endless pass over nothing would wait for ever.
    #[test]
    fn a_set_of_which_nothing_can_be_read_is_an_error() {
        struct Broken(TaskSet);
        impl Dataset for Broken {
            fn len(&self) -> usize {
                5
            }
            fn tasks(&self) -> &TaskSet {
                &self.0
            }
            fn get(&self, index: usize) -> Result<Sample> {
                Err(Error::config("file", "one", index, "none"))
            }
        }
        let skipping = BatchOptions { unreadable: Unreadable::Skip, ..options(2, 2) };
        let broken = Arc::new(Broken("depth=1".parse().unwrap()));
        let message = Batches::shuffled(broken, 0, &skipping).unwrap().next().unwrap().unwrap_err().to_string();
        assert!(message.contains("`data set`: expected a sample that can be read"), "{message}");
    }

    #[test]
    fn the_seed_settles_the_order_and_the_workers_do_not() {
        let draw = |seed, workers| -> Vec<usize> {
            let batches = Batches::shuffled(numbers(12), seed, &options(5, workers)).unwrap();
            batches.take(9).flat_map(|batch| indices(&batch.unwrap())).collect()
        };
        assert_eq!(draw(1, 1), draw(1, 3));
        assert_ne!(draw(1, 1), draw(2, 1));
    }

    #[test]
    fn a_batch_larger_than_the_data_set_wraps_around() {
        let mut batches = Batches::shuffled(numbers(3), 0, &options(7, 2)).unwrap();
        assert_eq!(indices(&batches.next().unwrap().unwrap()).len(), 7);
    }

    #[test]
    fn once_goes_through_in_order_and_ends_with_the_rest() {
        for workers in [1, 2, 5] {
            let mut batches = Batches::once(numbers(10), &options(4, workers)).unwrap();
            assert_eq!(batches.size_hint().1, Some(3));
            let drawn: Vec<Vec<usize>> = batches.by_ref().map(|batch| indices(&batch.unwrap())).collect();
            assert_eq!(drawn, [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
            assert!(batches.next().is_none());
        }
    }

    #[test]
    fn errors_and_panics_take_the_place_of_their_batch() {
        let batches = Batches::once(numbers(20), &options(4, 2)).unwrap();
        let drawn: Vec<Result<Batch>> = batches.collect();
        assert_eq!(drawn.len(), 5);
        let error = drawn[3].as_ref().unwrap_err().to_string();
        assert!(error.starts_with("sample 13: ") && error.contains("luck"), "{error}");
        let panic = drawn[4].as_ref().unwrap_err().to_string();
        assert!(panic.contains("[16, 17, 18, 19]") && panic.contains("seventeen is no number"), "{panic}");
        assert!(drawn[..3].iter().all(Result::is_ok));
    }

    #[test]
    fn a_sample_of_another_type_is_named() {
        let drawn: Vec<Result<Batch>> = Batches::once(numbers(16), &options(1, 1)).unwrap().collect();
        let error = drawn[14].as_ref().unwrap_err().to_string();
        assert!(error.starts_with("sample 14: `image`: expected f32 or u8") && error.contains("got i64"), "{error}");
        assert!(drawn[12].is_ok() && drawn[15].is_ok());
    }

    #[test]
    fn a_label_of_the_data_sets_tasks_that_a_sample_lacks_is_unknown_and_one_of_no_task_is_refused() {
        let mut drawn = Batches::once(numbers(20), &options(1, 1)).unwrap();
        assert_eq!(indices(&drawn.nth(18).unwrap().unwrap()), [255]);
        let error = drawn.next().unwrap().unwrap_err().to_string();
        assert!(
            error.starts_with("sample 19: `label`: expected one of the data set's tasks, depth=1, got dept"),
            "{error}"
        );
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_cure() {
        let message = |result: Result<Batches>| result.unwrap_err().to_string();
        assert!(message(Batches::shuffled(numbers(0), 0, &options(2, 1))).contains("check the folder"));
        assert!(message(Batches::once(numbers(0), &options(2, 1))).contains("check the folder"));
        assert!(message(Batches::once(numbers(2), &options(0, 1))).contains("`batch size`: expected at least 1"));
        assert!(message(Batches::shuffled(numbers(2), 0, &options(1, 0))).contains("`workers`"));
    }

    #[test]
    fn reading_ahead_is_bounded_and_ends_with_the_iterator() {
        let data = numbers(12);
        let batches = Batches::shuffled(data.clone(), 0, &options(3, 2)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        // Each worker makes one batch that waits in its channel and one more that waits to be sent.
        while data.read.load(Ordering::Relaxed) < 12 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(data.read.load(Ordering::Relaxed), 12);
        drop(batches);
        assert_eq!(Arc::strong_count(&data), 1, "no thread holds the data set any more");
    }

    #[test]
    fn images_come_in_the_asked_dtype_and_labels_in_f32() {
        let wanted = BatchOptions { dtype: DType::BF16, ..options(2, 1) };
        let batch = Batches::once(numbers(2), &wanted).unwrap().next().unwrap().unwrap();
        assert_eq!((batch.images.dtype(), batch.labels["depth"].dtype()), (DType::BF16, DType::F32));
    }
}
