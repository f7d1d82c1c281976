//! A test that cannot run here says so instead of passing in silence.

use std::fs::File;
use std::io::Write;

/// Variable that names the file where skipped tests are listed; `chaos-tests/run` sets it and counts the lines.
const LIST: &str = "TEST_SKIPPED_FILE";

/// Reports that `test` does not run, and why. The caller returns right after.
pub fn skip(test: &str, reason: &str) {
    eprintln!("skipped {test}: {reason}");
    if let Some(list) = std::env::var_os(LIST) {
        let file = File::options().create(true).append(true).open(list);
        let written = file.and_then(|mut file| writeln!(file, "{test}: {reason}"));
        written.expect("the list of skipped tests can be written");
    }
}
