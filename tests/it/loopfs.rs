//! A small ext4 file system of a test's own, on a loop device: it can be filled, and nobody else writes to its device.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::powerloss::rig::{FileSystem, attach, detach, run, umount};

/// Room that the file system of a [`StallingDisk`]'s image needs for itself.
const OUTER_MB: u64 = 64;

pub struct LoopFs {
    pub mount: PathBuf,
    image: PathBuf,
    device: String,
}

/// What this machine lacks for it, or none.
pub fn missing() -> Option<&'static str> {
    let root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout == b"0\n");
    if !root {
        return Some("not root");
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("no loop devices");
    }
    ["flock", "losetup", "mkfs.ext4", "mount"]
        .into_iter()
        .find(|tool| Command::new(tool).arg("--version").output().is_err())
}

impl LoopFs {
    pub fn build(dir: &Path, megabytes: u64) -> LoopFs {
        let (mount_point, image) = (dir.join("mnt"), dir.join("disk.img"));
        fs::create_dir_all(&mount_point).expect("a mount point");
        File::create(&image).and_then(|f| f.set_len(megabytes << 20)).expect("a disk image");
        FileSystem::Ext4.make(&image);
        let device = attach(&image);
        FileSystem::Ext4.mount(&device, &mount_point);
        LoopFs { mount: mount_point, image, device }
    }

    /// `loop7`
    pub fn device_name(&self) -> &str {
        self.device.trim_start_matches("/dev/")
    }

    pub fn data(&self) -> PathBuf {
        self.mount.join("data")
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        umount(&self.mount);
        detach(&self.device);
        let _ = fs::remove_file(&self.image);
    }
}

/// A file system on a device that can be made to stall: its image lies on another file system, which is frozen meanwhile. Writes that are
/// under way wait in the kernel, and so does the end of a process that was killed with one of them.
pub struct StallingDisk {
    // In the order in which they must be taken down.
    pub inner: LoopFs,
    outer: LoopFs,
}

impl StallingDisk {
    pub fn missing() -> Option<&'static str> {
        missing()
            .or_else(|| Command::new("fsfreeze").arg("--version").output().is_err().then_some("fsfreeze"))
    }

    pub fn build(dir: &Path, megabytes: u64) -> StallingDisk {
        let outer = LoopFs::build(&dir.join("outer"), megabytes + OUTER_MB);
        let inner = LoopFs::build(&outer.mount, megabytes);
        StallingDisk { inner, outer }
    }

    /// The device stalls until the guard is dropped.
    pub fn stall(&self) -> Stalled<'_> {
        run(Command::new("fsfreeze").arg("-f").arg(&self.outer.mount));
        Stalled(&self.outer.mount)
    }
}

pub struct Stalled<'a>(&'a Path);

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        run(Command::new("fsfreeze").arg("-u").arg(self.0));
    }
}
