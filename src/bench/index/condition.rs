//! The filters of a data set with payloads: conditions in text over the lines of `meta.jsonl`.
//!
//! `year >= 2025`, `rank is not null`, `prefix == "django"`, and several joined by `and`. A missing value meets no
//! comparison.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Map, Value};

/// All parts must hold.
#[derive(Debug, PartialEq)]
pub(super) struct Condition(Vec<Part>);

#[derive(Debug, PartialEq)]
struct Part {
    field: String,
    test: Test,
}

#[derive(Debug, PartialEq)]
enum Test {
    IsNull,
    IsNotNull,
    Compare(Comparison, Value),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Condition {
    /// Reads a condition.
    pub(super) fn parse(text: &str) -> anyhow::Result<Condition> {
        let parts = text.split(" and ").map(|part| Part::parse(part.trim()).with_context(|| format!("in `{text}`")));
        parts.collect::<anyhow::Result<_>>().map(Condition)
    }

    /// Whether a payload meets it.
    pub(super) fn holds(&self, payload: &Map<String, Value>) -> bool {
        self.0.iter().all(|part| part.holds(payload.get(&part.field).unwrap_or(&Value::Null)))
    }
}

impl Part {
    fn parse(text: &str) -> anyhow::Result<Part> {
        let (field, rest) = text.split_once(' ').with_context(|| format!("`{text}` is no condition"))?;
        let test = match rest.trim() {
            "is null" => Test::IsNull,
            "is not null" => Test::IsNotNull,
            rest => {
                let (operator, value) = rest.split_once(' ').with_context(|| format!("`{text}` compares nothing"))?;
                let comparison = match operator {
                    "==" => Comparison::Equal,
                    "!=" => Comparison::NotEqual,
                    "<" => Comparison::Less,
                    "<=" => Comparison::LessOrEqual,
                    ">" => Comparison::Greater,
                    ">=" => Comparison::GreaterOrEqual,
                    other => bail!("`{other}` is no comparison"),
                };
                let value: Value = serde_json::from_str(value).with_context(|| format!("`{value}` is no value"))?;
                if !(value.is_number() || value.is_string()) {
                    bail!("`{value}` is neither a number nor a string");
                }
                Test::Compare(comparison, value)
            }
        };
        Ok(Part { field: field.to_owned(), test })
    }

    fn holds(&self, value: &Value) -> bool {
        match &self.test {
            Test::IsNull => value.is_null(),
            Test::IsNotNull => !value.is_null(),
            Test::Compare(comparison, wanted) => {
                let ordering = match (value, wanted) {
                    (Value::Number(value), Value::Number(wanted)) => {
                        value.as_f64().zip(wanted.as_f64()).and_then(|(value, wanted)| value.partial_cmp(&wanted))
                    }
                    (Value::String(value), Value::String(wanted)) => Some(value.cmp(wanted)),
                    _ => None,
                };
                ordering.is_some_and(|ordering| match comparison {
                    Comparison::Equal => ordering.is_eq(),
                    Comparison::NotEqual => ordering.is_ne(),
                    Comparison::Less => ordering.is_lt(),
                    Comparison::LessOrEqual => ordering.is_le(),
                    Comparison::Greater => ordering.is_gt(),
                    Comparison::GreaterOrEqual => ordering.is_ge(),
                })
            }
        }
    }
}

/// The rows that meet each condition: line i of the file describes row i.
pub(super) fn matching_rows(path: &Path, conditions: &[Condition], rows: usize) -> anyhow::Result<Vec<Vec<u32>>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut matching = vec![Vec::new(); conditions.len()];
    let mut lines = 0;
    for line in BufReader::new(file).lines().take(rows) {
        let place = || format!("{}, line {}", path.display(), lines + 1);
        let payload: Map<String, Value> = serde_json::from_str(&line.with_context(place)?).with_context(place)?;
        let row = u32::try_from(lines).with_context(place)?;
        for (condition, matching) in conditions.iter().zip(&mut matching) {
            if condition.holds(&payload) {
                matching.push(row);
            }
        }
        lines += 1;
    }
    if lines < rows {
        bail!("{} has {lines} lines for {rows} rows", path.display());
    }
    Ok(matching)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_are_read_and_decided() {
        let payload = json!({"year": 2022, "month": 6, "rank": null, "prefix": "django"});
        let payload = payload.as_object().unwrap();
        for (text, holds) in [
            ("year >= 2022", true),
            ("year > 2022", false),
            ("year < 2022.5", true),
            ("year != 2022", false),
            ("month == 6 and year <= 2022", true),
            ("month == 6 and year <= 2021", false),
            ("prefix == \"django\"", true),
            ("prefix == 6", false),
            ("rank <= 1000", false),
            ("rank is null", true),
            ("rank is not null", false),
            ("absent is not null", false),
        ] {
            assert_eq!(Condition::parse(text).unwrap().holds(payload), holds, "{text}");
        }
        for text in ["year", "year >=", "year ~ 3", "year == [1]", "year == x", "", "a == 1 and b"] {
            assert!(Condition::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn line_i_describes_row_i() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"a\": 1}\n{\"a\": 2}\n{\"a\": 3}\n").unwrap();
        let conditions = [Condition::parse("a >= 2").unwrap(), Condition::parse("a != 2").unwrap()];
        assert_eq!(matching_rows(file.path(), &conditions, 3).unwrap(), [vec![1, 2], vec![0, 2]]);
        assert!(matching_rows(file.path(), &conditions, 4).is_err());
        std::fs::write(file.path(), "{\"a\": 1}\nno json\n").unwrap();
        let error = format!("{:#}", matching_rows(file.path(), &conditions, 2).unwrap_err());
        assert!(error.contains("line 2"), "{error}");
    }
}
