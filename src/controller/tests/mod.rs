//! The controller without a disk: commands, records, recovery.

mod commands;
mod crashes;
mod disk;
mod records;
mod recovery;
mod rig;
