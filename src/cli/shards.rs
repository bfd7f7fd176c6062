//! What a corelog broker tells of its shards: the document behind `corelog cluster`, and the owners in `corelog topic describe`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cli::exit::Failure;
use crate::client::cluster::Cluster;
use crate::client::error::ClientError;

/// The document as it came.
pub struct Shards(pub Value);

/// Asks the broker. Fails with `not-corelog` where it is none.
pub fn ask(cluster: &mut Cluster) -> Result<Shards, Failure> {
    let body = cluster.shards()?;
    match serde_json::from_slice::<Value>(&body) {
        Ok(document) if document["shards"].is_array() => Ok(Shards(document)),
        _ => Err(ClientError::NotCorelog { address: cluster.settings.brokers.join(",") }.into()),
    }
}

impl Shards {
    /// One object for each shard, in their order.
    pub fn rows(&self) -> &[Value] {
        self.0["shards"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The owners of each topic's partitions, by index.
    pub fn owners(&self) -> BTreeMap<&str, Vec<Option<u64>>> {
        let topics = self.0["topics"].as_array().map_or(&[][..], Vec::as_slice);
        let owners = |topic: &Value| {
            let owners = topic["owners"].as_array().map_or(&[][..], Vec::as_slice);
            owners.iter().map(Value::as_u64).collect::<Vec<_>>()
        };
        topics.iter().filter_map(|topic| Some((topic["topic"].as_str()?, owners(topic)))).collect()
    }
}

/// The owner of a partition as a table shows it.
pub fn shown(owner: Option<u64>) -> String {
    owner.map_or("-".to_string(), |owner| owner.to_string())
}
