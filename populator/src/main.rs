//! The `populator` program.

fn main() {}
