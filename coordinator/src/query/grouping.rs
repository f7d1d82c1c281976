//! Hits in groups: which groups a point is in, which are found so far, and how to ask for what is missing. Pure.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::{Condition, FieldCondition, FieldTest, Filter, KeyPath, Match, Range, SortedSet, Values};
use vicinal_common::limits::RESULTS_MAX;
use vicinal_common::metric::ScoreOrder;
use vicinal_common::payload::Fields;
use vicinal_common::point::PointId;

use super::request::Hit;

/// How hits are put in groups.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupSpec {
    /// The payload field whose value names the group.
    pub by: KeyPath,
    /// Most hits in a group, at least 1.
    pub size: usize,
    /// Most groups, at least 1.
    pub limit: usize,
}

impl GroupSpec {
    /// Checks the ranges.
    pub fn check(&self) -> Result<()> {
        let refuse = |field: &str, message: String| Err(Error::Validation { field: field.into(), message });
        for (field, value) in [("limit", self.limit), ("group_size", self.size)] {
            if value == 0 {
                return refuse(field, "value 0 invalid, must be 1 or larger".into());
            }
        }
        if self.hits() > RESULTS_MAX {
            let text = format!("limit {} times group_size {} is above {RESULTS_MAX}", self.limit, self.size);
            return refuse("limit", text);
        }
        Ok(())
    }

    /// Hits in full groups.
    pub fn hits(&self) -> usize {
        self.limit.saturating_mul(self.size)
    }
}

/// What names a group: the value of a payload field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum GroupId {
    /// A string.
    Text(String),
    /// An integer.
    Integer(i64),
    /// An integer above the range of the others, at least 2^63. Filters have no equality for these.
    Large(u64),
}

impl GroupId {
    fn of(value: &Value) -> Option<GroupId> {
        match value {
            Value::String(text) => Some(GroupId::Text(text.clone())),
            Value::Number(number) => {
                number.as_i64().map(GroupId::Integer).or_else(|| number.as_u64().map(GroupId::Large))
            }
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// The groups of a point, each once, in the order of its values; an array stands for its elements. None at all when
    /// one of the values is neither a string nor an integer.
    pub(super) fn of_point(by: &KeyPath, fields: &Fields) -> Vec<GroupId> {
        let mut ids: Vec<GroupId> = Vec::new();
        let mut seen = HashSet::new();
        let mut is_good = true;
        let mut see = |value: &Value| match GroupId::of(value) {
            Some(id) if seen.insert(id.clone()) => ids.push(id),
            Some(_) => {}
            None => is_good = false,
        };
        by.visit(fields, &mut |value| match value {
            Value::Array(values) => values.iter().for_each(&mut see),
            other => see(other),
        });
        if is_good { ids } else { Vec::new() }
    }

    /// The point of another collection that the group stands for: an integer is its number, a text its UUID.
    pub fn point(&self) -> Option<PointId> {
        match self {
            GroupId::Text(text) => uuid::Uuid::parse_str(text).ok().map(PointId::Uuid),
            GroupId::Integer(number) => u64::try_from(*number).ok().map(PointId::Num),
            GroupId::Large(number) => Some(PointId::Num(*number)),
        }
    }
}

/// Hits that share a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The value.
    pub id: GroupId,
    /// Best first.
    pub hits: Vec<Hit>,
}

/// How hits of several queries that differ in their filters are put in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// By score, of equal ones by id.
    Score(ScoreOrder),
    /// As they were found: a later query finds what is behind.
    AsFound,
}

impl Rank {
    fn compare(self, a: &Hit, b: &Hit) -> Ordering {
        match self {
            Rank::Score(ScoreOrder::LargerIsBetter) => b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)),
            Rank::Score(ScoreOrder::SmallerIsBetter) => a.score.total_cmp(&b.score).then(a.id.cmp(&b.id)),
            Rank::AsFound => Ordering::Equal,
        }
    }
}

/// The groups found so far.
#[derive(Debug)]
pub(super) struct Grouping<'a> {
    spec: &'a GroupSpec,
    rank: Rank,
    groups: Vec<Group>,
    /// By place: whether all points of the group have been seen, or as many as it takes.
    whole: Vec<bool>,
    places: HashMap<GroupId, usize>,
    /// Points seen that are in no group.
    ungrouped: HashSet<PointId>,
    /// Points seen that are only in groups known before.
    known: HashSet<PointId>,
}

impl<'a> Grouping<'a> {
    pub(super) fn new(spec: &'a GroupSpec, rank: Rank) -> Grouping<'a> {
        Grouping {
            spec,
            rank,
            groups: Vec::new(),
            whole: Vec::new(),
            places: HashMap::new(),
            ungrouped: HashSet::new(),
            known: HashSet::new(),
        }
    }

    /// Whether groups are missing.
    pub(super) fn wants_groups(&self) -> bool {
        self.groups.len() < self.spec.limit
    }

    /// Takes the hits, best first, of a query for at most `asked` of the points that are not only in known groups.
    /// Returns whether there may be more. Known groups get nothing: better hits of theirs may have been left out.
    pub(super) fn take_round(&mut self, hits: Vec<Hit>, asked: usize) -> Result<bool> {
        let may_have_more = hits.len() >= asked;
        let first_new = self.groups.len();
        for hit in hits {
            let ids = group_ids(&self.spec.by, &hit)?;
            if ids.is_empty() {
                self.ungrouped.insert(hit.id);
                continue;
            }
            let mut is_of_new = false;
            for id in ids {
                let place = match self.places.get(&id) {
                    Some(place) => *place,
                    None if self.groups.len() < self.spec.limit => {
                        let place = self.groups.len();
                        self.places.insert(id.clone(), place);
                        self.groups.push(Group { id, hits: Vec::new() });
                        self.whole.push(!may_have_more);
                        place
                    }
                    None => continue,
                };
                if place >= first_new {
                    is_of_new = true;
                    let group = &mut self.groups[place];
                    if group.hits.len() < self.spec.size {
                        group.hits.push(hit.clone());
                    }
                }
            }
            if !is_of_new {
                self.known.insert(hit.id);
            }
        }
        Ok(may_have_more)
    }

    /// The filter with which points of groups that are not known yet are found.
    pub(super) fn filter_of_round(&self, base: Option<&Arc<Filter>>) -> Arc<Filter> {
        let mut filter = base.map(|base| Filter::clone(base)).unwrap_or_default();
        let by = &self.spec.by;
        filter.must_not.push(Condition::IsEmpty(by.clone()));
        let (mut texts, mut integers) = (Vec::new(), Vec::new());
        for group in &self.groups {
            match &group.id {
                GroupId::Text(text) => texts.push(text.clone()),
                GroupId::Integer(number) => integers.push(*number),
                // Its points come again, once each: then they are known.
                GroupId::Large(_) => {}
            }
        }
        // A value of another type passes: a point with two types of values comes again once, too.
        let except = |values| {
            Condition::Field(FieldCondition { key: by.clone(), test: FieldTest::Match(Match::Except(values)) })
        };
        if !texts.is_empty() {
            filter.must.push(except(Values::Keywords(SortedSet::new(texts))));
        }
        if !integers.is_empty() {
            filter.must.push(except(Values::Integers(SortedSet::new(integers))));
        }
        let seen: Vec<PointId> = self.ungrouped.union(&self.known).copied().collect();
        if !seen.is_empty() {
            filter.must_not.push(Condition::HasId(SortedSet::new(seen)));
        }
        Arc::new(filter)
    }

    /// Places of the groups that may have more hits than they were given.
    pub(super) fn unfilled(&self) -> Vec<usize> {
        let is_unfilled = |place: &usize| !self.whole[*place] && self.groups[*place].hits.len() < self.spec.size;
        (0..self.groups.len()).filter(is_unfilled).collect()
    }

    /// Of these places that of the group with the longest value: no other one's filter is longer by much.
    pub(super) fn longest(&self, places: &[usize]) -> Option<usize> {
        let bytes = |place: &usize| match &self.groups[*place].id {
            GroupId::Text(text) => text.len(),
            GroupId::Integer(_) | GroupId::Large(_) => 0,
        };
        places.iter().copied().max_by_key(bytes)
    }

    /// The filter with which points of a group are found.
    pub(super) fn filter_of_group(&self, place: usize, base: Option<&Arc<Filter>>) -> Arc<Filter> {
        let mut filter = base.map(|base| Filter::clone(base)).unwrap_or_default();
        let test = match &self.groups[place].id {
            GroupId::Text(text) => FieldTest::Match(Match::Keyword(text.clone())),
            GroupId::Integer(number) => FieldTest::Match(Match::Integer(*number)),
            // The nearest there is to equality: neighbours that pass are left out afterwards.
            GroupId::Large(number) => {
                let bound = Some(*number as f64);
                FieldTest::Range(Range { gte: bound, lte: bound, ..Range::default() })
            }
        };
        filter.must.push(Condition::Field(FieldCondition { key: self.spec.by.clone(), test }));
        if !self.ungrouped.is_empty() {
            let ids = self.ungrouped.iter().copied().collect();
            filter.must_not.push(Condition::HasId(SortedSet::new(ids)));
        }
        Arc::new(filter)
    }

    /// Takes the hits, best first, of a query for the points of a group, as many as the group may have.
    pub(super) fn fill(&mut self, place: usize, hits: Vec<Hit>) -> Result<()> {
        let is_cut = hits.len() >= self.spec.size;
        let mut found = Vec::with_capacity(hits.len());
        let mut met_ungrouped = false;
        for hit in hits {
            let ids = group_ids(&self.spec.by, &hit)?;
            if ids.contains(&self.groups[place].id) {
                found.push(hit);
            } else if ids.is_empty() {
                met_ungrouped |= self.ungrouped.insert(hit.id);
            }
        }
        // Only what took a place for nothing is worth another query: it will be left out of that.
        self.whole[place] = !(is_cut && met_ungrouped);
        let (rank, size) = (self.rank, self.spec.size);
        let group = &mut self.groups[place];
        let before = std::mem::take(&mut group.hits);
        let (mut all, more) = match rank {
            // What was found last is the newest.
            Rank::Score(_) => (found, before),
            Rank::AsFound => (before, found),
        };
        let mut ids: HashSet<PointId> = all.iter().map(|hit| hit.id).collect();
        all.extend(more.into_iter().filter(|hit| ids.insert(hit.id)));
        all.sort_by(|a, b| rank.compare(a, b));
        all.truncate(size);
        group.hits = all;
        Ok(())
    }

    /// The groups, by their best hits.
    pub(super) fn finish(self) -> Vec<Group> {
        let mut groups = self.groups;
        groups.retain(|group| !group.hits.is_empty());
        groups.sort_by(|a, b| match (a.hits.first(), b.hits.first()) {
            (Some(a), Some(b)) => self.rank.compare(a, b),
            (Some(_) | None, _) => Ordering::Equal,
        });
        groups
    }
}

fn group_ids(by: &KeyPath, hit: &Hit) -> Result<Vec<GroupId>> {
    let missing = || Error::Internal("a hit to be grouped came without its payload".into());
    let point = hit.point.as_ref().ok_or_else(missing)?;
    Ok(GroupId::of_point(by, &point.payload.fields()?))
}

#[cfg(test)]
mod tests;
