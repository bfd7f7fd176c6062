//! The `meta` file: whose directory this is. Written once, when the directory is formatted, as the last step of that: a directory without it
//! was never formatted. If it holds topics nevertheless, the file was lost, and the directory is refused.
//!
//! One line of JSON, `{"format", "cluster_id", "node_id", "directory", "check"}`, then blanks to 4096 bytes. `check` is the CRC-32C of the
//! other values as text. `format` is the version of the whole directory: a larger one than ours is refused by name.

use serde::{Deserialize, Serialize};

use crate::base::error::Fatal;
use crate::base::ids::{BrokerId, Uuid};

/// Version of the directory.
pub const FORMAT: u32 = 1;

pub const FILE: &str = "meta";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    pub cluster: Uuid,
    pub node_id: BrokerId,
    pub directory: Uuid,
}

#[derive(Serialize, Deserialize)]
struct Line {
    format: u32,
    cluster_id: String,
    node_id: i32,
    directory: String,
    check: u32,
}

impl Meta {
    /// The cluster's id as Kafka prints it.
    pub fn cluster_id(&self) -> String {
        self.cluster.to_kafka_text()
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut line = Line {
            format: FORMAT,
            cluster_id: self.cluster.to_string(),
            node_id: self.node_id.0,
            directory: self.directory.to_string(),
            check: 0,
        };
        line.check = line.sum();
        let mut bytes = serde_json::to_vec(&line).expect("texts and numbers have a JSON form");
        bytes.push(b'\n');
        bytes.resize(bytes.len().next_multiple_of(super::journal::BLOCK), b' ');
        bytes
    }

    /// Reads the file of the directory at `dir` and checks that it is this broker's.
    pub fn decode(bytes: &[u8], dir: &str, node_id: BrokerId) -> Result<Meta, Fatal> {
        let damaged = || Fatal {
            code: "metadata-corrupt",
            summary: format!("{dir}/{FILE} is damaged"),
            found: format!("{} bytes that are not what was written", bytes.len()),
            means: "the directory's owner cannot be told".to_string(),
            tries: vec!["restore the file from a backup of this directory".to_string()],
        };
        let text = std::str::from_utf8(bytes).map_err(|_| damaged())?;
        let line: Line =
            serde_json::from_str(text.trim_end_matches(['\0', ' ', '\n'])).map_err(|_| damaged())?;
        if line.format > FORMAT {
            return Err(newer(&format!("{dir}/{FILE}"), line.format, FORMAT));
        }
        if line.check != line.sum() {
            return Err(damaged());
        }
        let uuid = |text: &str| Uuid::parse(text).ok_or_else(damaged);
        let meta = Meta {
            cluster: uuid(&line.cluster_id)?,
            node_id: BrokerId(line.node_id),
            directory: uuid(&line.directory)?,
        };
        if meta.node_id != node_id {
            return Err(Fatal {
                code: "data-dir-foreign",
                summary: format!("{dir} belongs to broker {}", meta.node_id),
                found: format!("node.id = {node_id}, {dir}/{FILE} says {}", meta.node_id),
                means: "two brokers must not share their data, and partitions name their broker by id"
                    .to_string(),
                tries: vec![
                    format!("corelog serve -X node.id={} --data-dir {dir}", meta.node_id),
                    "another --data-dir".to_string(),
                ],
            });
        }
        Ok(meta)
    }
}

impl Line {
    fn sum(&self) -> u32 {
        let text = format!("{} {} {} {}", self.format, self.cluster_id, self.node_id, self.directory);
        crc32c::crc32c(text.as_bytes())
    }
}

/// A file that a later version wrote.
pub(super) fn newer(file: &str, found: u32, known: u32) -> Fatal {
    Fatal {
        code: "format-newer",
        summary: format!("{file} was written by a newer corelog"),
        found: format!("format {found}, this version reads up to {known}"),
        means: "reading it by guesswork could lose data".to_string(),
        tries: vec!["start the version that wrote it, or a later one".to_string()],
    }
}
