//! The container engine: the one that runs on this machine, or one of our own in a network namespace of its own, with all
//! it keeps below a temporary directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Variable: `own` starts an engine even where one runs already.
const ENGINE: &str = "TEST_COMPOSE_ENGINE";
/// Variable set for the test within the namespace of its own engine.
const INSIDE: &str = "TEST_COMPOSE_INSIDE";
/// Longest wait for an engine to answer.
const START: Duration = Duration::from_secs(30);
/// Longest wait for an engine to end.
const STOP: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

/// What this machine offers.
pub(crate) enum Offer {
    /// An engine runs.
    Running(Docker),
    /// None runs, one can be started: here, in the namespace made for it.
    StartHere,
    /// The same, but the namespace has yet to be made.
    StartInNamespace,
    /// Nothing, and why.
    Nothing(String),
}

/// Finds out what this machine offers.
pub(crate) fn offer() -> Offer {
    let missing = |program: &&str| !succeeds(Command::new("which").arg(program));
    if let Some(program) = ["docker"].iter().find(|program| missing(program)) {
        return Offer::Nothing(format!("`{program}` is not installed"));
    }
    let docker = Docker { host: None };
    if docker.compose().is_none() {
        return Offer::Nothing("neither `docker compose` nor `docker-compose` is installed".into());
    }
    if std::env::var_os(INSIDE).is_some() {
        return Offer::StartHere;
    }
    let wants_own = std::env::var(ENGINE).is_ok_and(|value| value == "own");
    if !wants_own && succeeds(docker.command().args(["version", "--format", "{{.Server.Version}}"])) {
        return Offer::Running(docker);
    }
    if let Some(program) = ["dockerd", "unshare", "ip"].iter().find(|program| missing(program)) {
        return Offer::Nothing(format!("no container engine runs, and none can be started: `{program}` is missing"));
    }
    if !succeeds(Command::new("unshare").args(["--net", "true"])) {
        return Offer::Nothing("no container engine runs, and starting one takes root".into());
    }
    Offer::StartInNamespace
}

/// Runs this very test once more in a network namespace of its own; whether it passed there.
pub(crate) fn again_in_namespace(test: &str) -> anyhow::Result<bool> {
    let status = Command::new("unshare")
        .args(["--net", "--", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(std::env::current_exe()?)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        // Whoever counts results finds one for this test, not two.
        .stdout(Stdio::null())
        .status()?;
    Ok(status.success())
}

/// The client of an engine.
#[derive(Clone)]
pub(crate) struct Docker {
    /// The engine's socket; `None`: where the client looks by itself.
    host: Option<String>,
}

impl Docker {
    /// `docker`, without arguments yet.
    pub(crate) fn command(&self) -> Command {
        self.with_host(Command::new("docker"))
    }

    /// `docker compose` or else `docker-compose`, without arguments yet.
    pub(crate) fn compose(&self) -> Option<Command> {
        if succeeds(Command::new("docker").args(["compose", "version"])) {
            let mut command = self.command();
            command.arg("compose");
            return Some(command);
        }
        succeeds(Command::new("docker-compose").arg("version")).then(|| self.with_host(Command::new("docker-compose")))
    }

    /// Runs `docker` with `args`; its output. An error carries what it complained of.
    pub(crate) fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        output(self.command().args(args))
    }

    fn with_host(&self, mut command: Command) -> Command {
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        command
    }
}

/// Runs a command to its end; its output. An error carries what it complained of.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    if !done.status.success() {
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        bail!("{command:?} ended with {}:\n{out}{err}", done.status);
    }
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|done| done.success())
}

/// An engine of our own. Dropping it ends it and removes all it kept.
pub(crate) struct OwnEngine {
    process: Child,
    dir: tempfile::TempDir,
}

impl OwnEngine {
    /// Starts it and waits until it answers.
    pub(crate) fn start() -> anyhow::Result<OwnEngine> {
        let dir = tempfile::Builder::new().prefix("vicinal-engine-").tempdir()?;
        let at = |name: &str| dir.path().join(name);
        // Not the machine's own settings, which may name places that another engine uses.
        fs::write(at("settings.json"), "{}")?;
        let log = fs::File::create(at("log"))?;
        let process = Command::new("dockerd")
            .arg("--config-file")
            .arg(at("settings.json"))
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .arg("--host")
            .arg(format!("unix://{}", at("socket").display()))
            // Compose makes networks of its own, images are built without one.
            .arg("--bridge=none")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut engine = OwnEngine { process, dir };
        let started = Instant::now();
        loop {
            if succeeds(engine.docker().command().arg("version")) {
                return Ok(engine);
            }
            let ended = engine.process.try_wait()?;
            if ended.is_some() || started.elapsed() > START {
                let log = fs::read_to_string(engine.dir.path().join("log")).unwrap_or_default();
                let reasons: Vec<&str> = log.lines().rev().take(3).collect();
                bail!("dockerd does not start here: {}", reasons.join(" / "));
            }
            sleep(POLL);
        }
    }

    /// Its client.
    pub(crate) fn docker(&self) -> Docker {
        Docker { host: Some(format!("unix://{}", self.dir.path().join("socket").display())) }
    }

    /// Where it keeps everything.
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    fn stop(&mut self) {
        let asked = Instant::now();
        // It ends the containerd it has started, if it has time to.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        while matches!(self.process.try_wait(), Ok(None)) && asked.elapsed() < STOP {
            sleep(POLL);
        }
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = self.process.kill();
            let _ = self.process.wait();
            if let Ok(pid) = fs::read_to_string(self.dir.path().join("exec/containerd/containerd.pid")) {
                let _ = Command::new("kill").args(["-9", pid.trim()]).status();
            }
        }
        for mount in mounts_below(self.dir.path()) {
            let _ = Command::new("umount").arg("--lazy").arg(mount).status();
        }
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("--- end of the engine's log, newest first ---\n{}", last.join("\n"));
        }
        self.stop();
    }
}

/// Mount points below `dir`, the innermost first.
fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(dir)).collect();
    below.sort();
    below.reverse();
    below
}
