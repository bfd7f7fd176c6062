//! DescribeConfigs, as values: every key with what is in effect, where that comes from and what it hides. The rules are Kafka's,
//! taken from the answers of a 4.1 broker: a topic's entry lists the topic's value, then those of its broker key from the
//! strongest layer down; its source is that of the first of them.

use super::broker::BrokerConfig;
use super::inert::why_inert;
use super::keys;
use super::option::{Kind, Opt};
use super::source::Source;
use super::topic::{self, Overrides, value_of};
use super::topic_keys::{INTERNAL_SEGMENT_BYTES, TOPIC_KEYS, TopicKey};

/// DescribeConfigs' number of a value set on a topic; the others are [`Source::id`].
pub const SOURCE_TOPIC: i8 = 1;

/// One entry of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub name: &'static str,
    /// None where there is no value, and where it is sensitive.
    pub value: Option<String>,
    pub read_only: bool,
    pub source: i8,
    pub sensitive: bool,
    pub synonyms: Vec<Synonym>,
    pub kind: Kind,
}

/// A value that is in effect or hidden by one that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    pub name: &'static str,
    pub value: Option<String>,
    pub source: i8,
}

impl Described {
    /// What the key does; made on demand, since most requests do not ask for it.
    pub fn doc(&self) -> String {
        let opt = keys::topic_settable(self.name).or_else(|| keys::broker(self.name));
        opt.map(doc).unwrap_or_default()
    }
}

/// What an option does, or why nothing obeys it.
pub fn doc(opt: &Opt) -> String {
    match (opt.effect, opt.doc) {
        (true, doc) => doc.to_string(),
        (false, "") => format!("Accepted without effect: {}.", why_inert(opt.key)),
        (false, doc) => format!("{doc} Accepted without effect."),
    }
}

/// Every configuration of a topic, alphabetical.
pub fn topic(overrides: &Overrides, broker: &BrokerConfig) -> Vec<Described> {
    let mut found: Vec<Described> =
        TOPIC_KEYS.iter().map(|key| topic_entry(key, overrides, broker)).collect();
    if let Some(value) = overrides.get(INTERNAL_SEGMENT_BYTES.key) {
        let name = INTERNAL_SEGMENT_BYTES.key;
        let own = Synonym { name, value: Some(value.clone()), source: SOURCE_TOPIC };
        found.push(entry(&INTERNAL_SEGMENT_BYTES, Some(value.clone()), vec![own]));
        found.sort_by_key(|described| described.name);
    }
    found
}

/// Every configuration of this broker, alphabetical.
pub fn broker(config: &BrokerConfig) -> Vec<Described> {
    let describe = |opt: &Opt| {
        let value = config.get(opt.key).map(|(value, _)| value.to_string());
        entry(opt, value, broker_values(opt.key, config))
    };
    keys::broker_all().values().map(describe).collect()
}

/// What was altered for all brokers: the broker resource with an empty name.
pub fn all_brokers(config: &BrokerConfig) -> Vec<Described> {
    let mut found = Vec::new();
    for opt in keys::broker_all().values() {
        let mut values = broker_values(opt.key, config);
        values.retain(|synonym| synonym.source == Source::DynamicDefault.id());
        if let Some(first) = values.first() {
            found.push(entry(opt, first.value.clone(), values));
        }
    }
    found
}

fn topic_entry(key: &TopicKey, overrides: &Overrides, broker: &BrokerConfig) -> Described {
    let name = key.opt.key;
    // `flush.messages` is a view of `durability`: it is set where that is set.
    let of = if name == "flush.messages" { "durability" } else { name };
    let value = value_of(name, overrides, broker);
    let mut values = match (name, key.broker) {
        ("flush.messages", Some(behind)) => flush_messages_values(behind, broker),
        (_, Some(behind)) => broker_values(behind, broker),
        (_, None) => Vec::new(),
    };
    if overrides.contains_key(of) {
        values.insert(0, Synonym { name, value: Some(value.clone()), source: SOURCE_TOPIC });
    }
    entry(&key.opt, Some(value), values)
}

fn flush_messages_values(name: &'static str, broker: &BrokerConfig) -> Vec<Synonym> {
    let none = Overrides::new();
    let source = broker.get("durability").map_or(Source::Default, |(_, source)| source);
    vec![Synonym { name, value: Some(topic::value_of("flush.messages", &none, broker)), source: source.id() }]
}

/// The values of a broker key and of the coarser forms behind it, strongest layer first. Kafka begins the list at the key itself: forms
/// that stand before it are not shown.
fn broker_values(key: &'static str, broker: &BrokerConfig) -> Vec<Synonym> {
    let forms = keys::broker_synonyms(key);
    let mut found: Vec<(Source, Synonym)> = Vec::new();
    for form in forms {
        let sensitive = keys::broker(form).is_some_and(|opt| opt.kind.is_sensitive());
        for (value, source) in broker.all(form) {
            let value = (!sensitive).then(|| value.to_string());
            found.push((source, Synonym { name: form, value, source: source.id() }));
        }
    }
    // Stable: within a layer the finer form stays first. The static layers are one in Kafka.
    found.sort_by_key(|(_, synonym)| synonym.source);
    found.into_iter().map(|(_, synonym)| synonym).skip_while(|synonym| synonym.name != key).collect()
}

fn entry(opt: &Opt, value: Option<String>, synonyms: Vec<Synonym>) -> Described {
    let sensitive = opt.kind.is_sensitive();
    Described {
        name: opt.key,
        value: value.filter(|_| !sensitive),
        read_only: !opt.dynamic,
        source: synonyms.first().map_or(Source::Default.id(), |synonym| synonym.source),
        sensitive,
        synonyms,
        kind: opt.kind,
    }
}
