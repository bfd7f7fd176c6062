//! Opening a log from its directory: runs recovery, says what it found, takes it over.

use super::core::Core;
use super::partition::Log;
use super::{Event, Source};
use crate::base::error::Fatal;
use crate::io::Errno;
use crate::log::recovered::Recovered;
use crate::log::recovery::{OpenError, Options, recover_partition};

/// Recovers `log` from its directory. One that does not exist holds nothing.
pub fn open(log: &mut Log, core: &mut Core, source: &mut dyn Source) -> Result<(), Fatal> {
    match source.list(&log.dir) {
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(fatal(OpenError::Io { path: log.dir.clone(), errno })),
        Ok(_) => {}
    }
    let options =
        Options { index_interval_bytes: log.config.index_interval_bytes, planted: core.config.planted };
    let recovered =
        recover_partition(source, &log.dir, log.key, core.config.directory, &options).map_err(fatal)?;
    report(log, &recovered);
    core.opened.add(&recovered.report);
    if let Some(corrupt) = &recovered.offline {
        core.events.push(Event::Corrupt(log.slot, corrupt.clone()));
    }
    let unindexed: Vec<u64> = recovered
        .segments
        .iter()
        .rev()
        .skip(1)
        .filter(|segment| !segment.index_stored)
        .map(|segment| segment.header.ordinal)
        .collect();
    log.adopt(recovered, core.now, source.wall_ms());
    if !log.read_only {
        for ordinal in unindexed {
            log.write_index(core, ordinal);
        }
    }
    Ok(())
}

fn report(log: &Log, recovered: &Recovered) {
    let (topic, partition) = (log.key.topic, log.key.partition);
    let report = &recovered.report;
    if let Some(dropped) = &report.dropped {
        let (file, from, bytes) = (dropped.file.display(), dropped.from, dropped.bytes);
        tracing::warn!(%topic, %partition, %file, from, bytes, "the end of a log was not written whole and is dropped");
    }
    if let Some(corrupt) = &recovered.offline {
        tracing::error!(%topic, %partition, %corrupt, "a log is damaged and readable only up to there");
    }
    if !report.rebuilt.is_empty() {
        tracing::info!(%topic, %partition, rebuilt = ?report.rebuilt, bytes = report.bytes_scanned, "rebuilt from the log");
    }
}

fn fatal(error: OpenError) -> Fatal {
    let (code, means, tries) = match &error {
        OpenError::Io { .. } => (
            "log-not-opened",
            "the data directory cannot be used as it is",
            vec!["check that this user may read and write all of the data directory".to_string()],
        ),
        OpenError::Newer { .. } => (
            "log-format-newer",
            "this release cannot read it, and will not guess",
            vec!["start the release that wrote it, or a newer one".to_string()],
        ),
    };
    Fatal {
        code,
        summary: "a partition could not be opened".to_string(),
        found: error.to_string(),
        means: means.to_string(),
        tries,
    }
}
