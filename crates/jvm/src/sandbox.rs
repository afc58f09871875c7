//! A program by its file, and what it may read without permission: itself and the class library.
//!
//! | file | its own |
//! |---|---|
//! | `X.jar` | it, and what its `Class-Path` names in its folder or below, and what those name |
//! | `X.class` | the class files in the folder that its package begins in, and below |
//! | `X.java` | it |

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use classfile::ClassFile;
use classfile::jar::Jar;
use machine::permissions::Permissions;

use crate::bootstrap::Options;
use crate::library;
use crate::options::{self, Mode, OptionError, Request};
use crate::services::{Own, Policy};

/// How a program is started in the sandbox.
#[derive(Debug)]
pub struct Start {
    /// The virtual machine's.
    pub options: Options,
    /// What the name is.
    pub mode: Mode,
    /// The main class, jar or module.
    pub name: String,
    /// The program's arguments.
    pub arguments: Vec<String>,
    /// Files that the machine reads, whatever the permissions.
    pub own: Vec<PathBuf>,
}

/// What a sandbox is made with.
#[derive(Debug, Default)]
pub struct Settings {
    /// The folder of the class library, if it is named.
    pub home: Option<PathBuf>,
    /// The folder of the one that Isomorph has pulled.
    pub pulled: Option<PathBuf>,
    /// What the program may do.
    pub permissions: Permissions,
    /// Variables of its environment beside those that it may see of the machine's.
    pub variables: Vec<(OsString, OsString)>,
    /// The largest heap, in bytes.
    pub memory_bytes: u64,
}

/// Why there is nothing to start.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The file cannot be read.
    #[error("cannot read {0}: {1}")]
    File(PathBuf, std::io::Error),
    /// It is no jar.
    #[error("{0} is no jar: {1}")]
    Jar(PathBuf, classfile::jar::Error),
    /// It does not say where to begin.
    #[error("no main manifest attribute, in {0}")]
    NoMain(PathBuf),
    /// It is no class file.
    #[error("{0} is no class file: {1}")]
    Class(PathBuf, classfile::Error),
    /// It is not where its package says.
    #[error("{path} holds the class {name}, so it must be {name}.class in the folder where its packages begin", name = name.replace('.', "/"))]
    Place {
        /// The file.
        path: PathBuf,
        /// The class.
        name: String,
    },
    /// It is not the file of a program.
    #[error("{0} is neither .jar nor .class nor .java")]
    Kind(PathBuf),
    /// A path or an argument that is not UTF-8.
    #[error("{0:?} is not UTF-8, which Java's names are made of")]
    Text(OsString),
    /// There is no class library, or an option is wrong.
    #[error(transparent)]
    Option(#[from] OptionError),
}

/// Finds out how to start the program at `path`.
///
/// # Errors
/// See [`ProgramError`].
pub fn prepare(path: &Path, arguments: &[OsString], settings: Settings) -> Result<Start, ProgramError> {
    let text = |text: &std::ffi::OsStr| text.to_str().map(str::to_owned).ok_or_else(|| ProgramError::Text(text.into()));
    let mut own = Vec::new();
    let mut words = Vec::new();
    match path.extension().and_then(|end| end.to_str()) {
        Some("jar") => {
            let folder = path.parent().unwrap_or(path).canonicalize().unwrap_or_default();
            jars(path, &folder, &mut own)?;
            words.extend(["-jar".to_owned(), text(path.as_os_str())?]);
        }
        Some("class") => {
            let (name, root) = class(path)?;
            words.extend(["-cp".to_owned(), text(root.as_os_str())?, name]);
            own.push(Own::Classes(root));
        }
        Some("java") => {
            File::open(path).map_err(|error| ProgramError::File(path.into(), error))?;
            own.push(Own::All(path.into()));
            words.push(text(path.as_os_str())?);
        }
        _ => return Err(ProgramError::Kind(path.into())),
    }
    for argument in arguments {
        words.push(text(argument)?);
    }
    if let Some(home) = &settings.home {
        words.splice(0..0, ["--java-home".to_owned(), text(home.as_os_str())?]);
    }
    let request = options::parse(words, settings.pulled.as_deref())?;
    let Request::Run { mut options, mode, name, arguments, .. } = request else {
        return Err(ProgramError::Kind(path.into()));
    };
    if path.extension().is_some_and(|end| end == "java") {
        // The compiler would look for classes here.
        options.properties.retain(|(name, _)| name != "java.class.path");
    }
    options.heap.maximum = usize::try_from(settings.memory_bytes).unwrap_or(usize::MAX);
    own.push(Own::All(options.home.clone()));
    own.extend(library::outside(&options.home).into_iter().map(Own::All));
    let places = own.iter().map(|own| own.place().to_owned()).collect();
    options.policy = Policy { permissions: settings.permissions, own, variables: settings.variables };
    Ok(Start { options: *options, mode, name, arguments, own: places })
}

/// The jar at `path` and those that it names, in `folder` or below.
fn jars(path: &Path, folder: &Path, own: &mut Vec<Own>) -> Result<(), ProgramError> {
    let failed = |error| ProgramError::File(path.into(), error);
    let file = File::open(path).map_err(failed)?;
    let bytes = machine::sys::map_file(&file).map_err(failed)?;
    let jar = Jar::new(bytes).map_err(|error| ProgramError::Jar(path.into(), error))?;
    if own.is_empty() && jar.manifest().main_class().is_none() {
        return Err(ProgramError::NoMain(path.into()));
    }
    own.push(Own::All(path.into()));
    let beside = path.parent().unwrap_or(path);
    for entry in jar.manifest().class_path() {
        let Some(named) = percent_decoded(entry.strip_prefix("file:").unwrap_or(entry)) else { continue };
        // One that is not there is not looked for, as java does.
        let Ok(place) = beside.join(named).canonicalize() else { continue };
        let known = own.iter().any(|own| own.place().canonicalize().is_ok_and(|own| own == place));
        // What is neither file nor folder may wait for ever when it is opened.
        if !place.starts_with(folder) || known || !(place.is_dir() || place.is_file()) {
            continue;
        }
        if place.is_dir() {
            own.push(Own::All(place));
        } else if jars(&place, folder, own).is_err() {
            // What is no jar, java leaves out when it looks for classes.
            own.push(Own::All(place));
        }
    }
    Ok(())
}

/// The text that a path of a URL stands for; `None` if that is none.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The name of the class in a file, and the folder where its packages begin.
fn class(path: &Path) -> Result<(String, PathBuf), ProgramError> {
    let bytes = std::fs::read(path).map_err(|error| ProgramError::File(path.into(), error))?;
    let file = ClassFile::parse(&bytes, classfile::Options::default());
    let file = file.map_err(|error| ProgramError::Class(path.into(), error))?;
    let name = String::from_utf8_lossy(file.name).into_owned();
    let real = path.canonicalize().map_err(|error| ProgramError::File(path.into(), error))?;
    let place = PathBuf::from(format!("{name}.class"));
    let depth = place.components().count();
    let root = real.ends_with(&place).then(|| real.ancestors().nth(depth)).flatten();
    let name = name.replace('/', ".");
    match root {
        Some(root) => Ok((name, root.to_owned())),
        None => Err(ProgramError::Place { path: path.into(), name }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_urls() {
        assert_eq!(percent_decoded("lib/a%20b.jar").as_deref(), Some("lib/a b.jar"));
        assert_eq!(percent_decoded("%"), None);
        assert_eq!(percent_decoded("%zz"), None);
        assert_eq!(percent_decoded("%ff"), None);
    }
}
