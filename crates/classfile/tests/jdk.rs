//! Every class of the JDK that is installed here, and what becomes of classes when bytes of them change.

use std::path::PathBuf;

use classfile::jimage::Image;
use classfile::{ClassFile, Error, Options};

/// The run-time image of the JDK 17 that `cargo xtask setup` installs.
fn modules() -> Vec<u8> {
    let homes = std::fs::read_dir("/usr/lib/jvm").expect("JDK 17 is installed; run cargo xtask setup");
    let mut homes: Vec<PathBuf> = homes.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    homes.sort();
    let home = homes
        .iter()
        .find(|home| home.file_name().is_some_and(|name| name.to_string_lossy().starts_with("java-17-openjdk")));
    let home = home.expect("JDK 17 is installed; run cargo xtask setup");
    std::fs::read(home.join("lib/modules")).unwrap()
}

#[test]
fn every_class_of_the_jdk_parses() {
    let bytes = modules();
    let image = Image::new(&bytes).unwrap();
    let (mut classes, mut modules, mut instructions, mut failed) = (0, 0, 0u64, Vec::new());
    let started = std::time::Instant::now();
    for location in image.iter().filter(|location| location.extension == b"class") {
        let contents = image.stored(&location).unwrap();
        match ClassFile::parse(contents, Options::default()) {
            Ok(class) => {
                classes += 1;
                assert!(class.name.ends_with(location.base));
                for method in &class.methods {
                    let Some(code) = &method.code else { continue };
                    for instruction in code.instructions() {
                        instruction.unwrap();
                        instructions += 1;
                    }
                    assert!(code.line_numbers().all(|line| usize::from(line.start) < code.bytes.len()));
                }
            }
            Err(Error::NoClassDefinition(_)) if location.base == b"module-info" => modules += 1,
            Err(error) => failed.push(error),
        }
    }
    println!("{classes} classes, {modules} modules, {instructions} instructions in {:?}", started.elapsed());
    assert!(failed.is_empty(), "{} classes, first {:?}", failed.len(), failed.first());
    assert!(classes > 20_000 && modules > 60 && instructions > 10_000_000, "{classes} {modules} {instructions}");
}

#[test]
fn names_are_found_where_they_are() {
    let bytes = modules();
    let image = Image::new(&bytes).unwrap();
    let mut found = 0;
    for location in image.iter().filter(|location| !location.module.is_empty() && location.module != b"packages") {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut path = text(location.parent);
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(&text(location.base));
        if !location.extension.is_empty() {
            path.push('.');
            path.push_str(&text(location.extension));
        }
        assert_eq!(image.find(&text(location.module), &path), Some(location), "{path}");
        found += 1;
    }
    assert!(found > 25_000, "{found}");
    assert_eq!(image.module_of_package("java/lang"), Some(&b"java.base"[..]));
    assert_eq!(image.module_of_package("java/util/logging"), Some(&b"java.logging"[..]));
    assert_eq!(image.module_of_package("no/such"), None);
    assert_eq!(image.find("java.base", "java/lang/NoSuch.class"), None);
}

#[test]
fn changed_bytes_do_no_harm() {
    let bytes = modules();
    let image = Image::new(&bytes).unwrap();
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let (mut refused, mut accepted) = (0, 0);
    for location in image.iter().filter(|location| location.extension == b"class").step_by(13) {
        let original = image.stored(&location).unwrap();
        for _ in 0..8 {
            let mut changed = original.to_vec();
            for _ in 0..=random(3) {
                match random(8) {
                    0 => changed.truncate(random(changed.len()).max(1)),
                    1 => changed.push(0),
                    _ => {
                        let at = random(changed.len());
                        changed[at] = [0, 1, 0xFF, 0x7F, random(256).to_le_bytes()[0]][random(5)];
                    }
                }
            }
            match ClassFile::parse(&changed, Options::default()) {
                Ok(class) => {
                    accepted += 1;
                    walk(&class);
                }
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().is_empty());
                }
            }
        }
    }
    assert!(refused > 1000 && accepted > 1000, "{refused} {accepted}");
}

/// Follows everything that a parsed class offers.
fn walk(class: &ClassFile<'_>) {
    for index in 0..u16::MAX {
        let constants = &class.constants;
        let _ = (constants.class_name(index), constants.member(index), constants.dynamic(index));
    }
    for code in class.methods.iter().filter_map(|method| method.code.as_ref()) {
        let _ = (code.line_numbers().count(), code.local_variables().count(), code.local_variable_types().count());
        for instruction in code.instructions().map_while(Result::ok) {
            let _ = (instruction.local(), instruction.constant(), instruction.branch(), instruction.immediate());
            let _ = instruction.switch().map(|switch| switch.cases().count());
        }
    }
}
