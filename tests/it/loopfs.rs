//! A small ext4 file system of a test's own, on a loop device: it can be filled, and nobody else writes to its device.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::powerloss::rig::{attach, detach, mount, run, umount};

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
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-b", "4096", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
            .arg(&image));
        let device = attach(&image);
        mount(&device, &mount_point);
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
