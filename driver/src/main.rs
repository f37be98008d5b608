//! The `driver` program.

fn main() {}
