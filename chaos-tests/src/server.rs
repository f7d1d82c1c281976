//! A `vicinal dev` process: started on a free port, watched, killed or stopped, and started again on its data.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::binary;
use crate::rest::Rest;

/// Longest wait until a started server answers.
const READY_WAIT: Duration = Duration::from_secs(30);
/// Longest wait until an interrupted server has gone.
const STOP_WAIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);
/// Lines of output that are kept.
const LINES_MAX: usize = 100_000;
/// What stands before the address in the line that says the server is ready.
const ADDRESS: &str = "http://";

/// How a server is started.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where its data is.
    pub data_dir: PathBuf,
    /// `--listen`.
    pub listen: String,
    /// More arguments of `vicinal dev`.
    pub args: Vec<String>,
    /// `VICINAL_*` variables; those of the test's own environment are not passed on.
    pub variables: Vec<(String, String)>,
}

impl ServerOptions {
    /// A server on a free port.
    pub fn new(data_dir: &Path) -> ServerOptions {
        ServerOptions {
            data_dir: data_dir.to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            args: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// Adds arguments.
    pub fn args(mut self, args: &[&str]) -> ServerOptions {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }
}

/// A temporary data directory, in memory where the system has such a place: the tests sync thousands of times.
pub fn data_dir() -> TempDir {
    let shared = Path::new("/dev/shm");
    let dir = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
    dir.expect("a temporary directory can be made")
}

/// A running server. Dropping it kills the process.
pub struct Server {
    child: Child,
    options: ServerOptions,
    url: String,
    log: Lines,
    output: Lines,
    started_in: Duration,
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
    fn follow(&self, source: impl Read + Send + 'static) -> thread::JoinHandle<()> {
        let lines = self.0.clone();
        thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                let mut lines = lines.lock().expect("nobody panics while holding the lines");
                if lines.len() < LINES_MAX {
                    lines.push(line);
                }
            }
        })
    }

    fn get(&self) -> Vec<String> {
        self.0.lock().expect("nobody panics while holding the lines").clone()
    }
}

impl Server {
    /// Starts a server and waits until it is ready.
    pub async fn start(options: ServerOptions) -> anyhow::Result<Server> {
        let started = Instant::now();
        let mut server = Server::spawn(options)?;
        loop {
            if let Some(status) = server.child.try_wait()? {
                thread::sleep(POLL);
                bail!("the server ended with {status} at its start:\n{}", server.log.get().join("\n"));
            }
            if server.url.is_empty() {
                server.url = server.log.get().iter().find_map(|line| address(line)).unwrap_or_default();
            } else if let Ok(answer) = server.rest().call(reqwest::Method::GET, "/readyz", &().into()).await
                && answer.status == 200
            {
                server.started_in = started.elapsed();
                return Ok(server);
            }
            if started.elapsed() > READY_WAIT {
                bail!("the server is not ready after {READY_WAIT:?}:\n{}", server.log.get().join("\n"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts a server and does not wait for anything.
    pub fn spawn(options: ServerOptions) -> anyhow::Result<Server> {
        let mut command = Command::new(binary());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("VICINAL_")) {
            command.env_remove(name);
        }
        let mut child = command
            .arg("dev")
            .arg("--data-dir")
            .arg(&options.data_dir)
            .args(["--listen", &options.listen])
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
        Ok(Server { child, options, url: String::new(), log, output, started_in: Duration::ZERO })
    }

    /// Its address, for example `http://127.0.0.1:40123`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A client of it.
    pub fn rest(&self) -> Rest {
        Rest::new(&self.url)
    }

    /// Time from the start of the process until it was ready.
    pub fn started_in(&self) -> Duration {
        self.started_in
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

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How it was started.
    pub fn options(&self) -> &ServerOptions {
        &self.options
    }

    /// Ends the process at once, as `kill -9` does; it cannot write another byte.
    pub fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends the signal (`INT`, `TERM`) and waits for the end of the process.
    pub fn stop(mut self, signal: &str) -> anyhow::Result<Exited> {
        let sent = Command::new("kill").args(["-s", signal, &self.pid().to_string()]).status()?;
        anyhow::ensure!(sent.success(), "the signal could not be sent");
        self.wait()
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> anyhow::Result<Exited> {
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                // The readers need a moment for what is left in the pipes.
                thread::sleep(5 * POLL);
                return Ok(Exited { status, log: self.log.get(), output: self.output.get() });
            }
            if asked.elapsed() > STOP_WAIT {
                bail!("the server is still there after {STOP_WAIT:?}:\n{}", self.log.get().join("\n"));
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- log of the server ---\n{}", self.log.get().join("\n"));
        }
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
