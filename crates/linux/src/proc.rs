//! What `/proc` says of the program and of its processor, where the host's would speak of this command and of the host's processor.

use std::ffi::CStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use crate::process::Thread;
use crate::start::STACK_END;

/// What the processor is to programs that read its description.
const ISA: &str = "rv64imafdc_zicbom_zicboz_zicntr_zicond_zicsr_zifencei_zihintpause_zawrs_zba_zbb_zbc_zbkb_zbkc_zbkx_zbs_zknd_zkne_zknh_zksed_zksh";

/// The name and the contents of a file that is answered here; `None` if the host's will do.
pub(crate) fn file(thread: &Thread, path: &[u8]) -> Option<(&'static CStr, Vec<u8>)> {
    let rest = path.strip_prefix(b"/proc/")?;
    if rest == b"cpuinfo" {
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        return Some((c"cpuinfo", processors(count).into_bytes()));
    }
    let own = std::process::id().to_string();
    let of_process = [&b"self"[..], b"thread-self", own.as_bytes()].into_iter();
    let name = of_process.filter_map(|process| rest.strip_prefix(process)?.strip_prefix(b"/")).next()?;
    match name {
        b"maps" => Some((c"maps", maps(thread).into_bytes())),
        b"cmdline" => Some((c"cmdline", thread.process.command_line.to_vec())),
        b"auxv" => Some((c"auxv", thread.process.auxiliary.to_vec())),
        _ => None,
    }
}

/// `cpuinfo` as Linux has it on riscv64.
fn processors(count: usize) -> String {
    let mut text = String::new();
    for number in 0..count {
        let _ = writeln!(
            text,
            "processor\t: {number}\nhart\t\t: {number}\nisa\t\t: {ISA}\nmmu\t\t: sv39\nmvendorid\t: 0x0\nmarchid\t\t: 0x0\nmimpid\t\t: 0x0\nhart isa\t: {ISA}\n"
        );
    }
    text
}

/// A part of the address space that the kernel has as one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Area {
    start: u64,
    end: u64,
    shared: bool,
    offset: u64,
    device: String,
    inode: u64,
    name: String,
}

impl Area {
    /// A line of the host's `maps`.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, end) = (number(start)?, number(end)?);
        let shared = words.next()?.ends_with('s');
        let offset = number(words.next()?)?;
        let (device, inode) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
        // A name may have spaces.
        let name = words.next().and_then(|first| line.find(first).filter(|_| inode != 0)).map_or("", |at| &line[at..]);
        Some(Self { start, end, shared, offset, device, inode, name: name.to_owned() })
    }

    /// The part of it that is in `start..end`.
    fn inside(&self, start: u64, end: u64) -> Option<Self> {
        let (from, to) = (self.start.max(start), self.end.min(end));
        let offset = if self.inode == 0 { 0 } else { self.offset + from.saturating_sub(self.start) };
        (from < to).then(|| Self { start: from, end: to, offset, ..self.clone() })
    }
}

/// `maps` with the guest's addresses and rights: the host knows which file is where, the space what the guest may do there.
fn maps(thread: &Thread) -> String {
    let process = &thread.process;
    let space = &process.space;
    let host = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let areas = host.lines().filter_map(Area::parse).filter_map(|area| {
        let start = space.address_of(area.start)?;
        Some(Area { start, end: start + (area.end - area.start), ..area })
    });
    let areas: Vec<Area> = areas.collect();
    let heap = space.heap();
    let sysroot = process.sysroot.as_deref().map_or(&b""[..], |sysroot| sysroot.as_os_str().as_bytes());
    let mut text = String::new();
    for (start, end, protection) in space.regions() {
        for area in areas.iter().filter_map(|area| area.inside(start, end)) {
            let holds = |at: u64| (area.start..area.end).contains(&at);
            let name = if area.inode != 0 {
                within(sysroot, &area.name)
            } else if holds(STACK_END - 1) {
                "[stack]"
            } else if holds(process.sigreturn) {
                "[vdso]"
            } else if area.start < heap.end && heap.start < area.end {
                "[heap]"
            } else {
                ""
            };
            text += &line(&area, protection, name);
        }
    }
    text
}

/// A path as the program knows it.
fn within<'a>(sysroot: &[u8], path: &'a str) -> &'a str {
    let rest = path.as_bytes().strip_prefix(sysroot).filter(|rest| rest.starts_with(b"/"));
    rest.and_then(|rest| str::from_utf8(rest).ok()).unwrap_or(path)
}

fn line(area: &Area, protection: u32, name: &str) -> String {
    let right = |bit: u32, letter: char| if protection & bit != 0 { letter } else { '-' };
    let (read, write, execute) = (right(1, 'r'), right(2, 'w'), right(4, 'x'));
    let Area { start, end, offset, device, inode, .. } = area;
    let sharing = if area.shared { 's' } else { 'p' };
    let mut text = format!("{start:08x}-{end:08x} {read}{write}{execute}{sharing} {offset:08x} {device} {inode} ");
    if !name.is_empty() {
        text = format!("{text:<73}{name}");
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_written() {
        let file = "10004000000-10004009000 r--p 00002000 08:01 1234                       /opt/s/lib/a b.so";
        let area = Area::parse(file).unwrap();
        assert_eq!((area.start, area.end, area.offset, area.inode), (0x100_0400_0000, 0x100_0400_9000, 0x2000, 1234));
        assert_eq!(within(b"/opt/s", &area.name), "/lib/a b.so");
        assert_eq!(within(b"/opt", "/optional/x"), "/optional/x");
        let part = area.inside(area.start + 0x1000, area.start + 0x3000).unwrap();
        assert_eq!((part.start, part.end, part.offset), (area.start + 0x1000, area.start + 0x3000, 0x3000));
        assert_eq!(area.inside(0, area.start), None);
        let text = line(&part, 5, "/lib/a b.so");
        assert_eq!(text.find("/lib"), Some(73));
        assert!(text.starts_with("10004001000-10004003000 r-xp 00003000 08:01 1234 "), "{text}");
        let anonymous = Area::parse("7f00-8f00 rw-s 00000000 00:00 0 ").unwrap();
        assert_eq!(line(&anonymous, 3, ""), "00007f00-00008f00 rw-s 00000000 00:00 0 \n");
    }

    #[test]
    fn each_processor_has_its_paragraph() {
        assert_eq!(processors(3).matches("\nmmu\t\t: sv39\n").count(), 3);
    }
}
