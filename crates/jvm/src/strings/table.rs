//! The table of interned strings (JLS 3.10.5), which does not keep them: constants that classes have resolved are kept by their loaders.
//!
//! Chains of entries by hash. The collector visits the entries as weak slots: young collections only those that may have young strings, so that their cost
//! does not grow with the table. An entry whose string is gone leaves its chain at once.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use super::Units;
use crate::allocate::heap;
use crate::heap::Scope;
use crate::object::Reference;

/// No entry: the end of a chain.
const END: u32 = u32::MAX;

/// An entry; a free one has no string, and the next free one behind it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    string: Reference,
    hash: u32,
    next: u32,
}

#[derive(Debug)]
pub(super) struct Table {
    /// The first entry of each chain; a power of two of them.
    chains: Vec<u32>,
    entries: Vec<Entry>,
    free: u32,
    used: usize,
    /// Entries that may have young strings.
    young: Vec<u32>,
}

static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(|| {
    Mutex::new(Table { chains: vec![END; 1024], entries: Vec::new(), free: END, used: 0, young: Vec::new() })
});

/// The table, which is locked only while nothing can move.
pub(super) fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    fn chain(&self, hash: u32) -> usize {
        // Multiplied, as the low bits of such hashes are much alike.
        (hash.wrapping_mul(0x9E37_79B9) >> 7) as usize & (self.chains.len() - 1)
    }

    /// The string of a text.
    pub(super) fn find(&self, units: impl Iterator<Item = u16> + Clone, hash: u32) -> Option<Reference> {
        let mut at = self.chains[self.chain(hash)];
        while let Some(entry) = self.entries.get(at as usize) {
            if entry.hash == hash && Units::of(entry.string).eq(units.clone()) {
                return Some(entry.string);
            }
            at = entry.next;
        }
        None
    }

    /// Adds a string of another text than all that are there.
    pub(super) fn add(&mut self, string: Reference, hash: u32) {
        if self.used >= self.chains.len() {
            self.chains = vec![END; self.chains.len() * 2];
            self.link_all();
        }
        let chain = self.chain(hash);
        let entry = Entry { string, hash, next: self.chains[chain] };
        let at = match self.entries.get_mut(self.free as usize) {
            Some(free) => {
                let at = self.free;
                self.free = free.next;
                *free = entry;
                at
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).expect("fewer strings than the heap has words")
            }
        };
        self.chains[chain] = at;
        self.used += 1;
        self.young.push(at);
    }

    /// Puts all entries into empty chains.
    fn link_all(&mut self) {
        for at in 0..u32::try_from(self.entries.len()).unwrap_or(END) {
            let entry = self.entries[at as usize];
            if !entry.string.is_null() {
                let chain = self.chain(entry.hash);
                self.entries[at as usize].next = self.chains[chain];
                self.chains[chain] = at;
            }
        }
    }

    /// Takes an entry whose string is gone out of its chain.
    fn remove(&mut self, at: u32) {
        let Entry { hash, next, .. } = self.entries[at as usize];
        let chain = self.chain(hash);
        if self.chains[chain] == at {
            self.chains[chain] = next;
        } else {
            let mut before = self.chains[chain];
            while self.entries[before as usize].next != at {
                before = self.entries[before as usize].next;
            }
            self.entries[before as usize].next = next;
        }
        self.entries[at as usize].next = self.free;
        self.free = at;
        self.used -= 1;
    }

    /// Visits an entry; whether it has a young string then.
    fn visit(&mut self, at: u32, is_young: &dyn Fn(Reference) -> bool, visit: &mut dyn FnMut(&mut Reference)) -> bool {
        let entry = &mut self.entries[at as usize];
        if entry.string.is_null() {
            return false;
        }
        visit(&mut entry.string);
        let string = entry.string;
        if string.is_null() {
            self.remove(at);
        }
        !string.is_null() && is_young(string)
    }

    fn visit_weak(
        &mut self,
        scope: Scope,
        is_young: &dyn Fn(Reference) -> bool,
        visit: &mut dyn FnMut(&mut Reference),
    ) {
        let mut entries = std::mem::take(&mut self.young);
        if scope == Scope::Full {
            entries = (0..u32::try_from(self.entries.len()).unwrap_or(END)).collect();
        }
        entries.retain(|&at| self.visit(at, is_young, visit));
        self.young = entries;
    }
}

/// Visits the strings, for [`crate::heap::Roots::weak`].
pub(crate) fn visit_weak(scope: Scope, visit: &mut dyn FnMut(&mut Reference)) {
    table().visit_weak(scope, &|string| heap().is_young(string), visit);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries by their hashes alone; strings are numbers, from 1,000 on old.
    fn found(table: &Table, hash: u32) -> Vec<u32> {
        let mut at = table.chains[table.chain(hash)];
        let mut found = Vec::new();
        while let Some(entry) = table.entries.get(at as usize) {
            if entry.hash == hash {
                found.push(entry.string.0);
            }
            at = entry.next;
        }
        found.sort_unstable();
        found
    }

    #[test]
    fn entries_whose_strings_are_gone_leave() {
        let mut table = Table { chains: vec![END; 2], entries: Vec::new(), free: END, used: 0, young: Vec::new() };
        for number in 1..=100 {
            table.add(Reference(number), number % 7);
        }
        assert!(table.chains.len() >= 100);
        let is_young = |string: Reference| string.0 < 1000;
        let kept = |hash: u32| (1..=100).filter(|n| n % 7 == hash && n % 3 == 0).map(|n| n + 1000).collect::<Vec<_>>();
        // Every third string lives, and is old then.
        table.visit_weak(Scope::Young, &is_young, &mut |slot| slot.0 = if slot.0 % 3 == 0 { slot.0 + 1000 } else { 0 });
        (0..7).for_each(|hash| assert_eq!(found(&table, hash), kept(hash)));
        assert_eq!(table.used, 33);
        // Old strings are not visited; a full collection visits all.
        table.add(Reference(500), 3);
        table.visit_weak(Scope::Young, &is_young, &mut |slot| assert_eq!(slot.0, 500));
        let mut count = 0;
        table.visit_weak(Scope::Full, &is_young, &mut |_| count += 1);
        assert_eq!((count, table.young.len(), table.entries.len()), (34, 1, 100));
        table.visit_weak(Scope::Full, &is_young, &mut |slot| *slot = Reference::NULL);
        assert_eq!(table.used, 0);
        (0..7).for_each(|hash| assert!(found(&table, hash).is_empty()));
        table.add(Reference(1), 1);
        assert_eq!((found(&table, 1), table.entries.len()), (vec![1], 100));
    }

    #[test]
    fn hashes_are_those_of_java() {
        assert_eq!(super::super::hash("polygenelubricants".encode_utf16()), 0x8000_0000);
    }
}
