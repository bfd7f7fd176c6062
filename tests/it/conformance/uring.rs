//! The `uring` driver under the suite, on real files and loopback sockets.
