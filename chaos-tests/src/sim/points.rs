//! Points as the clients write them, and what can be done to them. Pure: a change says what it makes of a point, and how a
//! request asks for it.

use serde_json::{Value as Json, json};

use super::model::Value;

/// What a point holds. Every write has a serial number, so its parts tell which write made them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// The write that made its vector; none: it has no vector.
    pub(super) vector: Option<u64>,
    /// The write that made its payload whole; none: it has no payload, or had one set since that was not whole.
    pub(super) serial: Option<u64>,
    /// In its payload: what its writer selects it by.
    pub(super) group: Option<u64>,
    /// In its payload: the last write that set this field.
    pub(super) mark: Option<u64>,
}

impl Held {
    /// A point that a write makes whole.
    pub(super) fn whole(serial: u64, group: Option<u64>) -> Held {
        Held { vector: Some(serial), serial: Some(serial), group, mark: None }
    }

    /// As an answer shows a point of this id.
    pub(super) fn shown(id: u64, point: &Json) -> Held {
        let field = |name: &str| point["payload"][name].as_u64();
        let numbers: Vec<f64> = point["vector"].as_array().into_iter().flatten().filter_map(Json::as_f64).collect();
        let vector = (!numbers.is_empty()).then(|| {
            let serial = numbers.get(2).zip(numbers.get(3)).map_or(0, |(low, high)| *low as u64 | (*high as u64) << 12);
            let is_own = numbers.iter().copied().eq(vector(id, serial).into_iter().map(f64::from));
            if is_own { serial } else { u64::MAX }
        });
        Held { vector, serial: field("serial"), group: field("group"), mark: field("mark") }
    }
}

/// A vector that only this version of this point has, exact in 32 bits.
pub(super) fn vector(id: u64, serial: u64) -> [f32; 4] {
    let part = |of: u64, by: u32| ((of >> by) & 0xFFF) as f32;
    [part(id, 0), part(id, 12), part(serial, 0), part(serial, 12)]
}

/// Something that is done to points. Those that are not there are left out, but by upserts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Makes them whole, in this group.
    Upsert(u64),
    /// The same, but points that are there only if they are in the other group.
    UpsertIf(u64, u64),
    UpdateVectors,
    SetPayload,
    OverwritePayload(u64),
    DeletePayload,
    ClearPayload,
    DeleteVectors,
    Delete,
}

/// The points that something is done to.
#[derive(Clone, Debug)]
pub(super) enum Targets {
    Ids(Vec<u64>),
    /// All of this group but some.
    Group(u64, Vec<u64>),
}

impl Change {
    /// Whether it can be asked for by a filter.
    pub(super) fn is_by_filter(self) -> bool {
        !matches!(self, Change::Upsert(_) | Change::UpsertIf(..) | Change::UpdateVectors)
    }

    /// Whether it makes points that are not there.
    pub(super) fn makes_points(self) -> bool {
        matches!(self, Change::Upsert(_) | Change::UpsertIf(..))
    }

    /// What the write of this serial number makes of a point.
    pub(super) fn of(self, before: Value, serial: u64) -> Value {
        match (self, before) {
            (Change::Upsert(group), _) | (Change::UpsertIf(group, _), None) => Some(Held::whole(serial, Some(group))),
            (Change::UpsertIf(group, only), Some(held)) => match held.group == Some(only) {
                true => Some(Held::whole(serial, Some(group))),
                false => before,
            },
            (_, None) | (Change::Delete, _) => None,
            (Change::UpdateVectors, Some(held)) => Some(Held { vector: Some(serial), ..held }),
            (Change::SetPayload, Some(held)) => Some(Held { mark: Some(serial), ..held }),
            (Change::OverwritePayload(group), Some(held)) => {
                Some(Held { vector: held.vector, ..Held::whole(serial, Some(group)) })
            }
            (Change::DeletePayload, Some(held)) => Some(Held { mark: None, ..held }),
            (Change::ClearPayload, Some(held)) => Some(Held { vector: held.vector, ..Held::default() }),
            (Change::DeleteVectors, Some(held)) => Some(Held { vector: None, ..held }),
        }
    }

    /// Method and path of its request, below the collection's.
    pub(super) fn route(self) -> (&'static str, &'static str) {
        match self {
            Change::Upsert(_) | Change::UpsertIf(..) => ("PUT", "points"),
            Change::UpdateVectors => ("PUT", "points/vectors"),
            Change::SetPayload => ("POST", "points/payload"),
            Change::OverwritePayload(_) => ("PUT", "points/payload"),
            Change::DeletePayload => ("POST", "points/payload/delete"),
            Change::ClearPayload => ("POST", "points/payload/clear"),
            Change::DeleteVectors => ("POST", "points/vectors/delete"),
            Change::Delete => ("POST", "points/delete"),
        }
    }

    /// Its name in a batch.
    pub(super) fn name(self) -> &'static str {
        match self {
            Change::Upsert(_) | Change::UpsertIf(..) => "upsert",
            Change::UpdateVectors => "update_vectors",
            Change::SetPayload => "set_payload",
            Change::OverwritePayload(_) => "overwrite_payload",
            Change::DeletePayload => "delete_payload",
            Change::ClearPayload => "clear_payload",
            Change::DeleteVectors => "delete_vectors",
            Change::Delete => "delete",
        }
    }

    /// The body of its request. Payloads are filled up, so that a few writes make a segment.
    pub(super) fn body(self, targets: &Targets, serial: u64, filling: &str) -> Json {
        let payload = |group: u64| json!({"serial": serial, "group": group, "filling": filling});
        let whole = |group: u64| match targets {
            Targets::Ids(ids) => {
                let point = |id: &u64| json!({"id": id, "vector": vector(*id, serial), "payload": payload(group)});
                ids.iter().map(point).collect()
            }
            Targets::Group(..) => Vec::new(),
        };
        let mut body = match self {
            Change::Upsert(group) => return json!({"points": whole(group)}),
            Change::UpsertIf(group, only) => {
                return json!({"points": whole(group), "update_filter": {"must": [in_group(only)]}});
            }
            Change::UpdateVectors => {
                let Targets::Ids(ids) = targets else { return Json::Null };
                let points: Vec<Json> = ids.iter().map(|id| json!({"id": id, "vector": vector(*id, serial)})).collect();
                return json!({ "points": points });
            }
            Change::SetPayload => json!({"payload": {"mark": serial}}),
            Change::OverwritePayload(group) => json!({"payload": payload(group)}),
            Change::DeletePayload => json!({"keys": ["mark"]}),
            Change::DeleteVectors => json!({"vector": [""]}),
            Change::ClearPayload | Change::Delete => json!({}),
        };
        match targets {
            Targets::Ids(ids) => body["points"] = json!(ids),
            Targets::Group(group, but) => body["filter"] = group_but(*group, but),
        }
        body
    }
}

fn in_group(group: u64) -> Json {
    json!({"key": "group", "match": {"value": group}})
}

/// Selects the points of a group, but for some.
pub(super) fn group_but(group: u64, but: &[u64]) -> Json {
    match but.is_empty() {
        true => json!({"must": [in_group(group)]}),
        false => json!({"must": [in_group(group)], "must_not": [{"has_id": but}]}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read_as_they_were_written() {
        let held = Held { mark: Some(9), ..Held::whole(5_000, Some(3)) };
        let point = json!({"id": 1_000_007, "vector": vector(1_000_007, 5_000), "payload": {"serial": 5_000, "group": 3, "mark": 9}});
        assert_eq!(Held::shown(1_000_007, &point), held);
        assert_eq!(Held::shown(1_000_008, &point).vector, Some(u64::MAX), "the vector of another point");
        assert_eq!(Held::shown(1, &json!({"id": 1, "vector": {}, "payload": {}})), Held::default());
    }

    #[test]
    fn changes_leave_alone_what_they_are_not_about() {
        let before = Some(Held { mark: Some(2), ..Held::whole(1, Some(7)) });
        assert_eq!(Change::Upsert(8).of(before, 5), Some(Held::whole(5, Some(8))));
        assert_eq!(Change::UpsertIf(8, 6).of(before, 5), before);
        assert_eq!(Change::UpsertIf(8, 6).of(None, 5), Some(Held::whole(5, Some(8))));
        let after = Change::OverwritePayload(8).of(before, 5).unwrap();
        assert_eq!(after, Held { vector: Some(1), ..Held::whole(5, Some(8)) });
        assert_eq!(Change::ClearPayload.of(before, 5), Some(Held { vector: Some(1), ..Held::default() }));
        assert_eq!(Change::DeleteVectors.of(before, 5).unwrap().vector, None);
        assert_eq!(Change::SetPayload.of(None, 5), None);
    }
}
