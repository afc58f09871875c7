//! ELF files for riscv64: loadable segments, entry, and symbols by name.

use machine::GuestPhysical;
use object::LittleEndian;
use object::elf::{FileHeader64, PT_LOAD, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader, Sym};

use super::{Problem, Ram, Segment, sniff};

/// A riscv64 ELF file in memory.
#[derive(Clone, Copy, Debug)]
pub struct Elf<'data> {
    header: &'data FileHeader64<LittleEndian>,
    bytes: &'data [u8],
}

const ENDIAN: LittleEndian = LittleEndian;

fn damaged(what: &str) -> impl Fn(object::Error) -> Problem {
    move |cause| Problem::Damaged(format!("{what}: {cause}"))
}

impl<'data> Elf<'data> {
    /// Reads the header.
    ///
    /// # Errors
    /// Not ELF, not riscv64, or damaged.
    pub fn parse(bytes: &'data [u8]) -> Result<Self, Problem> {
        match sniff::sniff(bytes)? {
            sniff::Format::Elf => {}
            sniff::Format::LinuxImage => return Err(Problem::NotKernel("a Linux `Image`".into())),
            sniff::Format::Unknown(what) => return Err(Problem::NotKernel(what)),
        }
        let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(damaged("ELF header"))?;
        Ok(Self { header, bytes })
    }

    /// The first instruction, as linked.
    #[must_use]
    pub fn entry(&self) -> u64 {
        self.header.e_entry(ENDIAN)
    }

    /// The value of the symbol called `name`, if the file has a symbol table and it is there.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<u64> {
        let sections = self.header.sections(ENDIAN, self.bytes).ok()?;
        let symbols = sections.symbols(ENDIAN, self.bytes, object::elf::SHT_SYMTAB).ok()?;
        let found = symbols.iter().find(|symbol| symbols.symbol_name(ENDIAN, symbol) == Ok(name.as_bytes()))?;
        Some(found.st_value(ENDIAN))
    }

    /// The loadable segments and the entry, as physical addresses; see [`super::Program::elf`].
    pub(super) fn place(&self, ram: Ram, offset: u64) -> Result<(Vec<Segment>, GuestPhysical), Problem> {
        let has = self.bytes.len() as u64;
        let table_size = u64::from(self.header.e_phnum(ENDIAN)) * size_of::<ProgramHeader64<LittleEndian>>() as u64;
        let needs = self.header.e_phoff(ENDIAN).saturating_add(table_size);
        if needs > has {
            return Err(Problem::Truncated { what: "table of segments", needs, has });
        }
        let headers = self.header.program_headers(ENDIAN, self.bytes).map_err(damaged("program headers"))?;
        let loads = headers.iter().filter(|h| h.p_type(ENDIAN) == PT_LOAD && h.p_memsz(ENDIAN) > 0);
        let lowest = loads.clone().map(|h| h.p_paddr(ENDIAN)).min().unwrap_or(0);
        let upper_half = self.entry() >> 63 == 1;
        let moved = if upper_half && lowest < ram.base { (ram.base + offset).wrapping_sub(lowest) } else { 0 };
        let mut segments = Vec::new();
        let mut entry = None;
        for header in loads {
            let (file_start, file_size) = header.file_range(ENDIAN);
            let needs = file_start.saturating_add(file_size);
            let file = usize::try_from(file_start).ok().zip(usize::try_from(needs).ok()).filter(|_| needs <= has);
            let Some((start, end)) = file else { return Err(Problem::Truncated { what: "program", needs, has }) };
            let size = header.p_memsz(ENDIAN);
            if file_size > size {
                return Err(Problem::Damaged("a segment is larger in the file than in memory".into()));
            }
            let at = header.p_paddr(ENDIAN).wrapping_add(moved);
            // The entry is a virtual address; the segment that holds it says which physical one that is.
            let inside = self.entry().wrapping_sub(header.p_vaddr(ENDIAN));
            if inside < size {
                entry.get_or_insert(GuestPhysical(at.wrapping_add(inside)));
            }
            segments.push(Segment { at: GuestPhysical(at), file: start..end, size });
        }
        if segments.is_empty() {
            return Err(Problem::NotKernel("an ELF file without anything to load (an object file?)".into()));
        }
        let entry = entry.ok_or_else(|| Problem::Damaged("its entry is in none of its segments".into()))?;
        Ok((segments, entry))
    }
}
