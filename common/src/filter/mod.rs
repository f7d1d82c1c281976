//! Filters: which points may be hits.

use serde::{Deserialize, Serialize};

/// Version of the evaluator that logged filters name.
pub const EVALUATOR_VERSION: u32 = 1;

/// A condition tree.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Filter {}
