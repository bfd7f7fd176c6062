//! The `uring` driver under the suite.

use corelog::config::runtime::Runtime;
use corelog::io::open::open;

use super::*;

each_case!(make_world);

fn make_world(case: &str) -> Option<Box<dyn World>> {
    real::world("uring", case, |config| open(Runtime::Uring, config))
}
