//! Nothing: this package only pins the crates whose tests `../rust_clients.py` runs.
