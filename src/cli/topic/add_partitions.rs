//! `corelog topic add-partitions`.

use clap::Args;
use serde_json::json;

use crate::cli::exit::Outcome;
use crate::cli::output::Format;
use crate::cli::target::Target;
use crate::client::cluster::Cluster;

#[derive(Args, Debug)]
pub struct AddPartitionsArgs {
    #[command(flatten)]
    target: Target,
    /// Topic to grow; keys then go to other partitions than before
    #[arg(value_name = "NAME")]
    name: String,
    /// How many partitions to add
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(1..), value_name = "N")]
    num: i32,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(args: &AddPartitionsArgs) -> Outcome {
    let mut settings = args.target.settings()?;
    settings.auto_create = false;
    let mut cluster = Cluster::new(settings);
    let present = cluster.topic(&args.name)?.partitions.len() as i32;
    let count = present.saturating_add(args.num);
    cluster.create_partitions(&args.name, count)?;
    args.format.print(
        || format!("{} has {count} partitions\n", args.name),
        || json!({ "topic": args.name, "partitions": count }),
    )
}
