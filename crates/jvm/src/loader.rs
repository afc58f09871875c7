//! Class loaders (JVMS 5.3): what each has loaded, and how classes are asked for.
//!
//! [`LoaderData`] is the virtual machine's side of a `ClassLoader`: its dictionary of classes that it defined or initiated, and its chunks of
//! the metadata arena. Number 0 is the bootstrap loader, whose classes are in the mapped run-time image. Others run Java: `loadClass`.
//!
//! It is also the unit of unloading: a full collection keeps it if its `ClassLoader`, one of its classes or one of their instances is reached, or another
//! loader that is kept and whose classes name some of its own; else all that it owns goes. A hidden class that is not strongly bound to its loader is a unit
//! of its own. The bootstrap loader and those of the class library are permanent.
//!
//! Invariant: what a class has resolved lives while the class does. Names are resolved by the class's loader, so it is enough that a loader keeps
//! all classes that are entered in its dictionary; what is found otherwise is kept by [`LoaderData::keep_class`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use classfile::jimage::Image;

use crate::arena::{Chunks, Meta};
use crate::boot_path;
use crate::exceptions;
use crate::handle::Global;
use crate::interpreter;
use crate::known;
use crate::link::{self, Definition};
use crate::metadata::{BasicType, Class};
use crate::object::Reference;
use crate::strings;
use crate::symbol::Symbol;
use crate::thread::{Result, Thread};

/// What the virtual machine knows of a class loader; or of a hidden class that may be unloaded before its loader.
#[derive(Debug)]
pub struct LoaderData {
    /// Its number; 0 is the bootstrap loader.
    pub id: u32,
    /// Whether it lives as long as the virtual machine.
    permanent: bool,
    /// The `ClassLoader`; none for the bootstrap loader and for a hidden class.
    pub object: Option<Global>,
    /// Its part of the arena.
    pub chunks: Chunks,
    /// Classes by name that it defined or initiated.
    dictionary: RwLock<HashMap<Symbol, Meta<Class>>>,
    /// Classes that it defined, hidden ones too, and what else lives and goes with it.
    owned: Mutex<Owned>,
    /// Modules by package.
    pub packages: RwLock<HashMap<Symbol, Global>>,
    /// The unnamed module.
    pub unnamed_module: OnceLock<Global>,
    /// How many threads make classes of it that no mirror tells of yet.
    pins: AtomicU32,
}

#[derive(Debug, Default)]
struct Owned {
    classes: Vec<Meta<Class>>,
    /// Objects that it keeps, its own one too.
    globals: Vec<Global>,
    /// Loaders whose classes its own ones name: they live while it does.
    named: Vec<u32>,
}

/// Loaders by number. The numbers of those that were unloaded are used again.
#[derive(Debug)]
struct Loaders {
    all: Vec<Option<&'static LoaderData>>,
    free: Vec<u32>,
}

static LOADERS: LazyLock<RwLock<Loaders>> = LazyLock::new(|| {
    let boot: &'static LoaderData = Box::leak(Box::new(LoaderData::new(0, true)));
    RwLock::new(Loaders { all: vec![Some(boot)], free: Vec::new() })
});

/// `-Xnoclassgc`
static KEEPS_ALL: AtomicBool = AtomicBool::new(false);

static IMAGE_BYTES: OnceLock<&[u8]> = OnceLock::new();
static IMAGE: OnceLock<Image<'static>> = OnceLock::new();
/// Modules of the image by package.
static BOOT_PACKAGES: LazyLock<RwLock<HashMap<Vec<u8>, Option<String>>>> = LazyLock::new(RwLock::default);
static PRIMITIVES: [AtomicU32; 16] = [const { AtomicU32::new(0) }; 16];
static PRIMITIVE_ARRAYS: [AtomicU32; 16] = [const { AtomicU32::new(0) }; 16];

thread_local! {
    /// What this thread is loading, to find circles.
    static LOADING: RefCell<Vec<(u32, Symbol)>> = const { RefCell::new(Vec::new()) };
}

/// No loader is ever unloaded.
pub(crate) fn keep_all() {
    KEEPS_ALL.store(true, Ordering::Relaxed);
}

/// Whether loaders may be unloaded.
pub(crate) fn may_unload() -> bool {
    !KEEPS_ALL.load(Ordering::Relaxed)
}

impl LoaderData {
    fn new(id: u32, permanent: bool) -> Self {
        Self {
            id,
            permanent,
            object: None,
            chunks: if permanent { Chunks::default() } else { Chunks::of_passing() },
            dictionary: RwLock::default(),
            owned: Mutex::default(),
            packages: RwLock::default(),
            unnamed_module: OnceLock::new(),
            pins: AtomicU32::new(0),
        }
    }

    fn owned(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What [`Shape::loader`](crate::object::Shape::loader) of its classes is.
    pub fn unit(&self) -> u32 {
        if self.permanent { 0 } else { self.id }
    }

    /// Keeps an object as long as itself.
    pub fn keep(&self, object: Reference) -> Global {
        if self.permanent {
            return Global::new(object);
        }
        let global = Global::of_loader(object, self.id);
        self.owned().globals.push(global);
        global
    }

    /// Sees to it that a class lives as long as itself.
    pub fn keep_class(&self, class: Meta<Class>) {
        let other = class.shape.loader;
        if other == 0 || other == self.id {
            return;
        }
        if self.permanent {
            // Once for each, as it is for ever.
            let mut owned = self.owned();
            if !owned.named.contains(&other) {
                owned.named.push(other);
                Global::new(class.mirror());
            }
            return;
        }
        let mut owned = self.owned();
        if !owned.named.contains(&other) {
            owned.named.push(other);
        }
    }

    /// Keeps itself alive until [`LoaderData::unpin`], which is called as often.
    pub fn pin(&self) {
        self.pins.fetch_add(1, Ordering::Relaxed);
    }

    /// Undoes [`LoaderData::pin`].
    pub fn unpin(&self) {
        self.pins.fetch_sub(1, Ordering::Relaxed);
    }

    /// The class of this name that it defined or initiated.
    pub fn find(&self, name: Symbol) -> Option<Meta<Class>> {
        self.dictionary.read().unwrap_or_else(PoisonError::into_inner).get(&name).copied()
    }

    /// The classes that it defined or initiated.
    pub fn initiated(&self) -> Vec<Meta<Class>> {
        self.dictionary.read().unwrap_or_else(PoisonError::into_inner).values().copied().collect()
    }

    /// Enters a class, unless there is one of that name; the one that is there then. It lives as long as this loader.
    pub fn enter(&self, name: Symbol, class: Meta<Class>) -> Meta<Class> {
        self.keep_class(class);
        *self.dictionary.write().unwrap_or_else(PoisonError::into_inner).entry(name).or_insert(class)
    }

    /// Notes a class that it defined.
    pub fn note_defined(&self, class: Meta<Class>) {
        self.owned().classes.push(class);
    }

    /// Takes back [`Self::note_defined`]: nobody has seen the class.
    pub fn forget_defined(&self, class: Meta<Class>) {
        self.owned().classes.retain(|&other| other != class);
    }

    /// The classes that it defined.
    pub fn defined(&self) -> Vec<Meta<Class>> {
        self.owned().classes.clone()
    }

    /// The module that has a package; the unnamed module if none has.
    pub fn module_of(&self, package: &[u8]) -> Option<Global> {
        let packages = self.packages.read().unwrap_or_else(PoisonError::into_inner);
        let named = Symbol::find(package).and_then(|package| packages.get(&package).copied());
        named.or_else(|| self.unnamed_module.get().copied())
    }

    /// The `ClassLoader`; `null` for the bootstrap loader.
    pub fn reference(&self) -> Reference {
        self.object.map_or(Reference::NULL, Global::get)
    }

    /// Whether it is the bootstrap loader.
    pub fn is_boot(&self) -> bool {
        self.id == 0
    }
}

/// The bootstrap loader.
pub fn boot() -> &'static LoaderData {
    data(0)
}

/// The loader of a number.
///
/// # Panics
/// If it was unloaded: nothing has its number then.
pub fn data(id: u32) -> &'static LoaderData {
    loaders().all[id as usize].expect("a class's loader is loaded")
}

/// All loaders, and what is unloaded like one.
pub fn all() -> Vec<&'static LoaderData> {
    loaders().all.iter().copied().flatten().collect()
}

fn loaders() -> RwLockReadGuard<'static, Loaders> {
    LOADERS.read().unwrap_or_else(PoisonError::into_inner)
}

impl Loaders {
    /// Adds a loader; what it owns is given by `fill`.
    fn add(&mut self, permanent: bool, fill: impl FnOnce(&mut LoaderData)) -> &'static LoaderData {
        let id = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            u32::try_from(self.all.len() - 1).expect("each loader takes memory")
        });
        let mut data = Box::new(LoaderData::new(id, permanent));
        fill(&mut data);
        let data = Box::into_raw(data);
        data.expose_provenance();
        // SAFETY: just made; freed when a `Dead` of it is dropped.
        let data: &'static LoaderData = unsafe { &*data };
        self.all[id as usize] = Some(data);
        data
    }
}

/// The loader of a `ClassLoader`, or the bootstrap loader of `null`.
pub fn of(loader: Reference) -> &'static LoaderData {
    if loader.is_null() {
        return boot();
    }
    let id: u32 = loader.read(known::loader_data());
    if id != 0 {
        return data(id);
    }
    let mut loaders = LOADERS.write().unwrap_or_else(PoisonError::into_inner);
    let id: u32 = loader.read(known::loader_data());
    if let Some(data) = (id != 0).then(|| loaders.all[id as usize]).flatten() {
        return data;
    }
    let class = loader.class();
    // Those of the class library are in static fields for ever.
    let permanent = class.trusted && class.name.bytes().starts_with(b"jdk/internal/loader/ClassLoaders$");
    let data = loaders.add(permanent || !may_unload(), |data| {
        data.object = Some(data.keep(loader));
        let module = loader.reference(known::loader_unnamed_module());
        if !module.is_null() {
            let _ = data.unnamed_module.set(data.keep(module));
        }
    });
    loader.write(known::loader_data(), data.id);
    data
}

/// What a hidden class belongs to that may be unloaded before its loader is.
pub(crate) fn of_hidden() -> &'static LoaderData {
    let mut loaders = LOADERS.write().unwrap_or_else(PoisonError::into_inner);
    loaders.add(!may_unload(), |_| {})
}

/// What a class is unloaded with: its loader, or a hidden class itself.
pub fn unit(class: Meta<Class>) -> &'static LoaderData {
    data(if class.shape.loader == 0 { class.loader } else { class.shape.loader })
}

/// Those that live although no object tells so, for [`crate::heap::Roots::pinned`].
pub(crate) fn visit_pinned(visit: &mut dyn FnMut(u32)) {
    let pinned = |data: &&&LoaderData| data.pins.load(Ordering::Relaxed) != 0;
    loaders().all.iter().flatten().filter(pinned).for_each(|data| visit(data.unit()));
}

/// What a loader owns, for [`crate::heap::Roots::loader`].
pub(crate) fn visit(id: u32, visit: &mut dyn FnMut(&mut Reference), other: &mut dyn FnMut(u32)) {
    let owned = data(id).owned();
    owned.globals.iter().for_each(|global| global.visit(visit));
    owned.named.iter().for_each(|&id| other(id));
}

/// Takes the loaders that do not live out of the list. Nothing runs.
pub(crate) fn take_dead(lives: &dyn Fn(u32) -> bool) -> Vec<Dead> {
    let mut loaders = LOADERS.write().unwrap_or_else(PoisonError::into_inner);
    let mut dead = Vec::new();
    for slot in &mut loaders.all {
        if let Some(data) = slot.filter(|data| !data.permanent && !lives(data.id)) {
            *slot = None;
            dead.push(Dead(data));
        }
    }
    dead
}

/// A loader that is unloaded: when this is dropped, all that it owns is gone.
#[derive(Debug)]
pub(crate) struct Dead(&'static LoaderData);

impl Dead {
    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.0.id
    }

    /// The classes that it defined.
    pub(crate) fn classes(&self) -> Vec<Meta<Class>> {
        self.0.defined()
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        let id = self.0.id;
        let data: *mut LoaderData = std::ptr::with_exposed_provenance_mut(std::ptr::from_ref(self.0).addr());
        // SAFETY: made of a box by `Loaders::add`; it was taken out of the list, and the collector found that no frame or object mentions its classes.
        let data = unsafe { Box::from_raw(data) };
        data.owned().globals.drain(..).for_each(Global::release);
        drop(data);
        LOADERS.write().unwrap_or_else(PoisonError::into_inner).free.push(id);
    }
}

/// Sets the image that the bootstrap loader loads from.
pub fn set_image(image: Image<'static>, bytes: &'static [u8]) {
    let _ = IMAGE_BYTES.set(bytes);
    let _ = IMAGE.set(image);
}

/// The image, as it is mapped.
pub fn image_bytes() -> &'static [u8] {
    IMAGE_BYTES.get().copied().unwrap_or_default()
}

/// The module of the image that has a package.
pub fn boot_module_of(package: &[u8]) -> Option<String> {
    if let Some(found) = BOOT_PACKAGES.read().unwrap_or_else(PoisonError::into_inner).get(package) {
        return found.clone();
    }
    let text = str::from_utf8(package).ok()?;
    let found = IMAGE.get()?.module_of_package(text).map(|name| String::from_utf8_lossy(name).into_owned());
    BOOT_PACKAGES.write().unwrap_or_else(PoisonError::into_inner).insert(package.to_vec(), found.clone());
    found
}

/// A class of the library that the virtual machine needs.
///
/// # Panics
/// If there is none: then it is not the class library of JDK 17.
pub fn boot_class(name: &str) -> Meta<Class> {
    let symbol = Symbol::new(name);
    if let Some(class) = boot().find(symbol) {
        return class;
    }
    // SAFETY: callers come from the interpreter or a native with its thread borrowed further up, and touch nothing of it until this returns.
    let thread = unsafe { Thread::current() };
    match load_boot(thread, symbol) {
        Ok(Some(class)) => class,
        _ => panic!("the class library of JDK 17 has {name}"),
    }
}

/// The bootstrap loader's class of this name, if it has one.
pub fn load_boot(thread: &mut Thread, name: Symbol) -> Result<Option<Meta<Class>>> {
    if let Some(class) = boot().find(name) {
        return Ok(Some(class));
    }
    let bytes = name.bytes();
    if bytes.first() == Some(&b'[') {
        return load_array(thread, name, boot()).map(Some);
    }
    let Some(contents) = boot_file(bytes) else { return Ok(None) };
    let definition = Definition { name: Some(name), ..Definition::default() };
    link::define(thread, boot(), contents, definition).map(Some)
}

/// The file of the bootstrap loader's class of this internal name, which stays.
pub(crate) fn boot_file(name: &[u8]) -> Option<&'static [u8]> {
    let package = name.iter().rposition(|&byte| byte == b'/').map_or(&[][..], |at| &name[..at]);
    let path = str::from_utf8(name).ok()?;
    // Before modules are defined only java.base is visible; later, what the boot layer gives to this loader.
    let visible = !are_boot_modules_defined() || is_boot_package(package);
    let module = boot_module_of(package).filter(|_| visible);
    let leak = |contents: Vec<u8>| -> &'static [u8] { Box::leak(contents.into_boxed_slice()) };
    if let Some(module) = &module {
        if let Some(contents) = boot_path::find(Some(module), path) {
            return Some(leak(contents));
        }
        let image = IMAGE.get()?;
        let location = image.find(module, &format!("{path}.class"));
        if let Some(contents) = location.and_then(|location| image.stored(&location)) {
            return Some(contents);
        }
    } else if is_boot_package(package)
        && let Some(contents) = boot_path::find_in_patches(path)
    {
        // A package that only a patch brings.
        return Some(leak(contents));
    }
    boot_path::find(None, path).map(leak)
}

static MODULES_DEFINED: AtomicBool = AtomicBool::new(false);

/// From now on the bootstrap loader only loads from packages of its modules.
pub fn set_boot_modules_defined() {
    MODULES_DEFINED.store(true, Ordering::Release);
}

/// Whether java.base is defined as a module.
pub fn are_boot_modules_defined() -> bool {
    MODULES_DEFINED.load(Ordering::Acquire)
}

fn is_boot_package(package: &[u8]) -> bool {
    let Some(package) = Symbol::find(package) else { return false };
    boot().packages.read().unwrap_or_else(PoisonError::into_inner).contains_key(&package)
}

/// The class of this name as `loader` finds it (JVMS 5.3). Throws ClassNotFoundException.
pub fn load(thread: &mut Thread, name: Symbol, loader: &'static LoaderData) -> Result<Meta<Class>> {
    if let Some(class) = loader.find(name) {
        return Ok(class);
    }
    if name.bytes().first() == Some(&b'[') {
        return load_array(thread, name, loader);
    }
    if loader.is_boot() {
        return match load_boot(thread, name)? {
            Some(class) => Ok(class),
            None => Err(exceptions::throw(thread, "java/lang/ClassNotFoundException", name.dotted())),
        };
    }
    let circle = LOADING.with_borrow(|loading| loading.contains(&(loader.id, name)));
    if circle && LOADING.with_borrow(|loading| loading.iter().filter(|entry| **entry == (loader.id, name)).count()) > 3
    {
        return Err(exceptions::throw(thread, "java/lang/ClassCircularityError", name.dotted()));
    }
    LOADING.with_borrow_mut(|loading| loading.push((loader.id, name)));
    let result = thread.scope(|thread| load_by_java(thread, name, loader));
    LOADING.with_borrow_mut(Vec::pop);
    result
}

fn load_by_java(thread: &mut Thread, name: Symbol, loader: &'static LoaderData) -> Result<Meta<Class>> {
    let text = strings::new(thread, &name.dotted())?;
    let receiver = loader.reference();
    let method = receiver
        .class()
        .find_method(Symbol::new("loadClass"), Symbol::new("(Ljava/lang/String;)Ljava/lang/Class;"))
        .expect("ClassLoader has loadClass");
    let mirror = Reference::of_slot(interpreter::call(thread, method, &[receiver.slot(), text.slot()])?);
    if mirror.is_null() {
        return Err(exceptions::throw(thread, "java/lang/ClassNotFoundException", name.dotted()));
    }
    let class = of_mirror(mirror);
    if class.name != name {
        let message = format!("{} (wrong name: {})", name, class.name);
        return Err(exceptions::throw(thread, "java/lang/NoClassDefFoundError", message));
    }
    link::enter(thread, loader, name, class)
}

fn load_array(thread: &mut Thread, name: Symbol, loader: &'static LoaderData) -> Result<Meta<Class>> {
    let bytes = name.bytes();
    let element = &bytes[1..];
    let element = match element.first() {
        Some(b'[') => load(thread, Symbol::new(element), loader)?,
        Some(b'L') if element.ends_with(b";") => load(thread, Symbol::new(&element[1..element.len() - 1]), loader)?,
        Some(&letter) if element.len() == 1 && BasicType::of(letter) != BasicType::Reference && letter != b'V' => {
            primitive_class(BasicType::of(letter))
        }
        _ => return Err(exceptions::throw(thread, "java/lang/ClassNotFoundException", name.dotted())),
    };
    if element.dimensions == 255 {
        return Err(exceptions::throw(thread, "java/lang/ClassNotFoundException", name.dotted()));
    }
    array_class(thread, element)
}

/// The class of a type in a descriptor, as `loader` finds it.
pub fn load_type(thread: &mut Thread, descriptor: &[u8], loader: &'static LoaderData) -> Result<Meta<Class>> {
    match descriptor {
        [b'L', name @ .., b';'] => load(thread, Symbol::new(name), loader),
        [b'[', ..] => load(thread, Symbol::new(descriptor), loader),
        [letter, ..] => Ok(primitive_class(BasicType::of(*letter))),
        [] => Err(exceptions::throw_plain(thread, "java/lang/NoClassDefFoundError")),
    }
}

/// The class of arrays of `element`.
pub fn array_class(thread: &mut Thread, element: Meta<Class>) -> Result<Meta<Class>> {
    if let Some(class) = element.array.get() {
        return Ok(class);
    }
    link::make_array_class(thread, element)
}

/// The class of a primitive type, such as `int.class`.
pub fn primitive_class(kind: BasicType) -> Meta<Class> {
    // SAFETY: 0 or the offset of a class.
    unsafe { Meta::from_offset(PRIMITIVES[kind as usize].load(Ordering::Acquire)) }.expect("made at start")
}

/// The class of arrays of a primitive type.
#[inline]
pub fn primitive_array_class(kind: BasicType) -> Meta<Class> {
    // SAFETY: 0 or the offset of a class.
    unsafe { Meta::from_offset(PRIMITIVE_ARRAYS[kind as usize].load(Ordering::Acquire)) }.expect("made at start")
}

/// Enters the classes of a primitive type.
pub fn set_primitive(kind: BasicType, class: Meta<Class>, array: Option<Meta<Class>>) {
    PRIMITIVES[kind as usize].store(class.offset(), Ordering::Release);
    if let Some(array) = array {
        PRIMITIVE_ARRAYS[kind as usize].store(array.offset(), Ordering::Release);
    }
}

/// The class that an instance of `java.lang.Class` stands for.
#[inline]
pub fn of_mirror(mirror: Reference) -> Meta<Class> {
    // SAFETY: the field of a mirror holds its class's offset.
    unsafe { Meta::of_word(mirror.read(known::class_metadata())) }
}
