//! Body of a search matrix.

use std::sync::Arc;

use serde::Deserialize;
use vicinal_common::filter::Filter;
use vicinal_common::point::UNNAMED;

use super::super::answer::Failure;
use super::Unsupported;
use crate::query::MatrixRequest;

/// Points in the sample when no `sample` is given.
const SAMPLE_DEFAULT: usize = 10;
/// Neighbours of each when no `limit` is given.
const NEIGHBOURS_DEFAULT: usize = 3;

/// Body of `points/search/matrix/pairs` and `/offsets`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct MatrixBody {
    filter: Option<Filter>,
    sample: Option<usize>,
    limit: Option<usize>,
    using: Option<String>,
    allow_partial: Option<bool>,
    #[serde(default)]
    shard_key: Unsupported,
}

impl MatrixBody {
    /// What to compare.
    pub(in super::super) fn into_request(self) -> Result<MatrixRequest, Failure> {
        self.shard_key.refuse("shard_key")?;
        let request = MatrixRequest {
            using: self.using.unwrap_or_else(|| UNNAMED.to_owned()),
            filter: self.filter.map(Arc::new),
            sample: self.sample.unwrap_or(SAMPLE_DEFAULT),
            limit: self.limit.unwrap_or(NEIGHBOURS_DEFAULT),
            allow_partial: self.allow_partial.unwrap_or(true),
        };
        request.check()?;
        Ok(request)
    }
}
