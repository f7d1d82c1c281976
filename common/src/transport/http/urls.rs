//! Where requests are posted: a URL for each address and route, parsed once. Parsing takes longer than all else that is done
//! for a small request before it is sent.

use std::collections::HashMap;

use parking_lot::RwLock;
use reqwest::Url;

use super::Address;

/// URLs kept: more than there are nodes and routes that are used often. When there are more all are forgotten, as those of
/// nodes and shards that are gone must be some time.
const KEPT_MAX: usize = 4_096;

/// The URLs that were asked for.
#[derive(Default)]
pub(super) struct Urls(RwLock<Kept>);

#[derive(Default)]
struct Kept {
    by_address: HashMap<Address, HashMap<String, Url>>,
    count: usize,
}

impl Urls {
    /// The URL of a route at an address. An error says why the address is none.
    pub(super) fn of(&self, to: &Address, route: &str) -> Result<Url, String> {
        if let Some(url) = self.0.read().by_address.get(to).and_then(|routes| routes.get(route)) {
            return Ok(url.clone());
        }
        let text = format!("{}/internal/{route}", to.0.trim_end_matches('/'));
        let url = Url::parse(&text).map_err(|error| format!("{text}: {error}"))?;
        if !url.has_host() {
            return Err(format!("{text}: it names no host"));
        }
        let mut kept = self.0.write();
        if kept.count >= KEPT_MAX {
            *kept = Kept::default();
        }
        let before = kept.by_address.entry(to.clone()).or_default().insert(route.to_owned(), url.clone());
        kept.count += usize::from(before.is_none());
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_the_same_the_second_time_and_bounded() {
        let urls = Urls::default();
        for address in ["http://a:1", "http://a:1/", "http://b:1"] {
            let address = Address(address.to_owned());
            let first = urls.of(&address, "shard/search").unwrap();
            assert_eq!(urls.of(&address, "shard/search").unwrap(), first);
            assert_eq!(first.as_str(), format!("{}/internal/shard/search", address.0.trim_end_matches('/')));
        }
        for address in ["", "local:x", "no address"] {
            assert!(urls.of(&Address(address.to_owned()), "shard/search").is_err(), "{address}");
        }
        let address = Address("http://a:1".to_owned());
        for number in 0..3 * KEPT_MAX {
            urls.of(&address, &format!("raft/shard/{number}/append")).unwrap();
            let kept = urls.0.read();
            assert!(kept.count <= KEPT_MAX);
            assert_eq!(kept.count, kept.by_address.values().map(HashMap::len).sum::<usize>());
        }
    }
}
