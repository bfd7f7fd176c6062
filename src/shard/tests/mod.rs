mod fetch;
mod produce;
mod rig;
