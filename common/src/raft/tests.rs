//! Tests of the wire form and the settings. That a group works over it is shown where the groups are.

use super::*;

#[test]
fn settings_are_valid() {
    assert_eq!(metadata_config().heartbeat_interval, 100);
    assert_eq!(shard_config().election_timeout_max, 700);
    for config in [metadata_config(), shard_config()] {
        assert_eq!(config.enable_pre_vote, Some(true));
        assert!(config.quorum_loss_probe_interval.is_some());
    }
}

#[test]
fn request_reaches_only_the_member_it_is_meant_for() {
    let bytes = encode_request(7, &"hello").unwrap();
    assert_eq!(decode_request::<String>(7, &bytes).unwrap(), "hello");
    assert!(decode_request::<String>(8, &bytes).unwrap_err().contains("member 7"));
    let mut newer = bytes.to_vec();
    newer[0] = 2;
    assert!(decode_request::<String>(7, &newer).unwrap_err().contains("version 2"));
    for len in 0..bytes.len() {
        assert!(decode_request::<String>(7, &bytes[..len]).is_err(), "cut at {len}");
    }
}

#[test]
fn answer_carries_value_or_error() {
    assert_eq!(decode_answer::<u64>(&encode_answer(Ok(5_u64))), Ok(5));
    assert_eq!(decode_answer::<u64>(&encode_answer::<u64>(Err("stopped".into()))), Err("stopped".into()));
    assert!(decode_answer::<u64>(&[]).is_err());
    assert!(decode_answer::<u64>(&[9, 0, 5]).is_err());
}
