//! Fixes what full-text conditions mean: the parameters of the collection's text indexes go into them.

use std::sync::Arc;

use super::super::{Condition, FieldTest, Filter, KeyPath, Match};
use super::{TextMatch, Tokenization, Tokenizer};
use crate::error::{Error, Result};
use crate::limits::FILTER_TOKENIZATION_BYTES_MAX;
use crate::payload_index::PayloadIndexes;

impl Filter {
    /// Makes every full-text condition cut texts as the text index of its field does, or as by default when the field
    /// has none. To be called once, when a client's filter is accepted. `BadInput` when a condition brings parameters of
    /// its own, or when all of them together are larger than [`FILTER_TOKENIZATION_BYTES_MAX`].
    pub fn resolve_text(&mut self, indexes: &PayloadIndexes) -> Result<()> {
        let mut bytes = 0;
        resolve(self, None, indexes, &mut bytes)
    }
}

fn resolve(filter: &mut Filter, outer: Option<&KeyPath>, indexes: &PayloadIndexes, bytes: &mut usize) -> Result<()> {
    let path = |key: &KeyPath| outer.map_or_else(|| key.clone(), |outer| outer.within(key));
    for condition in filter.conditions_mut() {
        match condition {
            Condition::Field(field) => {
                if let FieldTest::Match(Match::Text(test)) = &mut field.test {
                    let name = path(&field.key).to_string();
                    if *test.tokenization() != Tokenization::default() {
                        return Err(Error::BadInput(format!(
                            "filter: `tokenization` of a condition on `{name}` is not for requests: a text index of the \
                             field says how its texts are cut"
                        )));
                    }
                    let tokenization = indexes.get(&name).and_then(|index| index.tokenization());
                    if let Some(tokenization) = tokenization.filter(|params| **params != Tokenization::default()) {
                        *bytes += tokenization.to_json().to_string().len();
                        if *bytes > FILTER_TOKENIZATION_BYTES_MAX {
                            return Err(Error::BadInput(format!(
                                "filter: too many full-text conditions on fields with long stopwords: parameters of text \
                                 indexes come to more than {FILTER_TOKENIZATION_BYTES_MAX} bytes"
                            )));
                        }
                        let tokenizer = Arc::new(Tokenizer::new(tokenization.clone()));
                        *test = TextMatch::new(test.test(), test.query().to_owned(), tokenizer);
                    }
                }
            }
            Condition::Nested { key, filter } => resolve(filter, Some(&path(key)), indexes, bytes)?,
            Condition::Filter(filter) => resolve(filter, outer, indexes, bytes)?,
            Condition::IsEmpty(_)
            | Condition::IsNull(_)
            | Condition::HasId(_)
            | Condition::HasVector(_)
            | Condition::Slice(_) => {}
        }
    }
    Ok(())
}
