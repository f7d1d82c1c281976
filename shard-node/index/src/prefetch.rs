//! Asking the memory system for data that will be read soon. Only a hint: leaving it out changes no result.

/// Cache lines asked for at most: the hardware's own prefetcher follows from there.
#[cfg(target_arch = "x86_64")]
const LINES_MAX: usize = 16;

/// Asks for the first cache lines of a slice.
#[inline(always)]
pub(crate) fn prefetch<T>(data: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

        let start = data.as_ptr().cast::<i8>();
        for line in 0..size_of_val(data).div_ceil(64).min(LINES_MAX) {
            // SAFETY: a prefetch reads nothing and cannot fault, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(64 * line)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = data;
}
