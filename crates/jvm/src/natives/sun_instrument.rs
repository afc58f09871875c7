//! `sun.instrument.InstrumentationImpl`: what agents ask for. The first argument behind the receiver is the agent's number.

use super::support::{VOID, array_bytes, boolean, field, long, natives};
use super::{Arguments, java_lang_class};
use crate::agent::{self, Kind};
use crate::boot_path;
use crate::exceptions;
use crate::link::redefine::is_modifiable;
use crate::loader;
use crate::object::Reference;
use crate::roots;
use crate::strings;
use crate::thread::{Result, Thread};

natives! {
    "sun/instrument/InstrumentationImpl":
    "isModifiableClass0" "" => |_, a| Ok(boolean(is_modifiable(loader::of_mirror(a.reference(3)))));
    "isRetransformClassesSupported0" "" => |_, a| Ok(boolean(agent::retransforms(a.long(1))));
    "setHasTransformers" "" => |_, a| {
        agent::set_transforms(a.long(1), Kind::Plain, a.boolean(3));
        Ok(VOID)
    };
    "setHasRetransformableTransformers" "" => |_, a| {
        agent::set_transforms(a.long(1), Kind::Again, a.boolean(3));
        Ok(VOID)
    };
    "retransformClasses0" "" => retransform;
    "redefineClasses0" "" => redefine;
    "getAllLoadedClasses0" "" => all_classes;
    "getInitiatedClasses0" "" => initiated_classes;
    "getObjectSize0" "" => |_, a| Ok(long(i64::try_from(a.reference(3).size()).unwrap_or(i64::MAX)));
    "appendToClassLoaderSearch0" "" => append;
    "setNativeMethodPrefixes" "" => prefixes;
    "loadAgent0" "" => |thread, a| {
        let jar = strings::text(a.reference(0));
        agent::load(thread, &jar).map(|()| VOID)
    };
}

fn elements(array: Reference) -> impl Iterator<Item = Reference> {
    (0..array.length()).map(move |index| array.reference_element(index))
}

fn retransform(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let mirrors: Vec<Reference> = elements(arguments.reference(3)).collect();
    if mirrors.iter().any(|mirror| mirror.is_null()) {
        return Err(exceptions::throw_plain(thread, "java/lang/NullPointerException"));
    }
    let classes: Vec<_> = mirrors.into_iter().map(loader::of_mirror).collect();
    agent::retransform(thread, &classes).map(|()| VOID)
}

fn redefine(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let definitions = elements(arguments.reference(3)).map(|definition| {
        let mirror =
            definition.reference(field!("java/lang/instrument/ClassDefinition", "mClass", "Ljava/lang/Class;"));
        let file = definition.reference(field!("java/lang/instrument/ClassDefinition", "mClassFile", "[B"));
        let length = i32::try_from(file.length()).unwrap_or(i32::MAX);
        (loader::of_mirror(mirror), array_bytes(file, 0, length))
    });
    let classes = definitions.collect();
    agent::redefine(thread, classes).map(|()| VOID)
}

fn all_classes(thread: &mut Thread, _: Arguments) -> Result<u64> {
    let classes: Vec<_> = roots::classes().into_iter().filter(|class| !class.primitive).collect();
    java_lang_class::mirrors(thread, &classes).map(Reference::slot)
}

fn initiated_classes(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let classes = loader::of(arguments.reference(3)).initiated();
    java_lang_class::mirrors(thread, &classes).map(Reference::slot)
}

fn append(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    agent::allow(thread)?;
    let jar = strings::text(arguments.reference(3));
    if arguments.boolean(4) {
        boot_path::append(&jar);
        return Ok(VOID);
    }
    agent::append_to_class_path(thread, &jar).map(|()| VOID)
}

fn prefixes(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let kind = if arguments.boolean(4) { Kind::Again } else { Kind::Plain };
    let prefixes = elements(arguments.reference(3)).filter(|prefix| !prefix.is_null()).map(strings::text).collect();
    agent::set_prefixes(arguments.long(1), kind, prefixes);
    Ok(VOID)
}
