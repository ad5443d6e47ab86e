//! The calling thread among those that compute.
#![allow(clippy::unwrap_used)]

/// One test alone: the threads are the process's.
#[test]
fn the_caller_computes_with_the_others_and_asks_once() {
    // A thousand threads made a step of seconds one of minutes.
    let most = tadformer::runtime::most_threads();
    assert!(tadformer::runtime::compute_on_this_thread(most + 1000).unwrap());
    assert_eq!(rayon::current_num_threads(), most);
    assert_eq!(rayon::current_thread_index(), Some(0), "a step here wakes nobody to begin");
    assert!(!tadformer::runtime::compute_on_this_thread(2).unwrap(), "the threads are there already");
    assert_eq!(rayon::current_num_threads(), most);
    // Other threads' work does not wait for this one, which is outside of rayon now.
    let sum = std::thread::spawn(|| {
        use rayon::prelude::*;
        (0..1000u64).into_par_iter().sum::<u64>()
    });
    assert_eq!(sum.join().ok(), Some(499_500));
}
