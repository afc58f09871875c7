//! Vtables and itables (JVMS 5.4.5, 5.4.6).

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use classfile::flags;

use crate::arena::{Chunks, Meta};
use crate::metadata::{Class, Entry, ItableEntry, Method, extra};
use crate::symbol::Symbol;

type Key = (Symbol, Symbol);

/// Numbers the methods of an interface that an itable has.
pub(super) fn number_interface(methods: &[Meta<Method>]) {
    let mut next = 0;
    for method in methods {
        if !method.is_static() && !method.is_private() && !method.is_class_initializer() {
            method.vtable_index.store(next, Ordering::Relaxed);
            next += 1;
        }
    }
}

/// Makes the vtable of a class.
pub(super) fn vtable(
    chunks: &Chunks,
    class: Meta<Class>,
    super_class: Option<Meta<Class>>,
    methods: &[Meta<Method>],
    all_interfaces: &[Meta<Class>],
    adds_interfaces: bool,
) -> Vec<Meta<Method>> {
    let mut table: Vec<Meta<Method>> = super_class.map_or(Vec::new(), |class| class.vtable.get().to_vec());
    let mut by_key: HashMap<Key, Vec<usize>> = HashMap::with_capacity(table.len() + methods.len());
    for (index, method) in table.iter().enumerate() {
        by_key.entry((method.name, method.descriptor)).or_default().push(index);
    }
    for &method in methods {
        if method.is_static() || method.is_private() || method.name.bytes().first() == Some(&b'<') {
            continue;
        }
        let key = (method.name, method.descriptor);
        let slots = by_key.entry(key).or_default();
        let mut own = None;
        for &slot in slots.iter() {
            if overrides(class, table[slot]) {
                table[slot] = method;
                own = own.or(Some(slot));
            }
        }
        let own = own.unwrap_or_else(|| {
            slots.push(table.len());
            table.push(method);
            table.len() - 1
        });
        method.vtable_index.store(i32::try_from(own).unwrap_or(-1), Ordering::Relaxed);
    }
    if !adds_interfaces && !table.iter().any(|method| method.class.is_interface()) {
        return table;
    }
    for interface in all_interfaces {
        for &method in interface.methods.get() {
            if method.vtable_index.load(Ordering::Relaxed) < 0 {
                continue;
            }
            let key = (method.name, method.descriptor);
            let slots = by_key.entry(key).or_default();
            // A method of a class wins over all of interfaces.
            if slots.iter().any(|&slot| !table[slot].class.is_interface() && table[slot].entry() != Entry::Conflict) {
                continue;
            }
            let target = default_method(chunks, class, all_interfaces, key).unwrap_or(method);
            match slots.iter().find(|&&slot| table[slot].class.is_interface() || table[slot].entry() == Entry::Conflict)
            {
                Some(&slot) => table[slot] = target,
                None => {
                    slots.push(table.len());
                    table.push(target);
                }
            }
        }
    }
    table
}

/// A final method that one of the class's own overrides, which none may (JVMS 4.10).
pub(super) fn overridden_final(class: Meta<Class>) -> Option<Meta<Method>> {
    let inherited = class.super_class?.vtable.get();
    let own = class.methods.get();
    inherited.iter().copied().filter(|method| method.flags & flags::FINAL != 0).find(|last| {
        let same = |method: &&Meta<Method>| (method.name, method.descriptor) == (last.name, last.descriptor);
        let method = own.iter().find(same);
        method.is_some_and(|method| !method.is_static() && !method.is_private()) && overrides(class, *last)
    })
}

/// Whether a method of `class` overrides `inherited` of the same name and descriptor.
fn overrides(class: Meta<Class>, inherited: Meta<Method>) -> bool {
    if inherited.flags & (flags::PUBLIC | flags::PROTECTED) != 0 {
        return true;
    }
    inherited.class.same_package(class)
}

/// The method that a class inherits from its interfaces: the only maximally-specific one that is not abstract.
fn default_method(
    chunks: &Chunks,
    class: Meta<Class>,
    all_interfaces: &[Meta<Class>],
    (name, descriptor): Key,
) -> Option<Meta<Method>> {
    let specific = most_specific(all_interfaces, name, descriptor);
    let mut defaults = specific.iter().copied().filter(|method| !method.is_abstract());
    let first = defaults.next()?;
    if defaults.next().is_none() {
        return Some(first);
    }
    let visible = flags::PUBLIC | flags::SYNTHETIC;
    let conflict = Method::synthetic(class, name, descriptor, visible, first.argument_slots, Entry::Conflict);
    conflict.extra.fetch_or(extra::MIRANDA, Ordering::Relaxed);
    Some(chunks.allocate(conflict))
}

/// The maximally-specific superinterface methods (JVMS 5.4.3.3), private and static ones left out.
pub(super) fn most_specific(all_interfaces: &[Meta<Class>], name: Symbol, descriptor: Symbol) -> Vec<Meta<Method>> {
    let declared: Vec<Meta<Method>> = all_interfaces
        .iter()
        .filter_map(|interface| interface.declared_method(name, descriptor))
        .filter(|method| !method.is_static() && !method.is_private())
        .collect();
    let hidden = |method: &Meta<Method>| {
        declared.iter().any(|other| other.class != method.class && other.class.all_interfaces.contains(&method.class))
    };
    declared.iter().copied().filter(|method| !hidden(method)).collect()
}

/// Makes the itable of a class that may have instances: of methods of classes, the nearest is selected for an interface's, and must be public (JVMS 5.4.6,
/// `invokeinterface`).
pub(super) fn itable(
    chunks: &Chunks,
    class: Meta<Class>,
    vtable: &[Meta<Method>],
    all_interfaces: &[Meta<Class>],
) -> Vec<ItableEntry> {
    let mut by_key: HashMap<Key, Meta<Method>> = HashMap::with_capacity(vtable.len());
    for &method in vtable {
        let best = by_key.entry((method.name, method.descriptor)).or_insert(method);
        let is_nearer = || best.class.is_interface() || method.class.is_subtype_of(best.class);
        if *best != method && !method.class.is_interface() && is_nearer() {
            *best = method;
        }
    }
    let select = |method: Meta<Method>| {
        let selected = by_key.get(&(method.name, method.descriptor)).copied()?;
        if selected.flags & flags::PUBLIC != 0 {
            return Some(selected);
        }
        let (name, descriptor, slots) = (method.name, method.descriptor, method.argument_slots);
        let refusal = Method::synthetic(class, name, descriptor, flags::PUBLIC, slots, Entry::NotPublic);
        Some(chunks.allocate(refusal))
    };
    let entry = |&interface: &Meta<Class>| {
        let numbered = interface.methods.get().iter().filter(|method| method.vtable_index.load(Ordering::Relaxed) >= 0);
        let methods: Vec<Option<Meta<Method>>> = numbered.map(|&method| select(method)).collect();
        ItableEntry { interface, methods: chunks.slice(methods) }
    };
    all_interfaces.iter().filter(|interface| !interface.methods.get().is_empty()).map(entry).collect()
}
