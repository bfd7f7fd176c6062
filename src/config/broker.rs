//! The broker's configuration, resolved: typed fields for what the code obeys, and every key with its value and source for those who ask.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::broker_keys::STATE_DIR;
use super::keys;
use super::option::list;
use super::runtime::Runtime;
use super::source::{Loader, Settings, Source};
use crate::base::error::Fatal;
use crate::base::ids::BrokerId;

/// An address by the name of its listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub name: String,
    /// Empty: all addresses.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "{}://[{}]:{}", self.name, self.host, self.port),
            false => write!(f, "{}://{}:{}", self.name, self.host, self.port),
        }
    }
}

/// Which shard takes a connection that comes to a listener of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accept {
    /// The one with the fewest.
    #[default]
    Balanced,
    /// Whichever is first.
    Shared,
    /// Each has a socket of its own at the same address.
    ReusePort,
}

impl Accept {
    pub const NAMES: &[&str] = &["balanced", "shared", "reuseport"];

    pub fn name(self) -> &'static str {
        Accept::NAMES[self as usize]
    }

    fn parse(name: &str) -> Option<Accept> {
        [Accept::Balanced, Accept::Shared, Accept::ReusePort].into_iter().find(|accept| accept.name() == name)
    }
}

/// Whether one flush may stand for many files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlushMode {
    /// Where the storage lets it, on kernels on which power was cut under it.
    #[default]
    Auto,
    /// Where the storage lets it, whatever the kernel.
    Shared,
    Each,
}

impl FlushMode {
    pub const NAMES: &[&str] = &["auto", "shared", "each"];

    /// Where the storage lets one flush stand for many files. `tested`: power was cut under that on this kernel.
    pub fn shares(self, tested: bool) -> bool {
        match self {
            FlushMode::Auto => tested,
            FlushMode::Shared => true,
            FlushMode::Each => false,
        }
    }

    fn parse(name: &str) -> Option<FlushMode> {
        let modes = [FlushMode::Auto, FlushMode::Shared, FlushMode::Each];
        modes.into_iter().find(|mode| FlushMode::NAMES[*mode as usize] == name)
    }
}

/// Immutable; a change of dynamic values makes a new one ([`BrokerConfig::with_dynamic`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    settings: Settings,
    /// What the operator should be told once at start.
    pub notes: Vec<String>,
    pub node_id: BrokerId,
    pub rack: Option<String>,
    pub listeners: Vec<Listener>,
    /// As configured; empty where the listeners themselves are advertised, once their ports are known.
    pub advertised: Vec<Listener>,
    pub data_dir: PathBuf,
    /// Clients see each shard as a broker of its own, on its own port: the first of them, or 0 for free ones.
    pub advertise_shards: bool,
    pub advertise_port: u16,
    pub accept: Accept,
    pub handover_requests: u32,
    pub handover_interval_ms: u64,
    /// 0 until the machine has been asked.
    pub shards: u16,
    pub cpus: Option<String>,
    pub spin: Duration,
    pub runtime: Runtime,
    /// Bytes of all pools; None where the caller derives it with [`memory_default`].
    pub memory: Option<u64>,
    /// Bytes of it for the tail cache; None for half.
    pub tail_cache: Option<u64>,
    pub flush_mode: FlushMode,
    /// None: 2 segments per shard and 1 % of the disk.
    pub free_bytes_min: Option<u64>,
    pub durability_allow_degraded: bool,
    pub num_partitions: i32,
    pub default_replication_factor: i16,
    pub replication_factor_clamp: bool,
    pub auto_create_topics: bool,
    pub delete_topics: bool,
    /// Decompress and walk every produced batch.
    pub validate_deep: bool,
    pub request_bytes_max: usize,
    pub fetch_bytes_max: i32,
    pub connection_idle_ms_max: u64,
    pub connections_max: u32,
    connections_per_ip_max: u32,
    /// In the order of the setting.
    connections_per_ip_overrides: Vec<(IpAddr, u32)>,
    pub retention_check_ms: u64,
    pub producer_id_expiration_ms: i64,
    pub log_level: String,
    pub log_format: String,
}

impl Loader {
    /// Resolves what was collected; the last checks are those that need several keys.
    pub fn finish(mut self) -> Result<BrokerConfig, Fatal> {
        let older =
            self.settings.get("broker.id").filter(|(id, source)| *source != Source::Default && *id != "-1");
        let older = older.map(|(id, source)| (id.to_string(), source));
        if let (Some((id, source)), Some((_, Source::Default))) = (older, self.settings.get("node.id")) {
            self.set(source, "node.id", &id)?;
        }
        let node_id = self.settings.get("node.id").map(|(id, _)| id.to_string()).unwrap_or_default();
        self.set(Source::Detected, "broker.id", &node_id)?;
        BrokerConfig::resolve(self.settings, self.notes)
    }
}

impl BrokerConfig {
    /// The defaults alone, for tests and tools.
    pub fn defaults() -> BrokerConfig {
        Loader::default().finish().expect("the defaults are valid")
    }

    /// Connections that one address may have.
    pub fn connections_from_max(&self, address: IpAddr) -> u32 {
        let own = self.connections_per_ip_overrides.iter().find(|(of, _)| *of == address);
        own.map_or(self.connections_per_ip_max, |(_, max)| *max)
    }

    /// The value in effect of any broker key, with its source.
    pub fn get(&self, key: &str) -> Option<(&str, Source)> {
        self.settings.get(key)
    }

    /// Its values in all layers, from the one in effect down to the default.
    pub fn all(&self, key: &str) -> Vec<(&str, Source)> {
        self.settings.all(key)
    }

    /// The same broker with other dynamic values: those for all brokers, and those for this one.
    pub fn with_dynamic(
        &self,
        of_all: &BTreeMap<String, String>,
        of_this: &BTreeMap<String, String>,
    ) -> BrokerConfig {
        let mut settings = self.settings.clone();
        settings.replace_layer(Source::DynamicDefault, of_all);
        settings.replace_layer(Source::DynamicBroker, of_this);
        // What is dynamic has no field that could fail to resolve; should that change, the old values stay in effect.
        let resolved = BrokerConfig::resolve(settings, self.notes.clone()).unwrap_or_else(|_| self.clone());
        BrokerConfig { shards: self.shards, ..resolved }
    }

    fn resolve(settings: Settings, notes: Vec<String>) -> Result<BrokerConfig, Fatal> {
        let text = |key: &str| settings.get(key).map(|(value, _)| value.to_string());
        let filled = |key: &str| text(key).filter(|value| !value.is_empty());
        let long = |key: &str| text(key).and_then(|value| value.parse::<i64>().ok());
        let number = |key: &str| long(key).unwrap_or_default();
        let flag = |key: &str| text(key).as_deref() == Some("true");
        let listeners = listeners(&settings, "listeners")?;
        if listeners.is_empty() {
            return Err(bad_listener("listeners", "", "names no listener for clients"));
        }
        Ok(BrokerConfig {
            notes,
            node_id: BrokerId(number("node.id") as i32),
            rack: filled("broker.rack"),
            listeners,
            advertised: self::listeners(&settings, "advertised.listeners")?,
            data_dir: data_dir(filled("log.dirs").or(filled("log.dir")))?,
            advertise_shards: filled("advertise").as_deref() == Some("shards"),
            advertise_port: number("advertise.port") as u16,
            accept: text("shard.accept").and_then(|name| Accept::parse(&name)).unwrap_or_default(),
            handover_requests: number("shard.handover.requests") as u32,
            handover_interval_ms: number("shard.handover.interval.ms") as u64,
            shards: filled("shards").and_then(|shards| shards.parse().ok()).unwrap_or(0),
            cpus: filled("cpus"),
            spin: Duration::from_micros(number("shard.spin.us") as u64),
            runtime: text("runtime").and_then(|name| Runtime::parse(&name)).unwrap_or_default(),
            memory: long("memory").map(|bytes| bytes as u64),
            tail_cache: long("memory.tail.cache").map(|bytes| bytes as u64),
            flush_mode: text("log.flush.mode").and_then(|name| FlushMode::parse(&name)).unwrap_or_default(),
            free_bytes_min: long("log.free.bytes").map(|bytes| bytes as u64),
            durability_allow_degraded: flag("durability.allow.degraded"),
            num_partitions: number("num.partitions") as i32,
            default_replication_factor: number("default.replication.factor").min(i64::from(i16::MAX)) as i16,
            replication_factor_clamp: flag("replication.factor.clamp"),
            auto_create_topics: flag("auto.create.topics.enable"),
            delete_topics: flag("delete.topic.enable"),
            validate_deep: flag("validate.deep"),
            request_bytes_max: number("socket.request.max.bytes") as usize,
            fetch_bytes_max: number("fetch.max.bytes") as i32,
            connection_idle_ms_max: number("connections.max.idle.ms") as u64,
            connections_max: number("max.connections") as u32,
            connections_per_ip_max: number("max.connections.per.ip") as u32,
            connections_per_ip_overrides: overrides(
                &text("max.connections.per.ip.overrides").unwrap_or_default(),
            )?,
            retention_check_ms: number("log.retention.check.interval.ms") as u64,
            producer_id_expiration_ms: number("producer.id.expiration.ms"),
            log_level: text("log.level").unwrap_or_default(),
            log_format: text("log.format").unwrap_or_default(),
            settings,
        })
    }

    /// Every broker key with its value and source, for `config print`.
    pub fn print(&self) -> Vec<(&'static str, Option<String>, Source)> {
        let line = |key: &'static str| match self.get(key) {
            Some((_, source)) if keys::broker(key).is_some_and(|opt| opt.kind.is_sensitive()) => {
                (key, Some("[hidden]".to_string()), source)
            }
            Some((value, source)) => (key, Some(value.to_string()), source),
            None => (key, None, Source::Default),
        };
        keys::broker_all().keys().map(|key| line(key)).collect()
    }
}

/// `memory` where it is not set: the smaller of 1 GiB and a quarter of what the process may use. More for many shards, and for one on a
/// small machine: 64 MiB are what one needs to keep writes, reads and sends in flight at once, and several get by with half of that each.
/// Never more than half of what the process may use, whatever the number of shards.
pub fn memory_default(usable_bytes: u64, shards: u16) -> u64 {
    let wanted = (u64::from(shards) * (32 << 20)).max(64 << 20);
    (usable_bytes / 4).min(1 << 30).max(wanted).min(usable_bytes / 2)
}

fn data_dir(configured: Option<String>) -> Result<PathBuf, Fatal> {
    let configured = configured.unwrap_or_else(|| STATE_DIR.to_string());
    match list(&configured)[..] {
        [one] => Ok(PathBuf::from(one)),
        _ => Err(Fatal {
            code: "bad-config-value",
            summary: "log.dirs names more than one directory".to_string(),
            found: format!("log.dirs = {configured}"),
            means: "this version keeps its data in one directory".to_string(),
            tries: vec!["log.dirs = one directory".to_string()],
        }),
    }
}

/// `ADDRESS:COUNT,...`; an address with colons may stand in brackets.
fn overrides(configured: &str) -> Result<Vec<(IpAddr, u32)>, Fatal> {
    let one = |entry: &str| {
        let (address, count) = entry.rsplit_once(':')?;
        let address = address.trim_start_matches('[').trim_end_matches(']');
        Some((address.parse().ok()?, count.parse().ok()?))
    };
    let each = list(configured).into_iter().map(|entry| {
        one(entry).ok_or_else(|| Fatal {
            code: "bad-config-value",
            summary: format!("max.connections.per.ip.overrides: {entry} is not ADDRESS:COUNT"),
            found: format!("max.connections.per.ip.overrides = {configured}"),
            means: "an address of this entry would keep the limit of all others; names are not looked up"
                .to_string(),
            tries: vec!["max.connections.per.ip.overrides = 127.0.0.1:100,[::1]:100".to_string()],
        })
    });
    each.collect()
}

/// The listeners of one key, without those of a KRaft controller.
fn listeners(settings: &Settings, key: &str) -> Result<Vec<Listener>, Fatal> {
    let value = |key: &str| settings.get(key).map(|(value, _)| value).unwrap_or_default();
    let of_controller = list(value("controller.listener.names"));
    let mut found: Vec<Listener> = Vec::new();
    for entry in list(value(key)) {
        let listener = listener(entry).ok_or_else(|| bad_listener(key, entry, "is not NAME://HOST:PORT"))?;
        if of_controller.contains(&listener.name.as_str()) {
            continue;
        }
        let protocols = list(value("listener.security.protocol.map"));
        let protocol = protocols.iter().find_map(|pair| pair.strip_prefix(&format!("{}:", listener.name)));
        match protocol {
            Some("PLAINTEXT") => found.push(listener),
            Some(_) => {
                return Err(bad_listener(key, entry, "is not PLAINTEXT, and nothing else is served yet"));
            }
            None => return Err(bad_listener(key, entry, "has no entry in listener.security.protocol.map")),
        }
    }
    Ok(found)
}

fn listener(entry: &str) -> Option<Listener> {
    let (name, address) = entry.split_once("://")?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some(Listener { name: name.to_string(), host: host.to_string(), port: port.parse().ok()? })
}

fn bad_listener(key: &str, entry: &str, what: &str) -> Fatal {
    Fatal {
        code: "bad-config-value",
        summary: format!("{key}: {entry} {what}"),
        found: format!("{key} = {entry}"),
        means: "the broker would not be reachable as intended".to_string(),
        tries: vec![
            format!("{key} = PLAINTEXT://127.0.0.1:9092"),
            "--listen 127.0.0.1:9092".to_string(),
            "corelog serve -X list        (every key, its default and what it does)".to_string(),
        ],
    }
}
