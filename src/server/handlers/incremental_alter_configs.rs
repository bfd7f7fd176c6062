//! stub
use super::{Handled, Metadata, Request};
use crate::wire::error::WireError;
pub fn handle(_: &mut Request<'_, '_>, _: &mut Metadata) -> Result<Handled, WireError> { unreachable!() }
