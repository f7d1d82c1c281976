//! Where replicas live, and the work of making it so.
