//! stub
pub struct FlatIndex;
