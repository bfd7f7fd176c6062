//! One disk: a tree of directories over files, with entries that are volatile until their directory is synced.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Component, Path};

use super::faults::DiskConfig;
use super::file::{Damage, File, Stamp, Survival};
use super::rng::{Rng, mix};
use crate::io::{DirEntry, Errno};

/// A file or directory for as long as the disk exists, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(pub u64);

pub const ROOT: NodeId = NodeId(0);

const NOTDIR: Errno = Errno(20);
const ISDIR: Errno = Errno(21);
const NOTEMPTY: Errno = Errno(39);

#[derive(Debug)]
pub struct Disk {
    pub config: DiskConfig,
    nodes: BTreeMap<NodeId, Node>,
    next_node: u64,
}

#[derive(Debug)]
enum Node {
    File(File),
    Dir(Dir),
}

#[derive(Debug, Default)]
struct Dir {
    live: BTreeMap<String, NodeId>,
    flushed: BTreeMap<String, NodeId>,
    pending: Vec<EntryChange>,
}

/// One change of one directory. A rename is two of them with one id: a crash keeps both or neither.
#[derive(Debug)]
struct EntryChange {
    id: u64,
    name: String,
    /// What the name means from now on.
    node: Option<NodeId>,
    returned: Option<Stamp>,
}

impl Disk {
    pub fn new(config: DiskConfig) -> Disk {
        let nodes = BTreeMap::from([(ROOT, Node::Dir(Dir::default()))]);
        Disk { config, nodes, next_node: 1 }
    }

    /// Finds a path below the root of this disk, as a process sees it.
    pub fn find(&self, path: &Path) -> Result<NodeId, Errno> {
        self.walk(path, |dir| &dir.live)
    }

    /// Finds a path as it would be found after a power cut now, with nothing but what is durable.
    pub fn find_durable(&self, path: &Path) -> Result<NodeId, Errno> {
        self.walk(path, |dir| &dir.flushed)
    }

    fn walk(
        &self,
        path: &Path,
        entries: impl Fn(&Dir) -> &BTreeMap<String, NodeId>,
    ) -> Result<NodeId, Errno> {
        let mut node = ROOT;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            let name = name.to_str().ok_or(Errno::INVAL)?;
            node = *entries(self.dir(node)?).get(name).ok_or(Errno::NOENT)?;
        }
        Ok(node)
    }

    pub fn file(&self, node: NodeId) -> Result<&File, Errno> {
        match self.nodes.get(&node) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(ISDIR),
            None => Err(Errno::NOENT),
        }
    }

    pub fn file_mut(&mut self, node: NodeId) -> Result<&mut File, Errno> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(ISDIR),
            None => Err(Errno::NOENT),
        }
    }

    pub fn files_mut(&mut self) -> impl Iterator<Item = (NodeId, &mut File)> {
        self.nodes.iter_mut().filter_map(|(id, node)| match node {
            Node::File(file) => Some((*id, file)),
            Node::Dir(_) => None,
        })
    }

    fn dir(&self, node: NodeId) -> Result<&Dir, Errno> {
        match self.nodes.get(&node) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(NOTDIR),
            None => Err(Errno::NOENT),
        }
    }

    fn dir_mut(&mut self, node: NodeId) -> Result<&mut Dir, Errno> {
        match self.nodes.get_mut(&node) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(NOTDIR),
            None => Err(Errno::NOENT),
        }
    }

    /// Creates a file; `Errno::EXIST` if the name is taken. `id` names the change of the directory.
    pub fn create_file(&mut self, path: &Path, id: u64) -> Result<NodeId, Errno> {
        self.create(path, id, Node::File(File::default()))
    }

    pub fn make_dir(&mut self, path: &Path, id: u64) -> Result<NodeId, Errno> {
        self.create(path, id, Node::Dir(Dir::default()))
    }

    /// The change that gave `path` its entry, if that is not durable yet.
    pub fn pending_entry(&self, path: &Path) -> Option<u64> {
        let (parent, name) = self.parent_of(path).ok()?;
        let made = self.dir(parent).ok()?.pending.iter().rev().find(|change| change.name == name);
        made.filter(|change| change.node.is_some()).map(|change| change.id)
    }

    fn create(&mut self, path: &Path, id: u64, node: Node) -> Result<NodeId, Errno> {
        let (parent, name) = self.parent_of(path)?;
        if self.dir(parent)?.live.contains_key(&name) {
            return Err(Errno::EXIST);
        }
        let new = NodeId(self.next_node);
        self.next_node += 1;
        self.nodes.insert(new, node);
        self.dir_mut(parent)?.change(id, name, Some(new));
        Ok(new)
    }

    pub fn remove_file(&mut self, path: &Path, id: u64) -> Result<(), Errno> {
        self.file(self.find(path)?)?;
        let (parent, name) = self.parent_of(path)?;
        self.dir_mut(parent)?.change(id, name, None);
        Ok(())
    }

    pub fn remove_dir(&mut self, path: &Path, id: u64) -> Result<(), Errno> {
        if !self.dir(self.find(path)?)?.live.is_empty() {
            return Err(NOTEMPTY);
        }
        let (parent, name) = self.parent_of(path)?;
        self.dir_mut(parent)?.change(id, name, None);
        Ok(())
    }

    pub fn rename(&mut self, from: &Path, to: &Path, id: u64) -> Result<(), Errno> {
        let node = self.find(from)?;
        let (from_parent, from_name) = self.parent_of(from)?;
        let (to_parent, to_name) = self.parent_of(to)?;
        match (self.find(to).map(|n| &self.nodes[&n]), &self.nodes[&node]) {
            (Ok(Node::Dir(target)), Node::Dir(_)) if !target.live.is_empty() => return Err(NOTEMPTY),
            (Ok(Node::Dir(_)), Node::File(_)) => return Err(ISDIR),
            (Ok(Node::File(_)), Node::Dir(_)) => return Err(NOTDIR),
            _ => {}
        }
        self.dir_mut(to_parent)?.change(id, to_name, Some(node));
        self.dir_mut(from_parent)?.change(id, from_name, None);
        Ok(())
    }

    fn parent_of(&self, path: &Path) -> Result<(NodeId, String), Errno> {
        let name = path.file_name().and_then(|n| n.to_str()).ok_or(Errno::INVAL)?;
        let parent = self.find(path.parent().ok_or(Errno::INVAL)?)?;
        self.dir(parent)?;
        Ok((parent, name.to_string()))
    }

    pub fn list(&self, path: &Path) -> Result<Vec<DirEntry>, Errno> {
        let dir = self.dir(self.find(path)?)?;
        let entry = |(name, node): (&String, &NodeId)| match &self.nodes[node] {
            Node::File(file) => DirEntry { name: name.clone(), is_dir: false, len: file.live.len() },
            Node::Dir(_) => DirEntry { name: name.clone(), is_dir: true, len: 0 },
        };
        Ok(dir.live.iter().map(entry).collect())
    }

    /// The layers above now know that the change of entries `id` is complete.
    pub fn entries_returned(&mut self, id: u64, stamp: Stamp) {
        for node in self.nodes.values_mut() {
            let Node::Dir(dir) = node else { continue };
            for change in dir.pending.iter_mut().filter(|c| c.id == id) {
                change.returned.get_or_insert(stamp);
            }
        }
    }

    /// Makes durable the entry changes of one directory that were returned before `stamp`.
    pub fn sync_dir(&mut self, path: &Path, stamp: Stamp) -> Result<(), Errno> {
        let node = self.find(path)?;
        let dir = self.dir_mut(node)?;
        let mut moved_away = Vec::new();
        for change in std::mem::take(&mut dir.pending) {
            match change.returned {
                Some(at) if at < stamp => {
                    if change.node.is_none() {
                        moved_away.push(change.id);
                    }
                    change.apply(&mut dir.flushed);
                    // A journal keeps order: what the name meant before is history.
                    dir.pending.retain(|earlier| earlier.name != change.name);
                }
                _ => dir.pending.push(change),
            }
        }
        self.arrive(&moved_away);
        Ok(())
    }

    /// A file that durably left one directory by a rename is durably in the other: no journal keeps half a rename.
    fn arrive(&mut self, ids: &[u64]) {
        for node in self.nodes.values_mut() {
            let Node::Dir(dir) = node else { continue };
            let pending = std::mem::take(&mut dir.pending);
            let (arrived, rest) = pending.into_iter().partition(|c| c.node.is_some() && ids.contains(&c.id));
            dir.pending = rest;
            arrived.iter().for_each(|c| c.apply(&mut dir.flushed));
        }
    }

    /// The power went: what is durable stays, of the rest a random part.
    pub fn crash(&mut self, rng: &mut Rng) -> Damage {
        let survival = Survival::draw(rng);
        let salt = rng.word();
        let mut damage = Damage::default();
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => {
                    let file_damage = file.crash(survival, rng);
                    damage.lost += file_damage.lost;
                    damage.torn += file_damage.torn;
                    damage.kept += file_damage.kept;
                }
                Node::Dir(dir) => dir.crash(survival, salt),
            }
        }
        self.collect(&BTreeSet::new());
        damage
    }

    /// Forgets nodes that no entry and no open file names.
    pub fn collect(&mut self, open: &BTreeSet<NodeId>) {
        let mut seen: BTreeSet<NodeId> = open.iter().copied().chain([ROOT]).collect();
        let mut stack: Vec<NodeId> = seen.iter().copied().collect();
        while let Some(node) = stack.pop() {
            let Some(Node::Dir(dir)) = self.nodes.get(&node) else { continue };
            let pending = dir.pending.iter().filter_map(|c| c.node);
            for child in dir.live.values().chain(dir.flushed.values()).copied().chain(pending) {
                if seen.insert(child) {
                    stack.push(child);
                }
            }
        }
        self.nodes.retain(|id, _| seen.contains(id));
    }

    pub fn used_bytes(&self) -> u64 {
        let space = |node: &Node| if let Node::File(file) = node { file.space() } else { 0 };
        self.nodes.values().map(space).sum()
    }

    /// `Errno::NOSPC` if writing or allocating this range would exceed the capacity.
    pub fn check_space(&self, node: NodeId, range: Range<u64>) -> Result<(), Errno> {
        let needed = self.file(node)?.space_needed(range);
        let full = needed > 0 && self.used_bytes() + needed > self.config.capacity_bytes;
        if full { Err(Errno::NOSPC) } else { Ok(()) }
    }
}

impl Dir {
    fn change(&mut self, id: u64, name: String, node: Option<NodeId>) {
        let change = EntryChange { id, name, node, returned: None };
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    fn crash(&mut self, survival: Survival, salt: u64) {
        for change in std::mem::take(&mut self.pending) {
            let keep = match survival {
                Survival::Nothing => false,
                Survival::Everything => true,
                Survival::SomeChanges | Survival::SomeSectors => mix(salt ^ change.id) & 1 == 0,
            };
            if keep {
                change.apply(&mut self.flushed);
            }
        }
        self.live = self.flushed.clone();
    }
}

impl EntryChange {
    fn apply(&self, entries: &mut BTreeMap<String, NodeId>) {
        match self.node {
            Some(node) => entries.insert(self.name.clone(), node),
            None => entries.remove(&self.name),
        };
    }
}
