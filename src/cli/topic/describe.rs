//! `corelog topic describe`.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;

use crate::cli::exit::Outcome;
use crate::cli::output::{Format, Table};
use crate::cli::shards;
use crate::cli::target::Target;
use crate::client::admin::Config;
use crate::client::cluster::{Cluster, Partition, Topic};
use crate::loadgen::durability;

#[derive(Args, Debug)]
pub struct DescribeArgs {
    #[command(flatten)]
    target: Target,
    /// Topic to describe
    #[arg(value_name = "NAME")]
    name: String,
    /// Show inherited configuration values too
    #[arg(short, long)]
    all: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(args: &DescribeArgs) -> Outcome {
    let mut settings = args.target.settings()?;
    settings.auto_create = false;
    let mut cluster = Cluster::new(settings);
    let topic = cluster.topic(&args.name)?;
    let configs = cluster.topic_configs(&args.name)?;
    let ranges = cluster.offset_ranges(&args.name)?;
    // Other brokers have no shards.
    let shards = shards::ask(&mut cluster).ok();
    let owners = shards.as_ref().and_then(|shards| shards.owners().remove(args.name.as_str()));
    let shown = Shown { topic: &topic, configs: &configs, ranges: &ranges, owners };
    args.format.print(|| text(args, &shown), || as_json(&shown))
}

/// What there is to show.
struct Shown<'a> {
    topic: &'a Topic,
    configs: &'a [Config],
    /// First and next offset of each partition.
    ranges: &'a BTreeMap<i32, (i64, i64)>,
    /// The shard of each partition; none where the broker is no corelog.
    owners: Option<Vec<Option<u64>>>,
}

impl Shown<'_> {
    fn owner(&self, partition: &Partition) -> Option<u64> {
        let owners = self.owners.as_ref()?;
        owners.get(usize::try_from(partition.index).ok()?).copied().flatten()
    }

    fn range(&self, partition: &Partition) -> (i64, i64) {
        self.ranges.get(&partition.index).copied().unwrap_or((-1, -1))
    }
}

fn text(args: &DescribeArgs, shown: &Shown<'_>) -> String {
    let Shown { topic, configs, ranges, .. } = shown;
    let replicas = topic.partitions.first().map_or(0, |p| p.replicas.len());
    let records: i64 = ranges.values().map(|(start, end)| end - start).sum();
    let mut text = String::from("SUMMARY\n");
    for (name, value) in [
        ("name", topic.name.clone()),
        ("id", topic.id.to_kafka_text()),
        ("partitions", topic.partitions.len().to_string()),
        ("replicas", replicas.to_string()),
        ("records", records.to_string()),
        ("durability", durability::setting(configs).to_string()),
    ] {
        text.push_str(&format!("{name:<12}{value}\n"));
    }
    let mut table = Table::new(&["KEY", "VALUE", "SOURCE"]);
    for config in configs.iter().filter(|c| args.all || c.own) {
        let value = config.value.clone().unwrap_or_else(|| "-".to_string());
        table.row(&[config.name.clone(), value, config.source.to_string()]);
    }
    text.push_str(&format!("\nCONFIGS\n{}", table.render()));
    text.push_str(&format!("\nPARTITIONS\n{}", partitions(args.format == Format::Wide, shown)));
    text
}

fn partitions(wide: bool, shown: &Shown<'_>) -> String {
    let mut headers = vec!["PARTITION", "LEADER", "EPOCH", "REPLICAS", "START", "END"];
    if shown.owners.is_some() {
        headers.push("SHARD");
    }
    if wide {
        headers.extend(["IN SYNC", "RECORDS"]);
    }
    let mut table = Table::new(&headers);
    for p in &shown.topic.partitions {
        let (start, end) = shown.range(p);
        let mut cells = vec![
            p.index.to_string(),
            p.leader.to_string(),
            p.leader_epoch.to_string(),
            format!("{:?}", p.replicas),
            start.to_string(),
            end.to_string(),
        ];
        if shown.owners.is_some() {
            cells.push(shards::shown(shown.owner(p)));
        }
        if wide {
            cells.extend([format!("{:?}", p.in_sync), (end - start).to_string()]);
        }
        table.row(&cells);
    }
    table.render()
}

fn as_json(shown: &Shown<'_>) -> serde_json::Value {
    let Shown { topic, configs, .. } = shown;
    let partitions = topic.partitions.iter().map(|p| {
        let (start, end) = shown.range(p);
        let mut partition = json!({
            "partition": p.index, "leader": p.leader, "leader_epoch": p.leader_epoch,
            "replicas": p.replicas, "in_sync": p.in_sync, "start_offset": start, "end_offset": end,
        });
        if shown.owners.is_some() {
            partition["shard"] = json!(shown.owner(p));
        }
        partition
    });
    let configs_json = configs.iter().map(|c| json!({ "key": c.name, "value": c.value, "source": c.source }));
    json!({
        "topic": topic.name,
        "id": topic.id.to_kafka_text(),
        "internal": topic.internal,
        "durability": durability::setting(configs),
        "partitions": partitions.collect::<Vec<_>>(),
        "configs": configs_json.collect::<Vec<_>>(),
    })
}
