//! Where the class library of JDK 17 is on this host.

use std::path::{Path, PathBuf};

/// Variables that name a JDK's folder: ours, which must be right, and everybody's, which may be another version.
const OURS: &str = "ISOMORPH_JAVA_HOME";
const EVERYBODYS: &str = "JAVA_HOME";

/// Why there is no class library.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLibrary {
    /// None was found.
    #[error(
        "no class library of JDK 17 on this host: get it with `isomorph image pull java`, or name its folder by --java-home"
    )]
    Nowhere,
    /// The folder that was named has none.
    #[error("{0} is not the folder of a JDK 17: it has no {1}")]
    Named(PathBuf, &'static str),
}

/// The value of a key in a JDK's `release` file.
pub fn release(home: &Path, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(home.join("release")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(line.trim_matches('"').to_owned())
}

/// What a folder lacks to be a JDK 17's.
fn lack(home: &Path) -> Option<&'static str> {
    if !home.join("lib/modules").is_file() {
        return Some("lib/modules");
    }
    let version = release(home, "JAVA_VERSION").unwrap_or_default();
    (version.split('.').next() != Some("17")).then_some("JAVA_VERSION=\"17...\" in its file release")
}

/// Finds it: in the folder that is `named`, by our variable, around this program if it is called `java`, by the environment, by `java` in the path, in the usual places, in the folder that
/// `isomorph image pull` fills.
///
/// # Errors
/// There is none, or the folder that is named is none.
pub fn find(named: Option<PathBuf>, pulled: Option<&Path>) -> Result<PathBuf, NoLibrary> {
    let folder = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(home) = named.or_else(|| folder(OURS)) {
        // A sandbox and links need it to be absolute.
        let home = std::path::absolute(&home).unwrap_or(home);
        return lack(&home).map_or(Ok(home.clone()), |lack| Err(NoLibrary::Named(home, lack)));
    }
    // Put into a JDK in place of its own `java`, that is what is meant.
    let own = std::env::current_exe().ok().filter(|program| program.file_name().is_some_and(|name| name == "java"));
    if let Some(home) = own.as_deref().and_then(Path::parent).and_then(Path::parent)
        && lack(home).is_none()
    {
        return Ok(home.to_path_buf());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let by_path = std::env::split_paths(&path).filter_map(|folder| {
        let java = folder.join("java").canonicalize().ok()?;
        java.parent().and_then(Path::parent).map(Path::to_path_buf)
    });
    let mut usual: Vec<PathBuf> =
        std::fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    usual.sort();
    let mut all = folder(EVERYBODYS).into_iter().chain(by_path).chain(usual).chain(pulled.map(Path::to_path_buf));
    all.find(|home| lack(home).is_none()).ok_or(NoLibrary::Nowhere)
}

/// Where links in a class library lead to outside of it: distributions keep configuration and certificates elsewhere.
pub fn outside(home: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![home.join("conf"), home.join("lib")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_symlink() => found.extend(entry.path().canonicalize()),
                _ => {}
            }
        }
    }
    found
}
