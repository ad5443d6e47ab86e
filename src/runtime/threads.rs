//! Which threads compute.

use crate::{Error, Result};
use std::error::Error as _;
use std::sync::Mutex;
use std::thread::{Builder, available_parallelism, scope};

/// The most threads that [`compute_on_this_thread`] takes: four a core. More would wait for each other; a thousand on two cores come
/// to a stand.
pub fn most_threads() -> usize {
    4 * available_parallelism().map_or(1, |cores| cores.get())
}

/// Makes the calling thread one of the `threads` that steps are computed on, 0 for one a core or what `RAYON_NUM_THREADS` says; tells
/// whether it is.
///
/// Otherwise each step is handed to rayon's threads while the caller sleeps: a few hundred steps an image, each with two threads to wake.
/// Call this once at the start of a program, in the thread that will train or predict, before anything else uses rayon. Other threads may
/// compute as well, on those that are left. Where rayon's threads run already it changes nothing, and one thread is a thread of rayon's.
///
/// More than [`most_threads`] are taken for so many, which is told to `tracing` as a warning. Candle has threads of its own, which this
/// starts as well, and whose number `RAYON_NUM_THREADS` alone says.
///
/// # Errors
/// Threads that the system does not give. Without this call, rayon and candle panic then at their first step.
///
/// ```
/// if !tadformer::runtime::compute_on_this_thread(0)? {
///     eprintln!("steps are computed on rayon's own threads");
/// }
/// # Ok::<(), tadformer::Error>(())
/// ```
pub fn compute_on_this_thread(threads: usize) -> Result<bool> {
    let candles = candle_core::utils::get_num_threads();
    let (asked, most) = (if threads == 0 { candles } else { threads }, most_threads());
    let threads = asked.min(most);
    if threads < asked {
        tracing::warn!(asked, threads, "more threads than four a core: fewer are taken");
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    // Alone it would leave waiting what other threads ask of rayon.
    let with_others = threads > 1;
    let pool = if with_others { pool.use_current_thread() } else { pool };
    match pool.build_global() {
        // Its threads run already: only what the system refused has a cause.
        Err(refused) if refused.source().is_none() => return Ok(false),
        refused => refused.map_err(|refused| no_threads(threads, refused))?,
    }
    try_threads(candles.saturating_sub(1))?;
    candle_core::utils::barrier_pool();
    Ok(with_others)
}

/// Starts so many threads, all alive at once, and ends them: candle panics where it cannot have those that it wants.
fn try_threads(count: usize) -> Result<()> {
    let gate = Mutex::new(());
    let started = scope(|scope| {
        // Open when all have been started, or one has not.
        let _closed = gate.lock();
        (0..count).try_for_each(|_| Builder::new().spawn_scoped(scope, || drop(gate.lock())).map(drop))
    });
    started.map_err(|why| no_threads(count, why))
}

fn no_threads(count: usize, why: impl std::fmt::Display) -> Error {
    let cure = "raise the limit on processes (ulimit -u), or ask for fewer with RAYON_NUM_THREADS";
    Error::Worker(format!("cannot start {count} threads: {why} ({cure})"))
}
