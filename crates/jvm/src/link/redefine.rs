//! Redefinition of classes that are there (JVM TI, "RedefineClasses"): methods get other code, and whatever leads to them stays as it is.
//!
//! ```text
//! class file --prepare--> checked against the class, built beside it as a class of its own, verified
//!            --install--> taken apart while the world stands still: each method of the class gets the code, tables and constants of its like
//! ```
//!
//! A frame that executes old code goes on with it: it gets a copy of the method as it was. Constant pools of the past stay as long as the class, for such
//! frames; so does everything that code in Rust may have read of a class before the world stood still.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use classfile::constants::ConstantPool;
use classfile::{ClassFile, Options, flags};

use super::{Definition, build, failed, verification};
use crate::arena::{Meta, MetaSlice};
use crate::exceptions;
use crate::frame::Frame;
use crate::known;
use crate::loader;
use crate::metadata::{Class, Method, Pool, extra};
use crate::roots;
use crate::symbol::Symbol;
use crate::thread::{self, Result, Thread, Thrown};

/// What a class will be.
struct Version {
    class: Meta<Class>,
    /// The new class file as a class of its own, which nobody else knows.
    fresh: Meta<Class>,
    /// Its constants.
    pool: Meta<Pool>,
}

/// Whether a class can be redefined at all: neither primitive nor array nor hidden.
pub(crate) fn is_modifiable(class: Meta<Class>) -> bool {
    class.is_instance_class() && !class.hidden
}

/// Gives classes other class files: all of them, or none.
///
/// # Errors
/// What the file would throw when it is loaded and verified; `UnsupportedOperationException` if it differs from the class in more than the code of methods,
/// constants and attributes; `UnmodifiableClassException`.
pub(crate) fn redefine<'f>(thread: &mut Thread, classes: impl Iterator<Item = (Meta<Class>, &'f [u8])>) -> Result<()> {
    let versions: Vec<Version> = classes.map(|(class, file)| prepare(thread, class, file)).collect::<Result<_>>()?;
    thread.control.clone().stop_world(|| versions.iter().for_each(install));
    Ok(())
}

fn unsupported(thread: &mut Thread, what: &str) -> Thrown {
    let message = format!("class redefinition failed: attempted to {what}");
    exceptions::throw(thread, "java/lang/UnsupportedOperationException", message)
}

fn prepare(thread: &mut Thread, class: Meta<Class>, bytes: &[u8]) -> Result<Version> {
    if !is_modifiable(class) {
        return Err(exceptions::throw_plain(thread, "java/lang/instrument/UnmodifiableClassException"));
    }
    super::link(thread, class)?;
    let data = loader::data(class.loader);
    let unit = loader::unit(class);
    roots::make_metadata_room(thread, bytes.len(), data.is_boot())?;
    let file = match ClassFile::parse(bytes, Options { name: None, preview: false }) {
        Ok(file) => file,
        // As in HotSpot, it is not told what is wrong with the file.
        Err(error) => return Err(exceptions::throw_plain(thread, error.java_class())),
    };
    if file.name != class.name.bytes() {
        return Err(exceptions::throw(thread, "java/lang/NoClassDefFoundError", "class names don't match"));
    }
    if let Err(what) = compare(class, &file) {
        return Err(unsupported(thread, what));
    }
    if verification::verify_file(thread, class, bytes).is_err() {
        if !thread.exception.class().is_subtype_of(loader::boot_class("java/lang/VerifyError")) {
            return Err(Thrown);
        }
        thread.take_exception();
        return Err(exceptions::throw_plain(thread, "java/lang/VerifyError"));
    }
    let definition = Definition { name: Some(class.name), ..Definition::default() };
    let fresh = build::build((data, unit), &file, bytes, class.super_class, class.interfaces.get(), &definition);
    let pool = fresh.pool.get().expect("a class of a class file has constants");
    // SAFETY: nobody else knows the new constants yet.
    unsafe { (*pool.as_ptr()).class = class };
    pool.entry(file.this_class).resolved.store(u64::from(class.offset()), Ordering::Release);
    Ok(Version { class, fresh, pool })
}

/// What a class file changes of a class that must stay; as HotSpot names it.
fn compare(class: Meta<Class>, file: &ClassFile<'_>) -> std::result::Result<(), &'static str> {
    let name_at = |index: u16| file.constants.class_name(index);
    let is = |class: Meta<Class>, name: Option<&[u8]>| name == Some(class.name.bytes());
    let interfaces = class.interfaces.get();
    let same_super = class.super_class.map_or(file.super_name.is_none(), |above| is(above, file.super_name));
    let same_interfaces = interfaces.len() == file.interfaces.iter().count()
        && interfaces.iter().zip(file.interfaces.iter()).all(|(&own, index)| is(own, name_at(index)));
    if !same_super || !same_interfaces {
        return Err("change superclass or interfaces");
    }
    if class.flags != file.access_flags {
        return Err("change the class modifiers");
    }
    if !same_attributes(class, file) {
        return Err("change the class NestHost, NestMembers, Record, or PermittedSubclasses attribute");
    }
    let fields = class.fields.get().iter().filter(|field| !field.injected);
    let same_fields = fields.clone().count() == file.fields.len()
        && fields.zip(&file.fields).all(|(own, other)| {
            own.name.bytes() == other.name
                && own.descriptor.bytes() == other.descriptor
                && own.flags == other.access_flags
        });
    if !same_fields {
        return Err("change the schema (add/remove fields)");
    }
    for method in &file.methods {
        let own = class.methods.get().iter();
        let own =
            own.copied().find(|own| own.name.bytes() == method.name && own.descriptor.bytes() == method.descriptor);
        match own {
            None => return Err("add a method"),
            Some(own) if own.flags != method.access_flags => return Err("change method modifiers"),
            Some(_) => {}
        }
    }
    // None was added, and a class file has none twice.
    if class.methods.get().len() != file.methods.len() { Err("delete a method") } else { Ok(()) }
}

/// Whether nest, record components and permitted subclasses are the same.
fn same_attributes(class: Meta<Class>, file: &ClassFile<'_>) -> bool {
    let pool = class.constants();
    // In any order.
    let same = |own: &[u16], other: &mut dyn Iterator<Item = u16>| {
        let mut own: Vec<_> = own.iter().map(|&index| Some(pool.symbol(index).bytes())).collect();
        let mut other: Vec<_> = other.map(|index| file.constants.class_name(index)).collect();
        own.sort_unstable();
        other.sort_unstable();
        own == other
    };
    let own_host: &[u16] = if class.nest_host_index == 0 { &[] } else { &[class.nest_host_index] };
    let text = |pool: &ConstantPool<'_>, index: u16| pool.utf8(index).map(<[u8]>::to_vec);
    let same_record = match &file.record {
        None => !class.record,
        Some(components) => {
            class.record
                && class.record_components.get().len() == components.len()
                && class.record_components.get().iter().zip(components).all(|(own, other)| {
                    let signature = other.signature.and_then(|index| text(&file.constants, index));
                    text(&file.constants, other.name).is_some_and(|name| name == own.name.bytes())
                        && text(&file.constants, other.descriptor).is_some_and(|text| text == own.descriptor.bytes())
                        && signature.as_deref() == own.signature.map(Symbol::bytes)
                })
        }
    };
    same_record
        && class.sealed == file.permitted_subclasses.is_some()
        && same(own_host, &mut file.nest_host.into_iter())
        && same(class.nest_members.get(), &mut file.nest_members.iter().flat_map(|members| members.iter()))
        && same(
            class.permitted_subclasses.get(),
            &mut file.permitted_subclasses.iter().flat_map(|classes| classes.iter()),
        )
}

/// Puts a version in place. The world stands still.
fn install(version: &Version) {
    let Version { class, fresh, pool } = *version;
    keep_running(class);
    for &method in class.methods.get() {
        let Some(new) = fresh.declared_method(method.name, method.descriptor) else { continue };
        method.pool.set(Some(pool));
        method.calls.store(0, Ordering::Relaxed);
        method.back_edges.store(0, Ordering::Relaxed);
        let inherited = method.extra.load(Ordering::Relaxed) & extra::MIRANDA;
        method.extra.store(new.extra.load(Ordering::Relaxed) | inherited, Ordering::Relaxed);
        // SAFETY: the world stands still, so nobody reads the method meanwhile. Who has read of it before has what was there then, which stays.
        unsafe {
            let method = method.as_ptr();
            (*method).max_locals = new.max_locals;
            (*method).max_stack = new.max_stack;
            (*method).code = new.code;
            (*method).handlers = new.handlers;
            (*method).lines = new.lines;
            (*method).exceptions = new.exceptions;
            (*method).signature = new.signature;
            (*method).parameters = new.parameters;
            (*method).has_parameters = new.has_parameters;
            (*method).annotations = new.annotations;
            (*method).parameter_annotations = new.parameter_annotations;
            (*method).type_annotations = new.type_annotations;
            (*method).annotation_default = new.annotation_default;
            (*method).stack_map_table = new.stack_map_table;
        }
    }
    pool.previous.set(class.pool.get());
    class.pool.set(Some(pool));
    debug_assert!(offsets(class.fields).eq(offsets(fresh.fields)), "the layout is made of what has not changed");
    // SAFETY: as above.
    unsafe {
        let class = class.as_ptr();
        (*class).fields = fresh.fields;
        (*class).nest_host_index = fresh.nest_host_index;
        (*class).nest_members = fresh.nest_members;
        (*class).permitted_subclasses = fresh.permitted_subclasses;
        (*class).record_components = fresh.record_components;
        (*class).inner_classes = fresh.inner_classes;
        (*class).enclosing_method = fresh.enclosing_method;
        (*class).signature = fresh.signature;
        (*class).source_file = fresh.source_file;
        (*class).annotations = fresh.annotations;
        (*class).type_annotations = fresh.type_annotations;
        (*class).major_version = fresh.major_version;
        (*class).minor_version = fresh.minor_version;
        (*class).source_debug_extension = fresh.source_debug_extension;
        (*class).class_file = fresh.class_file;
    }
    roots::forget_maps(class);
    failed::forget_of(class);
    // So that reflection looks again.
    let count = known::field(known::class(), "classRedefinedCount", "I");
    let mirror = class.mirror();
    mirror.write(count, mirror.read::<i32>(count).wrapping_add(1));
}

fn offsets(fields: MetaSlice<crate::metadata::Field>) -> impl Iterator<Item = u32> {
    fields.get().iter().map(|field| field.offset)
}

/// Gives each frame that executes code of a class a copy of its method.
fn keep_running(class: Meta<Class>) {
    let chunks = &loader::unit(class).chunks;
    let mut copies: HashMap<Meta<Method>, Meta<Method>> = HashMap::new();
    let mut keep = |frame: Frame| {
        let method = frame.method();
        // A copy that an earlier redefinition made has constants of its own time.
        let is_current = method.class == class && method.pool.get() == class.pool.get();
        if !is_current || method.flags & flags::NATIVE != 0 {
            return;
        }
        // SAFETY: the method is there, and has nothing that is dropped.
        let copy = copies.entry(method).or_insert_with(|| chunks.allocate(unsafe { method.as_ptr().read() }));
        frame.set_method(*copy);
    };
    thread::visit_all(|thread| thread.frames().for_each(&mut keep));
}
