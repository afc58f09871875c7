//! Loader constraints (JVMS 5.3.4): what several loaders must agree to mean by a name.
//!
//! When a class uses a member of a class of another loader, or overrides one, both loaders must mean the same classes by the names in its
//! descriptor. They need not have loaded them yet: until then the constraint is kept, and whoever loads another class by that name is refused.
//!
//! Invariant: the sets of loaders of a name do not overlap; a set has a class once one of its loaders has.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use super::resolve::method_text;
use super::{loader_text, where_is_below};
use crate::arena::Meta;
use crate::exceptions;
use crate::loader::{self, LoaderData};
use crate::metadata::{Class, Entry};
use crate::symbol::Symbol;
use crate::thread::{Result as JavaResult, Thread};

/// Loaders that mean the same by a name.
#[derive(Debug)]
struct Set {
    loaders: Vec<u32>,
    class: Option<Meta<Class>>,
}

static CONSTRAINTS: LazyLock<Mutex<HashMap<Symbol, Vec<Set>>>> = LazyLock::new(Mutex::default);

/// Forgets loaders that are unloaded, and what none but one is left to agree about.
pub(crate) fn forget(is_dead: impl Fn(u32) -> bool) {
    let mut constraints = CONSTRAINTS.lock().unwrap_or_else(PoisonError::into_inner);
    constraints.retain(|_, sets| {
        for set in &mut *sets {
            set.loaders.retain(|&id| !is_dead(id));
            set.class = set.class.filter(|class| !is_dead(class.shape.loader));
        }
        sets.retain(|set| set.loaders.len() > 1);
        !sets.is_empty()
    });
}

/// The class names in a descriptor, arrays of them too.
fn names(descriptor: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = descriptor;
    std::iter::from_fn(move || {
        let start = rest.iter().position(|&byte| byte == b'L')? + 1;
        let length = rest.get(start..)?.iter().position(|&byte| byte == b';')?;
        let name = &rest[start..start + length];
        rest = &rest[start + length..];
        Some(name)
    })
}

/// Demands that two loaders mean the same by all names in a descriptor. The name by which they do not.
pub(super) fn demand(descriptor: Symbol, a: &LoaderData, b: &LoaderData) -> Option<Symbol> {
    if a.id == b.id {
        return None;
    }
    // What the bootstrap loader has of its own packages, all others have from it.
    names(descriptor.bytes())
        .filter(|name| !name.starts_with(b"java/"))
        .map(Symbol::new)
        .find(|&name| !agree(name, a, b))
}

fn agree(name: Symbol, a: &LoaderData, b: &LoaderData) -> bool {
    let mut constraints = CONSTRAINTS.lock().unwrap_or_else(PoisonError::into_inner);
    let sets = constraints.entry(name).or_default();
    let position = |sets: &[Set], id: u32| sets.iter().position(|set| set.loaders.contains(&id));
    let (first, second) = (position(sets, a.id), position(sets, b.id));
    let known = [a.find(name), b.find(name), first.and_then(|at| sets[at].class), second.and_then(|at| sets[at].class)];
    let class = known.into_iter().flatten().next();
    if known.into_iter().flatten().any(|other| Some(other) != class) {
        return false;
    }
    let mut joined = Set { loaders: Vec::new(), class };
    let mut old: Vec<usize> = [first, second].into_iter().flatten().collect();
    old.sort_unstable();
    old.dedup();
    for at in old.into_iter().rev() {
        joined.loaders.extend(sets.swap_remove(at).loaders);
    }
    for id in [a.id, b.id] {
        if !joined.loaders.contains(&id) {
            joined.loaders.push(id);
        }
    }
    sets.push(joined);
    true
}

/// Demands what overriding methods of other loaders' classes, and implementing their interfaces, demands.
///
/// # Errors
/// LinkageError
pub(super) fn check(thread: &mut Thread, class: Meta<Class>) -> JavaResult<()> {
    if class.loader == 0 {
        return Ok(());
    }
    let above = class.super_class.map_or(&[][..], |above| above.vtable.get());
    for (&own, &inherited) in class.vtable.get().iter().zip(above) {
        let (a, b) = (loader::data(own.class.loader), loader::data(inherited.class.loader));
        if own.class != class || own == inherited || own.entry() == Entry::Conflict {
            continue;
        }
        if let Some(differs) = demand(own.descriptor, a, b) {
            let message = format!(
                "loader constraint violation for class {}: when selecting overriding method {} the class loader {} of the selected method's \
                 type {}, and the class loader {} for its super type {} have different Class objects for the type {} used in the signature \
                 ({}; {})",
                class.external_name(),
                method_text(own.class, own.name, own.descriptor),
                loader_text(a),
                own.class.external_name(),
                loader_text(b),
                inherited.class.external_name(),
                differs.dotted(),
                where_is_below(own.class),
                where_is_below(inherited.class)
            );
            return Err(exceptions::throw(thread, "java/lang/LinkageError", message));
        }
    }
    for entry in class.itable.get() {
        let interface = entry.interface;
        let a = loader::data(interface.loader);
        for target in entry.methods.get().iter().flatten() {
            // What only refuses has no types of its own.
            if matches!(target.entry(), Entry::Conflict | Entry::NotPublic) {
                continue;
            }
            let b = loader::data(target.class.loader);
            if let Some(differs) = demand(target.descriptor, a, b) {
                let kind = if target.class.is_interface() { "interface" } else { "class" };
                let message = format!(
                    "loader constraint violation in interface itable initialization for class {}: when selecting method {} the class loader \
                     {} for super interface {}, and the class loader {} of the selected method's {kind}, {} have different Class objects \
                     for the type {} used in the signature ({}; {})",
                    class.external_name(),
                    method_text(interface, target.name, target.descriptor),
                    loader_text(a),
                    interface.external_name(),
                    loader_text(b),
                    target.class.external_name(),
                    differs.dotted(),
                    where_is_below(interface),
                    where_is_below(target.class)
                );
                return Err(exceptions::throw(thread, "java/lang/LinkageError", message));
            }
        }
    }
    Ok(())
}

/// Enters a class as what a loader means by a name, unless another thread was faster: the class that it means then.
///
/// # Errors
/// If it must mean another: that one.
pub(super) fn enter(name: Symbol, loader: &LoaderData, class: Meta<Class>) -> Result<Meta<Class>, Meta<Class>> {
    let mut constraints = CONSTRAINTS.lock().unwrap_or_else(PoisonError::into_inner);
    let sets = constraints.get_mut(&name);
    let set = sets.and_then(|sets| sets.iter_mut().find(|set| set.loaders.contains(&loader.id)));
    let promised = set.as_ref().and_then(|set| set.class);
    match promised {
        Some(other) if other != class && loader.find(name).is_none() => Err(other),
        _ => {
            let entered = loader.enter(name, class);
            if let Some(set) = set {
                set.class = Some(entered);
            }
            Ok(entered)
        }
    }
}
