//! The image of the cluster, without any registry: the base is put together from this machine's own files, everything above
//! it is what deploy/Dockerfile says.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use vicinal_chaos_tests::binary;

use super::engine::{Docker, output};

/// What the Dockerfile's first stage runs of its base image.
const INSTALL: &str = "/usr/bin/install";
/// Where the Dockerfile puts the binary.
const BINARY: &str = "/usr/local/bin/vicinal";

/// Images of one test run. Dropping it removes them.
pub(crate) struct Image {
    docker: Docker,
    tag: String,
}

impl Image {
    /// Builds them, named after `name`.
    pub(crate) fn build(docker: &Docker, root: &Path, name: &str) -> anyhow::Result<Image> {
        let dir = tempfile::Builder::new().prefix("vicinal-image-").tempdir()?;
        let vicinal = dir.path().join("vicinal");
        strip(binary(), &vicinal)?;
        let base = dir.path().join("base");
        assemble(&base, &[&vicinal, Path::new(INSTALL)])?;
        copy(Path::new(INSTALL), &base)?;

        let image = Image { docker: docker.clone(), tag: name.to_owned() };
        import(docker, &base, &image.part("base"))?;
        // The Dockerfile as users have it, up to where the binary comes in: a user's is compiled, this one is there already.
        let empty = dir.path().join("empty");
        fs::create_dir(&empty)?;
        let mut stage = docker.command();
        stage.args(["build", "--quiet", "--network", "none", "--target", "runtime"]);
        stage.arg("--build-arg").arg(format!("RUNTIME_IMAGE={}", image.part("base")));
        stage.arg("--file").arg(root.join("deploy/Dockerfile"));
        output(stage.args(["--tag", &image.part("runtime")]).arg(&empty))?;
        let last = dir.path().join("Dockerfile");
        fs::write(&last, format!("FROM {}\nCOPY vicinal {BINARY}\n", image.part("runtime")))?;
        let mut whole = docker.command();
        whole.args(["build", "--quiet", "--network", "none", "--tag", &image.part("whole")]);
        output(whole.arg("--file").arg(&last).arg(dir.path()))?;
        Ok(image)
    }

    /// The name of the finished image.
    pub(crate) fn name(&self) -> String {
        self.part("whole")
    }

    fn part(&self, part: &str) -> String {
        format!("{}:{part}", self.tag)
    }

    /// Removes the images.
    pub(crate) fn remove(&self) -> anyhow::Result<()> {
        // Each is built upon the one after it here, and cannot go before it.
        for tag in ["whole", "runtime", "base"].map(|part| self.part(part)) {
            if !self.docker.run(&["image", "ls", "--quiet", &tag])?.is_empty() {
                self.docker.run(&["image", "rm", "--force", &tag])?;
            }
        }
        let left = self.docker.run(&["image", "ls", "--quiet", "--filter", &format!("reference={}:*", self.tag)])?;
        ensure!(left.is_empty(), "images are left: {left}");
        Ok(())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("images are left: {error:#}");
        }
    }
}

/// Copies the binary without its debug lines, where the machine has the tool for it: they are four fifths of it.
fn strip(from: &Path, to: &Path) -> anyhow::Result<()> {
    let stripped = Command::new("strip").arg("-o").arg(to).arg(from).stderr(Stdio::null()).status();
    if !stripped.is_ok_and(|status| status.success()) {
        fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

/// Puts the shared libraries of `programs` into `base`, at the places where they are here.
fn assemble(base: &Path, programs: &[&Path]) -> anyhow::Result<()> {
    let mut libraries = BTreeSet::new();
    for program in programs {
        let listed = output(Command::new("ldd").arg(program))?;
        // `name => /path (address)`, `/path/of/the/loader (address)`, or a name without any file.
        let paths = listed.lines().flat_map(|line| line.split_whitespace()).filter(|word| word.starts_with('/'));
        libraries.extend(paths.map(PathBuf::from));
    }
    ensure!(!libraries.is_empty(), "ldd named no libraries");
    libraries.iter().try_for_each(|library| copy(library, base))
}

/// Copies a file, following links, to the same place below `base`.
fn copy(file: &Path, base: &Path) -> anyhow::Result<()> {
    let to = base.join(file.strip_prefix("/")?);
    fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
    fs::copy(file, &to).with_context(|| format!("cannot copy {}", file.display()))?;
    Ok(())
}

fn import(docker: &Docker, base: &Path, tag: &str) -> anyhow::Result<()> {
    let mut tar = Command::new("tar");
    let mut tar = tar.arg("--directory").arg(base).args(["--owner=0", "--group=0", "--create", "."]);
    tar = tar.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut tar = tar.spawn().context("cannot run tar")?;
    let archive = tar.stdout.take().context("stdout is piped")?;
    let imported = docker.command().args(["import", "-", tag]).stdin(archive).stdout(Stdio::null()).status()?;
    ensure!(tar.wait()?.success() && imported.success(), "the base image could not be imported");
    Ok(())
}
