//! The argument of `--disk`: a file, and how it is used.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Result;
use disk::{Cache, DiskError, Engine, Options, RawDisk};
use machine::backend::BlockBackend;

/// `FILE[,readonly][,cache=none|writeback|unsafe][,aio=threads|io_uring]`. As qemu's users write it, `file=FILE` and `format=raw` do as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskArgument {
    path: PathBuf,
    options: Options,
}

/// Why an argument is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseDiskError {
    /// An option that there is, with a value that there is not.
    #[error("'{0}' is not one of readonly, cache=none|writeback|unsafe, aio=threads|io_uring")]
    Option(String),
    /// Options of nothing.
    #[error("a disk needs a file, as in --disk disk.raw,cache=none")]
    File,
}

/// Takes `option` into `options`; `None` if it is a part of the file's name.
fn take(option: &str, options: &mut Options) -> Option<Result<(), ParseDiskError>> {
    match option {
        "readonly" | "readonly=on" | "ro" => options.read_only = true,
        "readonly=off" | "format=raw" => {}
        "cache=writeback" => options.cache = Cache::Writeback,
        "cache=none" => options.cache = Cache::None,
        "cache=unsafe" => options.cache = Cache::Unsafe,
        "aio=threads" => options.engine = Some(Engine::Threads),
        "aio=io_uring" | "aio=native" => options.engine = Some(Engine::IoUring),
        _ => {
            let key = option.split('=').next().unwrap_or("");
            let known = ["readonly", "cache", "aio", "format"].contains(&key) && option.contains('=');
            return known.then(|| Err(ParseDiskError::Option(option.into())));
        }
    }
    Some(Ok(()))
}

impl FromStr for DiskArgument {
    type Err = ParseDiskError;

    fn from_str(text: &str) -> Result<Self, ParseDiskError> {
        let mut options = Options::default();
        let mut path = text;
        while let Some((front, option)) = path.rsplit_once(',') {
            match take(option, &mut options) {
                Some(result) => result?,
                None => break,
            }
            path = front;
        }
        let path = path.strip_prefix("file=").unwrap_or(path);
        if path.is_empty() {
            return Err(ParseDiskError::File);
        }
        Ok(Self { path: path.into(), options })
    }
}

impl fmt::Display for DiskArgument {
    /// The argument again, with an absolute path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        write!(f, "file={}", path.display())?;
        if self.options.read_only {
            f.write_str(",readonly")?;
        }
        match self.options.cache {
            Cache::Writeback => f.write_str(",cache=writeback")?,
            Cache::None => f.write_str(",cache=none")?,
            Cache::Unsafe => f.write_str(",cache=unsafe")?,
        }
        match self.options.engine {
            None => Ok(()),
            Some(Engine::Threads) => f.write_str(",aio=threads"),
            Some(Engine::IoUring) => f.write_str(",aio=io_uring"),
        }
    }
}

impl DiskArgument {
    /// A machine's own disk.
    pub fn own(path: &Path) -> Self {
        Self { path: path.to_owned(), options: Options::default() }
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it.
    ///
    /// # Errors
    /// See [`DiskError`].
    pub fn open(&self) -> Result<Arc<dyn BlockBackend>, DiskError> {
        Ok(Arc::new(RawDisk::open_with(&self.path, self.options)?))
    }
}

/// Opens all of them.
///
/// # Errors
/// See [`DiskError`].
pub fn open_all(arguments: &[DiskArgument]) -> Result<Vec<Arc<dyn BlockBackend>>> {
    arguments.iter().map(|argument| Ok(argument.open()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_options() {
        let parse = |text: &str| text.parse::<DiskArgument>();
        let plain = |path: &str, options| Ok(DiskArgument { path: path.into(), options });
        let none = Options { cache: Cache::None, ..Options::default() };
        assert_eq!(parse("disk.raw"), plain("disk.raw", Options::default()));
        assert_eq!(parse("a,b.raw,cache=none"), plain("a,b.raw", none));
        assert_eq!(
            parse("file=d,format=raw,readonly=on,aio=threads"),
            plain("d", Options { read_only: true, engine: Some(Engine::Threads), ..Options::default() })
        );
        for text in ["/d,cache=none", "/a,b,ro,aio=threads", "/d"] {
            let disk = parse(text).unwrap();
            assert_eq!(parse(&disk.to_string()), Ok(disk));
        }
        assert_eq!(parse("d,cache=fast"), Err(ParseDiskError::Option("cache=fast".into())));
        assert_eq!(parse("d,format=qcow2"), Err(ParseDiskError::Option("format=qcow2".into())));
        assert_eq!(parse(",readonly"), Err(ParseDiskError::File));
    }
}
