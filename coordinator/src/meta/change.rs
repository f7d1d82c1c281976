//! A change of a collection by its owner: all of it or nothing.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::merge_fields;
use vicinal_common::ids::CollectionId;
use vicinal_common::limits::METADATA_BYTES_MAX;
use vicinal_common::tuning::GraphPlacementChange;

use super::apply::refuse;
use super::command::MetaReply;
use super::routing::RoutingChange;
use super::state::{CollectionState, MetaState};
use super::strict::StrictMode;

/// What changes of a collection; what is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CollectionChange {
    /// Where open graphs are.
    pub graphs: GraphPlacementChange,
    /// Restrictions of requests.
    pub strict: Option<StrictMode>,
    /// Replicas a write waits for, as asked for.
    pub write_consistency_factor: Option<u32>,
    /// What is shown of the configuration, as a merge patch (RFC 7396), but for each `quantization_config`, which is replaced
    /// as a whole. JSON text of an object.
    pub config_json: Option<String>,
    /// Fields of the owner's metadata; those that are null are removed. JSON text of an object.
    pub metadata_json: Option<String>,
    /// How points are spread.
    pub routing: Option<RoutingChange>,
}

impl CollectionChange {
    /// The shown configuration after the change. `BadInput` when the metadata would be too large.
    fn config_after(&self, config_json: &str) -> Result<Option<String>> {
        if self.config_json.is_none() && self.metadata_json.is_none() {
            return Ok(None);
        }
        let mut config = object(config_json)?;
        if let Some(patch) = &self.config_json {
            let patch = object(patch)?;
            drop_replaced(&mut config, &patch);
            merge_patch(&mut config, patch);
        }
        if let Some(change) = &self.metadata_json {
            let change = object(change)?;
            let mut metadata = match config.remove("metadata") {
                Some(Value::Object(metadata)) => metadata,
                Some(_) | None => Map::new(),
            };
            merge_fields(&mut metadata, &change);
            let metadata = Value::Object(metadata);
            check_metadata_size(metadata.to_string().len())?;
            config.insert("metadata".into(), metadata);
        }
        Ok(Some(Value::Object(config).to_string()))
    }
}

/// Refuses metadata that is too large, by its bytes of JSON.
pub(crate) fn check_metadata_size(bytes: usize) -> Result<()> {
    match bytes > METADATA_BYTES_MAX {
        true => Err(Error::BadInput(format!(
            "`metadata` would have {bytes} bytes of JSON, the limit is {METADATA_BYTES_MAX}"
        ))),
        false => Ok(()),
    }
}

/// Whether a configuration shows one vector without a name, instead of several by name.
pub(crate) fn is_single(vectors: &Value) -> bool {
    // A vector of the name `size` would be an object.
    vectors["size"].is_number()
}

/// The field of what is said of codes, of all vectors or of one.
const CODES: &str = "quantization_config";

/// Takes away what is said of codes where `patch` says it anew: options of the one before mean nothing then.
fn drop_replaced(config: &mut Map<String, Value>, patch: &Map<String, Value>) {
    fn of(parent: &mut Map<String, Value>, patch: &Map<String, Value>) {
        if patch.contains_key(CODES) {
            parent.remove(CODES);
        }
    }
    of(config, patch);
    let changes = patch.get("params").and_then(|params| params.get("vectors"));
    let vectors = config.get_mut("params").and_then(|params| params.get_mut("vectors"));
    let Some((vectors, Value::Object(changes))) = vectors.zip(changes) else { return };
    let is_single = is_single(vectors);
    let Value::Object(vectors) = vectors else { return };
    if is_single {
        return of(vectors, changes);
    }
    for (name, change) in changes {
        if let (Some(Value::Object(vector)), Value::Object(change)) = (vectors.get_mut(name), change) {
            of(vector, change);
        }
    }
}

fn object(text: &str) -> Result<Map<String, Value>> {
    serde_json::from_str(text).map_err(|e| Error::Corrupt(format!("a stored configuration: {e}")))
}

/// Takes over the fields of `patch`; null removes one, and objects are merged. No deeper than the patch is nested, which
/// the parser bounds.
fn merge_patch(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                target.remove(&name);
            }
            Value::Object(inner) => {
                let mut merged = match target.remove(&name) {
                    Some(Value::Object(known)) => known,
                    Some(_) | None => Map::new(),
                };
                merge_patch(&mut merged, inner);
                target.insert(name, Value::Object(merged));
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                target.insert(name, value);
            }
        }
    }
}

impl MetaState {
    pub(super) fn change_collection(&mut self, id: CollectionId, change: &CollectionChange) -> MetaReply {
        let Some(found) = self.collections.get(&id).filter(|found| found.state != CollectionState::Deleting) else {
            return refuse(Error::NotFound(format!("Collection {id} was deleted")));
        };
        let config_json = match change.config_after(&found.config_json) {
            Ok(config_json) => config_json,
            Err(error) => return refuse(error),
        };
        // The only part that can still be refused: what comes after it is done in any case.
        if let Some(routing) = &change.routing
            && let MetaReply::Refused(error) = self.change_routing(id, routing)
        {
            return refuse(error);
        }
        let retuned = self.retune(id, |tuning| {
            tuning.graphs = tuning.graphs.changed(&change.graphs);
            Ok(())
        });
        let Some(found) = self.collections.get_mut(&id).filter(|_| retuned == MetaReply::Done) else { return retuned };
        let found = Arc::make_mut(found);
        if let Some(config_json) = config_json {
            found.config_json = config_json;
        }
        if let Some(strict) = &change.strict {
            found.strict = found.strict.changed(strict);
        }
        if let Some(factor) = change.write_consistency_factor {
            found.write_consistency_factor = factor;
        }
        MetaReply::Done
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn after(config: Value, patch: Option<Value>, metadata: Option<Value>) -> Result<Value> {
        let change = CollectionChange {
            config_json: patch.map(|patch| patch.to_string()),
            metadata_json: metadata.map(|metadata| metadata.to_string()),
            ..CollectionChange::default()
        };
        let text = change.config_after(&config.to_string())?;
        Ok(text.map_or(config, |text| serde_json::from_str(&text).unwrap()))
    }

    #[test]
    fn configurations_are_patched_deeply_and_metadata_by_field() {
        let config = json!({"params": {"vectors": {"a": {"size": 2}}, "x": 1}, "q": {"s": 1}});
        assert_eq!(after(config.clone(), None, None).unwrap(), config);
        let patch = json!({"params": {"vectors": {"a": {"on_disk": true}}, "x": [2]}, "q": null});
        let expected = json!({"params": {"vectors": {"a": {"size": 2, "on_disk": true}}, "x": [2]}});
        assert_eq!(after(config, Some(patch), None).unwrap(), expected);

        let first = after(json!({}), None, Some(json!({"a": {"b": 1, "c": 2}, "d": 3, "never": null}))).unwrap();
        assert_eq!(first, json!({"metadata": {"a": {"b": 1, "c": 2}, "d": 3}}));
        let second = after(first, None, Some(json!({"a": {"b": null}, "d": null, "e": []}))).unwrap();
        assert_eq!(second, json!({"metadata": {"a": {"b": null}, "e": []}}), "only whole fields are merged");
    }

    #[test]
    fn what_is_said_of_codes_is_replaced_as_a_whole() {
        let (old, new) = (json!({"scalar": {"type": "int8", "always_ram": true}}), json!({"scalar": {"type": "int8"}}));
        let config = |codes: &Value| {
            let vector = json!({"size": 2, CODES: codes});
            // A vector may have the field's name.
            json!({"x": 1, CODES: codes, "params": {"vectors": {"a": vector, "b": {CODES: old}, CODES: {"size": 3, "y": 1}}}})
        };
        let patch = json!({CODES: new, "params": {"vectors": {"a": {CODES: new}, CODES: {"y": 2}, "none": {}}}});
        let mut expected = config(&new);
        expected["params"]["vectors"][CODES]["y"] = json!(2);
        expected["params"]["vectors"]["none"] = json!({});
        assert_eq!(after(config(&old), Some(patch), None).unwrap(), expected);

        let single = |codes: &Value| json!({"params": {"vectors": {"size": 2, CODES: codes}}});
        let patch = |codes: &Value| json!({"params": {"vectors": {CODES: codes}}});
        for codes in [new, json!("Disabled")] {
            assert_eq!(after(single(&old), Some(patch(&codes)), None).unwrap(), single(&codes));
            assert_eq!(after(single(&codes), Some(patch(&old)), None).unwrap(), single(&old));
        }
    }

    #[test]
    fn metadata_cannot_grow_without_bound() {
        let half = "x".repeat(METADATA_BYTES_MAX / 2);
        let config = after(json!({}), None, Some(json!({"a": half}))).unwrap();
        let error = after(config, None, Some(json!({"b": half}))).unwrap_err();
        assert_eq!(error.http_status(), 400);
        assert!(error.to_string().contains(&METADATA_BYTES_MAX.to_string()), "{error}");
    }
}
