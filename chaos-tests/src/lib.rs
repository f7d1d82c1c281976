//! What the tests over real processes share: processes of the built binary, alone (`Server`) or as a cluster, a REST
//! client, clients that record a history, faults, and checkers that read the history afterwards.

pub mod check;
pub mod cluster;
pub mod collector;
pub mod content;
pub mod history;
pub mod nemesis;
pub mod op;
pub mod workload;

mod binary;
mod client;
mod process;
mod rest;
mod server;
pub mod sim;
mod skip;

pub use binary::binary;
pub use client::{Client, Route, Site};
pub use process::{Exited, Process, ProcessOptions, data_dir};
pub use rest::{Answer, Rest};
pub use server::{Server, ServerOptions};
pub use skip::skip;
