//! Where values come from: defaults < `--dev` < what was measured or detected < file < environment < flags < IncrementalAlterConfigs. Each layer
//! keeps its own value, so that `config print` and DescribeConfigs can say which one is in effect and what it hides.

use std::collections::BTreeMap;
use std::fmt;

use super::broker_keys::{DEV_DEFAULTS, is_per_listener};
use super::inert::{is_retired, why_inert};
use super::option::{BadValue, Opt};
use super::{file, keys};
use crate::base::error::Fatal;

/// A layer of values. A later one hides an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    Default,
    /// `--dev`.
    Dev,
    /// Calibrated, or derived from the machine.
    Detected,
    File,
    Env,
    /// A flag, or `-X key=value`.
    Flag,
    /// IncrementalAlterConfigs for all brokers (the empty resource name).
    DynamicDefault,
    /// IncrementalAlterConfigs for this broker.
    DynamicBroker,
}

impl Source {
    /// As `config print` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Source::Default => "default",
            Source::Dev => "--dev",
            Source::Detected => "detected",
            Source::File => "file",
            Source::Env => "environment",
            Source::Flag => "flag",
            Source::DynamicDefault => "altered for all brokers",
            Source::DynamicBroker => "altered for this broker",
        }
    }

    /// The number of this source in DescribeConfigs.
    pub fn id(self) -> i8 {
        match self {
            Source::DynamicBroker => 2,
            Source::DynamicDefault => 3,
            Source::Default => 5,
            _ => 4,
        }
    }
}

/// Values by key and layer. Every value in it passed its declaration and is in canonical form.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Settings {
    layers: BTreeMap<&'static str, BTreeMap<Source, String>>,
}

/// Names only: among the values are secrets.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.layers.keys()).finish()
    }
}

impl Settings {
    /// The value in effect and the layer that gives it; none where not even a default is declared.
    pub fn get(&self, key: &str) -> Option<(&str, Source)> {
        let (declared, opt) = keys::broker_all().get_key_value(key)?;
        if let Some((source, value)) = self.layers.get(declared).and_then(|layers| layers.last_key_value()) {
            return Some((value, *source));
        }
        opt.default.map(|value| (value, Source::Default))
    }

    /// The values of one key, from the one in effect down to the default; of the static layers only the strongest.
    pub fn all(&self, key: &str) -> Vec<(&str, Source)> {
        let mut found: Vec<(&str, Source)> = Vec::new();
        for (source, value) in self.layers.get(key).into_iter().flatten().rev() {
            if found.last().is_none_or(|(_, stronger)| stronger.id() != source.id()) {
                found.push((value, *source));
            }
        }
        if let Some(value) = keys::broker(key).and_then(|opt| opt.default) {
            found.push((value, Source::Default));
        }
        found
    }

    /// Puts a canonical value in.
    pub fn put(&mut self, source: Source, opt: &Opt, value: String) {
        self.layers.entry(opt.key).or_default().insert(source, value);
    }

    /// Replaces a dynamic layer by these values. What no declaration knows (written by another version) is left out.
    pub fn replace_layer(&mut self, source: Source, values: &BTreeMap<String, String>) {
        self.layers.retain(|_, layers| {
            layers.remove(&source);
            !layers.is_empty()
        });
        for (key, value) in values {
            if let Some(opt) = keys::broker(key)
                && let Ok(value) = opt.parse(value)
            {
                self.put(source, opt, value);
            }
        }
    }
}

/// Collects the layers at start.
#[derive(Debug, Default)]
pub struct Loader {
    pub(super) settings: Settings,
    /// What the operator should be told once: keys without effect, variables that were not understood.
    pub(super) notes: Vec<String>,
}

impl Loader {
    /// `--dev`.
    pub fn dev(&mut self) {
        for (key, value) in DEV_DEFAULTS {
            self.put_known(Source::Dev, key, value);
        }
    }

    /// A value that was measured or derived from the machine.
    pub fn detected(&mut self, key: &str, value: &str) {
        self.put_known(Source::Detected, key, value);
    }

    /// A configuration file: `name` decides between TOML and Kafka's properties, and stands in messages.
    pub fn file(&mut self, name: &str, text: &str) -> Result<(), Fatal> {
        let pairs = if name.ends_with(".properties") { file::properties(text) } else { file::toml(text) };
        let pairs = pairs.map_err(|what| Fatal {
            code: "bad-config-file",
            summary: format!("{name} cannot be read"),
            found: what,
            means: "the broker does not start on a file that it understands only in part".to_string(),
            tries: vec!["dotted keys with values, as in log.segment.bytes = 1073741824".to_string()],
        })?;
        for (key, value) in pairs {
            if is_per_listener(&key) {
                self.notes.push(format!("{key} is accepted without effect: only PLAINTEXT is served"));
                continue;
            }
            self.set(Source::File, &key, &value)?;
        }
        Ok(())
    }

    /// The environment: `CORELOG_LOG_SEGMENT_BYTES` for `log.segment.bytes`. Variables that name no key only leave a note,
    /// since the command line has variables of its own with the same prefix.
    pub fn env(&mut self, vars: impl Iterator<Item = (String, String)>) -> Result<(), Fatal> {
        let known: BTreeMap<String, &'static str> =
            keys::broker_all().keys().map(|key| (env_name(key), *key)).collect();
        for (name, value) in vars.filter(|(name, _)| name.starts_with("CORELOG_")) {
            match known.get(&name) {
                Some(key) => self.set(Source::Env, key, &value)?,
                None => self.notes.push(format!("environment variable {name} names no configuration key")),
            }
        }
        Ok(())
    }

    /// One value, as `-X key=value` gives it.
    pub fn set(&mut self, source: Source, key: &str, value: &str) -> Result<(), Fatal> {
        if is_retired(key) {
            self.notes.push(format!("{key} is not a key of Kafka 4: passed over"));
            return Ok(());
        }
        let opt = keys::broker(key).ok_or_else(|| unknown_key(key, source))?;
        let canonical = opt.parse_human(value).map_err(|bad| bad_value(opt, &bad, source))?;
        if !opt.effect && source != Source::Dev {
            let why = if opt.doc.is_empty() { why_inert(key) } else { opt.doc };
            self.notes.push(format!("{key} is accepted without effect: {why}"));
        }
        self.settings.put(source, opt, canonical);
        Ok(())
    }

    fn put_known(&mut self, source: Source, key: &str, value: &str) {
        let opt = keys::broker(key).expect("our own keys are declared");
        let value = opt.parse_human(value).expect("our own values are allowed");
        self.settings.put(source, opt, value);
    }
}

/// The environment variable of a key.
pub fn env_name(key: &str) -> String {
    let name: String =
        key.chars().map(|c| if c == '.' || c == '-' { '_' } else { c.to_ascii_uppercase() }).collect();
    format!("CORELOG_{name}")
}

fn unknown_key(key: &str, source: Source) -> Fatal {
    let mut tries = Vec::new();
    if let Some(near) = keys::nearest_broker(key) {
        tries.push(format!("did you mean {near}?"));
    }
    if keys::topic_settable(key).is_some() {
        tries.push(format!("{key} belongs to a topic: corelog topic alter-config TOPIC --set {key}=..."));
    }
    tries.push("corelog serve -X list        (every key, its default and what it does)".to_string());
    Fatal {
        code: "bad-config-key",
        summary: format!("there is no configuration key {key}"),
        found: format!("{key}, from {}", source.name()),
        means: "a key that is misspelled would silently not be obeyed".to_string(),
        tries,
    }
}

pub(super) fn bad_value(opt: &Opt, bad: &BadValue, source: Source) -> Fatal {
    Fatal {
        code: "bad-config-value",
        summary: bad.to_string(),
        found: format!("{} = {}, from {}", opt.key, bad.value, source.name()),
        means: opt.doc.to_string(),
        tries: vec![format!(
            "{} takes {}{}",
            opt.key,
            opt.allowed_text(),
            opt.default.map(|default| format!("; its default is {default}")).unwrap_or_default()
        )],
    }
}
