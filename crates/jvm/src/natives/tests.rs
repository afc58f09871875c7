//! Which native methods of the class library there are, and which are missing.

use std::collections::{BTreeMap, BTreeSet};

use classfile::jimage::Image;
use classfile::{ClassFile, Options, flags};

use super::TABLES;

/// The modules whose natives are all accounted for: `missing.txt` lists those that are not written, each group with its reason.
const MODULES: [&str; 4] = ["java.base", "java.prefs", "java.rmi", "jdk.net"];

fn is_written(class: &str, name: &str, descriptor: &str) -> bool {
    let tables = TABLES.iter().copied().flatten().filter(|(written, _)| *written == class);
    let fits =
        |method: &(&str, &str, super::Function)| method.0 == name && (method.1.is_empty() || method.1 == descriptor);
    tables.flat_map(|(_, methods)| *methods).any(fits)
        || (matches!(name, "registerNatives" | "initIDs" | "initNative") && descriptor == "()V")
}

#[test]
fn what_is_missing_is_listed() {
    let home = crate::library::find(None, None).expect("JDK 17 is installed; run cargo xtask setup");
    let bytes = std::fs::read(home.join("lib/modules")).unwrap();
    let image = Image::new(&bytes).unwrap();
    let (mut missing, mut written_too) = (BTreeSet::new(), BTreeSet::new());
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for location in image.iter().filter(|location| location.extension == b"class") {
        let module = String::from_utf8_lossy(location.module).into_owned();
        let class_bytes = image.read(&location).unwrap();
        let Ok(class) = ClassFile::parse(&class_bytes, Options::default()) else { continue };
        for method in class.methods.iter().filter(|method| method.access_flags & flags::NATIVE != 0) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (class, name, descriptor) = (text(class.name), text(method.name), text(method.descriptor));
            let written = is_written(&class, &name, &descriptor);
            let count = counts.entry(module.clone()).or_default();
            count.0 += usize::from(written);
            count.1 += 1;
            let line = format!("{class}.{name}{descriptor}");
            if MODULES.contains(&module.as_str()) {
                if written {
                    written_too.insert(line)
                } else {
                    missing.insert(line)
                };
            }
        }
    }
    for (module, (written, all)) in &counts {
        println!("{module}: {written} of {all} native methods");
    }
    let listed: BTreeSet<String> = include_str!("missing.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let unlisted: Vec<_> = missing.difference(&listed).collect();
    assert!(unlisted.is_empty(), "neither written nor listed in missing.txt: {unlisted:#?}");
    // Updates of the library differ a little: what one has no more is no mistake.
    let stale: Vec<_> = listed.intersection(&written_too).collect();
    assert!(stale.is_empty(), "listed in missing.txt, but written: {stale:#?}");
}
