//! Queries made of points of other collections: their vectors are looked up there before the query is run.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use vicinal_common::api::{PointParts, VectorSelector};
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::{Condition, SortedSet};
use vicinal_common::ids::CollectionId;
use vicinal_common::point::PointId;
use vicinal_common::vector::Vector;

use super::examples::{check_components, components};
use super::read::retrieve;
use super::request::resolve_vector_name;
use super::scatter::ReadSpec;
use super::tree::QueryTree;
use crate::shards::{CollectionRef, ShardAccess};

/// Where the points that a query is made of are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupFrom {
    /// Name of the collection, or an alias.
    pub collection: String,
    /// Name of the vector there; that of the query's own when it is not given.
    pub vector: Option<String>,
}

/// A collection by name, and the vector's name.
type Place = (String, String);

/// What was found in a place.
struct Found {
    /// Whether it is the collection that is searched.
    is_own: bool,
    vectors: HashMap<PointId, Vector>,
}

/// Finds a collection by its name or an alias.
type Find<'a> = &'a (dyn Fn(&str) -> Result<CollectionRef> + Send + Sync);

/// Puts vectors in the place of stored points wherever a query says where to look them up. Afterwards no query says so.
/// Such points are hits like all others, unless the place is the collection searched itself, `own`.
///
/// `NotFound` when a collection or a point does not exist, `BadInput` when a point or a collection has no such vector,
/// `Validation` when the queries would hold too many vectors.
pub async fn resolve_lookups(
    access: &ShardAccess,
    find: Find<'_>,
    spec: ReadSpec<'_>,
    own: CollectionId,
    trees: &mut [QueryTree],
) -> Result<()> {
    let mut wanted: BTreeMap<Place, BTreeSet<PointId>> = BTreeMap::new();
    trees.iter().for_each(|tree| collect(tree, &mut wanted));
    let mut found = BTreeMap::new();
    for ((name, vector), ids) in wanted {
        let collection = find(&name)?;
        if ids.is_empty() {
            continue;
        }
        resolve_vector_name(&collection.schema, &vector)?;
        let again = || {
            let now = find(&name)?;
            let gone = || Error::NotFound(format!("Collection `{name}` doesn't exist!"));
            if now.id == collection.id { Ok(now) } else { Err(gone()) }
        };
        let ids: Vec<PointId> = ids.into_iter().collect();
        let parts = PointParts { payload: false, vectors: VectorSelector::Named(vec![vector.clone()]) };
        let (points, coverage) = retrieve(access, &again, spec, &ids, &parts).await?;
        let mut vectors = HashMap::with_capacity(points.len());
        for mut point in points {
            let no_vector =
                || Error::BadInput(format!("point {} of `{name}` has no vector `{vector}` to search by", point.id));
            let vector = point.vectors.remove(&vector).ok_or_else(no_vector)?;
            vectors.insert(point.id, vector);
        }
        if let Some(missing) = ids.iter().find(|id| !vectors.contains_key(id)) {
            // A shard that did not answer does not say that the point is absent.
            coverage.check(false)?;
            return Err(Error::NotFound(format!("No point with id {missing} found in `{name}`")));
        }
        found.insert((name, vector), Found { is_own: collection.id == own, vectors });
    }
    let copied = Cell::new(0);
    trees.iter_mut().try_for_each(|tree| replace(tree, &found, &copied))
}

fn place_of(tree: &QueryTree) -> Option<Place> {
    let from = tree.lookup_from.as_ref()?;
    Some((from.collection.clone(), from.vector.clone().unwrap_or_else(|| tree.query.using.clone())))
}

fn collect(tree: &QueryTree, wanted: &mut BTreeMap<Place, BTreeSet<PointId>>) {
    if let Some(place) = place_of(tree) {
        wanted.entry(place).or_default().extend(tree.query.source.points());
    }
    tree.prefetch.iter().for_each(|prefetch| collect(prefetch, wanted));
}

/// `copied` counts the components of the vectors put in place, in all trees together.
fn replace(tree: &mut QueryTree, found: &BTreeMap<Place, Found>, copied: &Cell<usize>) -> Result<()> {
    if let Some(place) = place_of(tree) {
        let absent = |id: PointId| Error::Internal(format!("point {id} was not looked up"));
        let vector_of = |id: PointId| {
            let vector = found.get(&place).and_then(|found| found.vectors.get(&id));
            let vector = vector.ok_or_else(|| absent(id))?;
            copied.set(copied.get().saturating_add(components(vector)));
            check_components(copied.get())?;
            Ok(vector.clone())
        };
        let points = tree.query.source.points();
        if found.get(&place).is_some_and(|found| found.is_own) && !points.is_empty() {
            let mut filter = tree.query.filter.as_deref().cloned().unwrap_or_default();
            filter.must_not.push(Condition::HasId(SortedSet::new(points)));
            tree.query.filter = Some(Arc::new(filter));
        }
        tree.query.source = tree.query.source.clone().with_vectors(&vector_of)?;
        tree.lookup_from = None;
    }
    tree.prefetch.iter_mut().try_for_each(|prefetch| replace(prefetch, found, copied))
}

#[cfg(test)]
mod tests {
    use super::super::request::{Example, Query, Source};
    use super::super::route::Width;
    use super::*;

    #[test]
    fn vectors_are_not_put_in_place_without_a_bound() {
        let place: Place = ("other".into(), String::new());
        let vectors = HashMap::from([(PointId::Num(1), Vector::Dense(vec![1.0; 65_536]))]);
        let found = BTreeMap::from([(place, Found { is_own: false, vectors })]);
        let positive = vec![(Example::Point(PointId::Num(1)), 1.0); 200];
        let query = Query {
            source: Source::BestScore { positive, negative: Vec::new() },
            using: String::new(),
            filter: None,
            score_threshold: None,
            limit: 1,
            offset: 0,
            ef: None,
            exact: false,
            oversampling: None,
            idf_corpus: None,
            parts: PointParts::default(),
            width: Width::default(),
            allow_partial: true,
        };
        let lookup_from = Some(LookupFrom { collection: "other".into(), vector: None });
        let mut tree = QueryTree { query, prefetch: Vec::new(), lookup_from };
        let (mut again, copied) = (tree.clone(), Cell::new(0));
        replace(&mut tree, &found, &copied).unwrap();
        assert!(tree.lookup_from.is_none() && tree.query.source.points().is_empty());
        let error = replace(&mut again, &found, &copied).unwrap_err();
        assert_eq!(error.http_status(), 422, "{error}");
    }
}
