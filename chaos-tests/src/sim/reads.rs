//! How the clients look at points that have copies, in every way there is. Of its own points a client knows what they hold:
//! none of them may be missing, old, or there twice.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};

use super::client::{Answer, COLLECTION, Client, IDS};
use super::model::Known;
use super::points::{Held, group_but, vector};

/// More than there are points.
const ALL: usize = 1_000;
/// Most by which a distance may differ from the same one computed otherwise.
const DISTANCE_ERROR: f64 = 1e-2;

impl Client {
    /// Reads points of its own.
    pub(super) async fn look(&mut self) {
        match self.draw(24) {
            0..4 => self.retrieve().await,
            4..6 => self.retrieve_some().await,
            6..14 => self.search_own().await,
            14..17 => self.search_group().await,
            17..19 => self.search_all().await,
            19 => self.scroll_group(false).await,
            20 => self.scroll_group(true).await,
            21 => self.count_group().await,
            22 => self.count_values().await,
            _ => self.search_like_own().await,
        }
    }

    /// Asks for something; none if that was not answered, or not by all. Now and then as somebody who knows nothing of what
    /// was written and wants to see all of it.
    async fn ask(&mut self, path: &str, body: &Json) -> Option<Json> {
        let path = format!("/collections/{COLLECTION}/{path}");
        let answer = match self.draw(4) {
            0 => {
                let answer = self.call_with(None, "POST", &format!("{path}&consistency=majority"), body).await;
                answer.map(|(answer, _)| answer)
            }
            _ => self.call("POST", &path, body).await,
        };
        self.note(format_args!("{path} {body}: {}", answer.as_ref().map_or(0, |answer| answer.status)));
        match answer {
            Some(Answer { status: 200, json, is_whole: true }) => {
                self.work.model.read();
                Some(json["result"].clone())
            }
            Some(Answer { status: status @ 400..405, json, .. }) if !is_for_other_routing(body, &json) => {
                self.violated(format_args!("was refused {path} {body} with {status}: {json}"));
                None
            }
            Some(_) | None => {
                self.work.model.read_failed();
                None
            }
        }
    }

    fn is_own(&self, id: u64) -> bool {
        id / IDS == self.number
    }

    /// What is known of each of its points.
    fn own(&self) -> BTreeMap<u64, Known> {
        let ids = self.active.iter().chain(&self.retired);
        ids.map(|id| (*id, self.work.model.known(*id))).collect()
    }

    /// Checks points of an answer: each is there once, and those of its own hold what they may.
    pub(super) fn check_shown(&self, what: &str, shown: &[Json]) -> BTreeSet<u64> {
        let mut seen = BTreeSet::new();
        for point in shown {
            let Some(id) = point["id"].as_u64() else {
                self.violated(format_args!("{what} shows {point}"));
                continue;
            };
            if !seen.insert(id) {
                self.violated(format_args!("{what} shows point {id} twice"));
            }
            let known = self.work.model.known(id);
            if self.is_own(id) && !known.states().any(|state| state.is_some()) {
                self.violated(format_args!("{what} shows point {id}, which is not there"));
            }
            let held = Held::shown(id, point);
            if self.is_own(id) && !point["payload"].is_null() && !known.allows(Some(held)) {
                self.violated(format_args!("{what} shows {held:?} of point {id}, which holds {known:?}"));
            }
        }
        seen
    }

    /// Checks that an answer shows all own points that must be in it, and none that must not.
    fn check_all(&self, what: &str, seen: &BTreeSet<u64>, belongs: impl Fn(&Held) -> bool) {
        for (id, known) in self.own() {
            let may = known.states().flatten().any(|held| belongs(&held));
            let must = known.states().all(|state| state.is_some_and(|held| belongs(&held)));
            match seen.contains(&id) {
                true if !may => self.violated(format_args!("{what} shows point {id}, which holds {known:?}")),
                false if must => self.violated(format_args!("{what} lacks point {id}, which holds {known:?}")),
                true | false => {}
            }
        }
    }

    /// Checks distances from `query`, of own points whose vectors are known.
    fn check_distances(&self, what: &str, query: [f32; 4], shown: &[Json]) {
        let mut last = 0.0;
        for point in shown {
            let (id, score) = (point["id"].as_u64().unwrap_or(0), point["score"].as_f64().unwrap_or(-1.0));
            if score < last {
                self.violated(format_args!("{what} shows {score} after {last}"));
            }
            last = score;
            let known = self.work.model.known(id);
            if !self.is_own(id) || !known.is_certain() {
                continue;
            }
            let Some(own) = known.acked.and_then(|held| held.vector).map(|serial| vector(id, serial)) else {
                self.violated(format_args!("{what} shows point {id}, which holds {known:?}"));
                continue;
            };
            let distance = own.iter().zip(query).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
            if (distance - score).abs() > DISTANCE_ERROR {
                self.violated(format_args!("{what} shows point {id} at {score}, it is at {distance}: {known:?}"));
            }
        }
    }

    async fn retrieve_some(&mut self) {
        let ids: BTreeSet<u64> = (0..8).map(|_| self.pick()).collect();
        let body = json!({"ids": ids, "with_payload": true, "with_vector": true});
        let Some(found) = self.ask("points?timeout=5", &body).await else { return };
        let seen = self.check_shown("a read by ids", &list(&found));
        for id in ids.iter().filter(|id| !seen.contains(id)) {
            let known = self.work.model.known(*id);
            if !known.allows(None) {
                self.violated(format_args!("a read by ids lacks point {id}, which holds {known:?}"));
            }
        }
    }

    /// Looks for a point by its vector, however widely: it must be the nearest to itself.
    async fn search_own(&mut self) {
        let id = self.pick();
        let known = self.work.model.known(id);
        let Some(held) = known.acked else { return };
        let Some(serial) = held.vector else { return };
        let params = match self.draw(6) {
            0 => json!({"exact": true}),
            1 | 2 => json!({"nprobe_shards": 1}),
            3 => json!({"routing": "all"}),
            _ => json!({}),
        };
        let filter = match (self.draw(8), held.group) {
            (0 | 1, Some(group)) => group_but(group, &[]),
            (2, _) => json!({"must": [{"in_clusters_of": [id]}]}),
            (_, _) => Json::Null,
        };
        let has_parts = self.draw(3) > 0;
        let query = vector(id, serial);
        let limit = 1 + self.draw(6);
        let body = json!({"query": query, "limit": limit, "params": params, "filter": filter,
            "with_payload": has_parts, "with_vector": has_parts});
        let Some(found) = self.ask("points/query?timeout=5", &body).await else { return };
        let shown = list(&found["points"]);
        self.check_shown("a search", &shown);
        self.check_distances("a search", query, &shown);
        if shown.first().and_then(|first| first["id"].as_u64()) != Some(id) {
            self.violated(format_args!("searched for point {id} at {serial} with {body} and found {found}"));
        }
    }

    /// Searches among the points of a group: an exact search finds all.
    async fn search_group(&mut self) {
        let (group, near) = (self.group(), self.pick());
        let query = vector(near, self.work.model.next_serial());
        let is_exact = self.draw(2) == 0;
        let body = json!({"query": query, "limit": ALL, "params": {"exact": is_exact}, "filter": group_but(group, &[]),
            "with_payload": true, "with_vector": true});
        let Some(found) = self.ask("points/query?timeout=5", &body).await else { return };
        let (what, shown) = ("a search of a group", list(&found["points"]));
        let seen = self.check_shown(what, &shown);
        self.check_distances(what, query, &shown);
        match is_exact {
            true => self.check_all(what, &seen, |held| held.group == Some(group) && held.vector.is_some()),
            false => self.check_some(what, &seen, |held| held.group == Some(group) && held.vector.is_some()),
        }
    }

    /// Searches for everything: all that is its own and has a vector is there.
    async fn search_all(&mut self) {
        let (near, has_parts) = (self.pick(), self.draw(2) == 0);
        let query = vector(near, self.work.model.next_serial());
        let body = json!({"query": query, "limit": ALL, "params": {"exact": true},
            "with_payload": has_parts, "with_vector": has_parts});
        let Some(found) = self.ask("points/query?timeout=5", &body).await else { return };
        let (what, shown) = ("a search for everything", list(&found["points"]));
        let seen = self.check_shown(what, &shown);
        self.check_distances(what, query, &shown);
        self.check_all(what, &seen, |held| held.vector.is_some());
    }

    /// Searches by a stored point, which is no hit itself.
    async fn search_like_own(&mut self) {
        let id = self.pick();
        let known = self.work.model.known(id);
        let Some(serial) = known.acked.and_then(|held| held.vector) else { return };
        let body = json!({"query": id, "limit": 5, "with_payload": true, "with_vector": true});
        let Some(found) = self.ask("points/query?timeout=5", &body).await else { return };
        let shown = list(&found["points"]);
        let seen = self.check_shown("a search by a point", &shown);
        self.check_distances("a search by a point", vector(id, serial), &shown);
        if seen.contains(&id) {
            self.violated(format_args!("a search by point {id} finds itself"));
        }
    }

    /// Pages through a group, in the order of ids or of what the payloads hold.
    async fn scroll_group(&mut self, is_ordered: bool) {
        let group = self.group();
        let order = if is_ordered { json!({"key": "serial"}) } else { Json::Null };
        let body = json!({"filter": group_but(group, &[]), "limit": ALL, "order_by": order, "with_payload": true,
            "with_vector": true});
        let Some(found) = self.ask("points/scroll?timeout=5", &body).await else { return };
        let shown = list(&found["points"]);
        let seen = self.check_shown("a page", &shown);
        self.check_all("a page", &seen, |held| held.group == Some(group));
        let key = |point: &Json| point[if is_ordered { "payload" } else { "id" }].clone();
        let keys: Vec<Option<u64>> = match is_ordered {
            true => shown.iter().map(|point| key(point)["serial"].as_u64()).collect(),
            false => shown.iter().map(|point| key(point).as_u64()).collect(),
        };
        if !keys.is_sorted() {
            self.violated(format_args!("a page is in the order {keys:?}"));
        }
    }

    async fn count_group(&mut self) {
        let group = self.group();
        let Some(found) = self.ask("points/count?timeout=5", &json!({"filter": group_but(group, &[])})).await else {
            return;
        };
        self.check_count("a count", group, found["count"].as_u64().unwrap_or(u64::MAX));
    }

    async fn count_values(&mut self) {
        let Some(found) = self.ask("facet?timeout=5", &json!({"key": "group", "limit": ALL})).await else { return };
        let counts = list(&found["hits"]);
        let counts = counts.iter().filter_map(|hit| Some((hit["value"].as_u64()?, hit["count"].as_u64()?)));
        let counts: BTreeMap<u64, u64> = counts.collect();
        for group in self.groups.clone() {
            self.check_count("a facet", group, counts.get(&group).copied().unwrap_or(0));
        }
    }

    fn check_count(&self, what: &str, group: u64, count: u64) {
        let is_in = |held: &Held| held.group == Some(group);
        let own = self.own();
        let most = own.values().filter(|known| known.states().flatten().any(|held| is_in(&held))).count() as u64;
        let must = |known: &&Known| known.states().all(|state| state.is_some_and(|held| is_in(&held)));
        let least = own.values().filter(must).count() as u64;
        if !(least..=most).contains(&count) {
            self.violated(format_args!("{what} finds {count} points in group {group}, there are {least} to {most}"));
        }
    }

    /// The part of [`Client::check_all`] that holds where not all has to be found.
    fn check_some(&self, what: &str, seen: &BTreeSet<u64>, belongs: impl Fn(&Held) -> bool) {
        for (id, known) in self.own() {
            if seen.contains(&id) && !known.states().flatten().any(|held| belongs(&held)) {
                self.violated(format_args!("{what} shows point {id}, which holds {known:?}"));
            }
        }
    }

    fn group(&mut self) -> u64 {
        let place = self.draw(self.groups.len() as u64) as usize;
        self.groups[place]
    }
}

/// Whether something is refused that depends on how the collection is routed, or on clusters that are there only sometimes.
fn is_for_other_routing(body: &Json, refusal: &Json) -> bool {
    let asks_for_clusters = body.to_string().contains("in_clusters");
    asks_for_clusters || refusal.to_string().contains("goes with collections that are routed by cluster")
}

fn list(of: &Json) -> Vec<Json> {
    of.as_array().cloned().unwrap_or_default()
}
