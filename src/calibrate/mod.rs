//! L4', the machine's ceilings. It runs on the broker's own `io` code, under the load generator's load, and knows nothing of Kafka, topics
//! or the log's format, so what it measures is what the broker could reach at best.

pub mod pipeline;
