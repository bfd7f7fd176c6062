//! Finding a declaration by its key, and the nearest one to a key that does not exist.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::broker_keys::BROKER_KEYS;
use super::inert::INERT;
use super::option::Opt;
use super::topic_keys::{INTERNAL_SEGMENT_BYTES, TOPIC_KEYS, TopicKey, WRITE_CACHING};

/// The declaration of a broker key.
pub fn broker(key: &str) -> Option<&'static Opt> {
    broker_all().get(key)
}

/// Every broker key, by name: those with effect, the defaults of topic keys, and the inert ones.
pub fn broker_all() -> &'static BTreeMap<&'static str, Opt> {
    static ALL: OnceLock<BTreeMap<&'static str, Opt>> = OnceLock::new();
    ALL.get_or_init(|| {
        let of_topics = TOPIC_KEYS.iter().filter_map(|topic| {
            let key = topic.broker?;
            let default = topic.opt.default.filter(|_| topic.broker_default);
            Some(Opt { key, default, ..topic.opt })
        });
        BROKER_KEYS
            .iter()
            .copied()
            .chain(of_topics)
            .chain(INERT.iter().copied())
            .map(|opt| (opt.key, opt))
            .collect()
    })
}

/// The declaration of a topic key that has a value on every topic.
pub fn topic(key: &str) -> Option<&'static TopicKey> {
    let at = TOPIC_KEYS.binary_search_by(|topic| topic.opt.key.cmp(key)).ok()?;
    Some(&TOPIC_KEYS[at])
}

/// The declaration of anything that may be set on a topic, synonyms included.
pub fn topic_settable(key: &str) -> Option<&'static Opt> {
    match key {
        _ if key == WRITE_CACHING.key => Some(&WRITE_CACHING),
        _ if key == INTERNAL_SEGMENT_BYTES.key => Some(&INTERNAL_SEGMENT_BYTES),
        _ => topic(key).map(|topic| &topic.opt),
    }
}

/// A broker key and, where it is one of Kafka's finer and coarser forms of one setting, the others, finest first.
pub fn broker_synonyms(key: &'static str) -> Vec<&'static str> {
    let forms: &[&str] = match key {
        "log.retention.ms" | "log.retention.minutes" | "log.retention.hours" => {
            &["log.retention.ms", "log.retention.minutes", "log.retention.hours"]
        }
        "log.roll.ms" | "log.roll.hours" => &["log.roll.ms", "log.roll.hours"],
        "log.roll.jitter.ms" | "log.roll.jitter.hours" => &["log.roll.jitter.ms", "log.roll.jitter.hours"],
        "log.flush.interval.ms" => &["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
        _ => return vec![key],
    };
    forms.to_vec()
}

/// The known broker key that is spelled most like this one, if any is near enough to be what was meant.
pub fn nearest_broker(key: &str) -> Option<&'static str> {
    nearest(key, broker_all().keys().copied())
}

/// The same among topic keys.
pub fn nearest_topic(key: &str) -> Option<&'static str> {
    nearest(key, TOPIC_KEYS.iter().map(|topic| topic.opt.key))
}

fn nearest(key: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    // A key longer than any real one is not worth the quadratic comparison.
    if key.len() > 128 {
        return None;
    }
    let (distance, best) = known.map(|other| (edit_distance(key, other), other)).min()?;
    (distance <= 2 + key.len() / 5).then_some(best)
}

/// Insertions, deletions and replacements of single bytes between two words, one row of the table at a time.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
