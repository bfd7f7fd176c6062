mod connections;
mod rig;
mod stamps;
