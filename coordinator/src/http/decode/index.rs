//! Bodies that shape payload indexes.

use serde::Deserialize;
use serde_json::{Map, Value};
use vicinal_common::error::Error;
use vicinal_common::filter::{BadParameter, KeyPath, Tokenization};
use vicinal_common::limits::KEY_PATH_BYTES_MAX;
use vicinal_common::payload_index::{FieldType, PayloadIndex};

use super::super::answer::Failure;

/// Body that creates an index.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct IndexBody {
    field_name: String,
    field_schema: Option<Value>,
}

/// An index to create.
#[derive(Debug, PartialEq)]
pub(in super::super) struct NewIndex {
    /// Text form of the key path.
    pub(in super::super) field: String,
    /// The index.
    pub(in super::super) index: PayloadIndex,
}

impl IndexBody {
    /// Checks the body.
    pub(in super::super) fn into_index(self) -> Result<NewIndex, Failure> {
        let field = index_path(&self.field_name)?;
        let index = match self.field_schema {
            Some(Value::String(name)) => field_type(&name)?.into(),
            Some(Value::Object(params)) => described(params)?,
            Some(Value::Null) | None => return bad("`field_schema` is missing: name the type of the field".into()),
            Some(_) => return bad("`field_schema` must be the name of a type or an object with `type`".into()),
        };
        Ok(NewIndex { field, index })
    }
}

/// An index by its type and options.
fn described(mut params: Map<String, Value>) -> Result<PayloadIndex, Failure> {
    let Some(Value::String(name)) = params.get("type") else {
        return bad("`field_schema.type` must be the name of a type".into());
    };
    let of = field_type(name)?;
    let is_token_param = |name: &str| of == FieldType::Text && Tokenization::NAMES.contains(&name);
    let options = params.iter().filter(|(name, _)| *name != "type" && !is_token_param(name));
    for (name, value) in options {
        param(of, name, value)?;
    }
    params.retain(|_, value| !value.is_null());
    let index = match of {
        FieldType::Text => match Tokenization::from_json(&params) {
            Ok(tokenization) => {
                // As in Qdrant, which shows the tokenizer in any case.
                params.entry("tokenizer").or_insert_with(|| tokenization.split.name().into());
                PayloadIndex::text(tokenization)
            }
            Err(BadParameter { path, message }) => return bad(format!("`field_schema.{path}`: {message}")),
        },
        FieldType::Keyword
        | FieldType::Integer
        | FieldType::Float
        | FieldType::Bool
        | FieldType::Datetime
        | FieldType::Uuid
        | FieldType::Geo => of.into(),
    };
    Ok(index.described(Value::Object(params).to_string()))
}

fn bad<T>(text: String) -> Result<T, Failure> {
    Err(Error::BadInput(text).into())
}

/// The text form of the key path that a client names.
pub(in super::super) fn index_path(name: &str) -> Result<String, Failure> {
    if name.is_empty() || name.len() > KEY_PATH_BYTES_MAX {
        let message = format!("a key path has 1 to {KEY_PATH_BYTES_MAX} bytes, got {}", name.len());
        return Err(Error::Validation { field: "field_name".into(), message }.into());
    }
    match KeyPath::parse(name) {
        Ok(path) => Ok(path.to_string()),
        Err(text) => bad(format!("`field_name`: {text}")),
    }
}

fn field_type(name: &str) -> Result<FieldType, Failure> {
    match FieldType::from_name(name) {
        Some(of) => Ok(of),
        None => {
            let known = FieldType::ALL.map(FieldType::name).join(", ");
            bad(format!("`field_schema`: unknown type `{name}`, expected one of {known}"))
        }
    }
}

/// Checks one option of an index. All that the API has for a type are accepted: they ask for places in memory or for
/// abilities that every index has here, so none makes a difference.
fn param(of: FieldType, name: &str, value: &Value) -> Result<(), Failure> {
    use FieldType::{Datetime, Float, Integer, Keyword, Text, Uuid};
    let is_known = match name {
        "on_disk" | "memory" | "enable_hnsw" => true,
        "is_tenant" => matches!(of, Keyword | Uuid),
        "is_principal" => matches!(of, Integer | Float | Datetime),
        "lookup" | "range" => of == Integer,
        "prefix" => of == Keyword,
        "phrase_matching" => of == Text,
        _ => false,
    };
    if !is_known {
        return bad(format!("`field_schema.{name}` is no option of an index of type `{of}`"));
    }
    let (fits, expected) = match name {
        "memory" => {
            let is_place = value.as_str().is_none_or(|place| ["cold", "cached", "pinned"].contains(&place));
            (is_place && (value.is_string() || value.is_null()), "cold, cached or pinned")
        }
        _ => (value.is_boolean() || value.is_null(), "true or false"),
    };
    match fits {
        true => Ok(()),
        false => bad(format!("`field_schema.{name}` must be {expected}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn index(body: Value) -> Result<NewIndex, Failure> {
        serde_json::from_value::<IndexBody>(body).unwrap().into_index()
    }

    #[test]
    fn types_are_named_or_described() {
        for of in FieldType::ALL {
            let expected = NewIndex { field: "a.b[].c".into(), index: of.into() };
            assert_eq!(index(json!({"field_name": "a.b[].c", "field_schema": of.name()})).unwrap(), expected);
            let described = json!({"type": of.name(), "on_disk": true, "enable_hnsw": null});
            let NewIndex { field, index } =
                index(json!({"field_name": "a.\"b\"[].c", "field_schema": described})).unwrap();
            let shown = match of {
                FieldType::Text => json!({"type": "text", "on_disk": true, "tokenizer": "word"}),
                _ => json!({"type": of.name(), "on_disk": true}),
            };
            assert_eq!(field, expected.field);
            assert_eq!(index, expected.index.described(shown.to_string()));
        }
    }

    #[test]
    fn a_text_index_has_parameters() {
        let params = json!({"type": "text", "tokenizer": "prefix", "min_token_len": 2, "max_token_len": 20,
            "lowercase": true, "ascii_folding": true, "phrase_matching": true, "on_disk": false, "memory": "cold",
            "stopwords": "english", "stemmer": {"type": "snowball", "language": "english"}});
        let NewIndex { index, .. } = index(json!({"field_name": "a", "field_schema": params})).unwrap();
        let tokenization = Tokenization::from_json(params.as_object().unwrap()).unwrap();
        assert_eq!(index.tokenization(), Some(&tokenization));
        assert_eq!(serde_json::from_str::<Value>(index.options().unwrap()).unwrap(), params);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, status, part) in [
            (json!({"field_name": "a"}), 400, "field_schema"),
            (json!({"field_name": "a", "field_schema": 1}), 400, "field_schema"),
            (json!({"field_name": "a", "field_schema": {"type": "text", "lookup": true}}), 400, "field_schema.lookup"),
            (json!({"field_name": "a", "field_schema": {"type": "keyword", "lowercase": true}}), 400, "lowercase"),
            (
                json!({"field_name": "a", "field_schema": {"type": "geo", "memory": "hot"}}),
                400,
                "cold, cached or pinned",
            ),
            (
                json!({"field_name": "a", "field_schema": {"type": "text", "stemmer": {"type": "snowball", "language": "tamil"}}}),
                400,
                "`field_schema.stemmer.language`: there are no stems of language \"tamil\", supported are english",
            ),
            (
                json!({"field_name": "a", "field_schema": {"type": "text", "stopwords": "thai"}}),
                400,
                "`field_schema.stopwords`: there are no stopwords of language \"thai\", supported are english",
            ),
            (json!({"field_name": "a", "field_schema": "date"}), 400, "unknown type `date`"),
            (json!({"field_name": "a", "field_schema": {"type": "bool", "range": true}}), 400, "field_schema.range"),
            (json!({"field_name": "a", "field_schema": {"type": "integer", "range": 1}}), 400, "true or false"),
            (json!({"field_name": "a", "field_schema": {"on_disk": true}}), 400, "field_schema.type"),
            (json!({"field_name": "a[", "field_schema": "bool"}), 400, "field_name"),
            (json!({"field_name": "", "field_schema": "bool"}), 422, "1 to 1024 bytes"),
            (json!({"field_name": "x".repeat(1_025), "field_schema": "bool"}), 422, "got 1025"),
        ] {
            let failure = index(body.clone()).unwrap_err();
            assert_eq!(failure.status.as_u16(), status, "{body}");
            assert!(failure.text.contains(part), "{body}: {}", failure.text);
        }
    }
}
