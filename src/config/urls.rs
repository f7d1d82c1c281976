//! Addresses of other processes in settings: one text with commas, or a list.

use std::fmt;

use anyhow::bail;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use vicinal_common::transport::Address;

/// URLs, in the order given, without a slash at their ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Urls(pub(crate) Vec<String>);

impl Urls {
    /// As addresses. The error names the setting.
    pub(crate) fn addresses(&self, setting: &str) -> anyhow::Result<Vec<Address>> {
        self.0.iter().map(|url| check_url(setting, url)).collect()
    }
}

/// An address another process can be reached at: `http://host:port`.
pub(crate) fn check_url(setting: &str, url: &str) -> anyhow::Result<Address> {
    let parsed = reqwest::Url::parse(url);
    let is_plain = parsed.is_ok_and(|url| {
        url.scheme() == "http" && url.has_host() && matches!(url.path(), "" | "/") && url.query().is_none()
    });
    if !is_plain {
        bail!("wrong setting: {setting} is {url:?}, expected something like http://10.0.0.5:6333");
    }
    Ok(Address(url.trim_end_matches('/').to_owned()))
}

impl<'de> Deserialize<'de> for Urls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Urls, D::Error> {
        deserializer.deserialize_any(UrlsVisitor)
    }
}

struct UrlsVisitor;

impl<'de> Visitor<'de> for UrlsVisitor {
    type Value = Urls;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("URLs, separated by commas or in a list")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Urls, E> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        Ok(Urls(parts.map(|part| part.trim_end_matches('/').to_owned()).collect()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Urls, A::Error> {
        let mut urls = Vec::new();
        while let Some(url) = list.next_element::<String>()? {
            urls.push(url.trim_end_matches('/').to_owned());
        }
        Ok(Urls(urls))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_understood_and_wrong_urls_named() {
        let text: Urls = serde_json::from_str("\"http://a:1, http://b:2/\"").unwrap();
        let list: Urls = serde_json::from_str("[\"http://a:1\", \"http://b:2\"]").unwrap();
        assert_eq!(text, list);
        assert_eq!(text.addresses("join").unwrap()[1], Address("http://b:2".into()));
        for wrong in ["a:1", "ftp://a:1", "http://a:1/path", "http://"] {
            let error = Urls(vec![wrong.into()]).addresses("join").unwrap_err().to_string();
            assert!(error.contains("join") && error.contains(wrong), "{error}");
        }
    }
}
