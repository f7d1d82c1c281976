//! One member of a cluster: a name, an address and a data directory that outlive the process.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use reqwest::Method;

use crate::process::{Exited, Process, ProcessOptions};
use crate::rest::Rest;

/// Ports are below those that the system gives to outgoing connections: such a connection could otherwise sit on the port
/// of a process that is just being restarted.
const PORTS: std::ops::Range<u32> = 15_000..32_000;
/// Longest wait for an answer to the question whether a process is ready.
const READY_ANSWER_WAIT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);
/// Log lines of a member that are shown when a test fails: its last ones.
const SHOWN_LINES: usize = 120;

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `vicinal coordinator`.
    Coordinator,
    /// `vicinal shard-node`.
    ShardNode,
}

/// How a member is started, again and again in the same way.
#[derive(Clone, Debug)]
pub struct MemberOptions {
    /// `--id`.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Its port on the loopback interface.
    pub port: u16,
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// The other arguments.
    pub args: Vec<String>,
}

/// A port that nobody uses and that this process has not given out before.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let ports = PORTS.end - PORTS.start;
    // Tests of several processes run at the same time: each begins somewhere else.
    let _ = NEXT.compare_exchange(0, rand::random_range(1..ports), Ordering::Relaxed, Ordering::Relaxed);
    for _ in 0..ports {
        let port = PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % ports;
        let port = u16::try_from(port).expect("ports fit 16 bits");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port in {PORTS:?} is free");
}

impl MemberOptions {
    /// A member with its own directory below `dir`.
    pub fn new(role: Role, name: &str, dir: &Path) -> MemberOptions {
        let port = free_port();
        MemberOptions { name: name.to_owned(), role, port, data_dir: dir.join(name), args: Vec::new() }
    }

    /// Adds an argument with its value.
    pub fn arg(mut self, name: &str, value: &str) -> MemberOptions {
        self.args.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Where it is reached.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn process(&self) -> ProcessOptions {
        let role = match self.role {
            Role::Coordinator => "coordinator",
            Role::ShardNode => "shard-node",
        };
        let (listen, data_dir) = (format!("127.0.0.1:{}", self.port), self.data_dir.display().to_string());
        let args = [role, "--id", &self.name, "--listen", &listen, "--advertise", &self.url(), "--data-dir", &data_dir];
        let args = args.into_iter().map(str::to_owned).chain(self.args.clone()).collect();
        ProcessOptions { name: self.name.clone(), args, variables: Vec::new() }
    }
}

/// A member and its process, when it runs.
pub struct Member {
    /// How it is started.
    pub options: MemberOptions,
    process: Option<Process>,
    /// Log lines of the lives before this one.
    past: Vec<String>,
}

impl Member {
    /// Starts it and waits for nothing.
    pub fn start(options: MemberOptions) -> anyhow::Result<Member> {
        let mut member = Member { options, process: None, past: Vec::new() };
        member.restart()?;
        Ok(member)
    }

    /// Starts its process again; it must not run.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.process.is_none(), "{} runs already", self.options.name);
        self.process = Some(Process::spawn(&self.options.process())?);
        Ok(())
    }

    /// The running process.
    pub fn process(&mut self) -> anyhow::Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("{} does not run", self.options.name))
    }

    /// Kills it at once. Returns how it ended, in words that prove it.
    pub fn kill(&mut self) -> anyhow::Result<String> {
        let pid = self.process()?.pid();
        let process = self.process()?;
        if let Some(status) = process.ended() {
            bail!("{} had ended before, with {status}:\n{}", self.options.name, self.log_tail());
        }
        let status = process.kill().with_context(|| format!("{} could not be killed", self.options.name))?;
        self.bury(&format!("killed: {status}"));
        Ok(format!("pid {pid} ended with {status}"))
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(&mut self) -> anyhow::Result<Exited> {
        self.process()?.signal("TERM")?;
        let exited = self.process()?.wait()?;
        self.bury(&format!("stopped: {}", exited.status));
        Ok(exited)
    }

    /// Waits for a process that ends by itself.
    pub fn wait(&mut self) -> anyhow::Result<Exited> {
        let exited = self.process()?.wait()?;
        self.bury(&format!("ended: {}", exited.status));
        Ok(exited)
    }

    fn bury(&mut self, how: &str) {
        if let Some(process) = self.process.take() {
            self.past.extend(process.log());
            self.past.push(format!("--- {how} ---"));
        }
    }

    /// Removes all its data; it must not run.
    pub fn wipe(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.process.is_none(), "{} runs", self.options.name);
        Ok(std::fs::remove_dir_all(&self.options.data_dir)?)
    }

    /// Whether it has a process.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// A client of it.
    pub fn rest(&self) -> Rest {
        Rest::new(&self.options.url())
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&mut self, within: Duration) -> anyhow::Result<()> {
        let rest = Rest::with_timeout(&self.options.url(), READY_ANSWER_WAIT);
        let started = Instant::now();
        let mut said = String::from("no answer");
        loop {
            let name = self.options.name.clone();
            if let Some(status) = self.process()?.ended() {
                bail!("{name} ended with {status}:\n{}", self.log_tail());
            }
            match rest.call(Method::GET, "/readyz", &().into()).await {
                Ok(answer) if answer.status == 200 => return Ok(()),
                Ok(answer) => said = format!("{}: {}", answer.status, answer.body),
                Err(_) => {}
            }
            if started.elapsed() > within {
                bail!("{name} is not ready after {within:?} ({said}):\n{}", self.log_tail());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Log lines of all its lives.
    pub fn log(&self) -> Vec<String> {
        let now = self.process.as_ref().map(Process::log).unwrap_or_default();
        self.past.iter().cloned().chain(now).collect()
    }

    /// The last log lines as one text.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        log[log.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_differ() {
        let (one, other) = (free_port(), free_port());
        assert_ne!(one, other);
        assert!(PORTS.contains(&u32::from(one)));
    }

    #[test]
    fn a_member_is_started_with_its_own_address_and_directory() {
        let options = MemberOptions::new(Role::ShardNode, "n1", Path::new("data"));
        let options = options.arg("--coordinators", "http://127.0.0.1:1");
        let args = options.process().args.join(" ");
        assert!(args.starts_with("shard-node --id n1 --listen 127.0.0.1:"), "{args}");
        assert!(args.ends_with("--data-dir data/n1 --coordinators http://127.0.0.1:1"), "{args}");
    }
}
