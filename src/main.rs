//! The vicinal binary.
fn main() {}
