//! UEFI firmware: its image, its variables, and what it is told of the machine.
//!
//! Specification: UEFI PI 1.7 volume 3, section 3.2.1 (firmware volumes); qemu, `docs/specs/fw_cfg.rst` and, for how tables are loaded, `hw/acpi/bios-linker-loader`.
//!
//! ```text
//! 4 GiB - variables - code   variables: flash memory
//! 4 GiB - code               code: a ROM, whose last 16 bytes are where processors begin
//! 4 GiB
//! ```
//!
//! An image is either code alone (`OVMF_CODE.fd`), with a file of empty variables beside it that has the same name but for `VARS` in place of `CODE`, or both in
//! one file (`OVMF.fd`), variables first. A machine's own variables are in a file that begins as a copy of the empty ones.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use devices::fw_cfg::{Content, Items, item};
use machine::address::host_size;
use machine::memory::GuestMemory;
use machine::sys::Mapping;
use machine::sys::file::unnamed_file;
use machine::{GuestPhysical, PAGE_SIZE};

use super::{BootError, ImageFile, Images, Kind, kind, linux};
use crate::map;
use crate::tables::{self, FIRST, Pointer, ROOT_BYTES, Tables};

/// What marks a firmware volume, and where; its length is before it.
const VOLUME: (usize, &[u8; 4]) = (0x28, b"_FVH");
const VOLUME_LENGTH: usize = 0x20;
/// What a volume of variables is called (a GUID), and where.
const VARIABLES: (usize, [u8; 16]) =
    (0x10, [0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50]);
/// The last bytes: where processors begin.
const RESET_BYTES: u64 = 16;

/// A firmware image, and the variables that it keeps.
#[derive(Debug)]
pub struct Firmware {
    code: ImageFile,
    /// Where in the file the code begins.
    offset: u64,
    variables: Option<File>,
    forgets: bool,
}

/// How long the volume of variables is that `file` begins with, if it does.
pub(super) fn variables_bytes(file: &ImageFile) -> Result<Option<u64>, BootError> {
    let mut head = [0; 0x30];
    file.read(0, &mut head)?;
    let is_volume = head[VOLUME.0..].starts_with(VOLUME.1) && head[VARIABLES.0..].starts_with(&VARIABLES.1);
    let length = head[VOLUME_LENGTH..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    Ok((is_volume && length <= file.length && length.is_multiple_of(PAGE_SIZE) && length > 0).then_some(length))
}

/// The empty variables that belong to the code at `path`.
fn sibling(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    // The same variables serve code with and without secure boot.
    let name = name.replacen("CODE", "VARS", 1).replace(".secboot", "");
    let sibling = path.with_file_name(name);
    (sibling != path && sibling.is_file()).then_some(sibling)
}

impl Firmware {
    /// Whether the file is firmware for this machine: one that jumps where processors begin, and is no ELF file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn is_firmware(path: &Path) -> Result<bool, BootError> {
        let file = ImageFile::open(path)?;
        let (mut head, mut last) = ([0; 4], [0; 3]);
        file.read(0, &mut head)?;
        let Some(at) = file.length.checked_sub(RESET_BYTES) else { return Ok(false) };
        file.read(at, &mut last)?;
        let jumps = matches!(last, [0xe9..=0xeb, ..] | [0x90, 0x90, 0xe9 | 0xeb]);
        Ok(jumps && head != *b"\x7fELF" && file.length.is_multiple_of(PAGE_SIZE))
    }

    /// Opens an image. Its variables are those in the file `variables`, which is made of empty ones if it is not there; without a name they are forgotten at the end.
    ///
    /// # Errors
    /// A file cannot be read or written, or is not what it should be.
    pub fn open(path: &Path, variables: Option<&Path>) -> Result<Self, BootError> {
        let wrong = |why| BootError::Firmware { path: path.to_owned(), why };
        if !Self::is_firmware(path)? {
            return Err(wrong("it is no image that ends with a jump"));
        }
        let code = ImageFile::open(path)?;
        let own = variables_bytes(&code)?;
        let template = match (own, sibling(path)) {
            (Some(length), _) => Some((code.try_clone()?, length)),
            (None, Some(sibling)) => {
                let file = ImageFile::open(&sibling)?;
                let length = file.length;
                Some((file, length))
            }
            (None, None) => None,
        };
        let offset = own.unwrap_or(0);
        let (code_bytes, variables_bytes) = (code.length - offset, template.as_ref().map_or(0, |(_, length)| *length));
        if code_bytes.saturating_add(variables_bytes) > map::FIRMWARE_BYTES_MAX || code_bytes == 0 {
            return Err(wrong("it is too large"));
        }
        if !variables_bytes.is_multiple_of(PAGE_SIZE) {
            return Err(wrong("the file of empty variables beside it is not whole pages"));
        }
        let own_variables = match (template, variables) {
            (Some(template), path) => Some(own_variables(&template, path)?),
            (None, Some(_)) => return Err(wrong("it has no variables: there is no file like it with VARS for CODE")),
            (None, None) => None,
        };
        Ok(Self { code, offset, forgets: own_variables.is_some() && variables.is_none(), variables: own_variables })
    }

    /// Whether its variables are lost when the machine ends.
    #[must_use]
    pub fn forgets(&self) -> bool {
        self.forgets
    }

    /// The code, to be mapped so that it ends at 4 GiB.
    pub(crate) fn map_code(&self) -> io::Result<Mapping> {
        Mapping::of_file(&self.code.file, self.offset, host_size(self.code.length - self.offset))
    }

    /// The file of the variables, whole pages of it.
    pub(crate) fn variables(&self) -> Option<&File> {
        self.variables.as_ref()
    }
}

/// The machine's variables: those at `path`, or a copy of the template.
fn own_variables((template, length): &(ImageFile, u64), path: Option<&Path>) -> Result<File, BootError> {
    let name = path.unwrap_or(Path::new("memory"));
    let failed = |cause| BootError::Variables { path: name.to_owned(), cause };
    let file = match path {
        Some(path) => {
            let options = File::options().read(true).write(true).create(true).truncate(false).open(path);
            options.map_err(failed)?
        }
        None => unnamed_file("isomorph-variables").map_err(failed)?,
    };
    let has = file.metadata().map_err(failed)?.len();
    if has != 0 && has != *length {
        return Err(BootError::Firmware {
            path: template.path.clone(),
            why: "the machine's variables are of other firmware (of another size); name another file with --variables",
        });
    }
    if has == 0 {
        let mut bytes = vec![0; host_size(*length)];
        template.read(0, &mut bytes)?;
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).map_err(failed)?;
    }
    Ok(file)
}

fn word(value: u64) -> Vec<u8> {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes().to_vec()
}

/// What firmware is told. `disks` are the device numbers of disks on the PCI bus, the first to boot from first.
pub(crate) fn items(
    images: &Images,
    memory: &GuestMemory,
    board: &tables::Board<'_>,
    disks: &[u8],
) -> Result<Items, BootError> {
    let mut items = Items::default();
    let cpus = u16::try_from(board.cpus_count).unwrap_or(1).to_le_bytes().to_vec();
    items.add(item::CPUS_COUNT, cpus.clone());
    items.add(item::CPUS_COUNT_MAX, cpus);
    let mut ranges = Vec::new();
    for region in memory.regions() {
        ranges.extend(region.base.0.to_le_bytes());
        ranges.extend(region.size.to_le_bytes());
        ranges.extend(1u32.to_le_bytes());
    }
    items.add_file("etc/e820", ranges);
    // Addresses in the tables are, for now, places in their file, which begins behind the root pointer.
    let tables = tables::build(board, 0u64.wrapping_sub(FIRST as u64));
    add_tables(&mut items, &tables);
    if let Some(kernel) = &images.kernel {
        add_kernel(&mut items, images, kernel)?;
    } else if !disks.is_empty() {
        let mut order: String = disks.iter().map(|disk| format!("/pci@i0cf8/scsi@{disk:x}/disk@0,0\n")).collect();
        order.push('\0');
        items.add_file("bootorder", order.into_bytes());
    }
    Ok(items)
}

fn add_kernel(items: &mut Items, images: &Images, kernel: &ImageFile) -> Result<(), BootError> {
    if kind(kernel)? != Some(Kind::BzImage) {
        return Err(kernel.wrong("firmware starts Linux's compressed images (bzImage) only"));
    }
    let mut head = [0; 0x200];
    kernel.read(0, &mut head)?;
    let setup = linux::setup_bytes(&head).min(kernel.length);
    let parts =
        [(item::SETUP_SIZE, item::SETUP, 0, setup), (item::KERNEL_SIZE, item::KERNEL, setup, kernel.length - setup)];
    for (size, content, offset, length) in parts {
        items.add(size, word(length));
        items.add(content, Content::File { file: kernel.try_clone()?.file, offset, length });
    }
    if let Some(initrd) = &images.initrd {
        items.add(item::INITRD_SIZE, word(initrd.length));
        items.add(item::INITRD, Content::File { file: initrd.try_clone()?.file, offset: 0, length: initrd.length });
    }
    let mut line = images.arguments.clone().into_bytes();
    line.push(0);
    items.add(item::COMMAND_LINE_SIZE, word(line.len() as u64));
    items.add(item::COMMAND_LINE, line);
    Ok(())
}

const ROOT_FILE: &str = "etc/acpi/rsdp";
const TABLES_FILE: &str = "etc/acpi/tables";

/// A command of the list that says how tables are put into memory: 128 bytes.
fn command(number: u32, names: &[&str], rest: &[u8]) -> Vec<u8> {
    let mut command = number.to_le_bytes().to_vec();
    for name in names {
        let mut field = [0; 56];
        field[..name.len()].copy_from_slice(name.as_bytes());
        command.extend(field);
    }
    command.extend(rest);
    command.resize(128, 0);
    command
}

/// The file that a place in the tables' bytes is in, and where in it.
fn place(at: usize) -> (&'static str, Vec<u8>) {
    let (name, offset) = if at < ROOT_BYTES { (ROOT_FILE, at) } else { (TABLES_FILE, at - FIRST) };
    (name, word(offset as u64))
}

fn add_tables(items: &mut Items, tables: &Tables) {
    const ALLOCATE: u32 = 1;
    const ADD_POINTER: u32 = 2;
    const ADD_CHECKSUM: u32 = 3;
    const ANYWHERE: u8 = 1;
    const BELOW_1M: u8 = 2;
    let allocate = |name, align: u32, zone| command(ALLOCATE, &[name], &[&align.to_le_bytes()[..], &[zone]].concat());
    let mut bytes = tables.bytes.clone();
    let mut list = [allocate(ROOT_FILE, 16, BELOW_1M), allocate(TABLES_FILE, 64, ANYWHERE)].concat();
    for Pointer { at, size } in &tables.pointers {
        let (name, mut rest) = place(*at);
        rest.push(*size);
        list.extend(command(ADD_POINTER, &[name, TABLES_FILE], &rest));
    }
    for (range, at) in &tables.sums {
        bytes[*at] = 0;
        let (name, mut rest) = place(*at);
        rest.extend(place(range.start).1);
        rest.extend(word(range.len() as u64));
        list.extend(command(ADD_CHECKSUM, &[name], &rest));
    }
    items.add_file(ROOT_FILE, bytes[..ROOT_BYTES].to_vec());
    items.add_file(TABLES_FILE, bytes[FIRST..].to_vec());
    items.add_file("etc/table-loader", list);
}

/// Where a part of the firmware of this many bytes lies that ends at `end`.
pub(crate) fn below(end: u64, bytes: u64) -> GuestPhysical {
    GuestPhysical(end - bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn image(variables: bool) -> Vec<u8> {
        let mut bytes = vec![0; 0x3000];
        if variables {
            bytes[VARIABLES.0..VARIABLES.0 + 16].copy_from_slice(&VARIABLES.1);
            bytes[VOLUME.0..VOLUME.0 + 4].copy_from_slice(VOLUME.1);
            bytes[VOLUME_LENGTH..VOLUME_LENGTH + 8].copy_from_slice(&0x1000u64.to_le_bytes());
        }
        let end = bytes.len();
        bytes[end - 16..end - 13].copy_from_slice(&[0x90, 0x90, 0xe9]);
        bytes
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("isomorph-firmware-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn variables_are_kept_where_they_are_told_to_be() {
        let folder = folder("kept");
        let (whole, code, own) = (folder.join("OVMF.fd"), folder.join("OVMF_CODE_4M.fd"), folder.join("own"));
        fs::write(&whole, image(true)).unwrap();
        fs::write(&code, image(false)).unwrap();
        assert!(Firmware::open(&whole, None).unwrap().forgets());
        let kept = Firmware::open(&whole, Some(&own)).unwrap();
        assert!(!kept.forgets() && kept.offset == 0x1000);
        assert_eq!(fs::read(&own).unwrap(), image(true)[..0x1000]);
        fs::write(&own, vec![7; 0x1000]).unwrap();
        Firmware::open(&whole, Some(&own)).unwrap();
        assert_eq!(fs::read(&own).unwrap(), vec![7; 0x1000], "not overwritten");
        // Code alone has none, until there is a file beside it; and then it wants them of that size.
        assert!(Firmware::open(&code, None).unwrap().variables().is_none());
        assert!(Firmware::open(&code, Some(&own)).is_err());
        fs::write(folder.join("OVMF_VARS_4M.fd"), vec![1; 0x2000]).unwrap();
        let other = Firmware::open(&code, Some(&own)).unwrap_err().to_string();
        assert!(other.contains("another size") && !other.contains('\n'), "{other}");
        assert!(Firmware::open(&code, None).unwrap().variables().is_some());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_is_no_firmware_is_refused() {
        let folder = folder("refused");
        let file = folder.join("file");
        let mut elf = image(false);
        elf[..4].copy_from_slice(b"\x7fELF");
        for bytes in [vec![], vec![0; 15], vec![0; 0x1000], elf, image(false)[1..].to_vec()] {
            fs::write(&file, bytes).unwrap();
            assert!(!Firmware::is_firmware(&file).unwrap());
            assert!(Firmware::open(&file, None).is_err());
        }
        // A length that is a lie.
        let mut bytes = image(true);
        bytes[VOLUME_LENGTH..VOLUME_LENGTH + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        fs::write(&file, bytes).unwrap();
        assert!(Firmware::open(&file, None).unwrap().variables().is_none());
        fs::remove_dir_all(&folder).unwrap();
    }
}
