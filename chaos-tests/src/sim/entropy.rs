//! The randomness of the operating system, taken over: on the thread of a simulation it comes from the seed. That covers
//! whatever asks for it, known or not: hash maps, raft's timers, identities drawn by libraries.
//!
//! The C library's `getrandom` is replaced for this whole test binary. Threads that are no simulation get the system's.

use std::cell::Cell;
use std::slice;

use libc::{c_uint, c_void, size_t, ssize_t};

thread_local! {
    static STREAM: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on the operating system's random bytes are those of `seed` on this thread, which must be new: hash maps take
/// their keys once per thread.
pub(super) fn seed_this_thread(seed: u64) {
    STREAM.set(Some(seed));
}

/// The next number of a sequence (splitmix64).
pub(super) fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Stands in for the C library's function of this name.
///
/// # Safety
/// As there: `buffer` must be valid for writing `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: size_t, flags: c_uint) -> ssize_t {
    // Also asked while a thread ends, when its variables are gone.
    let Ok(Some(mut state)) = STREAM.try_with(Cell::get) else {
        // SAFETY: the system call of this name with the arguments of the caller, who answers for them.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as ssize_t };
    };
    if length > 0 {
        // SAFETY: the caller gives `length` bytes to write, and `length` is not 0, so that the pointer is one.
        let bytes = unsafe { slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        for piece in bytes.chunks_mut(8) {
            piece.copy_from_slice(&next(&mut state).to_le_bytes()[..piece.len()]);
        }
    }
    STREAM.set(Some(state));
    length as ssize_t
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;

    fn order(seed: Option<u64>) -> Vec<u32> {
        let draw = move || {
            if let Some(seed) = seed {
                seed_this_thread(seed);
            }
            HashSet::<u32>::from_iter(0..100).into_iter().collect()
        };
        thread::spawn(draw).join().unwrap()
    }

    #[test]
    fn hash_maps_follow_the_seed_and_only_in_simulations() {
        assert_eq!(order(Some(1)), order(Some(1)));
        assert_ne!(order(Some(1)), order(Some(2)));
        assert_ne!(order(None), order(None));
    }
}
