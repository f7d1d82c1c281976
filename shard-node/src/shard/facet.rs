//! Counting: values of a payload key, and dimensions of a sparse vector.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;
use vicinal_common::api::{FacetCount, FacetValue, Frequencies};
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::{Filter, KeyPath};
use vicinal_common::limits::{FACET_BYTES_MAX, FACET_VALUES_MAX};
use vicinal_common::payload::parse_fields;
use vicinal_common::vector::VectorRef;

use super::patience::{Patience, ROW_COST};
use super::select::Reading;
use super::view::View;

/// What a payload value counts as: what a filter would match, so each spelling of a UUID is a value of its own.
fn value_of(value: &Value) -> Option<FacetValue> {
    match value {
        Value::Bool(truth) => Some(FacetValue::Bool(*truth)),
        Value::Number(number) => number.as_i64().map(FacetValue::Integer),
        Value::String(text) => Some(FacetValue::Keyword(text.clone())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Shows the places in `indices` of all that is in both lists, which ascend.
fn each_shared(own: &[u32], indices: &[u32], mut see: impl FnMut(usize)) {
    let (mut i, mut at) = (0, 0);
    while i < own.len() && at < indices.len() {
        let (a, b) = (own[i], indices[at]);
        if a == b {
            see(at);
        }
        i += usize::from(a <= b);
        at += usize::from(b <= a);
    }
}

impl View {
    /// The values of a payload key and how many matching points have each, in order of the values. `BadInput` for a key that
    /// cannot be read, and for more than [`FACET_VALUES_MAX`] values.
    pub fn facet(&self, key: &str, filter: Option<&Filter>, patience: &Patience) -> Result<Vec<FacetCount>> {
        let path = KeyPath::parse(key).map_err(Error::BadInput)?;
        self.know_clusters(filter, patience)?;
        let mut counts: HashMap<FacetValue, u64> = HashMap::new();
        let mut bytes = 0;
        self.each_match(filter, patience, &mut |run, row, matcher| {
            if !matcher.check(row)? {
                return Ok(());
            }
            let fields = parse_fields(run.source().run.payload(row))?;
            let mut values = HashSet::new();
            path.visit(&fields, &mut |value| match value {
                Value::Array(elements) => values.extend(elements.iter().filter_map(value_of)),
                value => values.extend(value_of(value)),
            });
            for value in values {
                let length = if let FacetValue::Keyword(text) = &value { text.len() } else { 0 };
                let count = counts.entry(value).or_insert_with(|| {
                    bytes += length;
                    0
                });
                *count += 1;
            }
            if counts.len() > FACET_VALUES_MAX || bytes > FACET_BYTES_MAX {
                let text = format!("`key` {key} has more than {FACET_VALUES_MAX} different values in one shard");
                return Err(Error::BadInput(format!(
                    "{text}, or they are longer than {FACET_BYTES_MAX} bytes together"
                )));
            }
            Ok(())
        })?;
        let counts: BTreeMap<FacetValue, u64> = counts.into_iter().collect();
        Ok(counts.into_iter().map(|(value, count)| FacetCount { value, count }).collect())
    }

    /// How many matching points have a sparse vector, and how many of them a value at each of `indices` (ascending, each once).
    /// `BadInput` when there is no sparse vector of that name.
    pub fn frequencies(
        &self,
        vector_name: &str,
        indices: &[u32],
        filter: Option<&Filter>,
        patience: &Patience,
    ) -> Result<Frequencies> {
        let Some(ordinal) = self.layout.ordinal(vector_name) else {
            return Err(Error::BadInput(format!("Not existing vector name error: {vector_name}")));
        };
        self.know_clusters(filter, patience)?;
        let mut found = Frequencies { points: 0, of: vec![0; indices.len()] };
        for run in self.runs() {
            let source = run.source();
            let vectors = source.run.vectors(ordinal);
            let Some(postings) = source.run.postings(ordinal) else {
                return Err(Error::BadInput(format!("vector `{vector_name}` is not sparse")));
            };
            let Some(filter) = filter else {
                // The inverted index knows of all rows; those that are dead are taken off one by one.
                found.points += vectors.present.count();
                for (count, index) in found.of.iter_mut().zip(indices) {
                    *count += postings.len_of(*index) as u64;
                }
                for row in source.dead.iter() {
                    patience.spend(ROW_COST)?;
                    if let Some(VectorRef::Sparse(sparse)) = vectors.get(row) {
                        found.points -= 1;
                        each_shared(sparse.indices, indices, |at| found.of[at] -= 1);
                    }
                }
                continue;
            };
            let matcher = self.matcher(run, Some(filter), Reading::Every)?;
            for row in matcher.candidates(source.dead, 0) {
                patience.spend(ROW_COST)?;
                let Some(VectorRef::Sparse(sparse)) = vectors.get(row) else { continue };
                if matcher.check(row)? {
                    found.points += 1;
                    each_shared(sparse.indices, indices, |at| found.of[at] += 1);
                }
            }
        }
        Ok(found)
    }
}
