//! `corelog topic delete`.

use clap::Args;
use serde_json::json;

use super::confirm;
use crate::cli::exit::Outcome;
use crate::cli::output::Format;
use crate::cli::target::Target;
use crate::client::cluster::Cluster;

#[derive(Args, Debug)]
pub struct DeleteArgs {
    #[command(flatten)]
    target: Target,
    /// Topics to delete, with everything in them
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(args: &DeleteArgs) -> Outcome {
    let mut settings = args.target.settings()?;
    settings.auto_create = false;
    let mut cluster = Cluster::new(settings);
    let status = if args.dry_run { "would be deleted" } else { "deleted" };
    if args.dry_run {
        for name in &args.names {
            cluster.topic(name)?;
        }
    } else {
        confirm(&format!("Delete {} with all records?", args.names.join(", ")), args.yes)?;
        for name in &args.names {
            cluster.delete_topic(name)?;
        }
    }
    args.format.print(
        || args.names.iter().map(|n| format!("{n} {status}\n")).collect(),
        || args.names.iter().map(|n| json!({ "topic": n, "status": status })).collect(),
    )
}
