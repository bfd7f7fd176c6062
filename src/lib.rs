//! corelog
