//! Linking: from a class file to a class in the arena, resolved and initialised (JVMS chapter 5).
//!
//! ```text
//! ClassFile --define--> superclasses loaded, layout, vtable, itable  (Loaded)
//!           --link----> verified                                     (Linked)
//!           --initialize-> constants set, <clinit> run               (Initialized)
//! ```

mod build;
mod constraints;
mod dynamic;
mod failed;
mod initialize;
mod layout;
pub(crate) mod redefine;
mod resolve;
mod tables;
mod verification;

use std::sync::atomic::{AtomicBool, Ordering};

use classfile::{ClassFile, Options};

use crate::agent::{self, Offer};
use crate::allocate;
use crate::arena::Meta;
use crate::exceptions;
use crate::handle::{Global, Handle};
use crate::known;
use crate::loader::{self, LoaderData};
use crate::log;
use crate::metadata::{BasicType, Class};
use crate::object::Reference;
use crate::symbol::{Passing, Symbol};
use crate::thread::{Result, Thread};

pub(crate) use build::release_symbols;
pub use build::{make_array_class, make_primitive_classes};
pub(crate) use constraints::forget as forget_constraints;
pub(crate) use dynamic::member_target;
pub use dynamic::{
    LinkedCall, invoker_descriptor, method_handle_intrinsic, method_type_object, resolve_call_site, resolve_constant,
    resolve_handle_call,
};
pub use initialize::{initialize, link};
pub use resolve::{
    MethodKind, check_class_access, find_interface_method, nest_host, resolve_class, resolve_field, resolve_method,
    resolve_method_in, select_interface_method, select_method, virtual_index,
};
pub(crate) use resolve::{class_not_found, method_signature, method_text};
pub use verification::verify_all;

/// Forgets errors of classes that are unloaded.
pub(crate) fn forget_errors(is_dead: impl Fn(Meta<Class>) -> bool) {
    // SAFETY: the offsets are of classes, and classes whose loaders are dead are still there.
    let is_dead = |offset: u32| unsafe { Meta::from_offset(offset) }.is_some_and(&is_dead);
    initialize::forget(is_dead);
    resolve::forget(is_dead);
    failed::forget(is_dead);
    agent::forget(is_dead);
}

/// What `define` is told beside the bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Definition {
    /// The internal name that it must have, if there is one.
    pub name: Option<Symbol>,
    /// The protection domain.
    pub protection_domain: Option<Handle>,
    /// Hidden: what to put behind its name.
    pub hidden: Option<u32>,
    /// Whether a hidden class lives as long as its loader.
    pub strong: bool,
    /// A hidden class's nest host.
    pub nest_host: Option<Meta<Class>>,
    /// A hidden class's class data.
    pub class_data: Option<Handle>,
}

/// Refuses a name that no class can have since it is longer than the constant pool can tell.
///
/// # Errors
/// NoClassDefFoundError
pub fn check_name(thread: &mut Thread, name: &[u8]) -> Result<()> {
    if name.len() <= 0xFFFF {
        return Ok(());
    }
    let message = format!("Class name exceeds maximum length of 65535: {}", String::from_utf8_lossy(name));
    Err(exceptions::throw(thread, "java/lang/NoClassDefFoundError", message))
}

/// Makes a class of a class file (JVMS 5.3.5).
///
/// # Errors
/// ClassFormatError and the like, LinkageError if the loader has one of that name, whatever loading the superclasses throws.
pub fn define(
    thread: &mut Thread,
    data: &'static LoaderData,
    bytes: &[u8],
    definition: Definition,
) -> Result<Meta<Class>> {
    if let Some(name) = definition.name {
        check_name(thread, name.bytes())?;
    }
    crate::roots::make_metadata_room(thread, bytes.len(), data.is_boot() && definition.hidden.is_none())?;
    if definition.hidden.is_none() {
        let Definition { name, protection_domain: domain, .. } = definition;
        let offer = Offer { data, name, redefined: None, domain };
        let Some(transformed) = agent::transform(thread, offer, bytes) else {
            return define_in(thread, data, data, bytes, definition);
        };
        let class = define_in(thread, data, data, &transformed.file, definition)?;
        transformed.keep(class);
        return Ok(class);
    }
    if definition.strong {
        return define_in(thread, data, data, bytes, definition);
    }
    let unit = loader::of_hidden();
    unit.pin();
    let class = define_in(thread, data, unit, bytes, definition);
    unit.unpin();
    class
}

/// The same, for a loader and into the unit with which the class is unloaded.
fn define_in(
    thread: &mut Thread,
    data: &'static LoaderData,
    unit: &'static LoaderData,
    bytes: &[u8],
    definition: Definition,
) -> Result<Meta<Class>> {
    // A hidden class is named by who defines it, whatever its file says.
    let name = if definition.hidden.is_some() { None } else { definition.name.map(Symbol::bytes) };
    let options = Options { name, preview: false };
    let file = match ClassFile::parse(bytes, options) {
        Ok(file) => file,
        Err(error) => return Err(exceptions::throw(thread, error.java_class(), error.to_string())),
    };
    let passing = Passing::new(file.name);
    let name = *passing;
    if definition.hidden.is_none() && !data.is_boot() {
        if file.name.starts_with(b"java/")
            && data.reference().class().name.bytes() != b"jdk/internal/loader/ClassLoaders$PlatformClassLoader"
        {
            let package =
                String::from_utf8_lossy(file.name).rsplit_once('/').map_or(String::new(), |(p, _)| p.replace('/', "."));
            return Err(exceptions::throw(
                thread,
                "java/lang/SecurityException",
                format!("Prohibited package name: {package}"),
            ));
        }
        if data.find(name).is_some_and(|class| class.loader == data.id) {
            return Err(duplicate(thread, data, name));
        }
    }
    let super_class = match file.super_name {
        Some(super_name) => Some(superclass(thread, data, &file, name, Symbol::new(super_name))?),
        None => None,
    };
    let mut interfaces = Vec::with_capacity(file.interfaces.len());
    for index in file.interfaces.iter() {
        let interface = Symbol::new(file.constants.class_name(index).unwrap_or_default());
        let class = load_super(thread, data, name, interface)?;
        if !class.is_interface() {
            let message = format!(
                "class {} can not implement {}, because it is not an interface ({})",
                name.dotted(),
                interface.dotted(),
                where_is(class)
            );
            return Err(exceptions::throw(thread, "java/lang/IncompatibleClassChangeError", message));
        }
        check_super(thread, data, &file, name, class)?;
        interfaces.push(class);
    }
    if unit.id != data.id {
        for &above in super_class.iter().chain(&interfaces) {
            unit.keep_class(above);
        }
    }
    // It may be one that lives no longer than itself, of the same loader.
    if let Some(host) = definition.nest_host {
        unit.keep_class(host);
    }
    let class = build::build((data, unit), &file, bytes, super_class, &interfaces, &definition);
    if !class.trusted
        && let Some(last) = tables::overridden_final(class)
    {
        let (name, holder) = (class.external_name(), last.class.external_name());
        let message =
            format!("class {name} overrides final method {holder}.{}{}", last.name.text(), last.descriptor.text());
        return Err(exceptions::throw(thread, "java/lang/IncompatibleClassChangeError", message));
    }
    unit.note_defined(class);
    // Before others find it, who then use it at once.
    if let Err(thrown) = make_mirror(thread, class, definition.protection_domain) {
        unit.forget_defined(class);
        return Err(thrown);
    }
    if let Some(host) = definition.nest_host {
        class.nest_host.set(Some(host));
    }
    if let Some(class_data) = definition.class_data {
        class.mirror().set_reference(known::class_data(), class_data.get());
    }
    if definition.hidden.is_none() {
        let entered = enter(thread, data, name, class);
        if !matches!(entered, Ok(entered) if entered == class) {
            unit.forget_defined(class);
            // Another thread was faster, or the name is promised to another class.
            entered?;
            return if data.is_boot() { entered } else { Err(duplicate(thread, data, name)) };
        }
    }
    crate::roots::count_loaded();
    if log::is_on(log::LOAD) {
        log::write(log::LOAD, &format!("{} source: {}", class.external_name(), source(class, &definition)));
    }
    Ok(class)
}

/// Enters a class as what a loader means by a name, unless it means one already: that one.
///
/// # Errors
/// LinkageError, if it has promised other loaders to mean another.
pub(crate) fn enter(thread: &mut Thread, data: &LoaderData, name: Symbol, class: Meta<Class>) -> Result<Meta<Class>> {
    let other = match constraints::enter(name, data, class) {
        Ok(entered) => return Ok(entered),
        Err(other) => other,
    };
    let message = format!(
        "loader constraint violation: loader {} wants to load class {}. A different class with the same name was previously loaded by {}. ({})",
        loader_text(data),
        name.dotted(),
        loader_text(loader::data(other.loader)),
        where_is_below(other)
    );
    Err(exceptions::throw(thread, "java/lang/LinkageError", message))
}

/// Where a class is from, as `-Xlog:class+load` says it.
fn source(class: Meta<Class>, definition: &Definition) -> String {
    if class.trusted {
        return format!("jrt:/{}", loader::boot_module_of(class.package()).unwrap_or_else(|| "java.base".into()));
    }
    let text = |object: Reference, name: &str, descriptor: &str| {
        if object.is_null() { object } else { object.reference(known::field(object.class(), name, descriptor)) }
    };
    let domain = definition.protection_domain.map_or(Reference::NULL, Handle::get);
    let code_source = text(domain, "codesource", "Ljava/security/CodeSource;");
    let place = text(code_source, "locationNoFragString", "Ljava/lang/String;");
    if place.is_null() {
        "__JVM_DefineClass__".into()
    } else {
        crate::strings::text(place).replace("file:///", "file:/")
    }
}

fn duplicate(thread: &mut Thread, data: &LoaderData, name: Symbol) -> crate::thread::Thrown {
    let loader = loader_text(data);
    let before = data.find(name);
    let place = before.map_or_else(String::new, |class| format!(" ({})", where_is_below(class)));
    let kind = before.map_or("class", kind_word);
    let message = format!("loader {loader} attempted duplicate {kind} definition for {}.{place}", name.dotted());
    exceptions::throw(thread, "java/lang/LinkageError", message)
}

/// How messages call a class.
pub fn kind_word(class: Meta<Class>) -> &'static str {
    match (class.is_interface(), class.is_abstract()) {
        (true, _) => "interface",
        (false, true) => "abstract class",
        (false, false) => "class",
    }
}

/// How messages name a loader.
pub fn loader_text(data: &LoaderData) -> String {
    if data.is_boot() {
        return "'bootstrap'".into();
    }
    let object = data.reference();
    let name = object.reference(known::loader_name());
    let class = object.class().external_name();
    let builtin = matches!(
        object.class().name.bytes(),
        b"jdk/internal/loader/ClassLoaders$AppClassLoader" | b"jdk/internal/loader/ClassLoaders$PlatformClassLoader"
    );
    match (name.is_null(), builtin) {
        (false, true) => format!("'{}'", crate::strings::text(name)),
        (false, false) => format!("'{}' @{:x}", crate::strings::text(name), crate::monitor::identity_hash(object)),
        (true, _) => format!("{class} @{:x}", crate::monitor::identity_hash(object)),
    }
}

/// How messages say where a class is from, as `module java.base of loader 'bootstrap'`.
pub fn where_is(class: Meta<Class>) -> String {
    let data = loader::data(class.loader);
    let module = module_name(class);
    let module = module.map_or("unnamed module".to_owned(), |name| format!("module {name}"));
    format!("{} is in {module} of loader {}", class.external_name(), loader_text(data))
}

/// The same, and which loader is the parent of that one.
pub fn where_is_below(class: Meta<Class>) -> String {
    let data = loader::data(class.loader);
    let builtin = data.is_boot() || loader_text(data).split_once(' ').is_none();
    if builtin {
        return where_is(class);
    }
    let parent = loader::of(data.reference().reference(known::field(
        known::class_loader(),
        "parent",
        "Ljava/lang/ClassLoader;",
    )));
    format!("{}, parent loader {}", where_is(class), loader_text(parent))
}

/// How messages say where two classes are from.
pub fn where_are(a: Meta<Class>, b: Meta<Class>) -> String {
    let (first, second) = (where_is(a), where_is(b));
    let place = |text: &str| text.split_once(" is in ").map_or(String::new(), |(_, place)| place.to_owned());
    if place(&first) == place(&second) {
        return format!("{} and {} are in {}", a.external_name(), b.external_name(), place(&first));
    }
    format!("{first}; {second}")
}

/// The name of a class's module; none for the unnamed.
pub fn module_name(class: Meta<Class>) -> Option<String> {
    let mut bottom = class;
    while let Some(element) = bottom.element {
        bottom = element;
    }
    if bottom.primitive {
        return Some("java.base".into());
    }
    let mirror = bottom.mirror();
    if mirror.is_null() {
        return None;
    }
    let module = mirror.reference(known::class_module());
    if module.is_null() {
        return loader::boot_module_of(class.package());
    }
    text_of_module(module)
}

fn text_of_module(module: Reference) -> Option<String> {
    let name = module.reference(known::field(known::module(), "name", "Ljava/lang/String;"));
    (!name.is_null()).then(|| crate::strings::text(name))
}

fn load_super(thread: &mut Thread, data: &'static LoaderData, name: Symbol, wanted: Symbol) -> Result<Meta<Class>> {
    if name == wanted {
        return Err(exceptions::throw(thread, "java/lang/ClassCircularityError", name.text()));
    }
    loader::load(thread, wanted, data).map_err(|thrown| resolve::class_not_found(thread, wanted, thrown))
}

fn superclass(
    thread: &mut Thread,
    data: &'static LoaderData,
    file: &ClassFile<'_>,
    name: Symbol,
    super_name: Symbol,
) -> Result<Meta<Class>> {
    let class = load_super(thread, data, name, super_name)?;
    if class.is_interface() {
        let message = format!("class {} has interface {} as super class", name.dotted(), class.external_name());
        return Err(exceptions::throw(thread, "java/lang/IncompatibleClassChangeError", message));
    }
    if class.flags & classfile::flags::FINAL != 0 {
        let (class_name, super_name) = (name.dotted(), class.external_name());
        let message = format!("class {class_name} cannot inherit from final class {super_name}");
        return Err(exceptions::throw(thread, "java/lang/IncompatibleClassChangeError", message));
    }
    check_super(thread, data, file, name, class)?;
    Ok(class)
}

fn check_super(
    thread: &mut Thread,
    data: &'static LoaderData,
    file: &ClassFile<'_>,
    name: Symbol,
    class: Meta<Class>,
) -> Result<()> {
    let package = file.name.iter().rposition(|&byte| byte == b'/').map_or(&[][..], |at| &file.name[..at]);
    let same_package = class.loader == data.id && class.package() == package;
    if class.sealed {
        let permitted = class.permitted_subclasses.get().iter().any(|&index| class.constants().symbol(index) == name);
        // One of another package must be public, and all must be of one module (JVMS 5.3.5).
        let reachable = same_package || file.access_flags & classfile::flags::PUBLIC != 0;
        if !permitted || !reachable || !same_module(data, package, class) {
            let (kind, word) =
                if class.is_interface() { ("interface", "implement") } else { ("class", "inherit from") };
            let message = format!("class {} cannot {word} sealed {kind} {}", name.dotted(), class.external_name());
            return Err(exceptions::throw(thread, "java/lang/IncompatibleClassChangeError", message));
        }
    }
    if class.flags & classfile::flags::PUBLIC == 0 && !same_package && !(is_accessor_loader(data) && has_magic(class)) {
        let word = match (class.is_interface(), class.is_abstract()) {
            (true, _) => "superinterface",
            (false, true) => "abstract superclass",
            (false, false) => "superclass",
        };
        let module = data.module_of(package).and_then(|module| text_of_module(module.get()));
        let module = module.map_or("unnamed module".to_owned(), |name| format!("module {name}"));
        let message = format!(
            "class {} cannot access its {word} {} ({} is in {module} of loader {}; {})",
            name.dotted(),
            class.external_name(),
            name.dotted(),
            loader_text(data),
            where_is(class)
        );
        return Err(exceptions::throw(thread, "java/lang/IllegalAccessError", message));
    }
    Ok(())
}

/// Whether a class of this loader and package is of the module of `class`.
fn same_module(data: &'static LoaderData, package: &[u8], class: Meta<Class>) -> bool {
    if data.is_boot() || class.mirror().is_null() {
        return true;
    }
    let Some(module) = data.module_of(package) else { return true };
    class.mirror().reference(known::class_module()) == module.get()
}

/// Whether it is one of the accessors that reflection generates: these may use whatever they name, and are not verified.
fn is_magic(class: Meta<Class>) -> bool {
    has_magic(class) && (class.trusted || is_accessor_loader(loader::data(class.loader)))
}

fn has_magic(class: Meta<Class>) -> bool {
    class.superclasses().any(|class| class.name.bytes() == b"jdk/internal/reflect/MagicAccessorImpl" && class.trusted)
}

fn is_accessor_loader(data: &LoaderData) -> bool {
    !data.is_boot() && data.reference().class().name.bytes() == b"jdk/internal/reflect/DelegatingClassLoader"
}

static MIRRORS: AtomicBool = AtomicBool::new(false);

/// Makes the mirrors of the classes that were loaded before `java.lang.Class`; others get theirs when they are made.
pub fn make_first_mirrors(thread: &mut Thread) -> Result<()> {
    MIRRORS.store(true, Ordering::Release);
    for class in loader::boot().defined() {
        make_mirror(thread, class, None)?;
    }
    Ok(())
}

/// Makes the mirror of a class.
pub(crate) fn make_mirror(thread: &mut Thread, class: Meta<Class>, domain: Option<Handle>) -> Result<()> {
    if !MIRRORS.load(Ordering::Acquire) || !class.mirror().is_null() {
        return Ok(());
    }
    // A class that was loaded before java.lang.Class has no static fields.
    if class.shape.mirror_size == 0 {
        // SAFETY: only this thread runs yet.
        unsafe { (&raw mut (*class.as_ptr()).shape.mirror_size).write(known::class().shape.size) };
    }
    let mirror = allocate::mirror(thread, class)?;
    class.shape.mirror.store(mirror.0, Ordering::Release);
    crate::roots::enter_class(class);
    let data = loader::data(class.loader);
    mirror.set_reference(known::class_loader_of(), data.reference());
    if let Some(domain) = domain {
        mirror.set_reference(known::class_protection_domain(), domain.get());
    }
    if let Some(element) = class.element {
        mirror.set_reference(known::class_component(), element.mirror());
    }
    if let Some(module) = module_object(class) {
        mirror.set_reference(known::class_module(), module.get());
    }
    Ok(())
}

/// The module that a class belongs to, if modules are there yet.
fn module_object(class: Meta<Class>) -> Option<Global> {
    let mut bottom = class;
    while let Some(element) = bottom.element {
        bottom = element;
    }
    let data = loader::data(bottom.loader);
    if data.is_boot() && !loader::are_boot_modules_defined() {
        return None;
    }
    let package = if bottom.primitive { Symbol::new("java/lang") } else { Symbol::new(bottom.package()) };
    data.module_of(package.bytes())
}

/// Sets the module of every class of a loader that has none yet or only a provisional one.
pub fn set_modules(data: &'static LoaderData) {
    let primitives = BasicType::PRIMITIVES.iter().map(|&kind| loader::primitive_class(kind)).filter(|_| data.is_boot());
    for class in data.defined().into_iter().chain(primitives) {
        let mirror = class.mirror();
        if mirror.is_null() || !mirror.reference(known::class_module()).is_null() {
            continue;
        }
        let mut next = Some(class);
        while let Some(class) = next {
            if let Some(module) = module_object(class) {
                class.mirror().set_reference(known::class_module(), module.get());
            }
            next = class.array.get();
        }
    }
}

/// The mirror of a class, as an object.
#[inline]
pub fn mirror(class: Meta<Class>) -> Reference {
    class.mirror()
}
