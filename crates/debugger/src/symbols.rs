//! Names for guest addresses: from the symbol tables of ELF files, and lines of source from their DWARF.
//!
//! Files are what guests brought: a table that is wrong gives wrong or no names and nothing worse. Symbols are read when a file is added; DWARF is
//! looked at only when a line is asked for.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SymbolKind};

/// Files that are larger are not looked at: no kernel or library with all its debug information is.
const FILE_BYTES_MAX: u64 = 2 << 30;

/// Why a file gives no symbols.
#[derive(Debug, thiserror::Error)]
pub enum SymbolsError {
    /// It cannot be read.
    #[error("cannot read symbols from {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        cause: io::Error,
    },
    /// It is no ELF file.
    #[error("cannot read symbols from {}: {cause}; give an ELF file", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: object::Error,
    },
}

#[derive(Debug)]
struct Symbol {
    address: u64,
    /// Zero for labels of assembly: up to the next.
    size: u64,
    name: String,
}

/// An ELF file that is loaded somewhere.
pub struct Module {
    name: String,
    pub(crate) bytes: Vec<u8>,
    /// What is added to the file's addresses.
    pub(crate) bias: u64,
    /// Sorted by address.
    symbols: Vec<Symbol>,
    /// First and last address of executable segments, as the file has them.
    extent: (u64, u64),
}

/// Where an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The function or label, and how far behind its beginning.
    pub symbol: Option<(String, u64)>,
    /// The file's name without its folders.
    pub module: String,
    /// The line of source, as `file:line`.
    pub line: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.symbol {
            Some((name, 0)) => write!(f, "{name} in {}", self.module)?,
            Some((name, offset)) => write!(f, "{name}+{offset:#x} in {}", self.module)?,
            None => write!(f, "in {}", self.module)?,
        }
        if let Some(line) = &self.line {
            write!(f, " at {line}")?;
        }
        Ok(())
    }
}

impl Module {
    /// The ELF file at `path`, whose addresses are `bias` less than those in the guest.
    ///
    /// # Errors
    /// The file cannot be read or is not ELF.
    pub fn open(path: &Path, bias: u64) -> Result<Self, SymbolsError> {
        let read = |cause| SymbolsError::Read { path: path.into(), cause };
        let size = fs::metadata(path).map_err(read)?.len();
        if size > FILE_BYTES_MAX {
            return Err(read(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large")));
        }
        let bytes = fs::read(path).map_err(read)?;
        let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into());
        Self::parse(name, bytes, bias).map_err(|cause| SymbolsError::Format { path: path.into(), cause })
    }

    /// The ELF file at `path`, which is mapped in these places: guest address and offset in the file of each.
    ///
    /// # Errors
    /// As for [`Self::open`]; also if none of the places is where the file wants a segment.
    pub fn open_mapped(path: &Path, places: &[(u64, u64)]) -> Result<Self, SymbolsError> {
        let mut module = Self::open(path, 0)?;
        let format = |cause| SymbolsError::Format { path: path.into(), cause };
        let file = object::File::parse(&*module.bytes).map_err(format)?;
        let bias = file.segments().find_map(|segment| {
            let (offset, page) = (segment.file_range().0, !0xfff);
            let (place, _) = places.iter().find(|(_, mapped)| *mapped == offset & page)?;
            Some(place.wrapping_sub(segment.address() & page))
        });
        let nowhere = || SymbolsError::Read { path: path.into(), cause: io::ErrorKind::NotFound.into() };
        module.bias = bias.ok_or_else(nowhere)?;
        Ok(module)
    }

    /// The ELF file that `bytes` are.
    ///
    /// # Errors
    /// They are not ELF.
    pub fn parse(name: String, bytes: Vec<u8>, bias: u64) -> Result<Self, object::Error> {
        let file = object::File::parse(&*bytes)?;
        let mut symbols: Vec<Symbol> = file
            .symbols()
            .chain(file.dynamic_symbols())
            .filter(|symbol| symbol.is_definition())
            .filter_map(|symbol| {
                let name = symbol.name().ok()?;
                // Mapping symbols and local labels of the assembler name no code.
                let is_code = match symbol.kind() {
                    SymbolKind::Text => true,
                    SymbolKind::Unknown | SymbolKind::Label => !name.is_empty() && !name.starts_with(['$', '.']),
                    _ => false,
                };
                is_code.then(|| Symbol { address: symbol.address(), size: symbol.size(), name: name.into() })
            })
            .collect();
        symbols.sort_by_key(|symbol| (symbol.address, symbol.size));
        symbols.dedup_by(|later, earlier| later.address == earlier.address && later.name == earlier.name);
        let executable = file.segments().filter(|segment| {
            matches!(segment.flags(), object::SegmentFlags::Elf { p_flags, .. } if p_flags.0 & object::elf::PF_X.0 != 0)
        });
        let extent = executable.fold((u64::MAX, 0), |(low, high), segment| {
            let (start, size) = (segment.address(), segment.size());
            (low.min(start), high.max(start.saturating_add(size.saturating_sub(1))))
        });
        Ok(Self { name, bytes, bias, symbols, extent })
    }

    /// The file's name without its folders.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether code of the file is at `address`.
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        let own = address.wrapping_sub(self.bias);
        self.extent.0 <= own && own <= self.extent.1
    }

    /// The function or label at `address`, and how far behind its beginning that is.
    #[must_use]
    pub fn symbol(&self, address: u64) -> Option<(&str, u64)> {
        if !self.contains(address) {
            return None;
        }
        let own = address.wrapping_sub(self.bias);
        let after = self.symbols.partition_point(|symbol| symbol.address <= own);
        // The last is the nearest; of those at one address it is the largest.
        let symbol = self.symbols[..after].last()?;
        let offset = own - symbol.address;
        (symbol.size == 0 || offset < symbol.size).then_some((&symbol.name, offset))
    }

    /// The line of source at `address`, as `file:line`.
    #[must_use]
    pub fn line(&self, address: u64) -> Option<String> {
        let file = object::File::parse(&*self.bytes).ok()?;
        let section = |id: gimli::SectionId| {
            let data = file.section_by_name(id.name()).and_then(|section| section.data().ok()).unwrap_or_default();
            Ok::<_, gimli::Error>(gimli::EndianSlice::new(data, gimli::LittleEndian))
        };
        let context = addr2line::Context::from_dwarf(gimli::Dwarf::load(section).ok()?).ok()?;
        let location = context.find_location(address.wrapping_sub(self.bias)).ok()??;
        Some(format!("{}:{}", location.file?, location.line?))
    }
}

/// The files of a guest.
#[derive(Default)]
pub struct Symbols {
    modules: Vec<Module>,
}

impl Symbols {
    /// Adds a file; of two that overlap the later counts.
    pub fn add(&mut self, module: Module) {
        self.modules.push(module);
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn into_modules(self) -> Vec<Module> {
        self.modules
    }

    /// The file whose code is at `address`.
    #[must_use]
    pub fn module(&self, address: u64) -> Option<&Module> {
        self.modules.iter().rev().find(|module| module.contains(address))
    }

    /// Where `address` is, with its line of source if the file tells.
    #[must_use]
    pub fn place(&self, address: u64) -> Option<Place> {
        let module = self.module(address)?;
        let symbol = module.symbol(address).map(|(name, offset)| (name.to_owned(), offset));
        Some(Place { symbol, module: module.name.clone(), line: module.line(address) })
    }
}
