//! IncrementalAlterConfigs and DescribeConfigs. Rules, numbers and texts are those of a Kafka 4.1.1 broker.
//!
//! Differs from Apache Kafka: an unknown broker key is refused (INVALID_CONFIG) where Kafka stores it for plugins that we do not
//! have; the id of a shard, where clients see shards, stands for its node; loggers, client metrics and groups have no configurations here: they describe as empty and cannot be altered.

use std::collections::BTreeMap;

use super::image::Image;
use super::record::Record;
use super::topics::check_name;
use super::{Refusal, refusal};
use crate::base::error::Refused;
use crate::base::ids::BrokerId;
use crate::config::describe::{self, Described};
use crate::config::option::{Kind, Opt, list};
use crate::config::topic;
use crate::config::{keys, topic::NotSet};

/// Kafka's resource types.
pub const TOPIC: i8 = 2;
pub const BROKER: i8 = 4;
pub const BROKER_LOGGER: i8 = 8;
pub const CLIENT_METRICS: i8 = 16;
pub const GROUP: i8 = 32;

const MALFORMED: &str = "This most likely occurs because of a request being malformed by the client library or the \
                         message was sent to an incompatible broker. See the broker logs for more details.";

/// What to do with one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alter {
    pub key: String,
    /// Kafka's number: 0 set, 1 delete, 2 append, 3 subtract.
    pub op: i8,
    pub value: Option<String>,
}

/// What to do with one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterResource {
    pub kind: i8,
    pub name: String,
    pub alters: Vec<Alter>,
}

/// One result per resource, in the order of the request. Resources stand by themselves: one that is refused changes nothing.
pub(super) fn alter(image: &Image, resources: &[AlterResource]) -> (Vec<Result<(), Refusal>>, Vec<Record>) {
    let mut times = BTreeMap::new();
    for resource in resources {
        *times.entry((resource.kind, resource.name.as_str())).or_insert(0) += 1;
    }
    let (mut results, mut records) = (Vec::new(), Vec::new());
    for resource in resources {
        let altered = if times[&(resource.kind, resource.name.as_str())] > 1 {
            Err(refusal(Refused::InvalidRequest, "Each resource must appear at most once."))
        } else {
            check_ops(&resource.alters).and_then(|()| alter_one(image, resource))
        };
        results.push(altered.map(|record| records.extend(record)));
    }
    (results, records)
}

/// The configurations of one resource, alphabetical. `kind` and `name` are the request's.
pub fn describe(image: &Image, kind: i8, name: &str) -> Result<Vec<Described>, Refusal> {
    let me = image.node_id.0;
    match kind {
        TOPIC => {
            check_name(name)?;
            let unknown = Refusal { error: Refused::UnknownTopicOrPartition, message: None };
            let topic = image.topic(name).ok_or(unknown)?;
            Ok(describe::topic(&topic.overrides, &image.config))
        }
        BROKER if name.is_empty() => Ok(describe::all_brokers(&image.config)),
        BROKER => match broker_id(name, "Broker id")? {
            id if image.is_own(id) => Ok(describe::broker(&image.config)),
            id => Err(wrong_broker(&format!("{me} or empty string, but"), id)),
        },
        BROKER_LOGGER => match broker_id(name, "Broker id")? {
            id if image.is_own(id) => Ok(Vec::new()),
            id => Err(wrong_broker(&format!("{me} but"), id)),
        },
        CLIENT_METRICS if name.is_empty() => {
            Err(refusal(Refused::InvalidRequest, "Client metrics subscription name must not be empty"))
        }
        GROUP if name.is_empty() => Err(refusal(Refused::InvalidRequest, "Group name must not be empty")),
        CLIENT_METRICS | GROUP => Ok(Vec::new()),
        _ => Err(refusal(Refused::InvalidRequest, MALFORMED)),
    }
}

/// True for the types that DescribeConfigs knows. Kafka refuses a whole request for one other.
pub fn is_resource_type(kind: i8) -> bool {
    matches!(kind, TOPIC | BROKER | BROKER_LOGGER | CLIENT_METRICS | GROUP)
}

/// The refusal that goes to every resource of a request with an unknown type.
pub fn malformed() -> Refusal {
    refusal(Refused::InvalidRequest, MALFORMED)
}

fn check_ops(alters: &[Alter]) -> Result<(), Refusal> {
    let mut keys: Vec<&str> = alters.iter().map(|alter| alter.key.as_str()).collect();
    keys.sort_unstable();
    if keys.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(refusal(Refused::InvalidRequest, "Error due to duplicate config keys"));
    }
    let nulls = alters.iter().filter(|alter| alter.op != 1 && alter.value.is_none());
    let nulls: Vec<&str> = nulls.map(|alter| alter.key.as_str()).collect();
    if !nulls.is_empty() {
        let what = format!("Null value not supported for : {}", nulls.join(","));
        return Err(refusal(Refused::InvalidRequest, &what));
    }
    if alters.iter().any(|alter| !(0..=3).contains(&alter.op)) {
        return Err(Refusal { error: Refused::UnknownServerError, message: None });
    }
    Ok(())
}

fn alter_one(image: &Image, resource: &AlterResource) -> Result<Option<Record>, Refusal> {
    match resource.kind {
        TOPIC => alter_topic(image, &resource.name, &resource.alters),
        BROKER => alter_broker(image, &resource.name, &resource.alters),
        BROKER_LOGGER | CLIENT_METRICS | GROUP => {
            let what = "This broker keeps no configurations of this resource type.";
            Err(refusal(Refused::InvalidRequest, what))
        }
        other => Err(refusal(Refused::InvalidRequest, &format!("Unknown resource type {other}"))),
    }
}

fn alter_topic(image: &Image, name: &str, alters: &[Alter]) -> Result<Option<Record>, Refusal> {
    if name.is_empty() {
        return Err(refusal(Refused::InvalidRequest, "Default topic resources are not allowed."));
    }
    check_name(name)?;
    let missing =
        || refusal(Refused::UnknownTopicOrPartition, &format!("The topic '{name}' does not exist."));
    let topic = image.topic(name).ok_or_else(missing)?;
    let bad = |not: NotSet| refusal(Refused::InvalidConfig, &not.to_string());
    let mut overrides = topic.overrides.clone();
    for alter in alters {
        let value = alter.value.as_deref().unwrap_or_default();
        match alter.op {
            1 => topic::unset(&mut overrides, &alter.key),
            0 => topic::set(&mut overrides, &alter.key, value).map_err(bad)?,
            op => {
                let Some(opt) = keys::topic_settable(&alter.key).filter(|opt| opt.kind == Kind::List) else {
                    let verb = if op == 2 { "APPEND" } else { "SUBTRACT" };
                    let what = format!("Can't {verb} to key {} because its type is not LIST.", alter.key);
                    return Err(refusal(Refused::InvalidConfig, &what));
                };
                let value = edit_list(opt, overrides.get(opt.key), op, value);
                topic::set(&mut overrides, opt.key, &value).map_err(bad)?;
            }
        }
    }
    topic::check(&overrides, &image.config).map_err(bad)?;
    let changed = overrides != topic.overrides;
    Ok(changed.then(|| Record::Topic { name: name.to_string(), id: topic.id, config: overrides }))
}

fn alter_broker(image: &Image, name: &str, alters: &[Alter]) -> Result<Option<Record>, Refusal> {
    let broker = match name {
        "" => None,
        name => Some(BrokerId(broker_id(name, "Node id")?)),
    };
    if let Some(id) = broker.filter(|id| !image.is_own(id.0)) {
        return Err(wrong_broker(&format!("{}, but", image.node_id), id.0));
    }
    let broker = broker.map(|_| image.node_id);
    let before = image.altered(broker);
    let mut values = before.clone();
    let mut fixed = Vec::new();
    for alter in alters {
        let value = alter.value.as_deref().unwrap_or_default();
        if alter.op == 1 {
            values.remove(&alter.key);
            continue;
        }
        let Some(opt) = keys::broker(&alter.key) else {
            let near = keys::nearest_broker(&alter.key).map(|near| format!("; did you mean {near}?"));
            let what = format!("Unknown broker config name: {}{}", alter.key, near.unwrap_or_default());
            return Err(refusal(Refused::InvalidConfig, &what));
        };
        if alter.op >= 2 && opt.kind != Kind::List {
            let verb = if alter.op == 2 { "append" } else { "subtract" };
            let what = format!("Config value {verb} is not allowed for config key: {}", alter.key);
            return Err(refusal(Refused::InvalidConfig, &what));
        }
        if !opt.dynamic {
            fixed.push(opt.key);
            continue;
        }
        let value = if alter.op >= 2 {
            edit_list(opt, before.get(opt.key), alter.op, value)
        } else {
            value.to_string()
        };
        let value = opt.parse(&value).map_err(|bad| refusal(Refused::InvalidRequest, &bad.to_string()))?;
        values.insert(opt.key.to_string(), value);
    }
    if !fixed.is_empty() {
        let what = format!("Cannot update these configs dynamically: Set({})", fixed.join(", "));
        return Err(refusal(Refused::InvalidRequest, &what));
    }
    Ok((values != before).then_some(Record::Config { broker, config: values }))
}

/// Appends members that are not there yet, or takes members out. What is edited is the value that is set, or the declared default.
fn edit_list(opt: &Opt, current: Option<&String>, op: i8, value: &str) -> String {
    let current = current.map_or(opt.default.unwrap_or_default(), String::as_str);
    let mut members = list(current);
    for member in list(value) {
        match op {
            2 if !members.contains(&member) => members.push(member),
            2 => {}
            _ => members.retain(|other| *other != member),
        }
    }
    members.join(",")
}

fn broker_id(name: &str, what: &str) -> Result<i32, Refusal> {
    let bad = || refusal(Refused::InvalidRequest, &format!("{what} must be an integer, but it is: {name}"));
    name.parse().map_err(|_| bad())
}

fn wrong_broker(expected: &str, id: i32) -> Refusal {
    refusal(Refused::InvalidRequest, &format!("Unexpected broker id, expected {expected} received {id}"))
}
