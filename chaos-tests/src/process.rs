//! One process of the `vicinal` binary: started, watched, signalled, killed. It knows nothing of what the process does.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::binary;

/// Longest wait until an interrupted process has gone.
const STOP_WAIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);
/// The readers need a moment for what is left in the pipes of a process that has ended.
const PIPES_WAIT: Duration = Duration::from_millis(50);
/// Lines of output that are kept.
const LINES_MAX: usize = 100_000;
/// What stands before the address in the line that says the process is ready.
const ADDRESS: &str = "http://";

/// How a process is started.
#[derive(Clone, Debug, Default)]
pub struct ProcessOptions {
    /// What the process is called in logs and errors.
    pub name: String,
    /// All arguments of `vicinal`.
    pub args: Vec<String>,
    /// `VICINAL_*` variables; those of the test's own environment are not passed on.
    pub variables: Vec<(String, String)>,
}

/// A running process. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    log: Lines,
    output: Lines,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Exited {
    /// Its status.
    pub status: ExitStatus,
    /// What it wrote to stderr.
    pub log: Vec<String>,
    /// What it wrote to stdout.
    pub output: Vec<String>,
}

impl Exited {
    /// All log lines as one text.
    pub fn log_text(&self) -> String {
        self.log.join("\n")
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn follow(&self, source: impl Read + Send + 'static) {
        let lines = self.0.clone();
        thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                let mut lines = lines.lock().expect("nobody panics while holding the lines");
                if lines.len() < LINES_MAX {
                    lines.push(line);
                }
            }
        });
    }

    fn get(&self) -> Vec<String> {
        self.0.lock().expect("nobody panics while holding the lines").clone()
    }
}

/// A temporary data directory, in memory where the system has such a place: the tests sync thousands of times.
pub fn data_dir() -> TempDir {
    let shared = Path::new("/dev/shm");
    let dir = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
    dir.expect("a temporary directory can be made")
}

impl Process {
    /// Starts a process and does not wait for anything.
    pub fn spawn(options: &ProcessOptions) -> anyhow::Result<Process> {
        let mut command = Command::new(binary());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("VICINAL_")) {
            command.env_remove(name);
        }
        let mut child = command
            .args(&options.args)
            .envs(options.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", binary().display()))?;
        let (log, output) = (Lines::default(), Lines::default());
        log.follow(child.stderr.take().context("stderr is piped")?);
        output.follow(child.stdout.take().context("stdout is piped")?);
        Ok(Process { name: options.name.clone(), child, log, output })
    }

    /// Its log lines so far.
    pub fn log(&self) -> Vec<String> {
        self.log.get()
    }

    /// Its lines on stdout so far.
    pub fn output(&self) -> Vec<String> {
        self.output.get()
    }

    /// Log lines of level WARN or ERROR so far.
    pub fn complaints(&self) -> Vec<String> {
        self.log().into_iter().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect()
    }

    /// The address that its log names first, for example `http://127.0.0.1:40123`.
    pub fn address(&self) -> Option<String> {
        self.log.get().iter().find_map(|line| address(line))
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The status of a process that has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends the process at once, as `kill -9` does; it cannot write another byte. Returns how it ended.
    pub fn kill(&mut self) -> Option<ExitStatus> {
        // An error means that it has ended already.
        let _ = self.child.kill();
        self.child.wait().ok()
    }

    /// Sends a signal, such as `INT`, `TERM`, `STOP` or `CONT`.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let sent = Command::new("kill").args(["-s", signal, &self.pid().to_string()]).status()?;
        anyhow::ensure!(sent.success(), "{signal} could not be sent to {}", self.name);
        Ok(())
    }

    /// Whether the system says that a `STOP` holds the process.
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        // The state follows the command's name, which is in brackets and may hold anything.
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> anyhow::Result<Exited> {
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                thread::sleep(PIPES_WAIT);
                return Ok(Exited { status, log: self.log.get(), output: self.output.get() });
            }
            if asked.elapsed() > STOP_WAIT {
                bail!("{} is still there after {STOP_WAIT:?}:\n{}", self.name, self.log.get().join("\n"));
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The address in a log line that names one.
fn address(line: &str) -> Option<String> {
    let from = line.find(ADDRESS)?;
    let address: String = line[from..].chars().take_while(|c| !c.is_whitespace() && *c != ',').collect();
    Some(address.trim_end_matches(['/', '.']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_a_log_line() {
        let line = "2026-01-01T00:00:00Z  INFO ready: REST at http://127.0.0.1:4077, 3 nodes";
        assert_eq!(address(line).as_deref(), Some("http://127.0.0.1:4077"));
        assert_eq!(address("no address here"), None);
    }
}
