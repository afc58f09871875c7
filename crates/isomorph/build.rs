//! How the command is linked: at a fixed address, and with what C code in Java programs expects of its process seen from outside.
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
    // What libraries of C code in Java programs expect of their process.
    println!("cargo:rerun-if-changed=../jvm/exported.txt");
    if target("OS") == "linux" {
        let exported = include_str!("../jvm/exported.txt").lines();
        for name in exported.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            println!("cargo:rustc-link-arg-bins=-Wl,--undefined={name},--export-dynamic-symbol={name}");
        }
    }
}
