//! `corelog log ...`: looks at a data directory's files, of a stopped or a running broker, and changes nothing.

mod dump;
mod segments;
mod verify;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::broker::source::IoSource;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::output::Format;
use crate::config::runtime::Runtime;
use crate::io::open::{DriverConfig, open};

#[derive(Subcommand, Debug)]
pub enum LogCommand {
    /// List segment files with their offsets and state
    Segments(LogArgs),
    /// Print every group and batch header
    Dump(LogArgs),
    /// Check every header, chain and CRC
    Verify(LogArgs),
}

#[derive(Args, Debug)]
pub struct LogArgs {
    /// A broker's data directory, a topic's in it, or a partition's
    #[arg(long, env = "CORELOG_DATA_DIR", default_value = "data", value_name = "DIR")]
    data_dir: PathBuf,
    /// Only this partition number
    #[arg(short, long, value_name = "N")]
    partition: Option<i32>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(command: &LogCommand) -> Outcome {
    let (LogCommand::Segments(args) | LogCommand::Dump(args) | LogCommand::Verify(args)) = command;
    let partitions = partitions(args)?;
    let driver = open(Runtime::Auto, DriverConfig { recv_buffers: 1, ..DriverConfig::default() });
    let mut io = driver.map_err(|fatal| Failure::new(Exit::Environment, fatal))?;
    let mut source = IoSource::new(&mut io);
    match command {
        LogCommand::Segments(_) => segments::run(args, &mut source, &partitions),
        LogCommand::Dump(_) => dump::run(args, &mut source, &partitions),
        LogCommand::Verify(_) => verify::run(args, &mut source, &partitions),
    }
}

/// A partition's directory: `TOPIC-ID/NUMBER`.
struct PartitionDir {
    name: String,
    path: PathBuf,
}

/// Every directory with segment files, at most two levels down.
fn partitions(args: &LogArgs) -> Result<Vec<PartitionDir>, Failure> {
    let root = &args.data_dir;
    let top =
        std::fs::read_dir(root).map_err(|e| Failure::io(&format!("cannot read {}", root.display()), &e))?;
    let mut found = Vec::new();
    visit(root, &mut found);
    for level in top.flatten().map(|e| e.path()) {
        visit(&level, &mut found);
        for deeper in std::fs::read_dir(&level).into_iter().flatten().flatten() {
            visit(&deeper.path(), &mut found);
        }
    }
    found.retain(|p| {
        args.partition.is_none_or(|n| p.path.file_name().is_some_and(|name| *name == *n.to_string()))
    });
    found.sort_by(|a, b| a.name.cmp(&b.name));
    if found.is_empty() {
        let summary = format!("no segment files in {}", root.display());
        return Err(Failure::plain(
            Exit::Failed,
            "data-dir",
            summary,
            "looked two levels down",
            &["--data-dir DIR"],
        ));
    }
    Ok(found)
}

fn visit(dir: &Path, found: &mut Vec<PartitionDir>) {
    let mut entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    if entries.any(|e| e.path().extension().is_some_and(|x| x == "seg")) {
        let part = |p: Option<&Path>| {
            p.and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let name = format!("{}/{}", part(dir.parent()), part(Some(dir)));
        found.push(PartitionDir { name, path: dir.to_path_buf() });
    }
}

/// A directory that could not be read; `error` names file and reason.
fn unreadable(error: &dyn std::fmt::Display) -> Failure {
    Failure::plain(
        Exit::Failed,
        "log-unreadable",
        "a log could not be read",
        &error.to_string(),
        &["as the broker's user", "a newer corelog, if the file is of one"],
    )
}
