//! `corelog version`.

use clap::Args;
use serde_json::json;

use crate::cli::exit::Outcome;
use crate::cli::output::{Format, print, print_json};
use crate::config::runtime::Runtime;

#[derive(Args, Debug)]
pub struct VersionArgs {
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(args: &VersionArgs) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    let revision = option_env!("CORELOG_REVISION").unwrap_or("unknown");
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    match args.format {
        Format::Json => print_json(&json!({
            "version": version,
            "revision": revision,
            "profile": profile,
            "target": std::env::consts::ARCH,
            "runtimes": Runtime::NAMES[1..],
            "allocator": "system",
        })),
        Format::Text => {
            print(&format!("corelog {version} ({revision}, {profile}, {})\n", std::env::consts::ARCH))
        }
    }
}
