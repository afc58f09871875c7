//! How programs with a virtual machine are linked: what libraries of C code expect of their process is seen from outside.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=exported.txt");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        let exported = include_str!("exported.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        for name in exported {
            println!("cargo:rustc-link-arg-examples=-Wl,--undefined={name},--export-dynamic-symbol={name}");
        }
    }
}
