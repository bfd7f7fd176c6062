//! The durability label that stands beside every number, from what the broker says about itself.

use crate::client::admin::Config;
use crate::client::settings::Acks;

/// The topic's own durability setting: `durable`, `written`, `memory`, or `unknown` where the broker has no such notion.
/// `flush.messages=1` means a flush before each ack on any Kafka; `write.caching` is Redpanda's.
pub fn setting(configs: &[Config]) -> &'static str {
    let value = |name: &str| configs.iter().find(|c| c.name == name).and_then(|c| c.value.as_deref());
    match (value("durability"), value("write.caching"), value("flush.messages")) {
        (Some("durable"), _, _) => "durable",
        (Some("written"), _, _) => "written",
        (Some("memory"), _, _) => "memory",
        (_, Some("true"), _) => "memory",
        (_, Some("false"), _) => "durable",
        (_, _, Some("1")) => "durable",
        (_, _, Some(_)) => "written",
        _ => "unknown",
    }
}

/// What an ack means in a result: `none · memory · page-cache · device · quorum-memory · quorum-device · unknown`.
pub fn label(configs: &[Config], acks: Acks, in_sync: usize) -> &'static str {
    let quorum = acks == Acks::All && in_sync > 1;
    match (acks, setting(configs)) {
        (Acks::None, _) => "none",
        (_, "durable") if quorum => "quorum-device",
        (_, "durable") => "device",
        (_, "written") => "page-cache",
        (_, "memory") if quorum => "quorum-memory",
        (_, "memory") => "memory",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        let config = |name: &str, value: &str| Config {
            name: name.to_string(),
            value: Some(value.to_string()),
            own: true,
            source: "topic",
            read_only: false,
        };
        let check = |configs: &[Config], acks, in_sync, expected: &str| {
            assert_eq!(label(configs, acks, in_sync), expected)
        };
        check(&[config("durability", "durable")], Acks::All, 1, "device");
        check(&[config("durability", "durable")], Acks::All, 3, "quorum-device");
        check(&[config("durability", "memory"), config("flush.messages", "1")], Acks::Leader, 1, "memory");
        check(&[config("flush.messages", "9223372036854775807")], Acks::All, 1, "page-cache");
        check(&[config("write.caching", "true")], Acks::All, 3, "quorum-memory");
        check(&[config("durability", "durable")], Acks::None, 1, "none");
        check(&[], Acks::All, 1, "unknown");
    }
}
