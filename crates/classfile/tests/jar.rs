//! Jars that the JDK's own `jar` made.

use std::path::Path;
use std::process::Command;

use classfile::jar::{Error, Jar};

fn jar(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let status = Command::new("jar").args(arguments).current_dir(folder).status();
    assert!(status.expect("JDK 17 is installed; run cargo xtask setup").success());
    std::fs::read(folder.join("x.jar")).unwrap()
}

#[test]
fn entries_versions_and_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("base/p/a.txt", &"old ".repeat(1000));
    write("base/q.txt", "q");
    write("new/p/a.txt", "new");
    write("newest/p/a.txt", "newest");
    write("m", "Class-Path: y.jar lib/\nMain-Class: p.Main\n");
    let bytes = jar(
        folder.path(),
        &[
            "-cfm",
            "x.jar",
            "m",
            "-C",
            "base",
            ".",
            "--release",
            "11",
            "-C",
            "new",
            ".",
            "--release",
            "21",
            "-C",
            "newest",
            ".",
        ],
    );
    let archive = Jar::new(&bytes).unwrap();
    assert_eq!(archive.manifest().main_class(), Some("p.Main"));
    assert_eq!(archive.manifest().class_path().collect::<Vec<_>>(), ["y.jar", "lib/"]);
    // The newest that is not newer than the class library.
    assert_eq!(&*archive.read(archive.find("p/a.txt").unwrap()).unwrap(), b"new");
    assert_eq!(&*archive.read(archive.entry("p/a.txt").unwrap()).unwrap(), "old ".repeat(1000).as_bytes());
    assert_eq!(&*archive.read(archive.find("q.txt").unwrap()).unwrap(), b"q");
    assert!(archive.find("p/b.txt").is_none());

    // A program in front, as of archives that unpack themselves.
    let behind = [&b"#!/bin/sh\n"[..], &bytes].concat();
    let archive = Jar::new(&behind).unwrap();
    assert_eq!(&*archive.read(archive.find("p/a.txt").unwrap()).unwrap(), b"new");

    let stored = jar(folder.path(), &["-c0f", "x.jar", "-C", "base", "."]);
    let archive = Jar::new(&stored).unwrap();
    let entry = archive.find("q.txt").unwrap();
    assert!(matches!(archive.read(entry).unwrap(), std::borrow::Cow::Borrowed(b"q")));
    let mut changed = stored.clone();
    let at = stored.windows(6).position(|bytes| bytes == b"q.txtq").unwrap() + 5;
    changed[at] = b'r';
    let archive = Jar::new(&changed).unwrap();
    assert_eq!(archive.read(archive.find("q.txt").unwrap()), Err(Error::Checksum("q.txt".into())));
    // And whatever else changes, nothing panics.
    for at in 0..stored.len() {
        let mut changed = stored.clone();
        changed[at] ^= 0xFF;
        classfile::jar::fuzz(&changed);
        classfile::jar::fuzz(&stored[..at]);
    }
    assert!(matches!(Jar::new(b"PK"), Err(Error::NoEnd)));
}
