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
                let line = line(args.format, &partition.name, &segment.name, &item);
                out.push_str(&line);
                out.push('\n');
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
                out.push_str(&match args.format {
                    Format::Text => format!("{}/{} end position={position} {}\n", partition.name, segment.name, stop.text()),
                    Format::Json => format!(
                        "{}\n",
                        json!({ "kind": "end", "partition": partition.name, "segment": segment.name, "position": position, "why": stop.text() })
                    ),
                });
            }
            print(&out)?;
        }
    }
    Ok(())
}

fn line(format: Format, partition: &str, segment: &str, item: &Item) -> String {
    let fields = match item {
        Item::Group { position, header } => json!({
            "kind": "group", "position": position, "bytes": header.byte_len, "sequence": header.seq,
            "base_offset": header.base_offset.0, "next_offset": header.next_offset.0, "batches": header.batch_count,
            "leader_epoch": header.leader_epoch.0, "flushed_through": header.flushed_through, "check": header.check,
        }),
        Item::Batch(batch) => json!({
            "kind": "batch", "position": batch.position, "bytes": batch.bytes, "base_offset": batch.base_offset.0,
            "last_offset": batch.base_offset.0 + i64::from(batch.last_delta), "records": batch.count,
            "codec": Codec::of_attributes(batch.attributes).map_or("unknown", Codec::name),
            "leader_epoch": batch.leader_epoch.0, "max_timestamp": batch.max_timestamp_ms, "producer_id": batch.producer.0,
            "producer_epoch": batch.producer_epoch.0, "base_sequence": batch.base_sequence, "crc": batch.crc,
        }),
    };
    match format {
        Format::Json => {
            let mut fields = fields;
            fields["partition"] = json!(partition);
            fields["segment"] = json!(segment);
            fields.to_string()
        }
        Format::Text => {
            let kind = fields["kind"].as_str().unwrap_or_default().to_string();
            let Value::Object(map) = fields else { return kind };
            let shown = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_string);
            let pairs = map.iter().filter(|(k, _)| *k != "kind").map(|(k, v)| format!(" {k}={}", shown(v)));
            format!("{partition}/{segment} {kind}{}", pairs.collect::<String>())
        }
    }
}
