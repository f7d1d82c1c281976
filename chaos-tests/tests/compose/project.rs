//! The cluster of deploy/docker-compose.yml under a name and on ports of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use vicinal_chaos_tests::Rest;

use super::engine::{Docker, output};

/// Log lines per process shown when the test fails.
const LOG_LINES: &str = "25";
/// Pause before everything is taken down once more.
const AGAIN: Duration = Duration::from_secs(2);

/// A running cluster. Dropping it takes everything down.
pub(crate) struct Project {
    docker: Docker,
    name: String,
    file: PathBuf,
    variables: Vec<(String, String)>,
    ports: Vec<u16>,
    is_down: bool,
}

impl Project {
    /// Nothing is started yet.
    pub(crate) fn new(docker: &Docker, root: &Path, name: &str, image: &str) -> anyhow::Result<Project> {
        // Held together, so that the three differ.
        let free = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
        let mut ports = Vec::new();
        for listener in free {
            ports.push(listener?.local_addr()?.port());
        }
        let mut variables = vec![("VICINAL_IMAGE".to_owned(), image.to_owned())];
        variables
            .extend(ports.iter().enumerate().map(|(at, port)| (format!("VICINAL_PORT_C{}", at + 1), port.to_string())));
        let file = root.join("deploy/docker-compose.yml");
        Ok(Project { docker: docker.clone(), name: name.to_owned(), file, variables, ports, is_down: false })
    }

    /// Runs a command of compose; its output.
    pub(crate) fn compose(&self, args: &[&str]) -> anyhow::Result<String> {
        output(&mut self.command(args)?)
    }

    fn command(&self, args: &[&str]) -> anyhow::Result<Command> {
        let mut command = self.docker.compose().context("compose has gone")?;
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("VICINAL_")) {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.arg("--project-name").arg(&self.name).arg("--file").arg(&self.file).args(args);
        Ok(command)
    }

    /// The coordinators, from this machine.
    pub(crate) fn coordinators(&self) -> Vec<Rest> {
        self.ports.iter().map(|port| Rest::new(&format!("http://127.0.0.1:{port}"))).collect()
    }

    /// What the container's own health check says of a service.
    pub(crate) fn health(&self, service: &str) -> anyhow::Result<String> {
        self.docker.run(&["inspect", "--format", "{{.State.Health.Status}}", &self.container(service)?])
    }

    /// Ends a service's process at once.
    pub(crate) fn kill(&self, service: &str) -> anyhow::Result<()> {
        self.docker.run(&["kill", &self.container(service)?]).map(drop)
    }

    /// `vicinal` within a service's container: its output, and whether it ended with status 0.
    pub(crate) fn vicinal(&self, service: &str, args: &[&str]) -> anyhow::Result<(String, bool)> {
        let container = self.container(service)?;
        let done = self.docker.command().args(["exec", &container, "vicinal"]).args(args).output()?;
        let text = [done.stdout, done.stderr].concat();
        Ok((String::from_utf8_lossy(&text).into_owned(), done.status.success()))
    }

    fn container(&self, service: &str) -> anyhow::Result<String> {
        let filters = [
            format!("label=com.docker.compose.project={}", self.name),
            format!("label=com.docker.compose.service={service}"),
        ];
        let [project, service] = &filters;
        let id = self.docker.run(&["ps", "--all", "--quiet", "--filter", project, "--filter", service])?;
        ensure!(!id.is_empty() && !id.contains('\n'), "{service}: expected one container, found {id:?}");
        Ok(id)
    }

    /// Takes everything down, volumes too, and checks that nothing is left.
    pub(crate) fn down(&mut self) -> anyhow::Result<()> {
        self.is_down = true;
        // Engines are now and then not done with a container when its network or volume is to go: then once more.
        let down = || self.compose(&["down", "--volumes", "--remove-orphans", "--timeout", "20"]);
        down().or_else(|error| {
            eprintln!("compose: {error:#}");
            std::thread::sleep(AGAIN);
            down()
        })?;
        let label = format!("label=com.docker.compose.project={}", self.name);
        for kind in ["container", "volume", "network"] {
            let all: &[&str] = if kind == "container" { &["--all"] } else { &[] };
            let left = self.docker.run(&[&[kind, "ls", "--quiet", "--filter", &label], all].concat())?;
            ensure!(left.is_empty(), "left behind of kind {kind}: {left}");
        }
        Ok(())
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(logs) = self.compose(&["logs", "--no-color", "--tail", LOG_LINES])
        {
            eprintln!("--- end of the processes' logs ---\n{logs}");
        }
        if !self.is_down
            && let Err(error) = self.down()
        {
            eprintln!("something is left behind: {error:#}");
        }
    }
}
