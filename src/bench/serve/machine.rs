//! What the machine is that the load comes from, as far as the system tells.

use serde_json::{Value, json};

/// Processor, processors, memory, system and how busy it is before the load begins. Absent facts are null.
pub(super) fn facts() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    json!({
        "cpu": read("/proc/cpuinfo").and_then(|text| cpu(&text)),
        "cpus": std::thread::available_parallelism().ok().map(usize::from),
        "memory_mb": read("/proc/meminfo").and_then(|text| memory_mb(&text)),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "kernel": read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()),
        "load_1m": read("/proc/loadavg").and_then(|text| text.split(' ').next()?.parse::<f64>().ok()),
    })
}

/// The model of the first processor in `/proc/cpuinfo`.
fn cpu(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// All memory in `/proc/meminfo`, in 10^6 bytes.
fn memory_mb(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1_024 / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_found_in_what_the_system_writes() {
        let info = "processor\t: 0\nmodel name\t: AMD EPYC 7B13\ncpu MHz\t\t: 2449.998\n";
        assert_eq!(cpu(info).as_deref(), Some("AMD EPYC 7B13"));
        assert_eq!(cpu("processor\t: 0\n"), None);
        assert_eq!(memory_mb("MemTotal:       24600000 kB\nMemFree: 1 kB\n"), Some(25_190));
        assert_eq!(memory_mb("MemFree: 1 kB\n"), None);
        assert_eq!(facts()["os"], json!(std::env::consts::OS));
    }
}
