//! Bodies that shape payload indexes.

use serde::Deserialize;
use serde_json::Value;
use vicinal_common::error::Error;
use vicinal_common::filter::KeyPath;
use vicinal_common::limits::KEY_PATH_BYTES_MAX;
use vicinal_common::payload_index::FieldType;

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
    /// Which values are indexed.
    pub(in super::super) of: FieldType,
}

impl IndexBody {
    /// Checks the body.
    pub(in super::super) fn into_index(self) -> Result<NewIndex, Failure> {
        let field = index_path(&self.field_name)?;
        let of = match self.field_schema {
            Some(Value::String(name)) => field_type(&name)?,
            Some(Value::Object(params)) => {
                let Some(Value::String(name)) = params.get("type") else {
                    return bad("`field_schema.type` must be the name of a type".into());
                };
                let of = field_type(name)?;
                params
                    .iter()
                    .filter(|(name, _)| *name != "type")
                    .try_for_each(|(name, value)| param(of, name, value))?;
                of
            }
            Some(Value::Null) | None => return bad("`field_schema` is missing: name the type of the field".into()),
            Some(_) => return bad("`field_schema` must be the name of a type or an object with `type`".into()),
        };
        Ok(NewIndex { field, of })
    }
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
        None if name == "text" => bad("`field_schema`: an index of type `text` is not supported yet".into()),
        None => {
            let known = FieldType::ALL.map(FieldType::name).join(", ");
            bad(format!("`field_schema`: unknown type `{name}`, expected one of {known}"))
        }
    }
}

/// Checks one option of an index. All that the API has for a type are accepted: they ask for places in memory or for
/// abilities that every index has here, so none makes a difference.
fn param(of: FieldType, name: &str, value: &Value) -> Result<(), Failure> {
    use FieldType::{Datetime, Float, Integer, Keyword, Uuid};
    let is_known = match name {
        "on_disk" | "memory" | "enable_hnsw" => true,
        "is_tenant" => matches!(of, Keyword | Uuid),
        "is_principal" => matches!(of, Integer | Float | Datetime),
        "lookup" | "range" => of == Integer,
        "prefix" => of == Keyword,
        _ => false,
    };
    if !is_known {
        return bad(format!("`field_schema.{name}` is no option of an index of type `{of}`"));
    }
    let (fits, expected) = match name {
        "memory" => (value.is_string() || value.is_null(), "a string"),
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
            let expected = NewIndex { field: "a.b[].c".into(), of };
            assert_eq!(index(json!({"field_name": "a.b[].c", "field_schema": of.name()})).unwrap(), expected);
            let described = json!({"type": of.name(), "on_disk": true, "enable_hnsw": null});
            assert_eq!(index(json!({"field_name": "a.\"b\"[].c", "field_schema": described})).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, status, part) in [
            (json!({"field_name": "a"}), 400, "field_schema"),
            (json!({"field_name": "a", "field_schema": 1}), 400, "field_schema"),
            (json!({"field_name": "a", "field_schema": "text"}), 400, "`text` is not supported"),
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
