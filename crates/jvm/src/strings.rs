//! `java.lang.String`: making, reading, interning.

mod table;

use crate::allocate;
use crate::handle::Handle;
use crate::known;
use crate::metadata::BasicType;
use crate::object::Reference;
use crate::symbol::{Passing, Symbol};
use crate::thread::{Result, Thread};

use table::table;
pub(crate) use table::visit_weak;

/// `String.LATIN1`
const LATIN1: u8 = 0;
/// `String.UTF16`
const UTF16: u8 = 1;

/// A string of these UTF-16 code units. May collect.
pub fn from_units(thread: &mut Thread, units: &[u16]) -> Result<Reference> {
    let latin: std::result::Result<Vec<u8>, _> = units.iter().map(|&unit| u8::try_from(unit)).collect();
    let (value, coder) = match &latin {
        Ok(bytes) => (allocate::filled(thread, BasicType::Byte, bytes)?, LATIN1),
        Err(_) => {
            let bytes: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
            (allocate::filled(thread, BasicType::Byte, &bytes)?, UTF16)
        }
    };
    let mark = thread.handles.mark();
    let value = thread.handle(value);
    let string = allocate::instance(thread, known::string());
    let value_now = value.get();
    thread.handles.release(mark);
    let string = string?;
    string.set_reference(known::string_value(), value_now);
    string.write(known::string_coder(), coder);
    Ok(string)
}

/// A string of this text. May collect.
pub fn new(thread: &mut Thread, text: &str) -> Result<Reference> {
    let units: Vec<u16> = text.encode_utf16().collect();
    from_units(thread, &units)
}

/// A string of a symbol's text. May collect.
pub fn from_symbol(thread: &mut Thread, symbol: Symbol) -> Result<Reference> {
    let units: Vec<u16> = classfile::mutf8::units(symbol.bytes()).collect();
    from_units(thread, &units)
}

/// The UTF-16 code units of a string, in place: nothing may move it meanwhile.
#[derive(Clone, Debug)]
struct Units {
    value: Reference,
    latin: bool,
    range: std::ops::Range<u32>,
}

impl Units {
    fn of(string: Reference) -> Self {
        let value = string.reference(known::string_value());
        let latin = string.read::<u8>(known::string_coder()) == LATIN1;
        let length = if value.is_null() { 0 } else { value.length() };
        Self { value, latin, range: 0..if latin { length } else { length / 2 } }
    }
}

impl Iterator for Units {
    type Item = u16;

    #[inline]
    fn next(&mut self) -> Option<u16> {
        let index = self.range.next()?;
        Some(match self.latin {
            true => u16::from(self.value.element::<u8>(index)),
            false => u16::from_le_bytes([self.value.element(index * 2), self.value.element(index * 2 + 1)]),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.range.size_hint()
    }
}

/// The UTF-16 code units of a string.
pub fn units(string: Reference) -> Vec<u16> {
    Units::of(string).collect()
}

/// `String.hashCode`
fn hash(units: impl Iterator<Item = u16>) -> u32 {
    units.fold(0, |hash: u32, unit| hash.wrapping_mul(31).wrapping_add(u32::from(unit)))
}

/// The text of a string; U+FFFD for a surrogate without partner.
pub fn text(string: Reference) -> String {
    String::from_utf16_lossy(&units(string))
}

/// The symbol of a string's text.
pub(crate) fn symbol(string: Reference) -> Passing {
    Passing::new(classfile::mutf8::encode(units(string)))
}

/// The symbol of a class name with dots.
pub(crate) fn class_symbol(string: Reference) -> Passing {
    let slashes = units(string).into_iter().map(|unit| if unit == u16::from(b'.') { u16::from(b'/') } else { unit });
    Passing::new(classfile::mutf8::encode(slashes))
}

/// The one string of this text that is interned. May collect.
pub fn intern_units(thread: &mut Thread, units: &[u16]) -> Result<Handle> {
    let known = table().find(units.iter().copied(), hash(units.iter().copied()));
    let string = match known {
        Some(string) => string,
        None => {
            let string = from_units(thread, units)?;
            intern(string)
        }
    };
    Ok(thread.handle(string))
}

/// `String.intern`
pub fn intern(string: Reference) -> Reference {
    let hash = hash(Units::of(string));
    let mut table = table();
    table.find(Units::of(string), hash).unwrap_or_else(|| {
        table.add(string, hash);
        string
    })
}

/// The interned string of a symbol's text. May collect.
pub fn intern_symbol(thread: &mut Thread, symbol: Symbol) -> Result<Handle> {
    let units: Vec<u16> = classfile::mutf8::units(symbol.bytes()).collect();
    intern_units(thread, &units)
}
