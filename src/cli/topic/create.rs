//! `corelog topic create`.

use clap::Args;
use serde_json::json;

use super::key_value;
use crate::cli::exit::Outcome;
use crate::cli::output::{Format, Table};
use crate::cli::target::Target;
use crate::client::admin::{Created, NewTopic};
use crate::client::error::ClientError;
use crate::wire::error::codes;

#[derive(Args, Debug)]
pub struct CreateArgs {
    #[command(flatten)]
    target: Target,
    /// Topics to create
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Partitions; the broker's num.partitions by default
    #[arg(short, long, default_value_t = -1, allow_hyphen_values = true, value_name = "N")]
    partitions: i32,
    /// Replicas of each partition; the broker's default by default
    #[arg(short, long, default_value_t = -1, allow_hyphen_values = true, value_name = "N")]
    replicas: i16,
    /// A configuration value; may be repeated (durability=written, retention.ms=...)
    #[arg(short = 'c', long = "config", visible_alias = "topic-config", value_parser = key_value, value_name = "KEY=VALUE")]
    configs: Vec<(String, String)>,
    /// Leave a topic that is already there as it is
    #[arg(long)]
    if_not_exists: bool,
    /// Only say whether it would be created
    #[arg(long)]
    dry_run: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(args: &CreateArgs) -> Outcome {
    let mut cluster = args.target.cluster()?;
    let mut table = Table::new(&["TOPIC", "STATUS", "PARTITIONS", "REPLICAS"]);
    let mut results = Vec::new();
    for name in &args.names {
        let topic = NewTopic {
            name: name.clone(),
            partitions: args.partitions,
            replication: args.replicas,
            configs: args.configs.clone(),
            validate_only: args.dry_run,
        };
        let (status, created) = match cluster.create_topic(&topic) {
            Ok(created) if args.dry_run => ("would be created", created),
            Ok(created) => ("created", created),
            Err(error) if args.if_not_exists && is_there(&error) => {
                ("was there", Created { partitions: -1, replication: -1 })
            }
            Err(error) => return Err(error.into()),
        };
        let shown = |n: i32| if n < 0 { "-".to_string() } else { n.to_string() };
        table.row(&[
            name.clone(),
            status.to_string(),
            shown(created.partitions),
            shown(i32::from(created.replication)),
        ]);
        results.push(json!({
            "topic": name, "status": status, "partitions": created.partitions, "replicas": created.replication,
        }));
    }
    args.format.print(|| table.render(), || json!(results))
}

fn is_there(error: &ClientError) -> bool {
    error.code() == Some(codes::TOPIC_ALREADY_EXISTS)
}
