//! Batches read ahead by background threads, in an order that the seed alone settles.

use super::Dataset;
use crate::sample::IGNORE;
use crate::{Batch, Error, Result, Sample, TaskSet};
use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// How batches are made.
#[derive(Clone, Debug)]
pub struct BatchOptions {
    /// Samples in a batch.
    pub size: usize,
    /// The float type of the images; labels are always f32.
    pub dtype: DType,
    /// Where batches go.
    pub device: Device,
    /// Threads that read samples. Each is at most two batches ahead: one waiting, one in the making.
    pub workers: usize,
}

impl BatchOptions {
    /// Batches of this size in f32 on the CPU, read by half of the cores, four at most.
    pub fn new(size: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Self { size, dtype: DType::F32, device: Device::Cpu, workers: (cores / 2).clamp(1, 4) }
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
/// Seed, data set and batch size settle which samples come in which batch, whatever the number of workers. An error, which names
/// the sample ([`Error::Dataset`]), or a panic of the data set takes the place of its batch, and the iteration goes on after it.
/// Dropping the iterator ends the threads: it waits for the one sample that each may be reading.
///
/// The threads are the iterator's own, not rayon's: candle computes on rayon's, and reading there would make its
/// products wait.
#[derive(Debug)]
pub struct Batches {
    workers: Vec<Worker>,
    stop: Arc<AtomicBool>,
    device: Device,
    next: usize,
    /// How many there will be; none if there is no end.
    end: Option<usize>,
}

/// A thread that makes every n-th batch.
#[derive(Debug)]
struct Worker {
    /// Taken on drop, which wakes a thread that waits to send.
    batches: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
}

impl Batches {
    /// Batches without end: every sample once in an epoch, each epoch in a new order.
    ///
    /// All batches have the full size; one may hold the end of an epoch and the beginning of the next.
    ///
    /// # Errors
    /// An empty data set, a size or number of workers of 0, no thread to be had.
    pub fn shuffled(dataset: Arc<dyn Dataset>, seed: u64, options: &BatchOptions) -> Result<Self> {
        Self::start(dataset, Order::Shuffled { seed }, None, options)
    }

    /// Every sample once, in order; the last batch may be smaller.
    ///
    /// # Errors
    /// As [`Batches::shuffled`].
    pub fn once(dataset: Arc<dyn Dataset>, options: &BatchOptions) -> Result<Self> {
        options.check()?;
        let end = dataset.len().div_ceil(options.size);
        Self::start(dataset, Order::Once, Some(end), options)
    }

    fn start(dataset: Arc<dyn Dataset>, order: Order, end: Option<usize>, options: &BatchOptions) -> Result<Self> {
        options.check()?;
        if dataset.is_empty() {
            let cure = "check the folder or list that it reads";
            return Err(Error::config("data set", "at least one sample", "an empty one", cure));
        }
        let count = options.workers.min(end.unwrap_or(usize::MAX));
        let stop = Arc::new(AtomicBool::new(false));
        // Built first, so that an error below drops it and ends the threads that already run.
        let mut batches = Self { workers: Vec::new(), stop, device: options.device.clone(), next: 0, end };
        for first in 0..count {
            let (sender, receiver) = sync_channel(1);
            let job = Job {
                dataset: dataset.clone(),
                order: order.clone(),
                size: options.size,
                dtype: options.dtype,
                stop: batches.stop.clone(),
            };
            let numbers = (first..end.unwrap_or(usize::MAX)).step_by(count);
            let thread = std::thread::Builder::new()
                .name(format!("batches-{first}"))
                .spawn(move || job.run(numbers, &sender))
                .map_err(|error| Error::Worker(format!("cannot start a thread: {error}")))?;
            batches.workers.push(Worker { batches: Some(receiver), thread: Some(thread) });
        }
        Ok(batches)
    }

    fn receive(&mut self) -> Option<Result<Batch>> {
        let count = self.workers.len();
        let worker = self.workers.get(self.next % count)?;
        self.next += 1;
        worker.batches.as_ref()?.recv().ok()
    }
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.end.is_some_and(|end| self.next >= end) {
            return None;
        }
        let ended = || Err(Error::Worker("the thread that makes the batches ended early".into()));
        let batch = self.receive().unwrap_or_else(ended);
        Some(batch.and_then(|batch| batch.to(batch.images.dtype(), &self.device)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self.end {
            Some(end) => (end - self.next, Some(end - self.next)),
            None => (usize::MAX, None),
        }
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in &mut self.workers {
            worker.batches = None;
        }
        for thread in self.workers.iter_mut().filter_map(|worker| worker.thread.take()) {
            // A thread catches the panics of its data set, so there is nothing to learn from how it ended.
            let _ = thread.join();
        }
    }
}

/// Which sample stands at which place.
#[derive(Clone, Debug)]
enum Order {
    Once,
    Shuffled { seed: u64 },
}

/// An order over a number of samples; keeps the epoch that it drew last.
struct Sequence {
    order: Order,
    count: usize,
    drawn: Option<(usize, Vec<usize>)>,
}

impl Sequence {
    /// The samples at places `from..from + size`; fewer at the end of a single pass.
    fn indices(&mut self, from: usize, size: usize) -> Vec<usize> {
        match self.order {
            Order::Once => (from..self.count.min(from.saturating_add(size))).collect(),
            Order::Shuffled { seed } => {
                (from..from.saturating_add(size)).map(|place| self.shuffled(seed, place)).collect()
            }
        }
    }

    fn shuffled(&mut self, seed: u64, place: usize) -> usize {
        let (epoch, within) = (place / self.count, place % self.count);
        if self.drawn.as_ref().is_none_or(|(drawn, _)| *drawn != epoch) {
            let mut order: Vec<usize> = (0..self.count).collect();
            order.shuffle(&mut StdRng::seed_from_u64(seed.wrapping_add(epoch as u64)));
            self.drawn = Some((epoch, order));
        }
        self.drawn.as_ref().map_or(0, |(_, order)| order[within])
    }
}

/// What a thread does.
struct Job {
    dataset: Arc<dyn Dataset>,
    order: Order,
    size: usize,
    dtype: DType,
    stop: Arc<AtomicBool>,
}

impl Job {
    fn run(self, numbers: impl Iterator<Item = usize>, sender: &SyncSender<Result<Batch>>) {
        let mut sequence = Sequence { order: self.order.clone(), count: self.dataset.len(), drawn: None };
        for number in numbers {
            let indices = sequence.indices(number.saturating_mul(self.size), self.size);
            let made = catch_unwind(AssertUnwindSafe(|| self.make(&indices)));
            let batch = match made {
                Ok(Some(batch)) => batch,
                Ok(None) => return,
                Err(panic) => Err(Error::Worker(format!("reading samples {indices:?} panicked: {}", told(&*panic)))),
            };
            if sender.send(batch).is_err() {
                return;
            }
        }
    }

    /// The batch on the CPU; none if nobody wants it any more.
    fn make(&self, indices: &[usize]) -> Option<Result<Batch>> {
        let mut samples = Vec::with_capacity(indices.len());
        for index in indices {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let sample = self.dataset.get(*index).and_then(Sample::checked);
            match sample.and_then(|sample| labelled_for(sample, self.dataset.tasks())) {
                Ok(sample) => samples.push(sample),
                Err(error @ Error::Dataset { .. }) => return Some(Err(error)),
                Err(error) => return Some(Err(Error::dataset(*index, error))),
            }
        }
        Some(Batch::of_checked(&samples, self.dtype, &Device::Cpu))
    }
}

/// A sample with a label for each of these tasks: one that it lacks is [`IGNORE`] everywhere.
fn labelled_for(mut sample: Sample, tasks: &TaskSet) -> Result<Sample> {
    if let Some(name) = sample.labels.keys().find(|name| tasks.get(name).is_none()) {
        let cure = "name the label as the data set's task is named";
        return Err(Error::config("label", format!("one of the data set's tasks, {tasks}"), name, cure));
    }
    let (_, h, w) = sample.image.dims3()?;
    for task in tasks.iter() {
        if !sample.labels.contains_key(task.name()) {
            let unknown = Tensor::full(IGNORE, (task.kind().label_channels(), h, w), &Device::Cpu)?;
            sample.labels.insert(task.name().to_owned(), unknown);
        }
    }
    Ok(sample)
}

/// The message of a panic.
fn told(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::{Duration, Instant};

    /// Samples whose depth is their index; 13 fails, 14 is of u8, 17 panics, 18 has none, and 19 is labelled for another task.
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
            let dtype = if index == 14 { DType::U8 } else { DType::F32 };
            let image = Tensor::zeros((3, 2, 2), dtype, &Device::Cpu)?;
            let depth = Tensor::full(index as f32, (1, 2, 2), &Device::Cpu)?;
            let labels = match index {
                18 => vec![],
                19 => vec![("dept".to_owned(), depth)],
                _ => vec![("depth".to_owned(), depth)],
            };
            Ok(Sample { image, labels: labels.into_iter().collect() })
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
        for epoch in [first, second] {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(first, second);
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
            assert_eq!(batches.size_hint(), (3, Some(3)));
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
        assert!(error.starts_with("sample 14: `image`: expected f32") && error.contains("got u8"), "{error}");
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
