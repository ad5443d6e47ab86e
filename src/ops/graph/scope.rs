//! What a thread's steps are asked for as long as a function runs.

use std::cell::Cell;
use std::thread::LocalKey;

/// Runs `f` with `asked` set to `value`; what held before holds again afterwards, also where `f` panics.
pub(super) fn scoped<T: Copy + 'static, R>(asked: &'static LocalKey<Cell<T>>, value: T, f: impl FnOnce() -> R) -> R {
    struct Before<T: Copy + 'static>(&'static LocalKey<Cell<T>>, T);
    impl<T: Copy> Drop for Before<T> {
        fn drop(&mut self) {
            self.0.set(self.1);
        }
    }
    let _before = Before(asked, asked.replace(value));
    f()
}
