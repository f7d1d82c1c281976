//! What became of a scatter: which shards answered, why others did not, and whether that is good enough.

use serde::Serialize;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::ShardId;

use super::route::Routed;

/// Reasons named in one error text; more shards than this are only counted.
const REASONS_SHOWN: usize = 8;

/// How much of a collection an answer stands for.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Coverage {
    /// Shards the answer should have come from.
    pub shards_asked: usize,
    /// Shards it came from.
    pub shards_answered: usize,
    /// The others.
    pub missing: Vec<Missing>,
    /// How a search of a collection that is routed by cluster was routed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routed: Option<Box<Routed>>,
}

/// A shard that is not in an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Missing {
    /// The shard.
    pub shard: ShardId,
    /// Why it is missing.
    #[serde(serialize_with = "as_text")]
    pub reason: Error,
}

fn as_text<S: serde::Serializer>(reason: &Error, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(reason)
}

impl Coverage {
    /// Whether every shard answered.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Takes in what another scatter of the same request missed. Shows the routing of the one that asked more search
    /// shards.
    pub fn add(&mut self, other: &Coverage) {
        let mut more = 0;
        for missing in &other.missing {
            if self.missing.iter().all(|known| known.shard != missing.shard) {
                self.missing.push(missing.clone());
                more += 1;
            }
        }
        if self.routed.is_none() && other.routed.is_none() {
            self.shards_answered = self.shards_asked.saturating_sub(self.missing.len());
            return;
        }
        // Each asks shards of its own: those that are missing there were not among those that answered here.
        self.shards_asked += more;
        if other.routed.as_ref().map(|routed| routed.asked) > self.routed.as_ref().map(|routed| routed.asked) {
            self.routed.clone_from(&other.routed);
        }
    }

    /// Fails when the answer is not good enough: nothing answered at all, or something is missing and the request does
    /// not allow partial answers. What is wrong with the request itself is passed on as it is.
    pub fn check(&self, allow_partial: bool) -> Result<()> {
        if let Some(missing) = self.missing.iter().find(|missing| is_clients_fault(&missing.reason)) {
            return Err(missing.reason.clone());
        }
        if self.is_complete() || (allow_partial && self.shards_answered > 0) {
            return Ok(());
        }
        let reasons = reasons(self.missing.iter().map(|missing| (missing.shard, &missing.reason)));
        let text = format!("{} of {} shards did not answer: {reasons}", self.missing.len(), self.shards_asked);
        // Only load is in the way: the client may come back after a pause.
        if self.missing.iter().all(|missing| matches!(missing.reason, Error::Overloaded(_))) {
            return Err(Error::Overloaded(text));
        }
        Err(Error::Unavailable(text))
    }
}

fn is_clients_fault(error: &Error) -> bool {
    match error {
        Error::BadInput(_) | Error::Validation { .. } | Error::TooLarge(_) => true,
        Error::NotFound(_)
        | Error::Conflict(_)
        | Error::Overloaded(_)
        | Error::Unavailable(_)
        | Error::Timeout(_)
        | Error::WrongLeader { .. }
        | Error::WrongEpoch { .. }
        | Error::NoSuchShard(_)
        | Error::Corrupt(_)
        | Error::Internal(_) => false,
    }
}

/// Names shards and what happened to them, in one line of bounded length.
pub(crate) fn reasons<'a>(failed: impl Iterator<Item = (ShardId, &'a Error)>) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut more = 0usize;
    for (shard, reason) in failed {
        if texts.len() < REASONS_SHOWN {
            texts.push(format!("shard {shard}: {reason}"));
        } else {
            more += 1;
        }
    }
    if more > 0 {
        texts.push(format!("and {more} more"));
    }
    texts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coverage(asked: usize, reasons: &[Error]) -> Coverage {
        let missing = reasons.iter().enumerate();
        let missing: Vec<Missing> =
            missing.map(|(i, reason)| Missing { shard: ShardId(i as u64), reason: reason.clone() }).collect();
        Coverage { shards_asked: asked, shards_answered: asked - missing.len(), missing, routed: None }
    }

    #[test]
    fn a_gap_is_an_error_unless_partial_answers_are_allowed() {
        let timeout = Error::Timeout("no answer".into());
        assert!(coverage(4, &[]).check(false).is_ok());
        assert!(coverage(0, &[]).check(false).is_ok());
        assert!(coverage(4, std::slice::from_ref(&timeout)).check(true).is_ok());
        let error = coverage(4, std::slice::from_ref(&timeout)).check(false).unwrap_err();
        assert_eq!(error.http_status(), 503);
        assert!(
            error.to_string().contains("1 of 4 shards did not answer: shard 0: Timeout error: no answer"),
            "{error}"
        );
        let error = coverage(2, &[timeout.clone(), timeout]).check(true).unwrap_err();
        assert_eq!(error.http_status(), 503, "all missing is never an empty success");
    }

    #[test]
    fn nothing_but_overload_is_told_as_such() {
        let busy = Error::Overloaded("busy".into());
        assert_eq!(coverage(2, &[busy.clone(), busy.clone()]).check(true).unwrap_err().http_status(), 429);
        assert_eq!(coverage(3, &[busy.clone(), busy.clone()]).check(false).unwrap_err().http_status(), 429);
        let error = coverage(2, &[busy, Error::Unavailable("away".into())]).check(true).unwrap_err();
        assert_eq!(error.http_status(), 503);
    }

    #[test]
    fn a_bad_request_stays_a_bad_request() {
        let error = coverage(4, &[Error::BadInput("no".into())]).check(true).unwrap_err();
        assert_eq!(error.http_status(), 400);
    }

    #[test]
    fn long_lists_of_reasons_are_cut() {
        let error = coverage(20, &vec![Error::Unavailable("away".into()); 20]).check(true).unwrap_err();
        assert!(error.to_string().ends_with("and 12 more"), "{error}");
    }
}
