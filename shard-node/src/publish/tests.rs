//! Publishing against a model, and with real nodes.

mod model;
mod nodes;
mod parts;
mod rules;
mod skip;

use std::collections::BTreeSet;

use vicinal_common::error::Error;
use vicinal_common::ids::{LogIndex, ShardId};
use vicinal_common::publish::Feed;

use super::State;
use super::limits::Limits;
use super::session::Session;

#[test]
fn those_who_wait_in_vain_are_told_why() {
    let mut state = State::default();
    let said = |state: &State| state.why(LogIndex(3)).to_string();
    assert!(said(&state).contains("stored, but not published yet: it will"));
    state.obstacle = Some("no map".into());
    assert!(said(&state).contains("stored, but not published yet (no map)"));
    // A leader that was not told of anything yet waits for all.
    let mut session = Session::new(&Feed { published: LogIndex(3), ..Feed::default() }, Limits::default());
    session.rounds.set_lanes(&BTreeSet::from([ShardId(8)]));
    state.session = Some(session);
    assert!(said(&state).contains("stored, but search shard 8 has not taken its copy yet: it will"));
    let mut fails = |error: Error| {
        let session = state.session.as_mut().unwrap();
        session.failed(ShardId(8), error, None);
        state.why(LogIndex(3))
    };
    let why = fails(Error::Unavailable("away".into()));
    assert!(matches!(&why, Error::Timeout(words) if words.contains("yet (Service unavailable: away)")), "{why}");
    let why = fails(Error::Overloaded("full".into()));
    assert!(matches!(&why, Error::Overloaded(words) if words.contains("yet (full)")), "{why}");
}
