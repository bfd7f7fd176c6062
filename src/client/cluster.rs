//! The brokers behind a bootstrap address: who leads which partition, one connection to each, and the retries.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::base::ids::Uuid;
use crate::client::connection::Connection;
use crate::client::error::ClientError;
use crate::client::settings::Settings;
use crate::wire::api::ApiKey;
use crate::wire::error::codes;
use crate::wire::msg::metadata_request::MetadataRequestTopic;
use crate::wire::msg::metadata_response::{MetadataResponse, MetadataResponseTopic};
use crate::wire::msg::{Call, MetadataRequest, StrBytes};

/// Longest pause between two attempts; they begin at `retry.backoff.ms` and double.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub id: i32,
    pub address: String,
    pub rack: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub index: i32,
    /// -1 while there is none.
    pub leader: i32,
    pub leader_epoch: i32,
    pub replicas: Vec<i32>,
    pub in_sync: Vec<i32>,
    pub error_code: i16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    pub id: Uuid,
    pub internal: bool,
    /// Sorted by index.
    pub partitions: Vec<Partition>,
}

/// A connection to every broker that is needed, made when it is needed.
pub struct Cluster {
    pub settings: Settings,
    brokers: BTreeMap<i32, Broker>,
    controller: i32,
    cluster_id: Option<String>,
    topics: BTreeMap<String, Topic>,
    /// By broker id; the bootstrap connection under [`BOOTSTRAP`].
    connections: BTreeMap<i32, Connection>,
    /// The address that answered first.
    bootstrap: Option<String>,
}

const BOOTSTRAP: i32 = -1;

impl Cluster {
    /// Connects to nothing yet.
    pub fn new(settings: Settings) -> Cluster {
        Cluster {
            settings,
            brokers: BTreeMap::new(),
            controller: BOOTSTRAP,
            cluster_id: None,
            topics: BTreeMap::new(),
            connections: BTreeMap::new(),
            bootstrap: None,
        }
    }

    /// Runs `attempt` until it succeeds, fails for good, or `delivery.timeout.ms` is over. Before the first broker ever
    /// answered, being refused is final: a wrong address should not look like patience.
    pub fn retrying<T>(
        &mut self,
        what: &str,
        mut attempt: impl FnMut(&mut Cluster) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let began = Instant::now();
        let mut pause = self.settings.retry_backoff;
        loop {
            let error = match attempt(self) {
                Ok(value) => return Ok(value),
                Err(error) if !error.is_retriable() || self.bootstrap.is_none() => return Err(error),
                Err(error) => error,
            };
            self.forget(&error);
            let after = began.elapsed();
            if after + pause > self.settings.delivery_timeout {
                return Err(ClientError::Deadline { what: what.to_string(), after, last: Box::new(error) });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    /// Waits until a broker answers at all: for a broker that is just being started.
    pub fn wait_until_answering(&mut self, patience: Duration) -> Result<(), ClientError> {
        let deadline = Instant::now() + patience;
        loop {
            match self.refresh(None).map(|_| ()) {
                Err(error) if error.is_retriable() && Instant::now() < deadline => {
                    self.forget(&error);
                    std::thread::sleep(Duration::from_millis(20));
                }
                outcome => return outcome,
            }
        }
    }

    /// Drops what an error has made doubtful: connections after a lost one, leaders after any.
    pub fn forget(&mut self, error: &ClientError) {
        if error.is_connection() {
            self.connections.clear();
        }
        self.topics.clear();
    }

    /// The brokers that Metadata named last.
    pub fn brokers(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.values()
    }

    pub fn controller(&self) -> i32 {
        self.controller
    }

    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    /// All topics, by name.
    pub fn list_topics(&mut self) -> Result<Vec<Topic>, ClientError> {
        self.retrying("listing topics", |cluster| {
            cluster.refresh(None).map(|()| cluster.topics.values().cloned().collect())
        })
    }

    /// One topic with a leader for every partition; asks the broker if it is not known yet. Created by the asking where the
    /// settings and the broker allow it; otherwise an unknown topic is refused at once.
    pub fn topic(&mut self, name: &str) -> Result<Topic, ClientError> {
        self.retrying(&format!("looking up topic {name}"), |cluster| cluster.topic_once(name))
    }

    fn topic_once(&mut self, name: &str) -> Result<Topic, ClientError> {
        if !self.topics.contains_key(name) {
            self.refresh(Some(name))?;
        }
        let unknown =
            || ClientError::refused(codes::UNKNOWN_TOPIC_OR_PARTITION, format!("topic {name}"), None);
        let topic = self.topics.get(name).ok_or_else(unknown)?;
        if let Some(partition) = topic.partitions.iter().find(|p| p.leader < 0) {
            let code =
                if partition.error_code == 0 { codes::LEADER_NOT_AVAILABLE } else { partition.error_code };
            ClientError::check(code, format!("partition {} of topic {name}", partition.index), None)?;
        }
        Ok(topic.clone())
    }

    /// The broker that leads a partition, as last known or asked.
    pub fn leader(&mut self, topic: &str, partition: i32) -> Result<i32, ClientError> {
        let cached = self.topics.get(topic).and_then(|t| t.partitions.iter().find(|p| p.index == partition));
        if let Some(leader) = cached.map(|p| p.leader).filter(|leader| *leader >= 0) {
            return Ok(leader);
        }
        let known = self.topic_once(topic)?;
        let found = known.partitions.iter().find(|p| p.index == partition);
        found.map(|p| p.leader).ok_or_else(|| ClientError::Refused {
            code: codes::UNKNOWN_TOPIC_OR_PARTITION,
            what: format!("partition {partition} of topic {topic}"),
            message: format!("the topic has {} partitions", known.partitions.len()),
        })
    }

    /// Sends one request to any broker that answers.
    pub fn call_any<R: Call>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        let id = self.any()?;
        self.call(id, request)
    }

    /// What the shards of a corelog broker do, and whose partitions are whose, as the JSON document that it answers with. On a connection
    /// of its own, which a broker of another make closes.
    pub fn shards(&mut self) -> Result<Vec<u8>, ClientError> {
        self.any()?;
        let address = self.bootstrap.clone().unwrap_or_default();
        let body = Connection::open(&address, &self.settings)?.call_own(ApiKey::Shards)?;
        Ok(body.to_vec())
    }

    /// Sends one request to the controller.
    pub fn call_controller<R: Call>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        if self.brokers.is_empty() {
            self.refresh(None)?;
        }
        let id = if self.brokers.contains_key(&self.controller) { self.controller } else { self.any()? };
        self.call(id, request)
    }

    /// Sends one request to one broker and waits for its answer. A failed connection is closed.
    pub fn call<R: Call>(&mut self, id: i32, request: &R) -> Result<R::Response, ClientError> {
        let answer = self.connection(id)?.call(request);
        if answer.as_ref().is_err_and(ClientError::is_connection) {
            self.connections.remove(&id);
        }
        answer
    }

    /// The connection to a broker, opened if need be.
    pub fn connection(&mut self, id: i32) -> Result<&mut Connection, ClientError> {
        if !self.connections.contains_key(&id) {
            let opened = self.open(id)?;
            self.connections.insert(id, opened);
        }
        Ok(self.connections.get_mut(&id).expect("it was just put there"))
    }

    /// Closes the connection to a broker.
    pub fn close(&mut self, id: i32) {
        self.connections.remove(&id);
    }

    fn open(&self, id: i32) -> Result<Connection, ClientError> {
        let gone = || ClientError::refused(codes::BROKER_NOT_AVAILABLE, format!("broker {id}"), None);
        let broker = self.brokers.get(&id).ok_or_else(gone)?;
        Connection::open(&broker.address, &self.settings)
            .map_err(|error| self.blame_advertised(broker, error))
    }

    /// "Bootstrap worked, then nothing" is the best-known first failure of Kafka: say which address is the wrong one.
    fn blame_advertised(&self, broker: &Broker, error: ClientError) -> ClientError {
        match (error, &self.bootstrap) {
            (ClientError::Unreachable { why, .. }, Some(bootstrap)) if *bootstrap != broker.address => {
                let advertised = broker.address.clone();
                ClientError::AdvertisedUnreachable { bootstrap: bootstrap.clone(), advertised, why }
            }
            (error, _) => error,
        }
    }

    /// A broker to ask: the bootstrap connection, made to the first address that answers.
    fn any(&mut self) -> Result<i32, ClientError> {
        if self.connections.contains_key(&BOOTSTRAP) {
            return Ok(BOOTSTRAP);
        }
        let mut last = ClientError::Input("no broker address was given (-b HOST:PORT)".to_string());
        let known = self.brokers.values().map(|b| b.address.clone());
        for address in self.settings.brokers.iter().cloned().chain(known) {
            match Connection::open(&address, &self.settings) {
                Ok(connection) => {
                    self.bootstrap.get_or_insert(address);
                    self.connections.insert(BOOTSTRAP, connection);
                    return Ok(BOOTSTRAP);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Asks for brokers and one topic, or all.
    fn refresh(&mut self, topic: Option<&str>) -> Result<(), ClientError> {
        let mut request = MetadataRequest::default();
        request.topics = topic.map(|name| {
            let mut wanted = MetadataRequestTopic::default();
            wanted.name = Some(StrBytes::from(name));
            vec![wanted]
        });
        request.allow_auto_topic_creation = topic.is_some() && self.settings.auto_create;
        let response = self.call_any(&request)?;
        ClientError::check(response.error_code, "asking for metadata", None)?;
        self.adopt(&response, topic)
    }

    fn adopt(&mut self, response: &MetadataResponse, asked: Option<&str>) -> Result<(), ClientError> {
        let brokers = response.brokers.iter().map(|b| {
            let rack = b.rack.as_ref().map(|r| r.to_string());
            (b.node_id, Broker { id: b.node_id, address: address(&b.host, b.port), rack })
        });
        let brokers: BTreeMap<i32, Broker> = brokers.collect();
        let old = std::mem::replace(&mut self.brokers, brokers);
        let current = &self.brokers;
        self.connections.retain(|id, _| *id == BOOTSTRAP || old.get(id) == current.get(id));
        self.controller = response.controller_id;
        self.cluster_id = response.cluster_id.as_ref().map(|id| id.to_string());
        if asked.is_none() {
            self.topics.clear();
        }
        for topic in &response.topics {
            let name = topic.name.as_ref().map(|n| n.to_string()).unwrap_or_default();
            if topic.error_code == codes::UNKNOWN_TOPIC_OR_PARTITION && !self.settings.auto_create {
                return Err(ClientError::TopicUnknown { topic: name });
            }
            ClientError::check(topic.error_code, format!("topic {name}"), None)?;
            self.topics.insert(name.clone(), adopt_topic(name, topic));
        }
        Ok(())
    }
}

fn address(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn adopt_topic(name: String, topic: &MetadataResponseTopic) -> Topic {
    let mut partitions: Vec<Partition> = topic
        .partitions
        .iter()
        .map(|p| Partition {
            index: p.partition_index,
            leader: p.leader_id,
            leader_epoch: p.leader_epoch,
            replicas: p.replica_nodes.clone(),
            in_sync: p.isr_nodes.clone(),
            error_code: p.error_code,
        })
        .collect();
    partitions.sort_by_key(|p| p.index);
    Topic { name, id: topic.topic_id.into(), internal: topic.is_internal, partitions }
}
