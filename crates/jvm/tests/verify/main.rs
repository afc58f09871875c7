//! Both verifiers against HotSpot's: they accept what it accepts and refuse what it refuses.

mod loader;
mod mutants;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use classfile::jar::Jar;
use classfile::jimage::Image;
use classfile::{ClassFile, Options};
use jvm::verify;

use loader::Loader;

/// The JDK 17 that `cargo xtask setup` installs.
fn java_home() -> PathBuf {
    let homes = std::fs::read_dir("/usr/lib/jvm").expect("JDK 17 is installed; run cargo xtask setup");
    let mut homes: Vec<PathBuf> = homes.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    homes.sort();
    let name =
        |home: &&PathBuf| home.file_name().is_some_and(|name| name.to_string_lossy().starts_with("java-17-openjdk"));
    homes.iter().find(name).expect("JDK 17 is installed; run cargo xtask setup").clone()
}

const JAR: &str = "/usr/share/java/commons-lang3.jar";

#[test]
fn every_class_of_java_base_is_accepted() {
    let modules = std::fs::read(java_home().join("lib/modules")).unwrap();
    let image = Image::new(&modules).unwrap();
    let mut loader = Loader::new(image, None);
    let (mut accepted, mut refused) = (0, Vec::new());
    let started = std::time::Instant::now();
    for location in image.iter().filter(|location| location.module == b"java.base" && location.extension == b"class") {
        let Ok(class) = ClassFile::parse(image.stored(&location).unwrap(), Options::default()) else { continue };
        loader.verifying = Some(class.name.to_vec());
        match verify::verify(&class, &mut loader) {
            Ok(()) => accepted += 1,
            Err(error) => refused.push(error.to_string()),
        }
    }
    println!("{accepted} accepted in {:?}", started.elapsed());
    assert!(refused.is_empty(), "{} refused, first: {}", refused.len(), refused[0]);
    assert!(accepted > 5000, "{accepted}");
}

/// The same classes without their stack maps: the inferring verifier must find types for them.
#[test]
fn classes_are_accepted_by_inference() {
    let modules = std::fs::read(java_home().join("lib/modules")).unwrap();
    let image = Image::new(&modules).unwrap();
    let mut loader = Loader::new(image, None);
    let (mut accepted, mut refused) = (0, Vec::new());
    for location in image.iter().filter(|location| location.module == b"java.base" && location.extension == b"class") {
        let mut bytes = image.stored(&location).unwrap().to_vec();
        if !mutants::make_old(&mut bytes) {
            continue;
        }
        let Ok(class) = ClassFile::parse(&bytes, Options::default()) else { continue };
        loader.verifying = Some(class.name.to_vec());
        match verify::verify(&class, &mut loader) {
            Ok(()) => accepted += 1,
            Err(error) => refused.push(error.to_string()),
        }
    }
    println!("{accepted} accepted");
    assert!(refused.is_empty(), "{} refused, first: {:?}", refused.len(), &refused[..refused.len().min(5)]);
    assert!(accepted > 1000, "{accepted}");
}

#[test]
fn verdicts_on_changed_classes_are_those_of_hotspot() {
    let modules = std::fs::read(java_home().join("lib/modules")).unwrap();
    let image = Image::new(&modules).unwrap();
    let archive = std::fs::read(JAR).expect("commons-lang3 is installed; run cargo xtask setup");
    let jar = Jar::new(&archive).unwrap();
    let mutants = mutants::make(&jar, 2000, 17);
    let theirs = hotspot(&mutants);
    assert_eq!(theirs.len(), mutants.len());

    let mut loader = Loader::new(image, Some(&jar));
    let (mut same, mut same_kind, mut same_text, mut compared, mut refused) = (0, 0, 0, 0, 0);
    let mut differences: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (mutant, theirs) in mutants.iter().zip(&theirs) {
        let ours = loader.verdict(&mutant.name, &mutant.bytes);
        // Looking at fields may need classes that linking does not: then HotSpot has linked the class.
        let (kind, text) = theirs.split_once(": ").unwrap_or((theirs, ""));
        if ours == "OK" && kind == "java.lang.NoClassDefFoundError" && mutant.has_field_of(text) {
            continue;
        }
        compared += 1;
        refused += usize::from(theirs != "OK");
        let equal = (ours == "OK") == (theirs == "OK");
        same += usize::from(equal);
        same_kind += usize::from(ours.split(": ").next() == Some(kind));
        same_text += usize::from(ours == *theirs);
        if !equal || std::env::var_os("VERIFY_TEXTS").is_some() && ours != *theirs {
            *differences.entry((ours, theirs.clone())).or_default() += 1;
        }
    }
    let per_cent = |count: usize| 100.0 * count as f64 / f64::from(compared);
    println!(
        "{compared} compared, {refused} refused: verdict equal {:.2}%, exception {:.2}%, text {:.2}%",
        per_cent(same),
        per_cent(same_kind),
        per_cent(same_text)
    );
    for ((ours, theirs), count) in &differences {
        println!("{count} x\n  ours   {ours}\n  theirs {theirs}");
    }
    assert!(refused > 500 && compared > 1900, "{refused} of {compared}");
    assert!(per_cent(same) >= 99.0, "{:.2}%", per_cent(same));
}

/// What `java -Xverify:all` says of each.
fn hotspot(mutants: &[mutants::Mutant]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mutants");
    std::fs::write(&file, mutants::to_file(mutants)).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java/Verdicts.java");
    let mut java = Command::new(java_home().join("bin/java"));
    let output = java.args(["-Xverify:all", "-Xlog:disable"]).arg(source).arg(JAR).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}
