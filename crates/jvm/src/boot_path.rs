//! Folders and jars that the bootstrap loader looks into beside the image: those that patch a module (`--patch-module`) before it, those that
//! `-Xbootclasspath/a` appends after it.

use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use classfile::jar::Jar;

/// A folder, or a jar with its bytes.
enum Place {
    Folder(PathBuf),
    Jar(Jar<'static>),
}

/// A place, and the module that it patches; none if it is appended.
struct Entry {
    module: Option<String>,
    place: Place,
}

static ENTRIES: RwLock<Vec<Entry>> = RwLock::new(Vec::new());

/// Appends a path. What is not there or no jar is passed over, as `java` does.
pub fn append(path: &str) {
    add(None, path);
}

/// Patches a module of the image.
pub fn patch(module: &str, path: &str) {
    add(Some(module), path);
}

fn add(module: Option<&str>, path: &str) {
    let mut entries = ENTRIES.write().unwrap_or_else(PoisonError::into_inner);
    for name in path.split(':').filter(|name| !name.is_empty()) {
        let path = PathBuf::from(name);
        let place = if path.is_dir() {
            Some(Place::Folder(path))
        } else {
            // Classes that are loaded from it may be asked for as long as the process runs.
            let bytes = std::fs::read(&path).ok();
            bytes.and_then(|bytes| Jar::new(Box::leak(bytes.into_boxed_slice())).ok()).map(Place::Jar)
        };
        entries.extend(place.map(|place| Entry { module: module.map(str::to_owned), place }));
    }
}

/// The class file of a class, by its internal name: from what patches `module`, or from what is appended.
pub fn find(module: Option<&str>, name: &str) -> Option<Vec<u8>> {
    find_in(name, |entry| entry.module.as_deref() == module)
}

/// The same from what patches any module.
pub fn find_in_patches(name: &str) -> Option<Vec<u8>> {
    find_in(name, |entry| entry.module.is_some())
}

fn find_in(name: &str, fits: impl Fn(&Entry) -> bool) -> Option<Vec<u8>> {
    let entries = ENTRIES.read().unwrap_or_else(PoisonError::into_inner);
    if entries.is_empty() {
        return None;
    }
    let file = format!("{name}.class");
    entries.iter().filter(|entry| fits(entry)).find_map(|entry| match &entry.place {
        Place::Folder(folder) => std::fs::read(folder.join(&file)).ok(),
        Place::Jar(jar) => jar.read(jar.find(&file)?).ok().map(std::borrow::Cow::into_owned),
    })
}
