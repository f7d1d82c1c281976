//! The `quantization_config` of a collection or of one vector.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use vicinal_common::tuning::GraphPlacement;

use super::super::answer::Failure;
use super::collection::invalid;
use super::settings::{Memory, only, unsupported};

/// What stands there: a kind of codes, or the word that asks for none.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum QuantizationBody {
    Disabled(String),
    Kinds(Map<String, Value>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScalarBody {
    r#type: String,
    quantile: Option<f64>,
    always_ram: Option<bool>,
    memory: Option<Memory>,
}

impl QuantizationBody {
    /// Accepts what graphs and scans are over in any case, codes of 8 bits beside the graph. How it is shown: null for
    /// `Disabled`, which asks for nothing.
    pub(super) fn check(&self, field: &str, graph_on_disk: bool) -> Result<Value, Failure> {
        let malformed = |text: String| {
            Failure::new(StatusCode::BAD_REQUEST, format!("Format error in JSON body: `{field}`: {text}"))
        };
        let kinds = match self {
            QuantizationBody::Disabled(word) if word == "Disabled" => return Ok(Value::Null),
            QuantizationBody::Disabled(word) => {
                return Err(malformed(format!("unknown variant `{word}`, expected `Disabled`")));
            }
            QuantizationBody::Kinds(kinds) => kinds,
        };
        let mut given = kinds.iter().filter(|(_, value)| !value.is_null());
        let (Some((kind, value)), None) = (given.next(), given.next()) else {
            return Err(malformed("expected one of `scalar`, `product`, `binary`, `turbo`".into()));
        };
        match kind.as_str() {
            "scalar" => {}
            "product" | "binary" | "turbo" => {
                let why = "graphs and scans are over codes of 8 bits (`scalar`), with exact scores in the end";
                return Err(unsupported(&format!("{field}.{kind}"), why));
            }
            _ => return Err(malformed(format!("unknown field `{kind}`"))),
        }
        if !value.is_object() {
            return Err(malformed("`scalar` must be an object".into()));
        }
        let scalar: ScalarBody = serde_json::from_value(value.clone()).map_err(|e| malformed(e.to_string()))?;
        if scalar.r#type != "int8" {
            return Err(malformed(format!("`scalar.type`: unknown variant `{}`, expected `int8`", scalar.r#type)));
        }
        if let Some(quantile) = scalar.quantile.filter(|quantile| !(0.5..=1.0).contains(quantile)) {
            return Err(invalid(format!("{field}.scalar.quantile"), quantile, "from 0.5 to 1"));
        }
        let why = "a code is scaled to the whole range of its vector, so there are no outliers to cut off";
        only(&format!("{field}.scalar.quantile"), scalar.quantile, &[1.0], why)?;
        // As in the API, `memory` goes before the older flag.
        let placed = match (scalar.memory, scalar.always_ram) {
            (Some(memory), _) => Some(("memory", memory == Memory::Cold)),
            (None, Some(true)) => Some(("always_ram", false)),
            (None, Some(false) | None) => None,
        };
        match placed {
            Some((name, on_disk)) if on_disk != graph_on_disk => {
                let why = "codes are where their graph is, which `hnsw_config.on_disk` says";
                Err(unsupported(&format!("{field}.scalar.{name}"), why))
            }
            Some(_) | None => Ok(json!({"scalar": value})),
        }
    }

    /// Checks what is said of one vector. How it is stored: the word `Disabled` too, as it goes before what is said of all
    /// vectors.
    pub(super) fn check_own(&self, field: &str, graph_on_disk: bool) -> Result<Value, Failure> {
        let shown = self.check(field, graph_on_disk)?;
        Ok(match self {
            QuantizationBody::Disabled(word) => json!(word),
            QuantizationBody::Kinds(_) => shown,
        })
    }
}

/// What is said of codes, of all vectors of a collection and of single ones.
#[derive(Clone, Default)]
pub(super) struct Quantization {
    pub(super) common: Option<QuantizationBody>,
    pub(super) own: BTreeMap<String, QuantizationBody>,
}

impl Quantization {
    /// Checks what counts for each of the vectors, given where their graphs are.
    pub(super) fn check<'a>(
        &self,
        names: impl Iterator<Item = &'a String>,
        graphs: &GraphPlacement,
    ) -> Result<(), Failure> {
        for name in names {
            let on_disk = graphs.is_on_disk(name);
            match (self.own.get(name), &self.common) {
                (Some(own), _) => own.check(&format!("vectors.{name}.quantization_config"), on_disk)?,
                (None, Some(common)) => common.check("quantization_config", on_disk)?,
                (None, None) => continue,
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: Value, on_disk: bool) -> Result<Value, Failure> {
        serde_json::from_value::<QuantizationBody>(body).unwrap().check("quantization_config", on_disk)
    }

    #[test]
    fn codes_of_eight_bits_beside_the_graph_are_what_there_is() {
        for (body, on_disk) in [
            (json!({"scalar": {"type": "int8"}}), false),
            (json!({"scalar": {"type": "int8", "quantile": 1.0, "always_ram": false}}), true),
            (json!({"scalar": {"type": "int8", "always_ram": true}}), false),
            (json!({"scalar": {"type": "int8", "memory": "cold", "always_ram": true}}), true),
            (json!({"scalar": {"type": "int8", "memory": "pinned"}}), false),
        ] {
            assert_eq!(check(body.clone(), on_disk).unwrap(), body);
        }
        assert_eq!(check(json!("Disabled"), false).unwrap(), Value::Null);
    }

    #[test]
    fn all_else_is_refused_by_name() {
        for (body, status, part) in [
            (json!({"product": {"compression": "x16"}}), 400, "`quantization_config.product` is not supported: "),
            (json!({"binary": {}}), 400, "`quantization_config.binary` is not supported: "),
            (json!({"turbo": {}}), 400, "`quantization_config.turbo` is not supported: "),
            (json!({"scalar": {"type": "int4"}}), 400, "int4"),
            (json!({"scalar": {"type": "int8", "quantile": 0.99}}), 400, "`quantization_config.scalar.quantile` 0.99"),
            (json!({"scalar": {"type": "int8", "quantile": 0.1}}), 422, "quantization_config.scalar.quantile"),
            (json!({"scalar": {"type": "int8", "always_ram": true}}), 400, "scalar.always_ram` is not supported"),
            (json!({"scalar": {"type": "int8", "x": 1}}), 400, "unknown field `x`"),
            (json!({"scalar": {"type": "int8"}, "binary": {}}), 400, "expected one of"),
            (json!({"what": {}}), 400, "unknown field `what`"),
            (json!({}), 400, "expected one of"),
            (json!({"scalar": ["int8"]}), 400, "`scalar` must be an object"),
            (json!("On"), 400, "unknown variant `On`"),
        ] {
            let failure = check(body.clone(), true).unwrap_err();
            assert_eq!(failure.status.as_u16(), status, "{body}");
            assert!(failure.text.contains(part), "{body}: {}", failure.text);
        }
    }
}
