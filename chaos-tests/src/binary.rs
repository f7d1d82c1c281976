//! The `vicinal` binary under test: always built from the sources as they are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Path of the binary. `TEST_BINARY` names one that is there already; otherwise cargo builds it first, which
/// takes a moment when nothing has changed.
///
/// # Panics
/// When the build fails.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("TEST_BINARY") {
            return PathBuf::from(path);
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above this package");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--release", "--quiet", "--workspace", "--bin", "vicinal"])
            .current_dir(root)
            .status()
            .expect("cargo can be started");
        assert!(built.success(), "the binary could not be built");
        // Tests run from <target>/release/deps.
        let test = std::env::current_exe().expect("a process knows its executable");
        let release = test.parent().and_then(Path::parent).expect("tests are two levels below the target directory");
        release.join("vicinal")
    })
}
