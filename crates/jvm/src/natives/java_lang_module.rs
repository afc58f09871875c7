//! `java.lang.Module` and `jdk.internal.loader.BootLoader`.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use super::{Arguments, Table, nothing};
use crate::handle::Global;
use crate::known;
use crate::link;
use crate::loader;
use crate::object::Reference;
use crate::strings;
use crate::symbol::Symbol;
use crate::thread::{Result, Thread};

pub(super) const TABLES: &[Table] = &[
    (
        "java/lang/Module",
        &[
            ("defineModule0", "", define),
            ("addReads0", "", nothing),
            ("addExports0", "", nothing),
            ("addExportsToAll0", "", nothing),
            ("addExportsToAllUnnamed0", "", nothing),
        ],
    ),
    (
        "jdk/internal/loader/BootLoader",
        &[
            ("setBootLoaderUnnamedModule0", "", set_unnamed),
            ("getSystemPackageNames", "", package_names),
            ("getSystemPackageLocation", "", package_location),
        ],
    ),
    ("jdk/internal/jimage/NativeImageBuffer", &[("getNativeMap", "", native_map)]),
];

fn define(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let module = arguments.reference(0);
    let class_loader = module.reference(known::field(known::module(), "loader", "Ljava/lang/ClassLoader;"));
    let name = module.reference(known::field(known::module(), "name", "Ljava/lang/String;"));
    let data = loader::of(class_loader);
    let packages = arguments.reference(4);
    let module = data.keep(module);
    {
        let mut table = data.packages.write().unwrap_or_else(PoisonError::into_inner);
        for index in 0..if packages.is_null() { 0 } else { packages.length() } {
            let package = strings::class_symbol(packages.reference_element(index));
            package.stay();
            table.insert(*package, module);
        }
    }
    if !name.is_null() && strings::text(name) == "java.base" {
        loader::set_boot_modules_defined();
        link::set_modules(data);
    }
    Ok(0)
}

fn set_unnamed(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let _ = loader::boot().unnamed_module.set(Global::new(arguments.reference(0)));
    Ok(0)
}

/// Packages of which the boot loader has loaded a class.
fn package_names(thread: &mut Thread, _: Arguments) -> Result<u64> {
    let packages: BTreeSet<Vec<u8>> =
        loader::boot().defined().into_iter().map(|class| class.package().to_vec()).collect();
    // Those of modules that were made at run time, as proxies are, have no place.
    let from_image = packages.iter().filter(|name| loader::boot_module_of(name).is_some());
    let names: Vec<Option<String>> = from_image.map(|name| Some(classfile::mutf8::decode(name))).collect();
    super::java_lang_system::string_array(thread, &names).map(Reference::slot)
}

fn package_location(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let package = strings::symbol(arguments.reference(0));
    match loader::boot_module_of(package.bytes()) {
        Some(module) => strings::new(thread, &format!("jrt:/{module}")).map(Reference::slot),
        None => Ok(0),
    }
}

/// The mapped image as a direct buffer, so that Java code reads it where it is.
fn native_map(thread: &mut Thread, _: Arguments) -> Result<u64> {
    let image = loader::image_bytes();
    let Ok(length) = i32::try_from(image.len()) else { return Ok(0) };
    let class = loader::boot_class("java/nio/DirectByteBuffer");
    link::initialize(thread, class)?;
    let buffer = crate::allocate::instance(thread, class)?;
    let buffer = thread.handle(buffer);
    let constructor = class.declared_method(Symbol::new("<init>"), Symbol::new("(JI)V"));
    let constructor = constructor.expect("DirectByteBuffer has a constructor with address and length");
    let address = image.as_ptr().expose_provenance() as u64;
    crate::interpreter::call(thread, constructor, &[buffer.slot(), address, 0, u64::from(length.cast_unsigned())])?;
    Ok(buffer.slot())
}
