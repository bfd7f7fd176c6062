//! Shards (key 17228, of our own: Kafka has no such API), version 0: what each shard of this broker does, and whose partitions are whose.
//! For `corelog cluster` and `corelog topic describe`; ApiVersions does not tell of it.
//!
//! The request has no body. The answer's is one JSON document, to the end of the frame: fields are added, never renamed. Figures are up to
//! a tenth of a second old, shares up to a second. Any shard answers.

use serde_json::{Map, Value, json};

use super::{Handled, Metadata, Request};
use crate::base::board::{Figure, Row};
use crate::base::ids::{PartitionIndex, PartitionKey, ShardId};
use crate::controller::image::Topic;
use crate::server::pending::Encoded;
use crate::wire::api::ApiKey;
use crate::wire::error::WireError;
use crate::wire::frame;

pub fn handle(request: &mut Request<'_, '_>, meta: &mut Metadata) -> Result<Handled, WireError> {
    let header = request.header;
    if header.body_at < request.frame.len() {
        return Err(WireError::TrailingBytes { at: header.body_at });
    }
    let mut out = Vec::new();
    let start = frame::begin_response(&mut out, ApiKey::Shards, header.version, header.correlation_id);
    out.extend_from_slice(document(meta).to_string().as_bytes());
    frame::end_response(&mut out, start, 0);
    Ok(Handled::Encoded(Encoded::bytes(out)))
}

fn document(meta: &Metadata) -> Value {
    let image = &meta.image;
    let rows = meta.board.rows().iter().enumerate();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node_id": image.node_id.0,
        "runtime": meta.board.runtime,
        "accept": image.config.accept.name(),
        "shards": rows.map(|(id, row)| shard(meta, ShardId(id as u16), row)).collect::<Vec<_>>(),
        "topics": image.topics().map(|topic| owners(meta, topic)).collect::<Vec<_>>(),
    })
}

fn shard(meta: &Metadata, id: ShardId, row: &Row) -> Value {
    let mut fields = Map::new();
    let broker = meta.image.broker_of(id);
    fields.insert("shard".into(), json!(id.0));
    fields.insert("broker_id".into(), json!(broker.map(|broker| broker.id.0)));
    fields.insert("cpu".into(), json!(row.cpu));
    fields.insert("connections".into(), json!(row.connections()));
    for figure in Figure::ALL {
        fields.insert(figure.name().into(), json!(row.get(*figure)));
    }
    Value::Object(fields)
}

fn owners(meta: &Metadata, topic: &Topic) -> Value {
    let owner = |index: usize| {
        let key = PartitionKey { topic: topic.id, partition: PartitionIndex(index as i32) };
        meta.image.owner(key).map(|owner| owner.0)
    };
    json!({ "topic": topic.name, "owners": (0..topic.partitions.len()).map(owner).collect::<Vec<_>>() })
}
