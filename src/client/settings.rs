//! What a client can be told, under the names that Kafka's own clients use (`-X key=value`).

use std::time::Duration;

use crate::wire::codec::Codec;

/// What a producer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    None,
    Leader,
    All,
}

impl Acks {
    /// As it stands in a Produce request.
    pub fn wire(self) -> i16 {
        match self {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }

    pub fn parse(text: &str) -> Option<Acks> {
        match text {
            "0" => Some(Acks::None),
            "1" => Some(Acks::Leader),
            "all" | "-1" => Some(Acks::All),
            _ => None,
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            Acks::None => "0",
            Acks::Leader => "1",
            Acks::All => "all",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `host:port` of brokers to begin with.
    pub brokers: Vec<String>,
    pub client_id: String,
    /// One attempt to connect.
    pub connect_timeout: Duration,
    /// One request, from its first byte to the last of its answer.
    pub request_timeout: Duration,
    /// A whole operation with its retries; for a record, from its batch's first send to its ack.
    pub delivery_timeout: Duration,
    pub retry_backoff: Duration,
    pub acks: Acks,
    pub idempotent: bool,
    pub compression: Codec,
    pub batch_bytes: usize,
    pub linger: Duration,
    pub in_flight: usize,
    pub fetch_min_bytes: i32,
    pub fetch_max_bytes: i32,
    pub fetch_partition_bytes: i32,
    pub fetch_max_wait: Duration,
    pub auto_create: bool,
}

/// Kafka allows five batches of one producer and partition to be unacknowledged while it can still tell a retry from a gap.
pub const IDEMPOTENT_IN_FLIGHT_MAX: usize = 5;

/// Open and unacknowledged batches together stay below this many bytes: Kafka's `buffer.memory`.
pub const BUFFER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Largest response that is read: a fetch of the largest `fetch.max.bytes` plus one batch that exceeds it.
pub const RESPONSE_BYTES_MAX: usize = 256 * 1024 * 1024;

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            brokers: vec!["127.0.0.1:9092".to_string()],
            client_id: "corelog".to_string(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            delivery_timeout: Duration::from_secs(60),
            retry_backoff: Duration::from_millis(50),
            acks: Acks::All,
            idempotent: true,
            compression: Codec::None,
            batch_bytes: 64 * 1024,
            linger: Duration::from_millis(5),
            in_flight: 5,
            fetch_min_bytes: 1,
            fetch_max_bytes: 8 * 1024 * 1024,
            fetch_partition_bytes: 1024 * 1024,
            fetch_max_wait: Duration::from_millis(500),
            auto_create: true,
        }
    }
}

/// One setting: its Kafka name, its default for people, and what it does.
pub struct Key {
    pub name: &'static str,
    pub doc: &'static str,
    set: fn(&mut Settings, &str) -> Option<()>,
}

/// Every key of `-X`, sorted by name.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    Key { name: "acks", doc: "0, 1 or all", set: |s, v| { s.acks = Acks::parse(v)?; Some(()) } },
    Key { name: "allow.auto.create.topics", doc: "true or false", set: |s, v| { s.auto_create = flag(v)?; Some(()) } },
    Key { name: "batch.size", doc: "bytes of an uncompressed batch, 1 to 16777216", set: |s, v| { s.batch_bytes = number(v, 1, 1 << 24)?; Some(()) } },
    Key { name: "client.id", doc: "name sent with each request", set: |s, v| { s.client_id = v.to_string(); Some(()) } },
    Key { name: "compression.type", doc: "none, gzip, snappy, lz4 or zstd", set: |s, v| { s.compression = Codec::from_name(v)?; Some(()) } },
    Key { name: "delivery.timeout.ms", doc: "a whole operation with its retries", set: |s, v| { s.delivery_timeout = ms(v)?; Some(()) } },
    Key { name: "enable.idempotence", doc: "true or false; needs acks=all", set: |s, v| { s.idempotent = flag(v)?; Some(()) } },
    Key { name: "fetch.max.bytes", doc: "bytes of one fetch, 1 to 134217728", set: |s, v| { s.fetch_max_bytes = number(v, 1, 1 << 27)? as i32; Some(()) } },
    Key { name: "fetch.max.wait.ms", doc: "longest wait of one fetch", set: |s, v| { s.fetch_max_wait = ms(v)?; Some(()) } },
    Key { name: "fetch.min.bytes", doc: "bytes that end the wait of a fetch", set: |s, v| { s.fetch_min_bytes = number(v, 0, 1 << 27)? as i32; Some(()) } },
    Key { name: "linger.ms", doc: "wait for a batch to fill", set: |s, v| { s.linger = ms(v)?; Some(()) } },
    Key { name: "max.in.flight.requests.per.connection", doc: "unanswered requests, 1 to 128", set: |s, v| { s.in_flight = number(v, 1, 128)?; Some(()) } },
    Key { name: "max.partition.fetch.bytes", doc: "bytes of one partition in one fetch", set: |s, v| { s.fetch_partition_bytes = number(v, 1, 1 << 27)? as i32; Some(()) } },
    Key { name: "request.timeout.ms", doc: "one request", set: |s, v| { s.request_timeout = ms(v)?; Some(()) } },
    Key { name: "retry.backoff.ms", doc: "pause before a retry", set: |s, v| { s.retry_backoff = ms(v)?; Some(()) } },
    Key { name: "socket.connection.setup.timeout.ms", doc: "one attempt to connect", set: |s, v| { s.connect_timeout = ms(v)?; Some(()) } },
];

/// Why a `-X` was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadSetting {
    /// With the nearest known name, if one is near enough to be what was meant.
    Unknown {
        key: String,
        nearest: Option<&'static str>,
    },
    Value {
        key: String,
        value: String,
        doc: &'static str,
    },
}

impl Settings {
    /// Sets one key. `bootstrap.servers` and rpk's `brokers` are taken too.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), BadSetting> {
        if matches!(key, "bootstrap.servers" | "metadata.broker.list" | "brokers") {
            self.brokers = brokers(value);
            return Ok(());
        }
        let Some(known) = KEYS.iter().find(|k| k.name == key) else {
            let nearest = KEYS.iter().map(|k| (distance(k.name, key), k.name)).min();
            let nearest = nearest.filter(|(off, _)| *off <= 2 + key.len() / 5).map(|(_, name)| name);
            return Err(BadSetting::Unknown { key: key.to_string(), nearest });
        };
        let bad = || BadSetting::Value { key: key.to_string(), value: value.to_string(), doc: known.doc };
        (known.set)(self, value).ok_or_else(bad)
    }

    /// Requests in flight that keep the order and the exactly-once promise asked for.
    pub fn in_flight_allowed(&self) -> usize {
        if self.idempotent { self.in_flight.min(IDEMPOTENT_IN_FLIGHT_MAX) } else { self.in_flight }
    }
}

/// Takes `a:1,b:2` apart; an address without a port gets Kafka's.
pub fn brokers(list: &str) -> Vec<String> {
    let with_port = |a: &str| {
        let bracket_end = a.rfind(']').map_or(0, |i| i + 1);
        if a[bracket_end..].contains(':') { a.to_string() } else { format!("{a}:9092") }
    };
    list.split(',').map(str::trim).filter(|a| !a.is_empty()).map(with_port).collect()
}

fn ms(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_millis)
}

fn flag(text: &str) -> Option<bool> {
    text.parse().ok()
}

fn number(text: &str, min: usize, max: usize) -> Option<usize> {
    text.parse().ok().filter(|n| (min..=max).contains(n))
}

/// Edits between two short names, for "did you mean".
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(128).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_set_by_kafkas_names() {
        let mut settings = Settings::default();
        settings.set("acks", "1").unwrap();
        settings.set("linger.ms", "20").unwrap();
        settings.set("bootstrap.servers", "a:1, b ,[::1]:3").unwrap();
        assert_eq!(settings.acks, Acks::Leader);
        assert_eq!(settings.linger, Duration::from_millis(20));
        assert_eq!(settings.brokers, ["a:1", "b:9092", "[::1]:3"]);
        let unknown = settings.set("linger.sm", "1").unwrap_err();
        assert_eq!(unknown, BadSetting::Unknown { key: "linger.sm".into(), nearest: Some("linger.ms") });
        let strange = settings.set("foo", "1").unwrap_err();
        assert_eq!(strange, BadSetting::Unknown { key: "foo".into(), nearest: None });
        assert!(matches!(settings.set("acks", "2"), Err(BadSetting::Value { .. })));
        assert!(KEYS.windows(2).all(|pair| pair[0].name < pair[1].name));
    }
}
