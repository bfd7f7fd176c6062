//! L6', the load generator: sends and fetches against any Kafka-wire broker and against the bare pipeline, and reports what it
//! measured. Lives in its own process, on the threads it makes. It deliberately knows nothing of the broker's inside.

pub mod durability;
