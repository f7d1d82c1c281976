//! Publishing against a model, and with real nodes.

mod model;
