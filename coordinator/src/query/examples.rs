//! The vectors that queries are made of: each is brought into the shards' form once, and a bound is kept on how many there
//! are. Pure.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use vicinal_common::api::Goal;
use vicinal_common::collection::{VectorKind, VectorSchema};
use vicinal_common::error::{Error, Result};
use vicinal_common::limits::{AVERAGED_COMPONENTS_MAX, GOAL_COMPONENTS_MAX, MULTIVECTOR_VALUES_MAX, SPARSE_VALUES_MAX};
use vicinal_common::point::PointId;
use vicinal_common::vector::{MultiVector, Vector};

use super::request::{Example, Source};
use crate::write::check_vector;

/// Finds the vector of a stored point by the vector's name.
type Stored<'a> = &'a dyn Fn(PointId, &str) -> Result<&'a Vector>;

/// The vectors of examples of all queries by one vector.
pub(super) struct Examples<'a> {
    using: &'a str,
    schema: &'a VectorSchema,
    stored: Stored<'a>,
    /// Those of stored points that have been asked for, as they are sent.
    fitting: RefCell<HashMap<PointId, Arc<Vector>>>,
}

impl<'a> Examples<'a> {
    pub(super) fn new(using: &'a str, schema: &'a VectorSchema, stored: Stored<'a>) -> Examples<'a> {
        Examples { using, schema, stored, fitting: RefCell::default() }
    }

    /// The vector of an example as it was given or is stored.
    pub(super) fn vector<'b>(&self, example: &'b Example) -> Result<&'b Vector>
    where
        'a: 'b,
    {
        match example {
            Example::Vector(vector) => Ok(vector),
            Example::Point(id) => (self.stored)(*id, self.using),
        }
    }

    /// The vector of an example as it is sent; that of a stored point is one and the same however often it is asked for.
    pub(super) fn fitting(&self, example: &Example) -> Result<Arc<Vector>> {
        let Example::Point(id) = example else { return self.fit(self.vector(example)?).map(Arc::new) };
        if let Some(known) = self.fitting.borrow().get(id) {
            return Ok(known.clone());
        }
        let made = Arc::new(self.fit(self.vector(example)?)?);
        self.fitting.borrow_mut().insert(*id, made.clone());
        Ok(made)
    }

    /// A vector as it is sent. `BadInput` when it does not fit the schema.
    pub(super) fn fit(&self, vector: &Vector) -> Result<Vector> {
        check_vector(self.as_query(vector).into_owned(), self.schema)
    }

    /// A dense vector stands for a multivector of one.
    pub(super) fn as_query<'b>(&self, vector: &'b Vector) -> Cow<'b, Vector> {
        match (vector, self.schema.kind) {
            (Vector::Dense(values), VectorKind::Multi) if !values.is_empty() => {
                Cow::Owned(Vector::Multi(MultiVector { dim: values.len(), values: values.clone() }))
            }
            (vector, _) => Cow::Borrowed(vector),
        }
    }
}

/// Numbers in a vector; indices are numbers too.
pub(super) fn components(vector: &Vector) -> usize {
    vector.bytes() / size_of::<f32>()
}

/// Components of an example when no more is known than where it comes from: as many as it may have.
pub(super) fn components_at_most(example: &Example, schema: &VectorSchema) -> usize {
    match (example, schema.kind) {
        (Example::Vector(vector), _) => components(vector),
        (Example::Point(_), VectorKind::Dense) => schema.dim,
        (Example::Point(_), VectorKind::Multi) => MULTIVECTOR_VALUES_MAX,
        (Example::Point(_), VectorKind::Sparse { .. }) => 2 * SPARSE_VALUES_MAX,
    }
}

/// Components of all examples of a query, each as often as it is compared with.
pub(super) fn mentioned(source: &Source, of: &dyn Fn(&Example) -> Result<usize>) -> Result<usize> {
    match source {
        Source::Vector(vector) => Ok(components(vector)),
        Source::Point(id) => of(&Example::Point(*id)),
        Source::Feedback { target, judged, .. } => {
            let mut sum = of(target)?;
            for (example, judgement) in judged {
                let compared = judged.iter().filter(|(_, other)| other != judgement).count();
                sum = sum.saturating_add(of(example)?.saturating_mul(compared));
            }
            Ok(sum)
        }
        source => source.examples().into_iter().try_fold(0usize, |sum, example| Ok(sum.saturating_add(of(example)?))),
    }
}

/// Refuses what is made of more than [`GOAL_COMPONENTS_MAX`] components.
pub(super) fn check_components(components: usize) -> Result<()> {
    if components <= GOAL_COMPONENTS_MAX {
        return Ok(());
    }
    let message = format!(
        "the queries of the request are made of {components} components or more (each vector counts as often as it is \
         compared with), allowed are {GOAL_COMPONENTS_MAX} or fewer"
    );
    Err(Error::Validation { field: "query".into(), message })
}

/// Components that the queries of a request are made of so far.
#[derive(Default)]
pub(super) struct Load {
    sent: usize,
    averaged: usize,
}

impl Load {
    /// Counts the examples of a query before anything is made of them. Fails above a limit.
    pub(super) fn add(&mut self, source: &Source, examples: &Examples<'_>) -> Result<()> {
        let mentioned = mentioned(source, &|example| examples.vector(example).map(components))?;
        // An average of multivectors is all of their vectors.
        if matches!(source, Source::Average { .. }) && examples.schema.kind != VectorKind::Multi {
            self.averaged = self.averaged.saturating_add(mentioned);
            if self.averaged > AVERAGED_COMPONENTS_MAX {
                let message = format!(
                    "averages are taken of {} components or more (each example counts as often as it is named), allowed \
                     are {AVERAGED_COMPONENTS_MAX} or fewer",
                    self.averaged
                );
                return Err(Error::Validation { field: "query".into(), message });
            }
            return Ok(());
        }
        self.sent = self.sent.saturating_add(mentioned);
        check_components(self.sent)
    }

    /// Counts what became of an average: its examples do not say how long it is. Fails above a limit.
    pub(super) fn add_made(&mut self, source: &Source, schema: &VectorSchema, goal: &Goal) -> Result<()> {
        if matches!(source, Source::Average { .. }) && schema.kind != VectorKind::Multi {
            let made: usize = goal.vectors().into_iter().map(components).sum();
            self.sent = self.sent.saturating_add(made);
        }
        check_components(self.sent)
    }
}

#[cfg(test)]
mod tests {
    use vicinal_common::metric::Metric;

    use super::super::goal::goal_of;
    use super::*;

    const DIM: usize = 4_096;

    fn points(count: usize) -> Vec<(Example, f32)> {
        vec![(Example::Point(PointId::Num(1)), 1.0); count]
    }

    #[test]
    fn a_stored_vector_is_made_once_however_often_it_is_named() {
        let schema = VectorSchema::dense(DIM, Metric::Cosine);
        let vector = Vector::Dense(vec![2.0; DIM]);
        let asked = std::cell::Cell::new(0);
        let stored = |_: PointId, _: &str| {
            asked.set(asked.get() + 1);
            Ok(&vector)
        };
        let examples = Examples::new("", &schema, &stored);
        let source = Source::BestScore { positive: points(1_000), negative: points(1_000) };
        let goals = [goal_of(&source, &examples), goal_of(&source, &examples)].map(|goal| goal.unwrap().unwrap());
        let first = goals[0].vectors()[0];
        assert!(goals.iter().flat_map(Goal::vectors).all(|vector| std::ptr::eq(vector, first)));
        assert_eq!(asked.get(), 1);
        let average = Source::Average { positive: points(3), negative: points(1) };
        let average = goal_of(&average, &examples).unwrap().unwrap();
        assert!((average.nearest().unwrap().dense().unwrap()[0] - 1.0 / 64.0).abs() < 1e-6);
    }

    #[test]
    fn a_request_is_refused_when_its_examples_are_too_much_to_send() {
        let schema = VectorSchema::dense(DIM, Metric::Dot);
        let vector = Vector::Dense(vec![1.0; DIM]);
        let stored = |_: PointId, _: &str| Ok(&vector);
        let examples = Examples::new("", &schema, &stored);
        let source = Source::SumScores { positive: points(1_000), negative: Vec::new() };
        let mut load = Load::default();
        for _ in 0..4 {
            load.add(&source, &examples).unwrap();
        }
        let error = load.add(&source, &examples).unwrap_err();
        assert_eq!(error.http_status(), 422);
        assert!(error.to_string().contains("[query: ") && error.to_string().contains("16777216"), "{error}");
        // 64 examples with judgements of their own are 4,032 in pairs.
        let judged = (0..64).map(|n| (Example::Point(PointId::Num(n)), n as f32)).collect();
        let feedback = Source::Feedback { target: Example::Point(PointId::Num(1)), judged, factors: [1.0; 3] };
        assert_eq!(mentioned(&feedback, &|_| Ok(1)), Ok(1 + 64 * 63));
        let mut load = Load::default();
        load.add(&feedback, &examples).unwrap();
        assert!(load.add(&feedback, &examples).is_err());
    }

    #[test]
    fn an_average_counts_as_the_one_vector_that_it_becomes() {
        let schema = VectorSchema::dense(DIM, Metric::Dot);
        let vector = Vector::Dense(vec![1.0; DIM]);
        let stored = |_: PointId, _: &str| Ok(&vector);
        let examples = Examples::new("", &schema, &stored);
        let source = Source::Average { positive: points(1_000), negative: Vec::new() };
        let goal = goal_of(&source, &examples).unwrap().unwrap();
        let mut load = Load::default();
        for _ in 0..AVERAGED_COMPONENTS_MAX / (1_000 * DIM) {
            load.add(&source, &examples).unwrap();
            load.add_made(&source, &schema, &goal).unwrap();
        }
        assert!(load.sent < 100 * DIM);
        assert_eq!(load.add(&source, &examples).unwrap_err().http_status(), 422);
    }
}
