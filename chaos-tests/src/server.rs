//! A `vicinal dev` process: started on a free port, watched, killed or stopped, and started again on its data.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::process::{Exited, Process, ProcessOptions};
use crate::rest::Rest;

/// Longest wait until a started server answers.
const READY_WAIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

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

    fn process(&self) -> ProcessOptions {
        let data_dir = self.data_dir.display().to_string();
        let first = ["dev", "--data-dir", &data_dir, "--listen", &self.listen].map(str::to_owned);
        let args = first.into_iter().chain(self.args.clone()).collect();
        ProcessOptions { name: "the server".to_owned(), args, variables: self.variables.clone() }
    }
}

/// A running server. Dropping it kills the process.
pub struct Server {
    process: Process,
    options: ServerOptions,
    url: String,
    started_in: Duration,
}

impl Server {
    /// Starts a server and waits until it is ready.
    pub async fn start(options: ServerOptions) -> anyhow::Result<Server> {
        let started = Instant::now();
        let mut server = Server::spawn(options)?;
        loop {
            if let Some(status) = server.process.ended() {
                thread::sleep(POLL);
                bail!("the server ended with {status} at its start:\n{}", server.log().join("\n"));
            }
            if server.url.is_empty() {
                server.url = server.process.address().unwrap_or_default();
            } else if let Ok(answer) = server.rest().call(reqwest::Method::GET, "/readyz", &().into()).await
                && answer.status == 200
            {
                server.started_in = started.elapsed();
                return Ok(server);
            }
            if started.elapsed() > READY_WAIT {
                bail!("the server is not ready after {READY_WAIT:?}:\n{}", server.log().join("\n"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts a server and does not wait for anything.
    pub fn spawn(options: ServerOptions) -> anyhow::Result<Server> {
        let process = Process::spawn(&options.process())?;
        Ok(Server { process, options, url: String::new(), started_in: Duration::ZERO })
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
        self.process.log()
    }

    /// Its lines on stdout so far.
    pub fn output(&self) -> Vec<String> {
        self.process.output()
    }

    /// Log lines of level WARN or ERROR so far.
    pub fn complaints(&self) -> Vec<String> {
        self.process.complaints()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whether the process runs.
    pub fn is_alive(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// How it was started.
    pub fn options(&self) -> &ServerOptions {
        &self.options
    }

    /// Ends the process at once, as `kill -9` does; it cannot write another byte.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends the signal (`INT`, `TERM`) and waits for the end of the process.
    pub fn stop(mut self, signal: &str) -> anyhow::Result<Exited> {
        self.process.signal(signal)?;
        self.process.wait()
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> anyhow::Result<Exited> {
        self.process.wait()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill();
        if thread::panicking() {
            eprintln!("--- log of the server ---\n{}", self.log().join("\n"));
        }
    }
}
