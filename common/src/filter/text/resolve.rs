//! Fixes what full-text conditions mean: the parameters of the collection's text indexes go into them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::{Condition, FieldTest, Filter, KeyPath, Match};
use super::{TextMatch, Tokenization, Tokenizer};
use crate::error::{Error, Result};
use crate::limits::{FILTER_TEXT_CONDITIONS_MAX, FILTER_TOKENIZATION_BYTES_MAX};
use crate::payload_index::PayloadIndexes;

/// Makes full-text conditions cut texts as the text index of their field does, or as by default when the field has none.
/// One for all filters of a request: what cuts the texts of a field is made once, and the limits are those of the request.
pub struct TextResolver<'a> {
    indexes: &'a PayloadIndexes,
    /// By field, where texts are not cut as by default: with the bytes that a condition's parameters take in JSON.
    tokenizers: BTreeMap<String, (Arc<Tokenizer>, usize)>,
    /// Bytes of the parameters in all conditions so far.
    bytes: usize,
}

impl<'a> TextResolver<'a> {
    /// A resolver by the indexes of a collection.
    pub fn new(indexes: &'a PayloadIndexes) -> TextResolver<'a> {
        TextResolver { indexes, tokenizers: BTreeMap::new(), bytes: 0 }
    }

    /// Resolves a filter: once, when it is accepted of a client, never when it comes from a log. `BadInput` when a
    /// condition brings parameters of its own, when there are more full-text conditions than
    /// [`FILTER_TEXT_CONDITIONS_MAX`], or when the parameters of this filter and those before it take more than
    /// [`FILTER_TOKENIZATION_BYTES_MAX`]. The filter is of no use after an error.
    pub fn resolve(&mut self, filter: &mut Filter) -> Result<()> {
        self.level(filter, None, &mut 0)
    }

    fn level(&mut self, filter: &mut Filter, outer: Option<&KeyPath>, count: &mut usize) -> Result<()> {
        let path = |key: &KeyPath| outer.map_or_else(|| key.clone(), |outer| outer.within(key));
        for condition in filter.conditions_mut() {
            match condition {
                Condition::Field(field) => {
                    if let FieldTest::Match(Match::Text(test)) = &mut field.test {
                        *count += 1;
                        if *count > FILTER_TEXT_CONDITIONS_MAX {
                            return Err(Error::BadInput(format!(
                                "filter: more than {FILTER_TEXT_CONDITIONS_MAX} full-text conditions"
                            )));
                        }
                        self.condition(test, path(&field.key).to_string())?;
                    }
                }
                Condition::Nested { key, filter } => self.level(filter, Some(&path(key)), count)?,
                Condition::Filter(filter) => self.level(filter, outer, count)?,
                Condition::IsEmpty(_)
                | Condition::IsNull(_)
                | Condition::HasId(_)
                | Condition::HasVector(_)
                | Condition::Slice(_)
                | Condition::InClusters(_)
                | Condition::InClustersOf(_) => {}
            }
        }
        Ok(())
    }

    fn condition(&mut self, test: &mut TextMatch, field: String) -> Result<()> {
        if *test.tokenization() != Tokenization::default() {
            return Err(Error::BadInput(format!(
                "filter: `tokenization` of a condition on `{field}` is not for requests: a text index of the field says \
                 how its texts are cut"
            )));
        }
        let Some(tokenization) = self.indexes.get(&field).and_then(|index| index.tokenization()) else {
            return Ok(());
        };
        if *tokenization == Tokenization::default() {
            return Ok(());
        }
        let (tokenizer, bytes) = self.tokenizers.entry(field).or_insert_with(|| {
            let bytes = tokenization.to_json().to_string().len();
            (Arc::new(Tokenizer::new(tokenization.clone())), bytes)
        });
        self.bytes += *bytes;
        if self.bytes > FILTER_TOKENIZATION_BYTES_MAX {
            return Err(Error::BadInput(format!(
                "filter: too many full-text conditions on fields with long stopwords: in one request parameters of text \
                 indexes come to more than {FILTER_TOKENIZATION_BYTES_MAX} bytes"
            )));
        }
        *test = TextMatch::new(test.test(), test.query().to_owned(), Arc::clone(tokenizer));
        Ok(())
    }
}
