//! What a start makes of the files that it finds: a test for each row of its table.

use super::disk::*;
use super::rig::*;
use crate::base::ids::Uuid;
use crate::controller::Controller;
use crate::controller::journal::{BLOCK, Header, Point, VERSION};
use crate::controller::metastore::{self, Files, Row, recover, unformatted};

#[test]
fn row_whole() {
    let disk = two_generations();
    assert_eq!(disk.topics(), ("a bb ccc dddd".to_string(), vec![Row::Whole { generation: 2 }]));
    let recovered = disk.recover().unwrap();
    assert_eq!((recovered.point.seq, recovered.next, recovered.remove), (4, 3, vec![1]));
    let mut padded = disk.clone();
    padded.journal(2).resize(1 << 16, 0);
    assert_eq!(padded.topics(), disk.topics(), "zeros that were allocated ahead are no tail");
}

#[test]
fn row_without_meta() {
    let decide = |disk: &Disk| {
        let files: Vec<Files> = disk.files.values().cloned().collect();
        unformatted(&files, "/d").map_err(|fatal| fatal.summary)
    };
    let refused = |disk: &Disk, file: &str, what: &str| {
        assert_eq!(decide(disk), Err(format!("/d/meta is missing, and {file} {what}")));
    };
    let (empty, mut controller) = Disk::format();
    assert_eq!(unformatted(&[], "/d").unwrap(), 0);
    assert_eq!(decide(&empty), Ok(2), "a format that did not end");
    let mut torn = empty.clone();
    torn.files.insert(2, Files { generation: 2, snapshot: None, journal: Some(vec![0; BLOCK]) });
    assert_eq!(decide(&torn), Ok(3), "another one, which ended earlier");
    let mut damaged = empty.clone();
    damaged.snapshot(1)[100] ^= 1;
    refused(&damaged, "snapshot-00000000000000000001", "fails its check");

    let mut used = empty.clone();
    used.create(&mut controller, "a");
    let journal = "journal-00000000000000000001";
    refused(&used, journal, "tells of transactions");
    used.journal(1)[..BLOCK].fill(0);
    refused(&used, journal, "tells of transactions");
    used.roll(controller.staged());
    used.files.remove(&1);
    refused(&used, "snapshot-00000000000000000002", "tells of transactions");
    used.files.get_mut(&2).unwrap().snapshot = None;
    refused(&used, "journal-00000000000000000002", "tells of transactions");
}

#[test]
fn row_torn_tail() {
    let mut disk = two_generations();
    let whole = disk.journal(2).len();
    disk.journal(2)[whole - BLOCK + 100] ^= 1;
    let (topics, rows) = disk.topics();
    assert_eq!(topics, "a bb ccc");
    assert!(
        matches!(rows[..], [Row::TornTail { generation: 2, position, dropped }] if position == 2 * BLOCK as u64 && dropped > 100)
    );
}

#[test]
fn row_hole_before_a_later_transaction() {
    let mut disk = two_generations();
    disk.journal(2)[BLOCK + 100] ^= 1;
    assert!(
        disk.refusal()
            .contains("metadata-corrupt: /d/metadata/journal-00000000000000000002 is damaged at byte 4096")
    );
}

#[test]
fn row_unborn() {
    let mut disk = two_generations();
    let expected = disk.topics().0;
    for journal in [Vec::new(), vec![0; BLOCK], vec![0; 1 << 16]] {
        disk.files.insert(3, Files { generation: 3, snapshot: None, journal: Some(journal) });
        let (topics, rows) = disk.topics();
        assert_eq!(topics, expected);
        assert!(rows.contains(&Row::Unborn { generation: 3 }));
        assert_eq!(disk.recover().unwrap().next, 4, "its number is not used again");
    }
}

#[test]
fn row_header_damaged() {
    let mut disk = two_generations();
    disk.journal(2)[40] ^= 1;
    assert!(disk.refusal().contains("the header fails its check"));
    disk.journal(2).fill(0);
    assert!(disk.refusal().contains("the header fails its check"));
}

#[test]
fn row_previous_generation() {
    let expected = "a bb ccc dddd";
    let mut damaged = two_generations();
    damaged.snapshot(2)[100] ^= 1;
    let (topics, rows) = damaged.topics();
    assert_eq!(topics, expected);
    assert!(rows.contains(&Row::PreviousGeneration { generation: 1 }));
    assert_eq!(damaged.recover().unwrap().remove, Vec::<u64>::new());
    let mut missing = two_generations();
    missing.files.get_mut(&2).unwrap().snapshot = None;
    assert_eq!(missing.topics().0, expected);
    // A start that ended between its journal and its snapshot, twice.
    let mut unfinished = two_generations();
    let point = unfinished.writer.point();
    for number in [3, 4] {
        let header = Header { version: VERSION, cluster: CLUSTER, generation: number, continues: point };
        let files = Files { generation: number, snapshot: None, journal: Some(header.encode()) };
        unfinished.files.insert(number, files);
    }
    assert_eq!(unfinished.topics().0, expected);
}

#[test]
fn row_older_journal_is_short() {
    let mut disk = two_generations();
    disk.snapshot(2)[100] ^= 1;
    let whole = disk.journal(1).len();
    disk.journal(1)[whole - BLOCK + 100] ^= 1;
    assert!(disk.refusal().contains("transactions that the next journal continues from are missing"));
}

#[test]
fn row_journal_of_the_snapshot_is_missing() {
    let mut disk = two_generations();
    disk.files.get_mut(&2).unwrap().journal = None;
    assert!(disk.refusal().contains("it is missing, and its snapshot is there"));
    disk.snapshot(2)[100] ^= 1;
    assert!(disk.refusal().contains("it is missing, and its snapshot is there"));
}

#[test]
fn row_no_snapshot() {
    let mut disk = two_generations();
    disk.snapshot(1)[100] ^= 1;
    disk.snapshot(2)[100] ^= 1;
    assert!(disk.refusal().contains("snapshot-00000000000000000002 fails its check"));
    disk.files.clear();
    assert!(disk.refusal().contains("no snapshot"));
}

#[test]
fn rows_foreign_and_newer() {
    let disk = two_generations();
    let files: Vec<Files> = disk.files.values().cloned().collect();
    assert_eq!(recover(&files, Uuid([8; 16]), "/d").unwrap_err().code, "data-dir-foreign");
    let mut newer = disk.clone();
    let header =
        Header { version: VERSION + 1, cluster: CLUSTER, generation: 3, continues: Point::default() };
    newer.files.insert(3, Files { generation: 3, snapshot: None, journal: Some(header.encode()) });
    assert_eq!(newer.recover().unwrap_err().code, "format-newer");
}

/// The story: a process is killed while its last write is on the way. The next start sees a torn tail and goes on without it. Then the write
/// lands after all, whole. Then the newest snapshot rots, so that the old journal is read once more.
#[test]
fn a_write_that_lands_late_is_not_part_of_the_history() {
    let (mut disk, mut controller) = Disk::format();
    disk.create(&mut controller, "a");
    let before = disk.clone();
    disk.create(&mut controller, "late");
    let landed = disk.journal(1).clone();

    let mut disk = before;
    let image = load(&disk.recover().unwrap());
    disk.roll(&image);
    let mut controller = Controller::new(image);
    disk.create(&mut controller, "bb");
    *disk.journal(1) = landed;
    assert_eq!(disk.topics().0, "a bb");
    disk.snapshot(2)[100] ^= 1;
    assert_eq!(disk.topics().0, "a bb");
}

#[test]
fn file_names() {
    assert_eq!(metastore::parse_name(&metastore::journal_name(7)), Some((7, false)));
    assert_eq!(metastore::parse_name(&metastore::snapshot_name(7)), Some((7, true)));
    for other in ["journal-7", "snapshot-00000000000000000007.tmp", "x-00000000000000000007", "journal"] {
        assert_eq!(metastore::parse_name(other), None);
    }
}
