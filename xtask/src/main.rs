//! `cargo xtask`: the tasks of this project.
fn main() {}
