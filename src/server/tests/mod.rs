mod cold;
mod connections;
mod rig;
mod stamps;
