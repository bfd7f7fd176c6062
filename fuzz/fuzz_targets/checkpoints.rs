//! See `log::fuzz` for what is promised.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| corelog::log::fuzz::checkpoints(data));
