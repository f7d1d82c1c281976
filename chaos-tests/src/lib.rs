//! What the tests over real processes share: a server of the built binary, a REST client, and words for a test that
//! cannot run on this machine.

mod binary;
mod rest;
mod server;
pub mod sim;
mod skip;

pub use binary::binary;
pub use rest::{Answer, Rest};
pub use server::{Exited, Server, ServerOptions, data_dir};
pub use skip::skip;
