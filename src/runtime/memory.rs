//! What the process does with memory that it frees.

/// Keeps freed memory for the next pass instead of giving it back to the system; says whether that could be arranged.
///
/// A pass over large images makes and frees arrays of many megabytes. The C library gives each of those back at once and takes fresh,
/// cleared pages for the next: a tenth of a training step and more. Call this once at the start of a program that trains; it holds for
/// the whole process, whose memory then stays at its peak. Only glibc can be asked; elsewhere this does nothing.
///
/// ```
/// if !tadformer::runtime::keep_freed_memory() {
///     eprintln!("freed memory goes back to the system after each step");
/// }
/// ```
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)] // a call of C
pub fn keep_freed_memory() -> bool {
    const NEVER: libc::c_int = -1;
    // SAFETY: mallopt takes two numbers and locks what it changes.
    unsafe { libc::mallopt(libc::M_MMAP_MAX, 0) == 1 && libc::mallopt(libc::M_TRIM_THRESHOLD, NEVER) == 1 }
}

/// Keeps freed memory for the next pass where the C library is glibc; here it is not, and nothing happens.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_freed_memory() -> bool {
    false
}
