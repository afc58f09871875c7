//! Reading kernel modules: what a `.ko` file says in its section `.modinfo`, and its plain bytes for the initramfs.

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::path::Path;

use lzma_rust2::XzReader;
use object::build::Id;
use object::build::elf::{Builder, SectionData};
use object::{Object, ObjectSection, elf};

use crate::error::Error;

/// The largest module that is read, uncompressed: 256 MiB.
const BYTES_MAX: u64 = 256 << 20;
/// Closes the signature that follows a signed module.
const SIGNATURE_MARK: &[u8] = b"~Module signature appended~\n";
/// The length of the description in front of [`SIGNATURE_MARK`]; its last four bytes are the signature's length.
const SIGNATURE_DESCRIPTION: usize = 12;

/// What a module says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Module {
    /// Its name, with `_` for `-`.
    pub(crate) name: String,
    /// Its path below the directory of the kernel's version.
    pub(crate) path: String,
    /// The modules whose symbols it uses.
    pub(crate) depends: Vec<String>,
    /// Patterns of devices and services that it is for.
    pub(crate) aliases: Vec<String>,
    /// Its `softdep` lines: modules to load before and after it if they are there.
    pub(crate) soft: Vec<String>,
    /// Its `weakdep` lines: modules that it may ask for.
    pub(crate) weak: Vec<String>,
}

impl Module {
    /// The modules that its `softdep` lines want loaded before it.
    pub(crate) fn soft_before(&self) -> impl Iterator<Item = &str> {
        self.soft.iter().flat_map(|line| {
            let before = line.split_once("pre:").map_or("", |(_, rest)| rest.split("post:").next().unwrap_or_default());
            before.split_whitespace()
        })
    }
}

/// The name that the kernel gives the module in the file `path`, if it is a module's file.
pub(crate) fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let stem = file.strip_suffix(".ko.xz").or_else(|| file.strip_suffix(".ko"))?;
    Some(stem.replace('-', "_"))
}

/// The module in `file`, uncompressed.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>, Error> {
    let bytes = fs::read(file).map_err(Error::host("read", file))?;
    if file.extension().is_none_or(|e| e != "xz") {
        return Ok(bytes);
    }
    let mut plain = Vec::with_capacity(bytes.len() * 4);
    XzReader::new(&*bytes, false)
        .take(BYTES_MAX)
        .read_to_end(&mut plain)
        .map_err(|e| Error::Unbootable { cause: format!("module {}: {e}", file.display()) })?;
    Ok(plain)
}

/// What the module in `bytes` says about itself; its place is `path`.
pub(crate) fn parse(path: &str, bytes: &[u8]) -> Result<Module, Error> {
    let broken = |cause: &str| Error::Unbootable { cause: format!("module {path}: {cause}") };
    let name = module_name(path).ok_or_else(|| broken("not a module's name"))?;
    let file = object::read::elf::ElfFile64::<object::Endianness>::parse(bytes).map_err(|e| broken(&e.to_string()))?;
    let info = file.section_by_name(".modinfo").ok_or_else(|| broken("no .modinfo"))?;
    let info = info.data().map_err(|e| broken(&e.to_string()))?;
    let mut module = Module { name, path: path.into(), ..Module::default() };
    for (key, value) in fields(info) {
        match &*key {
            "depends" => {
                module.depends = value.split(',').filter(|d| !d.is_empty()).map(|d| d.replace('-', "_")).collect();
            }
            "alias" => module.aliases.push(value),
            "softdep" => module.soft.push(value),
            "weakdep" => module.weak.push(value),
            _ => {}
        }
    }
    Ok(module)
}

/// The `key=value` fields of a `.modinfo` section, or of the kernel's `modules.builtin.modinfo`.
pub(crate) fn fields(info: &[u8]) -> impl Iterator<Item = (String, String)> {
    info.split(|b| *b == 0).filter_map(|field| {
        let text = std::str::from_utf8(field).ok()?;
        let (key, value) = text.split_once('=')?;
        Some((key.into(), value.into()))
    })
}

/// The module with what the kernel needs to load it and no more: without signature, type information, and the local labels that no relocation
/// refers to (compilers leave two hundred thousand in a large module, and the kernel walks them all several times).
pub(crate) fn shrunk(module: &[u8]) -> Result<Vec<u8>, Error> {
    let broken = |e: object::build::Error| Error::Unbootable { cause: format!("a kernel module: {e}") };
    let mut builder = Builder::read64(unsigned(module)).map_err(broken)?;
    let mut used = HashSet::new();
    for section in &builder.sections {
        if let SectionData::Relocation(relocations) = &section.data {
            used.extend(relocations.iter().filter_map(|relocation| Some(relocation.symbol?.index())));
        }
    }
    for symbol in &mut builder.symbols {
        let label = symbol.st_bind() == elf::STB_LOCAL && symbol.st_type() == elf::STT_NOTYPE;
        symbol.delete = label && !used.contains(&symbol.id().index());
    }
    for section in &mut builder.sections {
        section.delete = section.name.as_slice() == b".BTF";
        // Zero means the same as one in the file, but not to the builder's arithmetic.
        section.sh_addralign = section.sh_addralign.max(1);
    }
    builder.delete_orphans();
    let mut bytes = Vec::new();
    builder.write(&mut bytes).map_err(broken)?;
    Ok(bytes)
}

/// The module without its signature. The kernel then need not hash all of it before it runs it, which takes an emulated machine a second; it
/// loads unsigned modules unless it is locked down.
fn unsigned(module: &[u8]) -> &[u8] {
    let Some(signed) = module.strip_suffix(SIGNATURE_MARK) else { return module };
    let Some(description) = signed.len().checked_sub(SIGNATURE_DESCRIPTION) else { return module };
    let Some(length) = signed.last_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes)) else { return module };
    let Some(end) = description.checked_sub(length as usize) else { return module };
    &module[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_fields() {
        assert_eq!(module_name("kernel/crypto/crc32c-generic.ko.xz").as_deref(), Some("crc32c_generic"));
        assert_eq!(module_name("kernel/a.ko").as_deref(), Some("a"));
        assert_eq!(module_name("modules.order"), None);
        let found: Vec<_> = fields(b"alias=x=y\0\0depends=a,b\0junk\0").collect();
        assert_eq!(found, [("alias".into(), "x=y".into()), ("depends".into(), "a,b".into())]);
    }

    #[test]
    fn soft_dependencies_before() {
        let soft = vec!["pre: crc32c a post: b".into(), "post: c".into()];
        let module = Module { soft, ..Module::default() };
        assert_eq!(module.soft_before().collect::<Vec<_>>(), ["crc32c", "a"]);
    }

    #[test]
    fn signatures_come_off_and_rubbish_stays() {
        let mut signed = b"module".to_vec();
        signed.extend_from_slice(&[9; 20]);
        signed.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20]);
        signed.extend_from_slice(SIGNATURE_MARK);
        assert_eq!(unsigned(&signed), b"module");
        assert_eq!(unsigned(b"module"), b"module");
        let mut lying = vec![0xff; SIGNATURE_DESCRIPTION];
        lying.extend_from_slice(SIGNATURE_MARK);
        assert_eq!(unsigned(&lying), &*lying);
        assert_eq!(unsigned(SIGNATURE_MARK), SIGNATURE_MARK);
    }

    /// A module with a used and an unused label, a function, and type information.
    fn module() -> Vec<u8> {
        let mut builder = Builder::new(object::Endianness::Little, true);
        builder.header.e_type = elf::ET_REL;
        builder.header.e_machine = elf::EM_RISCV;
        let mut section = |name: &'static str, kind, data| {
            let section = builder.sections.add();
            section.name = name.into();
            section.sh_type = kind;
            section.sh_addralign = 8;
            section.data = data;
            section.id()
        };
        let text = section(".text", elf::SHT_PROGBITS, SectionData::Data(vec![0x13; 64].into()));
        section(".BTF", elf::SHT_PROGBITS, SectionData::Data(vec![7; 1000].into()));
        section(".modinfo", elf::SHT_PROGBITS, SectionData::Data(b"depends=crc16\0".to_vec().into()));
        section(".strtab", elf::SHT_STRTAB, SectionData::String);
        section(".shstrtab", elf::SHT_STRTAB, SectionData::SectionString);
        let symbols = section(".symtab", elf::SHT_SYMTAB, SectionData::Symbol);
        let mut symbol = |name: &'static str, bind, kind| {
            let symbol = builder.symbols.add();
            symbol.name = name.into();
            symbol.section = Some(text);
            symbol.set_st_info(bind, kind);
            symbol.id()
        };
        symbol(".L_unused", elf::STB_LOCAL, elf::STT_NOTYPE);
        let used = symbol(".L_used", elf::STB_LOCAL, elf::STT_NOTYPE);
        symbol("helper", elf::STB_LOCAL, elf::STT_FUNC);
        symbol("init_module", elf::STB_GLOBAL, elf::STT_FUNC);
        let relocation = object::build::elf::Relocation {
            r_offset: 4,
            symbol: Some(used),
            r_type: elf::R_RISCV_PCREL_LO12_I,
            r_addend: 0,
        };
        let section = builder.sections.add();
        section.name = ".rela.text".into();
        section.sh_type = elf::SHT_RELA;
        section.sh_addralign = 8;
        section.sh_info_section = Some(text);
        section.sh_link_section = Some(symbols);
        section.data = SectionData::Relocation(vec![relocation]);
        let mut bytes = Vec::new();
        builder.write(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn only_what_loading_needs_is_kept() {
        use object::ObjectSymbol;
        let whole = module();
        let small = shrunk(&whole).unwrap();
        assert!(small.len() + 1000 <= whole.len(), "{} {}", small.len(), whole.len());
        let file = object::read::elf::ElfFile64::<object::Endianness>::parse(&*small).unwrap();
        let names: Vec<_> = file.symbols().map(|symbol| symbol.name().unwrap().to_owned()).collect();
        assert_eq!(names, [".L_used", "helper", "init_module"]);
        assert!(file.section_by_name(".BTF").is_none());
        let (offset, relocation) = file.section_by_name(".text").unwrap().relocations().next().unwrap();
        let object::RelocationTarget::Symbol(target) = relocation.target() else { panic!("{relocation:?}") };
        assert_eq!((offset, file.symbol_by_index(target).unwrap().name().unwrap()), (4, ".L_used"));
        assert_eq!(parse("kernel/x.ko", &small).unwrap().depends, ["crc16"]);
        assert!(shrunk(b"rubbish").is_err());
    }

    #[test]
    fn what_is_no_module_is_an_error() {
        assert!(parse("kernel/a.ko", b"\x7fELF").is_err());
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("a.ko.xz");
        fs::write(&file, "not xz").unwrap();
        assert!(read(&file).is_err());
    }
}
