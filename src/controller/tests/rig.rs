//! Controllers to try, and what is asked of them.

use std::sync::Arc;

use crate::base::ids::{BrokerId, Uuid};
use crate::config::broker::BrokerConfig;
use crate::config::source::{Loader, Source};
use crate::controller::configs::{Alter, AlterResource};
use crate::controller::image::{Broker, Image};
use crate::controller::topics::NewTopic;
use crate::controller::{Controller, Refusal};

pub const CLUSTER: Uuid = Uuid([7; 16]);

/// A broker with id 1 and these settings, just formatted.
pub fn image(settings: &[(&str, &str)]) -> Image {
    let mut loader = Loader::default();
    for (key, value) in settings {
        loader.set(Source::Flag, key, value).unwrap();
    }
    with_config(loader.finish().unwrap())
}

pub fn with_config(config: BrokerConfig) -> Image {
    let me = Broker { id: BrokerId(1), host: "127.0.0.1".to_string(), port: 9092, rack: None };
    Image::new("cluster".to_string(), Arc::new(config), vec![me])
}

pub fn controller(settings: &[(&str, &str)]) -> Controller {
    Controller::new(image(settings))
}

/// Draws 1, 2, 3, ... as ids.
pub fn ids() -> impl FnMut() -> Uuid {
    let mut last = 0u128;
    move || {
        last += 1;
        Uuid(last.to_be_bytes())
    }
}

pub fn topic(name: &str, partitions: i32, replication_factor: i16) -> NewTopic {
    NewTopic { name: name.to_string(), partitions, replication_factor, ..NewTopic::default() }
}

pub fn with(name: &str, configs: &[(&str, Option<&str>)]) -> NewTopic {
    let configs = configs.iter().map(|(key, value)| (key.to_string(), value.map(str::to_string)));
    NewTopic { configs: configs.collect(), ..topic(name, 1, 1) }
}

pub fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> NewTopic {
    let assignments = assignments.iter().map(|(index, brokers)| (*index, brokers.to_vec()));
    NewTopic { assignments: assignments.collect(), ..topic(name, -1, -1) }
}

pub fn create(controller: &mut Controller, topics: &[NewTopic]) -> Vec<String> {
    let results = controller.create_topics(topics, false, ids()).reply;
    results.iter().map(|(_, result)| text(result.as_ref().map(|_| ()))).collect()
}

/// `ok`, or the number's name and the text.
pub fn text(result: Result<(), &Refusal>) -> String {
    match result {
        Ok(()) => "ok".to_string(),
        Err(refusal) => format!("{:?}: {}", refusal.error, refusal.message.as_deref().unwrap_or("-")),
    }
}

pub fn alter(
    controller: &mut Controller,
    kind: i8,
    name: &str,
    alters: &[(&str, i8, Option<&str>)],
) -> String {
    let alters = alters.iter().map(|(key, op, value)| Alter {
        key: key.to_string(),
        op: *op,
        value: value.map(str::to_string),
    });
    let resource = AlterResource { kind, name: name.to_string(), alters: alters.collect() };
    text(controller.alter_configs(&[resource], false).reply[0].as_ref().copied())
}
