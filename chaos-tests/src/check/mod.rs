//! What a history must look like. Every checker reads the whole history after the run and reports what it found.

mod converge;
mod coverage;
mod durability;
mod search;
mod session;
#[cfg(test)]
mod tests;
mod timeline;

use std::fmt;

pub use converge::{ReplicaDigest, ShardDigests, converge};
pub use coverage::{Fault, FaultKind, coverage};
pub use durability::{durability, unknown_fates};
pub use search::search;
pub use session::session;

/// Violations that are shown; the rest is counted.
const SHOWN_MAX: usize = 20;

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which promise.
    pub promise: &'static str,
    /// What happened.
    pub text: String,
}

/// What a run says about the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No promise was broken, and everything that was meant to go wrong did.
    Pass,
    /// A promise was broken.
    Fail,
    /// Nothing was seen, but the run could not have shown it.
    Inconclusive,
}

/// All that the checkers found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// Why the run proves less than it should.
    pub doubts: Vec<String>,
    /// Numbers to print, with their names.
    pub figures: Vec<(String, String)>,
}

impl Report {
    /// Notes a broken promise.
    pub fn violation(&mut self, promise: &'static str, text: String) {
        self.violations.push(Violation { promise, text });
    }

    /// Notes why the run proves less than it should.
    pub fn doubt(&mut self, text: impl Into<String>) {
        self.doubts.push(text.into());
    }

    /// Notes a number.
    pub fn figure(&mut self, name: &str, value: impl fmt::Display) {
        self.figures.push((name.to_owned(), value.to_string()));
    }

    /// The verdict.
    pub fn verdict(&self) -> Verdict {
        match (self.violations.is_empty(), self.doubts.is_empty()) {
            (true, true) => Verdict::Pass,
            (false, _) => Verdict::Fail,
            (true, false) => Verdict::Inconclusive,
        }
    }

    /// Ends the test unless the verdict is pass.
    ///
    /// # Panics
    /// When it is not.
    pub fn expect_pass(&self) {
        assert!(self.verdict() == Verdict::Pass, "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.figures {
            writeln!(f, "{name}: {value}")?;
        }
        for Violation { promise, text } in self.violations.iter().take(SHOWN_MAX) {
            writeln!(f, "BROKEN PROMISE, {promise}: {text}")?;
        }
        for text in self.doubts.iter().take(SHOWN_MAX) {
            writeln!(f, "not conclusive: {text}")?;
        }
        write!(f, "verdict: {:?}, {} violations, {} doubts", self.verdict(), self.violations.len(), self.doubts.len())
    }
}
