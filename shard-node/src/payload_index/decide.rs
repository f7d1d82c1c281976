//! Which rows pass a test of one field, as far as its index tells. Must agree with the evaluator in every case: the
//! property test compares them.

use vicinal_common::filter::{FieldTest, Match, Range, Values};
use vicinal_common::payload_index::FieldType;

use roaring::RoaringBitmap;

use super::bounds::Bounds;
use super::field::FieldIndex;
use super::format::State;
use super::keys::canonical_uuid;
use super::rows;

impl FieldIndex {
    /// The rows that pass.
    pub(super) fn decide(&self, test: &FieldTest) -> Bounds {
        match test {
            FieldTest::Match(test) => self.matching(test),
            FieldTest::Range(range) => self.in_range(range),
            FieldTest::DatetimeRange(range) => match self.field().of {
                FieldType::Datetime => {
                    let micros = |bound: &Option<vicinal_common::filter::DateTime>| bound.as_ref().map(|t| t.micros());
                    let range = Range {
                        lt: micros(&range.lt),
                        gt: micros(&range.gt),
                        gte: micros(&range.gte),
                        lte: micros(&range.lte),
                    };
                    Bounds::exact(self.between(|key| is_below(&range, &key), |key| is_above(&range, &key)))
                }
                FieldType::Keyword | FieldType::Uuid => Bounds::at_most(self.valued()),
                FieldType::Text => self.only_texts(),
                FieldType::Integer | FieldType::Float | FieldType::Bool | FieldType::Geo => self.only_others(),
            },
            FieldTest::GeoBoundingBox(area) => self.in_area(area),
            FieldTest::GeoRadius(area) => self.in_area(area),
            FieldTest::GeoPolygon(area) => self.in_area(area),
            FieldTest::ValuesCount(range) => match range.contains(&0) {
                true => Bounds::between(self.missing(), self.state(State::Found)),
                false => Bounds::at_most(self.state(State::Found).clone()),
            },
            FieldTest::IsEmpty(true) => Bounds::exact(self.missing() | self.state(State::Empty)),
            FieldTest::IsEmpty(false) => Bounds::exact(self.state(State::Filled).clone()),
            FieldTest::IsNull(true) => self.some_null(),
            FieldTest::IsNull(false) => Bounds::exact(self.missing() | self.state(State::WithoutNull)),
        }
    }

    /// Rows in which no value is anything but null or `[]`.
    pub(super) fn nothing_filled(&self) -> Bounds {
        Bounds::exact(rows::all(self.row_count()) - self.state(State::Filled))
    }

    /// Rows with a value that is null or an array that holds null.
    pub(super) fn some_null(&self) -> Bounds {
        Bounds::exact(self.state(State::WithNull).clone())
    }

    fn missing(&self) -> RoaringBitmap {
        rows::all(self.row_count()) - self.state(State::Found)
    }

    /// Rows with a value that is not null, arrays standing for their elements.
    pub(super) fn valued(&self) -> RoaringBitmap {
        self.keyed() | self.state(State::Others)
    }

    /// What passes is no value of the index's type.
    pub(super) fn only_others(&self) -> Bounds {
        Bounds::at_most(self.state(State::Others).clone())
    }

    /// What passes are strings, all of which a text or keyword index has.
    pub(super) fn only_texts(&self) -> Bounds {
        Bounds::at_most(self.keyed().clone())
    }

    fn in_range(&self, range: &Range<f64>) -> Bounds {
        match self.field().of {
            // Numbers that are no 64-bit integers are among the others.
            FieldType::Integer => {
                let sure = self.between(|key| is_below(range, &(key as f64)), |key| is_above(range, &(key as f64)));
                Bounds::between(sure, self.state(State::Others))
            }
            FieldType::Float => {
                Bounds::exact(self.numbers_between(|key| is_below(range, &key), |key| is_above(range, &key)))
            }
            FieldType::Keyword
            | FieldType::Bool
            | FieldType::Datetime
            | FieldType::Uuid
            | FieldType::Geo
            | FieldType::Text => self.only_others(),
        }
    }

    fn in_area(&self, area: &dyn super::geo::Area) -> Bounds {
        match self.field().of {
            FieldType::Geo => Bounds::exact(self.inside(area)),
            FieldType::Keyword
            | FieldType::Integer
            | FieldType::Float
            | FieldType::Bool
            | FieldType::Datetime
            | FieldType::Uuid
            | FieldType::Text => self.only_others(),
        }
    }

    fn matching(&self, test: &Match) -> Bounds {
        match test {
            Match::Keyword(text) => self.with_any_text(std::slice::from_ref(text)),
            Match::Any(Values::Keywords(texts)) => self.with_any_text(texts.as_slice()),
            Match::Except(Values::Keywords(texts)) => self.with_other_text(texts.as_slice()),
            Match::Prefix(prefix) => match self.field().of {
                FieldType::Keyword => Bounds::exact(self.with_prefix(prefix)),
                FieldType::Datetime | FieldType::Uuid => Bounds::at_most(self.valued()),
                FieldType::Text => self.only_texts(),
                FieldType::Integer | FieldType::Float | FieldType::Bool | FieldType::Geo => self.only_others(),
            },
            Match::Integer(integer) => self.with_any_integer(std::slice::from_ref(integer)),
            Match::Any(Values::Integers(integers)) => self.with_any_integer(integers.as_slice()),
            Match::Except(Values::Integers(integers)) => self.with_other_integer(integers.as_slice()),
            Match::Bool(truth) => match self.field().of {
                FieldType::Bool => Bounds::exact(self.with_integer(i64::from(*truth))),
                FieldType::Keyword
                | FieldType::Integer
                | FieldType::Float
                | FieldType::Datetime
                | FieldType::Uuid
                | FieldType::Geo
                | FieldType::Text => self.only_others(),
            },
            Match::Text(test) => self.matching_text(test),
        }
    }

    fn with_any_text(&self, texts: &[String]) -> Bounds {
        match self.field().of {
            FieldType::Keyword => Bounds::exact(union(texts.iter().map(|text| self.with_text(text)))),
            // Unusual spellings of UUIDs are among the others.
            FieldType::Uuid => {
                let sure = union(texts.iter().filter_map(|text| canonical_uuid(text)).map(|uuid| self.with_uuid(uuid)));
                match texts.iter().all(|text| canonical_uuid(text).is_some()) {
                    true => Bounds::exact(sure),
                    false => Bounds::between(sure, self.state(State::Others)),
                }
            }
            FieldType::Datetime => Bounds::at_most(self.valued()),
            FieldType::Text => self.only_texts(),
            FieldType::Integer | FieldType::Float | FieldType::Bool | FieldType::Geo => self.only_others(),
        }
    }

    fn with_any_integer(&self, integers: &[i64]) -> Bounds {
        match self.field().of {
            FieldType::Integer => Bounds::exact(union(integers.iter().map(|integer| self.with_integer(*integer)))),
            // 1 and 1.0 are one number, but only the former is an integer.
            FieldType::Float => Bounds::at_most(union(integers.iter().map(|i| self.with_number(*i as f64)))),
            FieldType::Keyword
            | FieldType::Bool
            | FieldType::Datetime
            | FieldType::Uuid
            | FieldType::Geo
            | FieldType::Text => self.only_others(),
        }
    }

    fn with_other_text(&self, texts: &[String]) -> Bounds {
        match self.field().of {
            FieldType::Keyword => self.except(&union(texts.iter().map(|text| self.with_text(text))), Others::Pass),
            FieldType::Uuid => {
                let uuids: Vec<Option<[u8; 16]>> = texts.iter().map(|text| canonical_uuid(text)).collect();
                let others = if uuids.iter().all(Option::is_some) { Others::Pass } else { Others::Open };
                self.except(&union(uuids.into_iter().flatten().map(|uuid| self.with_uuid(uuid))), others)
            }
            FieldType::Datetime => Bounds::at_most(self.valued()),
            // What is in the index are strings, be they among these; whatever else there is passes.
            FieldType::Text => Bounds::between(self.state(State::Others).clone(), self.keyed()),
            // Whatever is in the index is no string, so it passes.
            FieldType::Integer | FieldType::Float | FieldType::Bool | FieldType::Geo => {
                self.except(&RoaringBitmap::new(), Others::Open)
            }
        }
    }

    fn with_other_integer(&self, integers: &[i64]) -> Bounds {
        match self.field().of {
            FieldType::Integer => {
                self.except(&union(integers.iter().map(|integer| self.with_integer(*integer))), Others::Pass)
            }
            FieldType::Float => {
                let alike = union(integers.iter().map(|integer| self.with_number(*integer as f64)));
                Bounds::between((self.keyed() - &alike) | self.state(State::Others), &alike)
            }
            FieldType::Keyword
            | FieldType::Bool
            | FieldType::Datetime
            | FieldType::Uuid
            | FieldType::Geo
            | FieldType::Text => self.except(&RoaringBitmap::new(), Others::Open),
        }
    }

    /// Rows with a value that is not one of those that `excluded` have. A row with one of them passes by another one.
    fn except(&self, excluded: &RoaringBitmap, others: Others) -> Bounds {
        let sure = self.keyed() - excluded;
        let several = excluded & self.state(State::Many);
        match others {
            Others::Pass => Bounds::between(sure | self.state(State::Others), &several),
            Others::Open => Bounds::between(sure, &(several | self.state(State::Others))),
        }
    }
}

/// Whether values of other types pass a test that excludes some of this one.
#[derive(Clone, Copy)]
enum Others {
    Pass,
    Open,
}

fn union(sets: impl Iterator<Item = RoaringBitmap>) -> RoaringBitmap {
    sets.fold(RoaringBitmap::new(), |all, set| all | set)
}

fn is_below<T: PartialOrd>(range: &Range<T>, value: &T) -> bool {
    range.gt.as_ref().is_some_and(|bound| value <= bound) || range.gte.as_ref().is_some_and(|bound| value < bound)
}

fn is_above<T: PartialOrd>(range: &Range<T>, value: &T) -> bool {
    range.lt.as_ref().is_some_and(|bound| value >= bound) || range.lte.as_ref().is_some_and(|bound| value > bound)
}
