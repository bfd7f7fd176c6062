//! The `local` metadata store: which files there are, in which order they are made, and what is believed of them at a start. Pure functions on
//! bytes; the caller runs the operations.
//!
//! # Files, in `<data dir>/metadata/`
//! `journal-<n>` and `snapshot-<n>`, n being the *generation*: 20 decimal digits. Snapshot n is the state at which journal n begins. The
//! newest generation is written, the one before it is kept. Beside the folder lies the `meta` file ([`super::meta`]).
//!
//! # Operations, in order
//! **Start** (`S` is the newest valid snapshot, `n` larger than every number that any file in the folder bears):
//! 1. List the folder, read every file whole, call [`recover`]. Nothing is written until it has decided.
//! 2. `OpenFile(Write)` and `Flush` of each journal that was read: what counts now must not vanish with the next power loss.
//! 3. `journal-n`: `OpenFile(Create)`, `Allocate` 1 MiB, `Write` the header with DSYNC, `SyncDir`.
//! 4. `snapshot-n.tmp`: `OpenFile(Replace)`, `Write`s, `Flush`, `CloseFile`; `Rename` to `snapshot-n`, `SyncDir`.
//! 5. Only now serve. Then `RemoveFile` what [`Recovered::remove`] names and every `*.tmp`, `SyncDir`.
//!
//! **Format** is the same with an empty image; then `meta.tmp`: `OpenFile(Replace)`, `Write`, `Flush`, `CloseFile`; `Rename` to `meta`, `SyncDir`.
//! **Append**: one `Write` at [`journal::Write::position`](super::journal::Write) with DSYNC (several for a long one, each with DSYNC), all at full length; only
//! then [`Controller::durable`](super::Controller::durable), and only then the next one. A failed or short one that cannot be completed ends the broker.
//! **Roll**, when [`Writer::is_full`]: with no append in flight, steps 3 and 4 with the next number and the durable image, then removal as in 5.
//!
//! # Why nothing that a killed predecessor has in flight can hurt
//! Its writes go to its own journal and nowhere else: no start appends to a journal of an earlier process, and no number is used twice.
//! Header n says where the history went on: everything behind that point of an older journal is ignored, whether it lands before or
//! after. So the decision on a torn tail is made once, by step 3, and every later recovery repeats it.
//!
//! # The table
//! | found | row | action |
//! |---|---|---|
//! | `meta` is missing | ([`unformatted`]) | never formatted: format with a new number; older files are leftovers of a format that did not end |
//! | the same, but files here hold transactions, or the directory those of topics | refuse | it was formatted: to do so again would remove them |
//! | newest snapshot valid, its journal ends in zeros | [`Row::Whole`] | use it |
//! | no whole transaction at P of the newest journal, and none of this journal behind it | [`Row::TornTail`] | end at P: it was never acknowledged |
//! | the same, but one of this journal behind it | refuse | damage: with one write in flight the later one proves that the earlier was durable |
//! | a journal without valid header, empty, no snapshot of its number | [`Row::Unborn`] | a start that did not end: nothing was ever appended to it |
//! | the same with transactions in it, or with a snapshot | refuse | damage |
//! | newest journal has no valid snapshot, an older generation has | [`Row::PreviousGeneration`] | the older snapshot, its journal up to where the next continues, and that one |
//! | an older journal does not reach the point where the next continues, or has another check there | refuse | acknowledged transactions are missing |
//! | the journal of a snapshot is missing | refuse | step 3 comes before step 4: it was there |
//! | no valid snapshot | refuse | both generations are damaged |
//! | another cluster in a header | refuse | not this directory's file |
//! | a larger version | refuse | by name |
//!
//! **Residual window, stated openly**: damage at rest to the very last transaction looks like a torn tail.

use std::collections::BTreeMap;

use super::image::Image;
use super::journal::{BLOCK, Header, Point, Txn, VERSION, Writer};
use super::record::{BadRecord, Record};
use super::{meta, snapshot};
use crate::base::error::Fatal;
use crate::base::ids::Uuid;

pub const FOLDER: &str = "metadata";

/// Bytes to allocate for a new journal: what nearly every run needs, so that appends do not extend the file.
pub const JOURNAL_ALLOCATE: u64 = 1 << 20;

/// The files of one generation, whole; None where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    pub generation: u64,
    pub snapshot: Option<Vec<u8>>,
    pub journal: Option<Vec<u8>>,
}

/// What was found: each row of the table that does not refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    Whole { generation: u64 },
    TornTail { generation: u64, position: u64, dropped: u64 },
    Unborn { generation: u64 },
    PreviousGeneration { generation: u64 },
}

/// The history up to the last transaction that may have been acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    pub records: Vec<Record>,
    pub point: Point,
    pub rows: Vec<Row>,
    /// The number of the generation to begin.
    pub next: u64,
    /// Generations to remove once that is begun: all older than the snapshot that was used.
    pub remove: Vec<u64>,
}

/// What begins a generation: bytes for its two files, and where to write on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    pub journal_header: Vec<u8>,
    pub snapshot: Vec<u8>,
    pub writer: Writer,
}

pub fn journal_name(generation: u64) -> String {
    format!("journal-{generation:020}")
}

pub fn snapshot_name(generation: u64) -> String {
    format!("snapshot-{generation:020}")
}

/// The generation of a file, and whether it is its snapshot. None: not a file of the store (a `.tmp` among them).
pub fn parse_name(name: &str) -> Option<(u64, bool)> {
    let (kind, digits) = name.split_once('-')?;
    let well_formed = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    let generation = digits.parse().ok().filter(|_| well_formed)?;
    match kind {
        "journal" => Some((generation, false)),
        "snapshot" => Some((generation, true)),
        _ => None,
    }
}

/// The first generation after this point of the history.
pub fn begin(image: &Image, cluster: Uuid, generation: u64, point: Point) -> Generation {
    let header = Header { version: VERSION, cluster, generation, continues: point };
    Generation {
        journal_header: header.encode(),
        snapshot: snapshot::encode(image, cluster, generation, point),
        writer: Writer::new(generation, point),
    }
}

/// Decides what the history is. `dir` stands in messages.
pub fn recover(files: &[Files], cluster: Uuid, dir: &str) -> Result<Recovered, Fatal> {
    let mut files: Vec<&Files> = files.iter().collect();
    files.sort_by_key(|files| files.generation);
    let newest = files.iter().rev().find_map(|files| Some((files.generation, files.snapshot.as_deref()?)));
    let base = files.iter().rev().find_map(|files| {
        let snapshot = snapshot::decode(files.snapshot.as_deref()?)?;
        (snapshot.generation == files.generation).then_some(snapshot)
    });
    let Some(base) = base else {
        let found = newest
            .map_or("no snapshot".to_string(), |(n, _)| format!("{} fails its check", snapshot_name(n)));
        return Err(damaged(dir, &snapshot_name(newest.map_or(0, |(n, _)| n)), 0, &found));
    };
    check_owner(dir, &snapshot_name(base.generation), base.cluster, base.version, cluster)?;

    let mut rows = Vec::new();
    let mut journals = Vec::new();
    for files in files.iter().filter(|files| files.generation >= base.generation) {
        if let Some(journal) = Journal::read(files, cluster, dir, &mut rows)? {
            journals.push(journal);
        }
    }
    if journals.first().is_none_or(|first| first.header.generation != base.generation) {
        return Err(damaged(
            dir,
            &journal_name(base.generation),
            0,
            "it is missing, or its header is damaged",
        ));
    }
    let last = journals.len() - 1;
    if journals[last].header.generation != base.generation {
        rows.push(Row::PreviousGeneration { generation: base.generation });
    }
    let mut history = History { values: base.values.into_iter().collect(), point: base.point };
    for (at, journal) in journals.iter().enumerate() {
        let bound = journals.get(at + 1).map(|next| next.header.continues);
        rows.extend(journal.replay(&mut history, bound, dir)?);
    }
    let highest = files.last().map_or(0, |files| files.generation);
    let remove = files.iter().map(|files| files.generation).filter(|n| *n < base.generation).collect();
    Ok(Recovered { records: history.records(dir)?, point: history.point, rows, next: highest + 1, remove })
}

/// Decides on a directory whose `meta` file is missing: the number of the generation to format it with. A format that did not end leaves a
/// history of no transactions; anything more was served by a broker once.
pub fn unformatted(files: &[Files], dir: &str) -> Result<u64, Fatal> {
    for files in files {
        let generation = files.generation;
        let begun = files.snapshot.as_deref().map(|bytes| snapshot::decode(bytes).map(|found| found.point));
        match begun {
            None => {}
            Some(Some(point)) if point.seq == 0 => {}
            Some(Some(_)) => {
                return Err(was_formatted(dir, &snapshot_name(generation), "tells of transactions"));
            }
            // It gets its name when it is whole.
            Some(None) => return Err(was_formatted(dir, &snapshot_name(generation), "fails its check")),
        }
        let Some(bytes) = files.journal.as_deref() else { continue };
        let continues = Header::decode(bytes).map_or(0, |header| header.continues.seq);
        if continues > 0 || later_txn(bytes, 0, generation).is_some() {
            return Err(was_formatted(dir, &journal_name(generation), "tells of transactions"));
        }
    }
    Ok(files.iter().map(|files| files.generation).max().map_or(0, |highest| highest + 1))
}

/// `file` shows that a broker has served from a directory without `meta`.
pub fn was_formatted(dir: &str, file: &str, what: &str) -> Fatal {
    Fatal {
        code: "metadata-corrupt",
        summary: format!("{dir}/{} is missing, and {file} {what}", meta::FILE),
        found: format!("{file}, which a broker left that had formatted the directory"),
        means: "formatting it again would remove its topics, so nothing was changed".to_string(),
        tries: vec![
            format!("restore {dir}/{} from a backup of this directory", meta::FILE),
            "another --data-dir, if these topics are not wanted".to_string(),
        ],
    }
}

struct History {
    values: BTreeMap<String, Option<String>>,
    point: Point,
}

impl History {
    fn records(&self, dir: &str) -> Result<Vec<Record>, Fatal> {
        let read = |(key, value): (&String, &Option<String>)| {
            Record::parse(key, value.as_deref()).map_err(|bad| match bad {
                BadRecord::Newer => meta::newer(&format!("{dir}/{FOLDER}: {key}"), VERSION + 1, VERSION),
                BadRecord::Key | BadRecord::Value => {
                    damaged(dir, FOLDER, 0, &format!("{key} does not hold what belongs there"))
                }
            })
        };
        self.values.iter().map(read).collect()
    }
}

struct Journal<'a> {
    header: Header,
    bytes: &'a [u8],
}

impl<'a> Journal<'a> {
    /// None: there is no journal of this generation, or one that was never begun.
    fn read(
        files: &'a Files,
        cluster: Uuid,
        dir: &str,
        rows: &mut Vec<Row>,
    ) -> Result<Option<Journal<'a>>, Fatal> {
        let generation = files.generation;
        // A snapshot, valid or not, is put in its place only when the journal's header is durable.
        let begun = files.snapshot.is_some();
        let Some(bytes) = files.journal.as_deref() else {
            return match begun {
                true => Err(damaged(
                    dir,
                    &journal_name(generation),
                    0,
                    "it is missing, and its snapshot is there",
                )),
                false => Ok(None),
            };
        };
        let Some(header) = Header::decode(bytes).filter(|header| header.generation == generation) else {
            if begun || later_txn(bytes, 0, generation).is_some() {
                return Err(damaged(dir, &journal_name(generation), 0, "the header fails its check"));
            }
            rows.push(Row::Unborn { generation });
            return Ok(None);
        };
        check_owner(dir, &journal_name(generation), header.cluster, header.version, cluster)?;
        Ok(Some(Journal { header, bytes }))
    }

    /// Adds the transactions to the history: up to where the next journal continues, or to the end of what is whole.
    fn replay(&self, history: &mut History, bound: Option<Point>, dir: &str) -> Result<Option<Row>, Fatal> {
        let generation = self.header.generation;
        let bad = |position: u64, what: &str| Err(damaged(dir, &journal_name(generation), position, what));
        if self.header.continues != history.point {
            return bad(0, "it does not continue where the history before it ends");
        }
        let mut position = BLOCK;
        while bound.is_none_or(|bound| history.point.seq < bound.seq) {
            let txn = Txn::decode(self.bytes.get(position..).unwrap_or_default()).filter(|txn| {
                txn.generation == generation
                    && txn.point.seq == history.point.seq + 1
                    && txn.previous_check == history.point.check
            });
            let Some(txn) = txn else { break };
            for (key, value) in txn.changes {
                match value {
                    Some(value) => history.values.insert(key, Some(value)),
                    None => history.values.remove(&key),
                };
            }
            history.point = txn.point;
            position += txn.len;
        }
        if let Some(bound) = bound {
            return match history.point == bound {
                true => Ok(None),
                false => {
                    bad(position as u64, "transactions that the next journal continues from are missing")
                }
            };
        }
        if let Some(later) = later_txn(self.bytes, position, generation) {
            return bad(
                position as u64,
                &format!("a transaction is damaged, and a later one stands at byte {later}"),
            );
        }
        let rest = self.bytes.get(position..).unwrap_or_default();
        let dropped = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        Ok(Some(match dropped {
            0 => Row::Whole { generation },
            dropped => Row::TornTail { generation, position: position as u64, dropped },
        }))
    }
}

/// The position of a whole transaction of this generation behind `position`.
fn later_txn(bytes: &[u8], position: usize, generation: u64) -> Option<usize> {
    let blocks = (position..bytes.len()).step_by(BLOCK);
    let mut whole = blocks
        .filter_map(|at| Txn::decode(&bytes[at..]).filter(|txn| txn.generation == generation).map(|_| at));
    whole.next()
}

fn check_owner(dir: &str, file: &str, found: Uuid, version: u32, cluster: Uuid) -> Result<(), Fatal> {
    if version > VERSION {
        return Err(meta::newer(&format!("{dir}/{FOLDER}/{file}"), version, VERSION));
    }
    if found != cluster {
        return Err(Fatal {
            code: "data-dir-foreign",
            summary: format!("{dir}/{FOLDER}/{file} belongs to another cluster"),
            found: format!("{found} in the file, {cluster} in {dir}/{}", meta::FILE),
            means: "files of two data directories were mixed".to_string(),
            tries: vec!["put back the files of one directory".to_string()],
        });
    }
    Ok(())
}

fn damaged(dir: &str, file: &str, position: u64, what: &str) -> Fatal {
    Fatal {
        code: "metadata-corrupt",
        summary: format!("{dir}/{FOLDER}/{file} is damaged at byte {position}: {what}"),
        found: what.to_string(),
        means: "topics that were acknowledged could be lost by going on, so nothing was changed".to_string(),
        tries: vec![
            format!("restore {dir}/{FOLDER} from a backup"),
            "look at the disk: bytes that were flushed are not what was written".to_string(),
        ],
    }
}
