//! Counting: values of a payload key, and dimensions of a sparse vector.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;
use uuid::Uuid;
use vicinal_common::api::{FacetCount, FacetValue, Frequencies};
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::{Filter, KeyPath};
use vicinal_common::limits::FACET_VALUES_MAX;
use vicinal_common::payload::parse_fields;
use vicinal_common::vector::{SparseRef, VectorRef};

use super::select::Reading;
use super::view::View;

/// What a payload value counts as; a UUID in any of its spellings is one value.
fn value_of(value: &Value) -> Option<FacetValue> {
    match value {
        Value::Bool(truth) => Some(FacetValue::Bool(*truth)),
        Value::Number(number) => number.as_i64().map(FacetValue::Integer),
        Value::String(text) => Some(FacetValue::Keyword(match Uuid::parse_str(text) {
            Ok(uuid) => uuid.to_string(),
            Err(_) => text.clone(),
        })),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

impl View {
    /// The values of a payload key and how many matching points have each, in order of the values. `BadInput` for a key that
    /// cannot be read, and for more than [`FACET_VALUES_MAX`] values.
    pub fn facet(&self, key: &str, filter: Option<&Filter>) -> Result<Vec<FacetCount>> {
        let path = KeyPath::parse(key).map_err(Error::BadInput)?;
        let mut counts: HashMap<FacetValue, u64> = HashMap::new();
        self.each_match(filter, Reading::Every, &mut |run, row, matcher| {
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
                *counts.entry(value).or_default() += 1;
            }
            if counts.len() > FACET_VALUES_MAX {
                let text = format!("`key` {key} has more than {FACET_VALUES_MAX} different values in one shard");
                return Err(Error::BadInput(text));
            }
            Ok(())
        })?;
        let counts: BTreeMap<FacetValue, u64> = counts.into_iter().collect();
        Ok(counts.into_iter().map(|(value, count)| FacetCount { value, count }).collect())
    }

    /// How many matching points have a sparse vector, and how many of them a value at each of `indices` (ascending, each once).
    /// `BadInput` when there is no sparse vector of that name.
    pub fn frequencies(&self, vector_name: &str, indices: &[u32], filter: Option<&Filter>) -> Result<Frequencies> {
        let Some(ordinal) = self.layout.ordinal(vector_name) else {
            return Err(Error::BadInput(format!("Not existing vector name error: {vector_name}")));
        };
        let mut found = Frequencies { points: 0, of: vec![0; indices.len()] };
        for run in self.runs() {
            let source = run.source();
            let vectors = source.run.vectors(ordinal);
            let Some(postings) = source.run.postings(ordinal) else {
                return Err(Error::BadInput(format!("vector `{vector_name}` is not sparse")));
            };
            // The inverted index knows without a look at the rows.
            if filter.is_none() && source.dead.count() == 0 {
                found.points += vectors.present.count();
                for (count, index) in found.of.iter_mut().zip(indices) {
                    *count += postings.len_of(*index) as u64;
                }
                continue;
            }
            let matcher = self.matcher(run, filter, Reading::Every)?;
            for row in matcher.candidates(source.dead, 0) {
                let Some(VectorRef::Sparse(SparseRef { indices: own, .. })) = vectors.get(row) else { continue };
                if !matcher.check(row)? {
                    continue;
                }
                found.points += 1;
                for (count, index) in found.of.iter_mut().zip(indices) {
                    *count += u64::from(own.binary_search(index).is_ok());
                }
            }
        }
        Ok(found)
    }
}
