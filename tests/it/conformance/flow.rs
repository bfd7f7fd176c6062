//! Turns: many operations, time, `wait`.
