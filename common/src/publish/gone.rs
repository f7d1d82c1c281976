//! Which copies are gone: what searches trip over and what the sweep comes across goes for the same facts. Pure.

use std::collections::BTreeMap;

use crate::ids::LogIndex;
use crate::point::PointId;

/// An id and the version of it that a copy has.
pub type CopyVersion = (PointId, LogIndex);

/// What a home shard has of some points, as its leader confirms it with a majority: its state at a moment after their copies
/// were read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AtHome {
    /// What it had applied.
    pub applied: LogIndex,
    /// Its rows up to this version are in their places; perhaps others, too.
    pub published: LogIndex,
    /// Of the ids that it was asked for those it has, with their versions.
    pub versions: BTreeMap<PointId, LogIndex>,
}

/// Of a page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judged {
    /// Copies of versions that home shards have replaced for good, in the order of the page.
    pub gone: Vec<CopyVersion>,
    /// How many more may be, or may be soon.
    pub unknown: usize,
}

/// Which copies are gone. `homes` are all home shards of the collection, in any order; `None` for one that did not answer.
/// An id belongs to one of them, which need not be known:
///
/// - One has the id at a later version: the copy was replaced. It may go once the later version is in its places, because
///   until then a search finds the point by this copy only.
/// - All have answered and none has the id: it was deleted. That the copy's version was applied at home before it was sent
///   makes sure that it is not a home shard that is behind; one that has lost its log so far is not believed.
/// - Anything else proves nothing.
pub fn gone(page: &[CopyVersion], homes: &[Option<AtHome>]) -> Judged {
    let mut judged = Judged::default();
    for (id, version) in page {
        let holders = || homes.iter().flatten().filter_map(|home| Some((home, *home.versions.get(id)?)));
        let may_go = if holders().any(|(_, at_home)| at_home <= *version) {
            // Current; or an older one, which no home shard can have.
            continue;
        } else if holders().next().is_some() {
            holders().all(|(home, at_home)| at_home <= home.published)
        } else {
            let has_applied_it = homes.iter().flatten().any(|home| home.applied >= *version);
            has_applied_it && homes.iter().all(Option::is_some)
        };
        match may_go {
            true => judged.gone.push((*id, *version)),
            false => judged.unknown += 1,
        }
    }
    judged
}

/// Whether it matters to [`gone`] what a home shard has published.
pub fn has_newer(page: &[CopyVersion], home: &AtHome) -> bool {
    page.iter().any(|(id, version)| home.versions.get(id).is_some_and(|at_home| at_home > version))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// What happens at a home shard: a write of an id, or its deletion.
    #[derive(Clone, Debug)]
    struct Event {
        id: u64,
        is_delete: bool,
    }

    const HOMES: u64 = 3;

    fn pair(id: u64, version: u64) -> CopyVersion {
        (PointId::Num(id), LogIndex(version))
    }

    /// AtHome shards after a history, and all versions that there ever were. An id belongs to the shard of its remainder.
    fn homes_after(history: &[Event], published: &[u64]) -> (Vec<AtHome>, BTreeSet<CopyVersion>) {
        let mut homes = vec![AtHome::default(); HOMES as usize];
        let mut ever = BTreeSet::new();
        for Event { id, is_delete } in history {
            let home = &mut homes[(id % HOMES) as usize];
            home.applied.0 += 1;
            if *is_delete {
                home.versions.remove(&PointId::Num(*id));
            } else {
                home.versions.insert(PointId::Num(*id), home.applied);
                ever.insert((PointId::Num(*id), home.applied));
            }
        }
        for (home, back) in homes.iter_mut().zip(published) {
            home.published = LogIndex(home.applied.0.saturating_sub(*back));
        }
        (homes, ever)
    }

    fn current(homes: &[AtHome]) -> BTreeSet<CopyVersion> {
        homes.iter().flat_map(|home| home.versions.iter().map(|(id, version)| (*id, *version))).collect()
    }

    proptest! {
        #[test]
        fn nothing_goes_that_is_current_or_stands_in_for_what_is_not_published(
            history in prop::collection::vec(
                (0u64..12, any::<bool>()).prop_map(|(id, is_delete)| Event { id, is_delete }), 1..60),
            published in prop::collection::vec(0u64..6, HOMES as usize),
            held in prop::collection::vec(any::<bool>(), 60),
            silent in prop::collection::vec(prop::bool::weighted(0.2), HOMES as usize),
        ) {
            let (homes, ever) = homes_after(&history, &published);
            let page: Vec<CopyVersion> = ever.iter().zip(held).filter(|(_, held)| *held).map(|(pair, _)| *pair).collect();
            let answers: Vec<Option<AtHome>> =
                homes.iter().zip(&silent).map(|(home, silent)| (!silent).then(|| home.clone())).collect();
            let judged = gone(&page, &answers);
            let live = current(&homes);
            for (id, version) in &judged.gone {
                prop_assert!(!live.contains(&(*id, *version)));
                // The point, if there is still one, is found by its own version.
                let home = homes.iter().find(|home| home.versions.contains_key(id));
                prop_assert!(home.is_none_or(|home| home.versions[id] <= home.published));
            }
            let over: Vec<CopyVersion> = page.iter().copied().filter(|pair| !live.contains(pair)).collect();
            prop_assert!(judged.gone.len() + judged.unknown >= over.len());
            prop_assert!(judged.gone.iter().all(|pair| page.contains(pair)));

            // Once all answer and have published, one more look leaves what is current, and nothing else.
            let settled: Vec<Option<AtHome>> =
                homes.iter().map(|home| Some(AtHome { published: home.applied, ..home.clone() })).collect();
            prop_assert_eq!(gone(&page, &settled), Judged { gone: over, unknown: 0 });
        }
    }

    #[test]
    fn what_is_not_known_stays() {
        let home = |applied: u64, published: u64, versions: &[CopyVersion]| {
            let versions = versions.iter().copied().collect();
            Some(AtHome { applied: LogIndex(applied), published: LogIndex(published), versions })
        };
        let page = [pair(1, 5)];
        let judge = |homes: &[Option<AtHome>]| {
            let judged = gone(&page, homes);
            (judged.gone.len(), judged.unknown)
        };
        assert_eq!(judge(&[]), (0, 1), "no home shard is known");
        assert_eq!(judge(&[None]), (0, 1));
        assert_eq!(judge(&[home(9, 9, &[]), None]), (0, 1), "it may be in the one that is silent");
        assert_eq!(judge(&[home(4, 4, &[]), home(3, 3, &[])]), (0, 1), "none has applied that version");
        assert_eq!(judge(&[home(4, 4, &[]), home(5, 0, &[])]), (1, 0), "deleted");
        assert_eq!(judge(&[home(9, 9, &[pair(1, 5)]), None]), (0, 0), "current");
        assert_eq!(judge(&[home(9, 9, &[pair(1, 4)])]), (0, 0), "never the other way round");
        assert_eq!(judge(&[home(9, 7, &[pair(1, 8)])]), (0, 1), "its successor is not found yet");
        assert_eq!(judge(&[home(9, 8, &[pair(1, 8)]), None]), (1, 0), "replaced");
        assert!(has_newer(&page, &home(9, 0, &[pair(1, 6)]).unwrap()));
        assert!(!has_newer(&page, &home(9, 0, &[pair(1, 5), pair(2, 9)]).unwrap()));
    }
}
