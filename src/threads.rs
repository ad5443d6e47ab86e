//! Which threads compute.

/// Makes the calling thread one of the `threads` that steps are computed on, 0 for one a core or what `RAYON_NUM_THREADS` says; tells
/// whether it is.
///
/// Otherwise each step is handed to rayon's threads while the caller sleeps: a few hundred steps an image, each with two threads to wake.
/// Call this once at the start of a program, in the thread that will train or predict, before anything else uses rayon. Other threads may
/// compute as well, on those that are left. Where rayon's threads run already it changes nothing, and one thread is a thread of rayon's.
///
/// ```
/// if !tadformer::compute_on_this_thread(0) {
///     eprintln!("steps are computed on rayon's own threads");
/// }
/// ```
pub fn compute_on_this_thread(threads: usize) -> bool {
    let threads = if threads == 0 { candle_core::utils::get_num_threads() } else { threads };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    // Alone it would leave waiting what other threads ask of rayon.
    let with_others = threads > 1;
    let pool = if with_others { pool.use_current_thread() } else { pool };
    pool.build_global().is_ok() && with_others
}
