//! `corelog topic describe`.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;

use crate::cli::exit::Outcome;
use crate::cli::output::{Format, Table};
use crate::cli::target::Target;
use crate::client::admin::Config;
use crate::client::cluster::{Cluster, Topic};
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
    args.format.print(|| text(args, &topic, &configs, &ranges), || as_json(&topic, &configs, &ranges))
}

fn text(
    args: &DescribeArgs,
    topic: &Topic,
    configs: &[Config],
    ranges: &BTreeMap<i32, (i64, i64)>,
) -> String {
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
    let wide = args.format == Format::Wide;
    let headers = ["PARTITION", "LEADER", "EPOCH", "REPLICAS", "START", "END", "IN SYNC", "RECORDS"];
    let mut table = Table::new(if wide { &headers } else { &headers[..6] });
    for p in &topic.partitions {
        let (start, end) = ranges.get(&p.index).copied().unwrap_or((-1, -1));
        let mut cells = vec![
            p.index.to_string(),
            p.leader.to_string(),
            p.leader_epoch.to_string(),
            format!("{:?}", p.replicas),
            start.to_string(),
            end.to_string(),
        ];
        if wide {
            cells.extend([format!("{:?}", p.in_sync), (end - start).to_string()]);
        }
        table.row(&cells);
    }
    text.push_str(&format!("\nPARTITIONS\n{}", table.render()));
    text
}

fn as_json(topic: &Topic, configs: &[Config], ranges: &BTreeMap<i32, (i64, i64)>) -> serde_json::Value {
    let partitions = topic.partitions.iter().map(|p| {
        let (start, end) = ranges.get(&p.index).copied().unwrap_or((-1, -1));
        json!({
            "partition": p.index, "leader": p.leader, "leader_epoch": p.leader_epoch,
            "replicas": p.replicas, "in_sync": p.in_sync, "start_offset": start, "end_offset": end,
        })
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
