//! Things made ahead of time by background threads, and handed over in the order of their numbers.

use crate::{Error, Result};
use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// An iterator over what `make` makes of each number of a range, in their order.
///
/// Every thread makes each n-th of them, and is at most two ahead: one waits to be taken, one is in the making. A panic takes the place
/// of what was to be made. Dropping the iterator ends the threads; it waits for what each is making.
///
/// The threads are the iterator's own, not rayon's: candle computes on rayon's, and reading there would make its products wait.
#[derive(Debug)]
pub(crate) struct Ahead<T> {
    workers: Vec<Worker<T>>,
    wanted: Wanted,
    numbers: Range<usize>,
    next: usize,
}

/// Whether what is made will still be taken.
#[derive(Clone, Debug)]
pub(crate) struct Wanted(Arc<AtomicBool>);

/// A thread that makes every n-th thing.
#[derive(Debug)]
struct Worker<T> {
    /// Taken on drop, which wakes a thread that waits to send.
    made: Option<Receiver<Result<T>>>,
    thread: Option<JoinHandle<()>>,
}

/// What makes things of numbers, one for each thread.
pub(crate) trait Make<T>: Send + 'static {
    /// The thing of this number; nothing once it is not wanted any more.
    fn make(&mut self, number: usize, wanted: &Wanted) -> Option<Result<T>>;

    /// How messages speak of it.
    fn name(&mut self, number: usize) -> String;
}

impl Wanted {
    pub fn is_true(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<T: Send + 'static> Ahead<T> {
    /// Starts so many threads, each with a maker of its own.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn start<M: Make<T>>(numbers: Range<usize>, threads: usize, maker: impl Fn() -> M) -> Result<Self> {
        let (count, wanted) = (threads.min(numbers.len()), Wanted(Arc::new(AtomicBool::new(true))));
        // Built first, so that an error below drops it and ends the threads that already run.
        let mut ahead = Self { workers: Vec::new(), wanted, next: numbers.start, numbers };
        for offset in 0..count {
            let (sender, made) = sync_channel(1);
            let (mut maker, wanted) = (maker(), ahead.wanted.clone());
            let mut numbers = (ahead.numbers.start + offset..ahead.numbers.end).step_by(count);
            let mut next = move || numbers.next().and_then(|number| make(&mut maker, number, &wanted));
            let work = move || while next().is_some_and(|made| sender.send(made).is_ok()) {};
            let thread = std::thread::Builder::new()
                .name(format!("ahead-{offset}"))
                .spawn(work)
                .map_err(|error| Error::Worker(format!("cannot start a thread: {error}")))?;
            ahead.workers.push(Worker { made: Some(made), thread: Some(thread) });
        }
        Ok(ahead)
    }

    /// The number of what comes next.
    pub fn position(&self) -> usize {
        self.next
    }

    /// How many are still to come; none where there is no end.
    pub fn left(&self) -> Option<usize> {
        (self.numbers.end < usize::MAX).then(|| self.numbers.end - self.next)
    }

    fn receive(&mut self) -> Option<Result<T>> {
        let worker = self.workers.get((self.next - self.numbers.start) % self.workers.len())?;
        self.next += 1;
        worker.made.as_ref()?.recv().ok()
    }
}

impl<T: Send + 'static> Iterator for Ahead<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.numbers.end {
            return None;
        }
        let ended = || Err(Error::Worker("a thread that makes batches or samples ended early".into()));
        Some(self.receive().unwrap_or_else(ended))
    }
}

impl<T> Drop for Ahead<T> {
    fn drop(&mut self) {
        self.wanted.0.store(false, Ordering::Relaxed);
        for worker in &mut self.workers {
            worker.made = None;
        }
        for thread in self.workers.iter_mut().filter_map(|worker| worker.thread.take()) {
            // A thread catches the panics of what it makes, so there is nothing to learn from how it ended.
            let _ = thread.join();
        }
    }
}

/// What the maker makes, or an error that tells its panic.
fn make<T>(maker: &mut impl Make<T>, number: usize, wanted: &Wanted) -> Option<Result<T>> {
    let made = catch_unwind(AssertUnwindSafe(|| maker.make(number, wanted)));
    made.unwrap_or_else(|panic| {
        Some(Err(Error::Worker(format!("reading {} panicked: {}", maker.name(number), told(&*panic)))))
    })
}

/// The message of a panic.
fn told(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
