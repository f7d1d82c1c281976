//! What can be wrong with a map or with what it is made of.

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RoutingError {
    /// The bytes are no centroid map, or one of another format version, or damaged.
    #[error("centroid map, offset {offset}: {what}")]
    Corrupt {
        /// Where in the bytes.
        offset: usize,
        /// What is wrong there.
        what: String,
    },
    /// Values that do not fit each other or are out of range.
    #[error("centroid map: {0}")]
    Invalid(String),
}

/// Shorthand for values that do not fit.
pub(crate) fn invalid(what: impl Into<String>) -> RoutingError {
    RoutingError::Invalid(what.into())
}
