//! stub
pub struct Fault;
pub struct FaultyDisk;
