//! Symbols: names and descriptors, each stored once, so that equal texts are equal pointers.
//!
//! The table is outside the arena and can be rebuilt from it. A symbol stays for ever once the virtual machine itself has asked for it, or a class that is
//! never unloaded has it. Others are counted: once for each class of another loader that has it, and for each `Passing`, by which natives hold what Java code
//! asked for. When nobody has it any more it goes in a full collection, and its place is used again. So code may hold a symbol that it got by
//! [`Symbol::new`], one that it read out of a class while the class lives, one of a `Passing` that it has, and any other until the next safe point.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError, RwLock};

use crate::arena::{Chunks, Meta};

/// What a symbol leads to: its text is behind it.
#[derive(Debug)]
#[repr(C)]
struct Header {
    /// How many classes have it that may be unloaded; or [`FOR_EVER`].
    uses: AtomicU32,
    length: u32,
}

/// The uses of a symbol that stays.
const FOR_EVER: u32 = u32::MAX;

/// An interned text in modified UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Symbol(Meta<Header>);

#[derive(Default)]
struct Table {
    symbols: HashMap<&'static [u8], Symbol>,
    /// Places of symbols that went, by their size.
    free: HashMap<usize, Vec<Meta<Header>>>,
}

static CHUNKS: LazyLock<Chunks> = LazyLock::new(Chunks::default);
static TABLE: LazyLock<RwLock<Table>> = LazyLock::new(RwLock::default);

/// Bytes of a symbol in the arena.
fn size(length: usize) -> usize {
    (size_of::<Header>() + length).next_multiple_of(8)
}

/// Writes a symbol where there is room for it.
fn write(place: Meta<Header>, text: &[u8], uses: u32) -> Symbol {
    let length = u32::try_from(text.len()).expect("texts of class files are short");
    // SAFETY: the caller got a place of this size, which nobody else knows.
    unsafe {
        place.as_ptr().write(Header { uses: AtomicU32::new(uses), length });
        place.as_ptr().add(1).cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
    }
    Symbol(place)
}

impl Table {
    fn add(&mut self, text: &[u8], uses: u32) -> Symbol {
        let free = self.free.get_mut(&size(text.len())).and_then(Vec::pop);
        let place = free.unwrap_or_else(|| CHUNKS.reserve(size(text.len())));
        let symbol = write(place, text, uses);
        self.symbols.insert(symbol.bytes(), symbol);
        symbol
    }
}

impl Symbol {
    /// The symbol of a text, which stays for ever.
    pub fn new(text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        let symbol = Self::find(text).unwrap_or_else(|| {
            let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
            let known = table.symbols.get(text).copied();
            known.unwrap_or_else(|| table.add(text, FOR_EVER))
        });
        symbol.stay();
        symbol
    }

    /// The symbol of a text if there is one already, which may go with the classes that have it.
    pub fn find(text: &[u8]) -> Option<Self> {
        TABLE.read().unwrap_or_else(PoisonError::into_inner).symbols.get(text).copied()
    }

    /// The symbol of a text among the constants of a class that lives.
    pub(crate) fn known(text: &[u8]) -> Self {
        Self::find(text).unwrap_or_else(|| Self::new(text))
    }

    /// The symbol of a text of a class that may be unloaded, which calls [`Symbol::release`] then.
    pub(crate) fn of_class(text: &[u8]) -> Self {
        let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
        let Some(&symbol) = table.symbols.get(text) else { return table.add(text, 1) };
        let uses = &symbol.0.get().uses;
        if uses.load(Ordering::Relaxed) != FOR_EVER {
            uses.fetch_add(1, Ordering::Relaxed);
        }
        symbol
    }

    /// A symbol that no text leads to, in the memory of the only class that has it.
    pub(crate) fn hidden(chunks: &Chunks, text: &[u8]) -> Self {
        write(chunks.reserve(size(text.len())), text, FOR_EVER)
    }

    /// Makes it stay for ever.
    pub(crate) fn stay(self) {
        let uses = &self.0.get().uses;
        if uses.load(Ordering::Relaxed) != FOR_EVER {
            uses.store(FOR_EVER, Ordering::Relaxed);
        }
    }

    /// A class that had it is unloaded; all threads stand still.
    pub(crate) fn release(self) {
        let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
        let uses = &self.0.get().uses;
        match uses.load(Ordering::Relaxed) {
            FOR_EVER => {}
            1 => {
                table.symbols.remove(self.bytes());
                table.free.entry(size(self.bytes().len())).or_default().push(self.0);
            }
            more => uses.store(more - 1, Ordering::Relaxed),
        }
    }

    /// The text.
    #[inline]
    pub fn bytes(self) -> &'static [u8] {
        let header = self.0.get();
        // SAFETY: the text is behind the header, and stays as long as the symbol.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(1).cast::<u8>().cast_const(), header.length as usize) }
    }

    /// The text as a Rust string; surrogates without partner become U+FFFD.
    pub fn text(self) -> String {
        classfile::mutf8::decode(self.bytes())
    }

    /// The name with dots for slashes, as Java writes class names.
    pub fn dotted(self) -> String {
        self.text().replace('/', ".")
    }

    /// A number for it, from which [`Symbol::from_offset`] makes it again.
    pub fn offset(self) -> u32 {
        self.0.offset()
    }

    /// The symbol of a number.
    ///
    /// # Safety
    /// The number was made by [`Symbol::offset`].
    pub unsafe fn from_offset(offset: u32) -> Option<Self> {
        // SAFETY: passed on.
        unsafe { Meta::from_offset(offset) }.map(Self)
    }
}

/// A symbol that somebody needs for now.
#[derive(Debug)]
pub(crate) struct Passing(Symbol);

/// Symbols that were needed since the last full collection: other threads may still look at them.
static PASSED: Mutex<Vec<Symbol>> = Mutex::new(Vec::new());

impl Passing {
    /// The symbol of a text.
    pub(crate) fn new(text: impl AsRef<[u8]>) -> Self {
        Self(Symbol::of_class(text.as_ref()))
    }
}

impl Deref for Passing {
    type Target = Symbol;

    fn deref(&self) -> &Symbol {
        &self.0
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if self.0.0.get().uses.load(Ordering::Relaxed) != FOR_EVER {
            PASSED.lock().unwrap_or_else(PoisonError::into_inner).push(self.0);
        }
    }
}

/// Releases symbols that were needed since the last time; all threads stand still.
pub(crate) fn release_passed() {
    std::mem::take(&mut *PASSED.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().for_each(Symbol::release);
}

/// How many symbols are in the table.
pub fn count() -> usize {
    TABLE.read().unwrap_or_else(PoisonError::into_inner).symbols.len()
}

impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_go_with_their_classes() {
        crate::arena::reserve().unwrap();
        let stays = Symbol::new("stays");
        let before = count();
        let [one, two] = ["one", "two"].map(|text| Symbol::of_class(text.as_bytes()));
        assert_eq!((Symbol::of_class(b"one"), one.text().as_str()), (one, "one"));
        assert_eq!(Symbol::of_class(b"stays"), stays);
        assert_eq!(count(), before + 2);
        // Somebody asks for the second.
        assert_eq!(Symbol::new("two"), two);
        for symbol in [one, one, two, stays] {
            assert_eq!(Symbol::find(symbol.bytes()), Some(symbol));
            symbol.release();
        }
        assert_eq!(
            (Symbol::find(b"one"), Symbol::find(b"two"), Symbol::find(b"stays")),
            (None, Some(two), Some(stays))
        );
        let used = Chunks::used();
        // Its place is used again.
        assert_eq!((Symbol::of_class(b"eno").offset(), Chunks::used()), (one.offset(), used));
        let passing = Passing::new("passing");
        release_passed();
        drop(Passing::new("passing"));
        assert_eq!(Symbol::find(b"passing"), Some(*passing));
        drop(passing);
        assert!(Symbol::find(b"passing").is_some());
        release_passed();
        assert!(Symbol::find(b"passing").is_none());
        let hidden = Symbol::hidden(&CHUNKS, b"two");
        assert!(hidden != two && hidden.bytes() == two.bytes() && Symbol::find(b"two") == Some(two));
    }
}
