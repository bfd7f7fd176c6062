//! L2, configuration: one declaration per key, from which validation, help, DescribeConfigs and `config print` come. Pure: text in, typed values
//! out; whoever calls reads the files and the environment. Knows nothing of shards, requests or disks.
//!
//! - `option`: what a declaration is, and how a value is read.
//! - `topic_keys`, `broker_keys`: the keys that matter, with default, range and doc. `inert`: the rest of Kafka's.
//! - `source`, `file`: the layers of values, and the files that fill one of them.
//! - `runtime`: the value of a key that names a driver.
//! - `broker`, `topic`: the resolved values that the code obeys. `describe`: the same for clients who ask.
//!
//! # Non-obvious
//! - Values are kept as canonical text (`" 5 "` is `5`, `TRUE` is `true`), checked once on their way in.
//! - Units (`1GiB`, `5ms`) are for people: files, environment, flags. A client that sends one gets Kafka's error.
//! - `write.caching` and `flush.messages=1` are translated into `durability` when they are set; only that is stored. So
//!   `flush.messages` is always answered as what `durability` means, and taking back either of them takes back `durability`.
//! - A broker's value can be in effect for a topic by way of a coarser key: `log.retention.hours` behind `log.retention.ms`
//!   behind `retention.ms`.
//! - Keys without effect are stored and answered like the others: a tool that sets one must read it back.

pub mod broker;
pub mod broker_keys;
pub mod describe;
pub mod file;
pub mod inert;
pub mod keys;
pub mod option;
pub mod runtime;
pub mod source;
pub mod topic;
pub mod topic_keys;

#[cfg(test)]
mod tests;
