//! How the command is linked: at a fixed address.
//!
//! A program that may be anywhere has an address to correct in each of its tables, 40,000 of them here, before it begins: a millisecond and megabytes of
//! pages of its own, for every machine that starts. What guests touch stays at random places all the same: their memory, translated code, stacks, heap
//! and libraries.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = |what| std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if target("OS") == "linux" && target("ENV") == "gnu" {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
