//! `corelog log dump`: one line per group and batch; with `--format json` one object per line.

use serde_json::{Value, json};

use super::{LogArgs, PartitionDir, unreadable};
use crate::broker::source::IoSource;
use crate::cli::exit::Outcome;
use crate::cli::output::{Format, print};
use crate::log::inspect::{self, Item};
use crate::wire::codec::Codec;

/// Lines are printed in pieces of about this size.
const OUTPUT_BYTES: usize = 64 * 1024;

pub fn run(args: &LogArgs, source: &mut IoSource<'_>, partitions: &[PartitionDir]) -> Outcome {
    for partition in partitions {
        let segments = inspect::segments(source, &partition.path).map_err(|e| unreadable(&e))?;
        for segment in segments.iter().filter(|s| s.header.is_ok()) {
            let mut out = String::new();
            let mut failure = None;
            let mut each = |item: Item| {
                out.push_str(&line(args.format, &partition.name, &segment.name, &item));
                if out.len() >= OUTPUT_BYTES && failure.is_none() {
                    failure = print(&out).err();
                    out.clear();
                }
            };
            let end =
                inspect::dump(source, &partition.path, segment, &mut each).map_err(|e| unreadable(&e))?;
            if let Some(failure) = failure {
                return Err(failure);
            }
            if let Some((position, stop)) = end {
                let (partition, segment) = (&partition.name, &segment.name);
                out.push_str(&args.format.line(
                    || format!("{partition}/{segment} end position={position} {}", stop.text()),
                    || json!({ "kind": "end", "partition": partition, "segment": segment, "position": position, "why": stop.text() }),
                ));
            }
            print(&out)?;
        }
    }
    Ok(())
}

fn line(format: Format, partition: &str, segment: &str, item: &Item) -> String {
    let (kind, fields) = match item {
        Item::Group { position, header } => (
            "group",
            vec![
                ("position", json!(position)),
                ("bytes", json!(header.byte_len)),
                ("sequence", json!(header.seq)),
                ("base_offset", json!(header.base_offset.0)),
                ("next_offset", json!(header.next_offset.0)),
                ("batches", json!(header.batch_count)),
                ("leader_epoch", json!(header.leader_epoch.0)),
                ("flushed_through", json!(header.flushed_through)),
                ("check", json!(header.check)),
            ],
        ),
        Item::Batch(batch) => (
            "batch",
            vec![
                ("position", json!(batch.position)),
                ("bytes", json!(batch.bytes)),
                ("base_offset", json!(batch.base_offset.0)),
                ("last_offset", json!(batch.base_offset.0 + i64::from(batch.last_delta))),
                ("records", json!(batch.count)),
                ("codec", json!(Codec::of_attributes(batch.attributes).map_or("unknown", Codec::name))),
                ("leader_epoch", json!(batch.leader_epoch.0)),
                ("max_timestamp", json!(batch.max_timestamp_ms)),
                ("producer_id", json!(batch.producer.0)),
                ("producer_epoch", json!(batch.producer_epoch.0)),
                ("base_sequence", json!(batch.base_sequence)),
                ("crc", json!(batch.crc)),
            ],
        ),
    };
    let shown = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_string);
    let pairs = || fields.iter().map(|(name, value)| format!(" {name}={}", shown(value))).collect::<String>();
    let place = [("kind", json!(kind)), ("partition", json!(partition)), ("segment", json!(segment))];
    let all = || place.iter().chain(&fields).map(|(name, value)| (name.to_string(), value.clone()));
    format.line(|| format!("{partition}/{segment} {kind}{}", pairs()), || Value::Object(all().collect()))
}
