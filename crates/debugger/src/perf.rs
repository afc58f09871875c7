//! `--perf-map`: translated code by name, for Linux's `perf`.
//!
//! `perf report` looks into `/tmp/perf-PID.map` for code that belongs to no file: one line for each piece, with address and size in hexadecimal and a name
//! (Linux, `tools/perf/Documentation/jit-interface.txt`).

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::PathBuf;

use riscv::translate::UnitInfo;

use crate::symbols::Symbols;

/// Where `perf` looks for this process's map.
#[must_use]
pub fn path() -> PathBuf {
    format!("/tmp/perf-{}.map", std::process::id()).into()
}

/// The map of `units`, with names from `symbols`.
#[must_use]
pub fn map(units: &[UnitInfo], symbols: &Symbols) -> String {
    let mut text = String::new();
    for unit in units {
        let symbol = symbols.module(unit.pc).and_then(|module| module.symbol(unit.pc));
        let name = match symbol {
            Some((name, 0)) => name.to_owned(),
            Some((name, offset)) => format!("{name}+{offset:#x}"),
            None => "guest".into(),
        };
        // Writing to a string does not fail. A name with a line's end in it would be two lines.
        let _ = writeln!(
            text,
            "{:x} {:x} {} [{} {:#x}]",
            unit.host,
            unit.bytes,
            name.replace('\n', " "),
            unit.tier,
            unit.pc
        );
    }
    text
}

/// Writes [`map`] to [`path`].
///
/// # Errors
/// The file cannot be written.
pub fn write(units: &[UnitInfo], symbols: &Symbols) -> io::Result<()> {
    // Never through a link that someone else has put into the shared folder.
    let path = path();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::File::options().write(true).create_new(true).open(&path)?;
    io::Write::write_all(&mut file, map(units, symbols).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_a_line() {
        let units = [UnitInfo { host: 0x7f00_0000_1000, bytes: 0x40, pc: 0x8020_0000, tier: "block" }];
        assert_eq!(map(&units, &Symbols::default()), "7f0000001000 40 guest [block 0x80200000]\n");
    }
}
