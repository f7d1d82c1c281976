//! Gives freed memory back to the system. A burst of writes leaves the allocator with pages that nothing uses; left
//! alone it keeps most of them, and the process looks several times as large as its data.

use std::time::Duration;

/// How often to look.
const INTERVAL: Duration = Duration::from_secs(5);
/// Unused resident memory that is worth giving back, in bytes: 32 MiB.
const UNUSED_BYTES_MIN: u64 = 32 << 20;

/// Watches the process's memory on a thread of its own until the process ends. Without effect where the system's
/// allocator is not glibc's, which is the one that needs it.
pub(crate) fn start_trimming() -> std::io::Result<()> {
    if !cfg!(all(target_os = "linux", target_env = "gnu")) {
        return Ok(());
    }
    std::thread::Builder::new().name("memory".into()).spawn(|| {
        loop {
            std::thread::sleep(INTERVAL);
            trim_if_worth_it();
        }
    })?;
    Ok(())
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim_if_worth_it() {
    // SAFETY: mallinfo2 takes no argument, returns a plain struct of numbers and may be called at any time.
    let info = unsafe { libc::mallinfo2() };
    let used = (info.uordblks + info.hblkhd) as u64;
    if resident_private_bytes().is_some_and(|resident| resident > used + UNUSED_BYTES_MIN) {
        // SAFETY: malloc_trim only returns pages that hold no allocation; it may be called at any time by any thread.
        unsafe { libc::malloc_trim(0) };
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim_if_worth_it() {}

/// Resident memory that is no file's.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn resident_private_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1_024)
}
