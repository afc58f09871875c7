//! `java.lang.ClassLoader`.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Arguments, Table, zero};
use crate::bootstrap;
use crate::exceptions;
use crate::jni;
use crate::link::{self, Definition};
use crate::loader;
use crate::object::Reference;
use crate::services;
use crate::strings;
use crate::thread::{Result, Thread};

pub(super) const TABLES: &[Table] = &[
    (
        "java/lang/ClassLoader",
        &[
            ("defineClass1", "", define1),
            ("defineClass2", "", define2),
            ("defineClass0", "", define0),
            ("findBootstrapClass", "", find_bootstrap),
            ("findLoadedClass0", "", find_loaded),
            ("findInitiatedLoader", "", zero),
            ("retrieveDirectives", "", directives),
        ],
    ),
    (
        "jdk/internal/loader/NativeLibraries",
        &[
            ("findBuiltinLib", "", built_in),
            ("load", "", |thread, a| jni::load_library(thread, a)),
            ("unload", "", |thread, a| jni::unload_library(thread, a)),
            ("findEntry0", "", find_entry),
        ],
    ),
];

/// Defines a class for a loader. `name` and `domain` may be null.
pub(super) fn define(
    thread: &mut Thread,
    class_loader: Reference,
    name: Reference,
    bytes: &[u8],
    domain: Reference,
) -> Result<u64> {
    let data = loader::of(class_loader);
    let domain = thread.handle(domain);
    let name = (!name.is_null()).then(|| strings::class_symbol(name));
    let definition =
        Definition { name: name.as_deref().copied(), protection_domain: Some(domain), ..Definition::default() };
    Ok(link::define(thread, data, bytes, definition)?.mirror().slot())
}

fn define1(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let (offset, length) = (arguments.int(3).cast_unsigned(), arguments.int(4).cast_unsigned());
    let array = arguments.reference(2);
    if array.is_null() {
        return Err(exceptions::null_pointer(thread));
    }
    if offset.checked_add(length).is_none_or(|end| end > array.length()) {
        return Err(exceptions::throw_plain(thread, "java/lang/ArrayIndexOutOfBoundsException"));
    }
    let bytes: Vec<u8> = (offset..offset + length).map(|index| array.element(index)).collect();
    define(thread, arguments.reference(0), arguments.reference(1), &bytes, arguments.reference(5))
}

fn define2(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let buffer = arguments.reference(2);
    let address: i64 = buffer.read(crate::known::field(buffer.class(), "address", "J"));
    let start = usize::try_from(address).unwrap_or(0).wrapping_add(usize::try_from(arguments.int(3)).unwrap_or(0));
    let length = usize::try_from(arguments.int(4)).unwrap_or(0);
    // SAFETY: the class library passes a direct buffer and a range within it, and keeps it until this returns.
    let bytes = unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(start), length) }.to_vec();
    define(thread, arguments.reference(0), arguments.reference(1), &bytes, arguments.reference(5))
}

static HIDDEN: AtomicU32 = AtomicU32::new(1);

/// `Lookup.defineHiddenClass`: loader, lookup class, name, bytes, offset, length, domain, initialize, flags, class data.
fn define0(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    const NESTMATE: i32 = 1;
    const IS_HIDDEN: i32 = 2;
    const STRONG: i32 = 4;
    let (offset, length) = (arguments.int(4).cast_unsigned(), arguments.int(5).cast_unsigned());
    let array = arguments.reference(3);
    if array.is_null() || offset.checked_add(length).is_none_or(|end| end > array.length()) {
        return Err(exceptions::throw_plain(thread, "java/lang/ArrayIndexOutOfBoundsException"));
    }
    let bytes: Vec<u8> = (offset..offset + length).map(|index| array.element(index)).collect();
    let flags = arguments.int(8);
    let lookup = loader::of_mirror(arguments.reference(1));
    let data = loader::of(arguments.reference(0));
    let hidden = (flags & IS_HIDDEN != 0).then(|| HIDDEN.fetch_add(1, Ordering::Relaxed));
    let nest_host = if flags & NESTMATE != 0 { Some(link::nest_host(thread, lookup)) } else { None };
    let name = arguments.reference(2);
    let name = (!name.is_null()).then(|| strings::class_symbol(name));
    let definition = Definition {
        name: name.as_deref().copied(),
        protection_domain: Some(thread.handle(arguments.reference(6))),
        hidden,
        strong: flags & STRONG != 0,
        nest_host,
        class_data: Some(thread.handle(arguments.reference(9))),
    };
    let class = link::define(thread, data, &bytes, definition)?;
    let mirror = thread.handle(class.mirror());
    if arguments.boolean(7) {
        link::initialize(thread, class)?;
    } else {
        link::link(thread, class)?;
    }
    Ok(mirror.slot())
}

fn find_bootstrap(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let name = strings::class_symbol(arguments.reference(0));
    Ok(loader::load_boot(thread, *name)?.map_or(0, |class| class.mirror().slot()))
}

fn find_loaded(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let data = loader::of(arguments.reference(0));
    let name = strings::class_symbol(arguments.reference(1));
    Ok(data.find(*name).map_or(0, |class| class.mirror().slot()))
}

fn directives(thread: &mut Thread, _: Arguments) -> Result<u64> {
    let class = loader::boot_class("java/lang/AssertionStatusDirectives");
    link::initialize(thread, class)?;
    let object = crate::allocate::instance(thread, class)?;
    let object = thread.handle(object);
    let assertions = bootstrap::assertions();
    for (list, names, switches) in
        [(&assertions.classes, "classes", "classEnabled"), (&assertions.packages, "packages", "packageEnabled")]
    {
        // The unnamed package is null.
        let texts: Vec<Option<&str>> =
            list.iter().map(|(name, _)| Some(name.as_str()).filter(|name| !name.is_empty())).collect();
        let array = super::java_lang_system::string_array(thread, &texts)?;
        object.get().set_reference(crate::known::field(class, names, "[Ljava/lang/String;"), array);
        let switched: Vec<bool> = list.iter().map(|&(_, on)| on).collect();
        let array = crate::allocate::filled(thread, crate::metadata::BasicType::Boolean, &switched)?;
        object.get().set_reference(crate::known::field(class, switches, "[Z"), array);
    }
    object.get().write(crate::known::field(class, "deflt", "Z"), assertions.default);
    Ok(object.slot())
}

/// The JDK's own libraries whose natives are part of the virtual machine; a class library may come without their files.
const BUILT_IN: [&str; 14] = [
    "attach",
    "extnet",
    "instrument",
    "java",
    "jimage",
    "management",
    "management_agent",
    "management_ext",
    "net",
    "nio",
    "prefs",
    "rmi",
    "verify",
    "zip",
];

/// The same, and for a program that may not load libraries whatever else is in the folder of the JDK: classes go on without, until they call into it.
fn built_in(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let name = strings::text(arguments.reference(0));
    let own = name.strip_prefix("lib").and_then(|name| name.strip_suffix(".so"));
    let home = || bootstrap::properties().iter().find(|(name, _)| name == "java.home");
    let ours = own.is_some_and(|own| BUILT_IN.contains(&own))
        || services::allow_native_code(&name).is_err()
            && home().is_some_and(|(_, home)| std::path::Path::new(home).join("lib").join(name).is_file());
    Ok(if ours { arguments.slot(0) } else { 0 })
}

fn find_entry(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let library = arguments.reference(0);
    let handle: i64 = library.read(crate::known::field(library.class(), "handle", "J"));
    let Ok(handle @ 1..) = usize::try_from(handle) else { return Ok(0) };
    let Ok(name) = std::ffi::CString::new(strings::text(arguments.reference(1))) else { return Ok(0) };
    Ok(crate::services::libraries::find(handle, &name).map_or(0, |address| address as u64))
}
