mod fetch;
mod list_offsets;
mod produce;
mod rig;
