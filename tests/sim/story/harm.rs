//! Damage at rest, while no process runs: what no single machine can survive, and must notice. What may be missing afterwards is known here:
//! everything else is promised as ever, and nothing wrong is ever shown.

use std::path::{Path, PathBuf};

use corelog::base::ids::PartitionKey;
use corelog::base::limits::BLOCK_BYTES;
use corelog::io::{Io, Op, OpenMode, Payload};
use corelog::log::format::segment_name;
use corelog::log::inspect::{Item, SegmentFile, dump, segments};

use super::Story;
use crate::node::{Blocking, DATA_DIR};
use crate::oracle::{End, Verdict};

const PAGE: u64 = 4096;

/// What a partition's story knows of the damage that was done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Harmed {
    /// Reads may end where damage is, with its name; perhaps nothing can be appended.
    pub offline: bool,
    /// Records from here on may be missing without a word at the next start: damage behind all that was known to be flushed looks like a write that
    /// never arrived whole.
    pub silent_from: i64,
    /// The log start may be back at the beginning of the first segment.
    pub start_lost: bool,
    /// The damage was named.
    pub named: bool,
}

const UNHARMED: Harmed = Harmed { offline: false, silent_from: i64::MAX, start_lost: false, named: false };

/// Groups of a segment: position, end, base offset.
struct Groups(Vec<(u64, u64, i64)>);

impl Groups {
    fn end(&self) -> u64 {
        self.0.last().map_or(PAGE, |group| group.1)
    }

    /// The first offset that damage from `position` on concerns.
    fn from(&self, position: u64) -> i64 {
        self.0.iter().find(|group| group.1 > position).map_or(i64::MAX, |group| group.2)
    }
}

impl Story {
    /// Harms one partition, perhaps.
    pub(super) fn harm(&mut self, end: End) -> Verdict {
        if !self.plan.harm {
            return Ok(());
        }
        if self.below(4) == 0 {
            self.copy();
        }
        if self.bring_back() || self.below(2) > 0 {
            return Ok(());
        }
        let keys: Vec<PartitionKey> = self.partitions.keys().copied().collect();
        let key = keys[self.below(keys.len() as u64) as usize];
        let partition = &self.partitions[&key];
        if partition.harmed.is_some() {
            return Ok(());
        }
        let dir = partition.dir.clone();
        let mut hand = Hand::new(self);
        let harmed = hand.harm(&dir, end);
        hand.leave();
        self.partitions.get_mut(&key).expect("known").harmed = harmed;
        Ok(())
    }

    /// Somebody moved the directory to another place, by copies that share extents with what they are copies of, or have holes. Nothing is
    /// lost, but writes in place change metadata.
    fn copy(&mut self) {
        let mut hand = Hand::new(self);
        for partition in self.partitions.values() {
            for file in hand.names(&partition.dir, |_| true) {
                hand.world.copy_in_place(&file);
            }
        }
        hand.leave();
    }

    /// A segment that the log has long removed is back: somebody restored an old copy. It lies below the log start, so nothing changes.
    fn bring_back(&mut self) -> bool {
        let mut hand = Hand::new(self);
        let mut is_back = false;
        // A copy of what a truncation cut off would be another history.
        let unharmed = self.partitions.values_mut().filter(|p| p.harmed.is_none() && p.truncating.is_none());
        for partition in unharmed {
            let listed = segments(&mut Blocking { io: &mut hand.io }, &partition.dir).unwrap_or_default();
            let first =
                listed.iter().find_map(|segment| Some((segment, segment.header.as_ref().ok()?.0.clone())));
            let Some((first, header)) = first else { continue };
            let parted = |(old, _): &mut (SegmentFile, _)| {
                let uuid = old.header.as_ref().expect("only such are copied").0.uuid;
                old.ordinal < first.ordinal && header.prev.uuid != uuid
            };
            let Some((old, bytes)) = partition.copied.take_if(parted) else {
                let bytes = hand.world.live_bytes(&partition.dir.join(&first.name));
                partition.copied = partition.copied.take().or(bytes.map(|bytes| (first.clone(), bytes)));
                continue;
            };
            hand.put(&partition.dir.join(&old.name), &bytes);
            partition.harmed = Some(UNHARMED);
            is_back = true;
        }
        hand.leave();
        is_back
    }

    /// What deletion left behind when its process died: the controller removes it at the next start.
    pub(super) fn remove_gone(&mut self) {
        if self.gone.is_empty() {
            return;
        }
        let gone = std::mem::take(&mut self.gone);
        let mut hand = Hand::new(self);
        for dir in gone.into_values() {
            hand.remove_tree(&dir);
        }
        hand.leave();
    }
}

/// A process that is no broker, between two that are.
struct Hand {
    world: corelog::io::sim::World,
    process: corelog::io::sim::ProcessId,
    io: Io,
}

impl Hand {
    fn new(story: &Story) -> Hand {
        let world = story.world.clone();
        let process = world.start_process();
        let mut io = Io::Sim(Box::new(world.io(process, 16 * BLOCK_BYTES)));
        while !io.grow_pool() {}
        Hand { world, process, io }
    }

    fn leave(self) {
        let Hand { world, process, io } = self;
        world.kill(process);
        drop(io);
    }

    fn below(&self, end: u64) -> u64 {
        self.world.below(end)
    }

    fn pick<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { of.get(self.below(of.len() as u64) as usize) }
    }

    fn run(&mut self, op: Op) {
        self.io.wait(op).result.expect("an operation without a fault");
    }

    fn remove(&mut self, path: &Path) {
        self.run(Op::RemoveFile { path: path.to_path_buf() });
        self.run(Op::SyncDir { path: path.parent().expect("a directory").to_path_buf() });
    }

    /// A new file of these bytes.
    fn put(&mut self, path: &Path, bytes: &[u8]) {
        let opened = self.io.wait(Op::OpenFile { path: path.to_path_buf(), mode: OpenMode::Create });
        let Payload::Opened(file, _) = opened.payload else { unreachable!("a new file") };
        self.world.overwrite(path, 0, bytes);
        self.run(Op::Flush { file });
        self.run(Op::CloseFile { file });
        self.run(Op::SyncDir { path: path.parent().expect("a directory").to_path_buf() });
    }

    fn remove_tree(&mut self, dir: &Path) {
        for entry in self.io.list_dir(dir).unwrap_or_default() {
            self.run(Op::RemoveFile { path: dir.join(entry.name) });
        }
        for path in [dir, dir.parent().expect("the topic's directory")] {
            let _ = self.io.wait(Op::RemoveDir { path: path.to_path_buf() });
        }
        self.run(Op::SyncDir { path: PathBuf::from(DATA_DIR) });
    }

    fn names(&mut self, dir: &Path, fits: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        let entries = self.io.list_dir(dir).unwrap_or_default();
        entries.into_iter().filter(|e| e.len > 0 && fits(&e.name)).map(|e| dir.join(e.name)).collect()
    }

    fn groups(&mut self, dir: &Path, segment: &SegmentFile) -> Groups {
        let mut groups = Vec::new();
        let mut source = Blocking { io: &mut self.io };
        let walked = dump(&mut source, dir, segment, &mut |item| {
            if let Item::Group { position, header } = item {
                groups.push((position, position + 80 + u64::from(header.byte_len), header.base_offset.0));
            }
        });
        walked.expect("a segment that is there");
        Groups(groups)
    }

    /// Does one kind of damage. None if there was nothing to harm.
    fn harm(&mut self, dir: &Path, end: End) -> Option<Harmed> {
        let listed = segments(&mut Blocking { io: &mut self.io }, dir).ok()?;
        let whole: Vec<&SegmentFile> = listed.iter().filter(|s| s.header.is_ok()).collect();
        let segment = *self.pick(&whole)?;
        let path = dir.join(&segment.name);
        let last = whole.last().is_some_and(|l| l.ordinal == segment.ordinal);
        let groups = self.groups(dir, segment);
        let data = groups.end().max(PAGE + 1).min(segment.len);
        // Only the segment that nobody sealed has an end to look for, and only after a crash.
        let silent_at = |position| if last && end != End::Stop { groups.from(position) } else { i64::MAX };
        let damaged = Harmed { offline: true, ..UNHARMED };
        match self.below(12) {
            0 => self.harm_derived(dir),
            1 => {
                let state = self.names(dir, |name| name == "state").first()?.clone();
                self.remove(&state);
                Some(Harmed { start_lost: true, ..UNHARMED })
            }
            2 | 3 => {
                let state = self.names(dir, |name| name == "state").first()?.clone();
                self.world.rot(&state, self.below(60), self.below(8) as u8);
                if self.below(2) == 0 {
                    self.harm_by_write(dir, &whole);
                }
                Some(Harmed { start_lost: true, ..damaged })
            }
            4 if data > PAGE => {
                let at = PAGE + self.below(data - PAGE);
                self.world.rot(&path, at, self.below(8) as u8);
                Some(Harmed { silent_from: silent_at(at), ..damaged })
            }
            5 => {
                self.world.rot(&path, self.below(128), self.below(8) as u8);
                Some(damaged)
            }
            6 | 7 => {
                // Where the walk comes by: the end of the last segment's groups, or anywhere.
                let at = if self.below(2) == 0 { self.below(data) } else { data - 1 };
                self.world.spoil(&path, at);
                Some(damaged)
            }
            8 if data > PAGE => {
                let at = (PAGE + self.below(data - PAGE)) / PAGE * PAGE;
                self.world.overwrite(&path, at, &[0; PAGE as usize]);
                Some(Harmed { silent_from: silent_at(at), ..damaged })
            }
            9 if !last || end == End::Stop => {
                self.remove(&path);
                Some(damaged)
            }
            10 if segment.len > PAGE => {
                let at = PAGE * (1 + self.below(segment.len / PAGE - 1));
                let opened = self.io.wait(Op::OpenFile { path, mode: OpenMode::Write });
                let Payload::Opened(file, _) = opened.payload else { unreachable!("an opened file") };
                self.run(Op::Truncate { file, len: at });
                self.run(Op::Flush { file });
                self.run(Op::CloseFile { file });
                Some(Harmed { silent_from: silent_at(at), ..damaged })
            }
            _ => self.harm_by_write(dir, &whole),
        }
    }

    /// Removes or damages what can be rebuilt.
    fn harm_derived(&mut self, dir: &Path) -> Option<Harmed> {
        let derived = self.names(dir, |name| name == "producers" || name.ends_with(".idx"));
        let path = self.pick(&derived)?.clone();
        match self.below(3) {
            0 => self.world.rot(&path, self.below(40), self.below(8) as u8),
            1 => self.world.spoil(&path, 0),
            _ => self.remove(&path),
        }
        Some(UNHARMED)
    }

    /// A write of an old group went behind the end of the log, which was meant for another place, or another file.
    fn harm_by_write(&mut self, dir: &Path, whole: &[&SegmentFile]) -> Option<Harmed> {
        let (last, source) = (*whole.last()?, *self.pick(whole)?);
        let from = self.groups(dir, source);
        let (start, end, _) = *from.0.first().filter(|group| group.0 == PAGE)?;
        let bytes = self.world.live_bytes(&dir.join(&source.name))?;
        let end = end.next_multiple_of(PAGE).min(bytes.len() as u64);
        let at = self.groups(dir, last).end().next_multiple_of(PAGE);
        let path = dir.join(segment_name(last.ordinal));
        self.world.overwrite(&path, at, &bytes[start as usize..end as usize]);
        Some(UNHARMED)
    }
}
