//! Vectors in JSON: a list of numbers, a list of such lists, indices and values; or those by name. Read in one pass, without
//! a tree of values in between.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use vicinal_common::limits::{DIM_MAX, MULTIVECTOR_VALUES_MAX, SPARSE_VALUES_MAX, VECTOR_NAMES_MAX};
use vicinal_common::vector::{MultiVector, SparseVector, Vector};

use crate::write::VectorInput;

/// A vector of any kind: a list of numbers, a list of such lists, or an object of `indices` and `values`. Numbers beyond the
/// 32-bit range become infinite and are refused when the vector is checked.
pub(super) struct AnyVector(pub(super) Vector);

impl<'de> Deserialize<'de> for AnyVector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AnyVector, D::Error> {
        deserializer.deserialize_any(AnyVectorVisitor)
    }
}

struct AnyVectorVisitor;

impl<'de> Visitor<'de> for AnyVectorVisitor {
    type Value = AnyVector;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vector, a list of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<AnyVector, A::Error> {
        read_list(seq).map(AnyVector)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<AnyVector, E> {
        Err(E::custom("expected a vector, a list of numbers; turning text or images into vectors is not supported"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnyVector, A::Error> {
        let mut sparse = SparseParts::default();
        while let Some(key) = map.next_key::<String>()? {
            if !sparse.take(&key, &mut map)? {
                return Err(refuse_object(Some(&key)));
            }
        }
        sparse.finish().map(AnyVector)
    }
}

/// The parts of a sparse vector as they come.
#[derive(Default)]
pub(super) struct SparseParts {
    indices: Option<Vec<u32>>,
    values: Option<Vec<f32>>,
}

impl SparseParts {
    /// Takes the value of a key, if it is one of a sparse vector.
    pub(super) fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        match key {
            "indices" if self.indices.is_none() => self.indices = Some(map.next_value::<Indices>()?.0),
            "values" if self.values.is_none() => self.values = Some(map.next_value::<Values>()?.0),
            "indices" | "values" => return Err(de::Error::custom(format!("`{key}` is given twice"))),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The vector.
    pub(super) fn finish<E: de::Error>(self) -> Result<Vector, E> {
        let indices = self.indices.ok_or_else(|| E::missing_field("indices"))?;
        let values = self.values.ok_or_else(|| E::missing_field("values"))?;
        if indices.len() != values.len() {
            let (indices, values) = (indices.len(), values.len());
            let text = format!("a sparse vector must have as many values as indices: {values} and {indices}");
            return Err(E::custom(text));
        }
        let sparse = SparseVector::from_pairs(indices, values);
        sparse.map(Vector::Sparse).map_err(|twice| {
            E::custom(format!("indices of a sparse vector must be unique: {twice} comes more than once"))
        })
    }
}

/// Numbers of a sparse vector.
struct Values(Vec<f32>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Values, D::Error> {
        bounded(deserializer, "a list of numbers", |Number(number)| number).map(Values)
    }
}

/// Dimensions of a sparse vector.
struct Indices(Vec<u32>);

impl<'de> Deserialize<'de> for Indices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Indices, D::Error> {
        bounded(deserializer, "a list of numbers from 0 to 4294967295", |index: u32| index).map(Indices)
    }
}

/// A list of at most as many items as a sparse vector may have.
fn bounded<'de, D: Deserializer<'de>, I: Deserialize<'de>, T>(
    deserializer: D,
    expected: &'static str,
    one: impl Fn(I) -> T,
) -> Result<Vec<T>, D::Error> {
    struct ListVisitor<I, F>(&'static str, F, std::marker::PhantomData<I>);
    impl<'de, I: Deserialize<'de>, T, F: Fn(I) -> T> Visitor<'de> for ListVisitor<I, F> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element()? {
                if items.len() == SPARSE_VALUES_MAX {
                    return Err(de::Error::custom(format!("a sparse vector has more than {SPARSE_VALUES_MAX} values")));
                }
                items.push((self.1)(item));
            }
            Ok(items)
        }
    }
    deserializer.deserialize_seq(ListVisitor(expected, one, std::marker::PhantomData))
}

/// What an object in the place of a vector is, by its first key.
pub(super) fn refuse_object<E: de::Error>(key: Option<&str>) -> E {
    match key {
        Some("text" | "image" | "object" | "model" | "options" | "bm25") => {
            E::custom("inference (turning text or images into vectors) is not supported, send the vector itself")
        }
        Some(_) | None => E::custom("expected a vector, a list of numbers"),
    }
}

/// A list of numbers, or of such lists.
pub(super) fn read_list<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<Vector, A::Error> {
    let mut numbers = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(DIM_MAX));
    match seq.next_element()? {
        None => return Ok(Vector::Dense(numbers)),
        Some(Element::Number(number)) => numbers.push(number),
        Some(Element::List(first)) => return read_lists(first, seq),
    }
    while let Some(Number(number)) = seq.next_element()? {
        if numbers.len() == DIM_MAX {
            return Err(de::Error::custom(format!("a vector has more than {DIM_MAX} dimensions")));
        }
        numbers.push(number);
    }
    // The length is not known ahead: what was set aside in vain would stay with the point until it is written.
    numbers.shrink_to_fit();
    Ok(Vector::Dense(numbers))
}

/// The rest of a multivector whose first vector was read.
fn read_lists<'de, A: SeqAccess<'de>>(first: Vec<f32>, mut seq: A) -> Result<Vector, A::Error> {
    let (dim, mut values) = (first.len(), first);
    if dim == 0 {
        return Err(de::Error::custom("a multivector has a vector without values"));
    }
    while let Some(list) = seq.next_element()? {
        let Element::List(vector) = list else {
            return Err(de::Error::custom("a vector is a list of numbers, or a list of such lists, not both"));
        };
        if vector.len() != dim {
            let got = vector.len();
            return Err(de::Error::custom(format!(
                "all vectors of a multivector must have the same dimension: {dim} and {got}"
            )));
        }
        if values.len() + dim > MULTIVECTOR_VALUES_MAX {
            return Err(de::Error::custom(format!("a multivector has more than {MULTIVECTOR_VALUES_MAX} values")));
        }
        values.extend(vector);
    }
    values.shrink_to_fit();
    Ok(Vector::Multi(MultiVector { dim, values }))
}

/// What a list holds that is a vector or several.
enum Element {
    Number(f32),
    List(Vec<f32>),
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Element, D::Error> {
        deserializer.deserialize_any(ElementVisitor)
    }
}

struct ElementVisitor;

impl<'de> Visitor<'de> for ElementVisitor {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_f64<E>(self, value: f64) -> Result<Element, E> {
        Ok(Element::Number(value as f32))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Element, E> {
        Ok(Element::Number(value as f32))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Element, E> {
        Ok(Element::Number(value as f32))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Element, A::Error> {
        let mut numbers = Vec::new();
        while let Some(Number(number)) = seq.next_element()? {
            if numbers.len() == DIM_MAX {
                return Err(de::Error::custom(format!("a vector has more than {DIM_MAX} dimensions")));
            }
            numbers.push(number);
        }
        Ok(Element::List(numbers))
    }
}

/// One component.
struct Number(f32);

impl<'de> Deserialize<'de> for Number {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        let number = deserializer.deserialize_any(NumberVisitor)?;
        number.map(Number).ok_or_else(|| de::Error::custom("expected a number, got a list"))
    }
}

/// Gives nothing for a list. An [`Element`] would tell it too, but is as large as a list, and most of what is read are numbers.
struct NumberVisitor;

impl<'de> Visitor<'de> for NumberVisitor {
    type Value = Option<f32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ElementVisitor.expecting(f)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Option<f32>, E> {
        Ok(Some(value as f32))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Option<f32>, E> {
        Ok(Some(value as f32))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Option<f32>, E> {
        Ok(Some(value as f32))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Option<f32>, A::Error> {
        ElementVisitor.visit_seq(seq).map(|_| None)
    }
}

/// The `vector` of a point.
pub(super) struct PointVector(pub(super) VectorInput);

impl<'de> Deserialize<'de> for PointVector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PointVector, D::Error> {
        deserializer.deserialize_any(PointVectorVisitor)
    }
}

struct PointVectorVisitor;

impl<'de> Visitor<'de> for PointVectorVisitor {
    type Value = PointVector;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of numbers, or lists of numbers by vector name")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<PointVector, A::Error> {
        read_list(seq).map(|vector| PointVector(VectorInput::Single(vector)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PointVector, A::Error> {
        let mut names: HashSet<String> = HashSet::new();
        let mut vectors = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if vectors.len() == VECTOR_NAMES_MAX {
                return Err(de::Error::custom(format!("a point has more than {VECTOR_NAMES_MAX} named vectors")));
            }
            if !names.insert(name.clone()) {
                return Err(de::Error::custom(format!("vector `{name}` is given twice")));
            }
            let AnyVector(vector) = map.next_value()?;
            vectors.push((name, vector));
        }
        Ok(PointVector(VectorInput::Named(vectors)))
    }
}

/// The `vectors` of a column batch: one list per point, or lists by name.
pub(super) enum BatchVectors {
    /// Unnamed vectors, one per point.
    Single(Vec<Vector>),
    /// Named vectors, each list one per point.
    Named(Vec<(String, Vec<Vector>)>),
}

impl<'de> Deserialize<'de> for BatchVectors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<BatchVectors, D::Error> {
        deserializer.deserialize_any(BatchVectorsVisitor)
    }
}

struct BatchVectorsVisitor;

impl<'de> Visitor<'de> for BatchVectorsVisitor {
    type Value = BatchVectors;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of vectors, or lists of vectors by name")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<BatchVectors, A::Error> {
        let mut vectors = Vec::new();
        while let Some(AnyVector(vector)) = seq.next_element()? {
            vectors.push(vector);
        }
        Ok(BatchVectors::Single(vectors))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BatchVectors, A::Error> {
        let mut columns: Vec<(String, Vec<Vector>)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if columns.len() == VECTOR_NAMES_MAX || columns.iter().any(|(known, _)| *known == name) {
                map.next_value::<IgnoredAny>()?;
                return Err(de::Error::custom(format!("vector `{name}` is given twice or one of too many")));
            }
            let column: Vec<AnyVector> = map.next_value()?;
            columns.push((name, column.into_iter().map(|AnyVector(vector)| vector).collect()));
        }
        Ok(BatchVectors::Named(columns))
    }
}
