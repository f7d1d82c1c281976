//! What both kinds of raft group share.
