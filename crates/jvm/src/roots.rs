//! The roots of the heap, and the ways to a collection: no room in the heap, much metadata, and `System.gc()`.
//!
//! References in a frame are found by the stack map of its method at its instruction ([`crate::stackmap`]), in a native frame by the descriptor. A
//! caller's saved stack pointer is below the arguments of the call, which are locals of the callee: so no slot is visited twice.
//!
//! Local variables that are not read any more are roots in methods that have run seldom, and none in those that have run often (JLS 12.6.1 allows both). That
//! is what programs know: compilers of Java virtual machines see no dead variables, interpreters do, so that `main` may count on what its variables hold.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, PoisonError};

use crate::allocate::heap;
use crate::arena::{self, Chunks, Meta};
use crate::exceptions;
use crate::frame::Frame;
use crate::handle;
use crate::heap::{Buffer, Cause, Full, OutOfMemory, Roots, Scope};
use crate::interpreter;
use crate::jni;
use crate::known;
use crate::link;
use crate::loader::{self, Dead};
use crate::lock;
use crate::log;
use crate::metadata::{Class, Method, Pool, Tag, extra};
use crate::natives::sun_management_memory;
use crate::object::{Reference, Shape};
use crate::stackmap::{self, Cache, Constants, Maps, Source};
use crate::strings;
use crate::symbol::{self, Symbol};
use crate::thread::{self, Result, Thread};

static CLASSES: Mutex<Vec<Meta<Class>>> = Mutex::new(Vec::new());
static MAPS: LazyLock<Mutex<Cache>> = LazyLock::new(Mutex::default);
static PENDING: Mutex<()> = Mutex::new(());
static FOUND: Condvar = Condvar::new();

/// Enters a class, whose mirror the collector keeps up to date.
pub(crate) fn enter_class(class: Meta<Class>) {
    CLASSES.lock().unwrap_or_else(PoisonError::into_inner).push(class);
}

/// Classes made from class files, ever; and those of them that were unloaded.
static LOADED: AtomicU64 = AtomicU64::new(0);
static UNLOADED: AtomicU64 = AtomicU64::new(0);
/// Bytes of metadata of loaders that may be unloaded above which a full collection looks for those that are not used any more, at first.
const METADATA_FIRST: usize = 16 << 20;
/// The same at present.
static METADATA_LIMIT: AtomicUsize = AtomicUsize::new(METADATA_FIRST);
/// Bytes of the tables of a class at most, and of what is left for the class library.
const METADATA_TABLES: usize = 128 << 20;

/// Calls, and backward branches, after which a method's dead variables are no roots: about when HotSpot would have compiled it.
const HOT_CALLS: u32 = 5_000;
const HOT_BACK_EDGES: u32 = 60_000;
/// `-Xint`: dead variables are always roots.
static KEEPS_DEAD: AtomicBool = AtomicBool::new(false);

/// Has dead local variables of all methods keep their objects.
pub(crate) fn keep_dead_locals() {
    KEEPS_DEAD.store(true, Ordering::Relaxed);
}

/// Whether dead local variables of the method's frames are no roots. What they hold is not kept up to date then, so the answer stays the same once it is
/// yes. A thread dump reads variables of methods with monitors.
fn drops_dead(method: Meta<Method>) -> bool {
    if method.has(extra::DROPS_DEAD) {
        return true;
    }
    let is_hot = method.back_edges.load(Ordering::Relaxed) >= HOT_BACK_EDGES
        || method.calls.load(Ordering::Relaxed) >= HOT_CALLS;
    if !is_hot || method.has(extra::MONITORS | extra::SUBROUTINES) || KEEPS_DEAD.load(Ordering::Relaxed) {
        return false;
    }
    method.extra.fetch_or(extra::DROPS_DEAD, Ordering::Relaxed);
    true
}

/// Notes that a class was made from a class file.
pub(crate) fn count_loaded() {
    LOADED.fetch_add(1, Ordering::Relaxed);
}

/// How many classes were made from class files, and how many of them were unloaded.
pub(crate) fn class_counts() -> (u64, u64) {
    (LOADED.load(Ordering::Relaxed), UNLOADED.load(Ordering::Relaxed))
}

/// All classes that were made from class files, and those of arrays.
pub(crate) fn classes() -> Vec<Meta<Class>> {
    CLASSES.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Forgets where the references of a class's frames are, since its methods get other code.
pub(crate) fn forget_maps(class: Meta<Class>) {
    let own: HashSet<u32> = class.methods.get().iter().map(|method| method.offset()).collect();
    MAPS.lock().unwrap_or_else(PoisonError::into_inner).retain(|method| !own.contains(&method));
}

/// How many classes have this internal name.
pub(crate) fn count_classes(name: Symbol) -> usize {
    let classes = CLASSES.lock().unwrap_or_else(PoisonError::into_inner);
    classes.iter().filter(|class| class.name == name).count()
}

/// Called when a class of so many bytes is to be made: collects if there is much more metadata than there was after the last full collection, or no room.
/// What the virtual machine itself needs of the class library has room that others leave.
///
/// # Errors
/// OutOfMemoryError
pub(crate) fn make_metadata_room(thread: &mut Thread, bytes: usize, of_library: bool) -> Result<()> {
    if of_library {
        return Ok(());
    }
    // Its file, its code, its texts; tables of some dozen bytes for a few in the file are bounded by their 16-bit counts.
    let wanted = bytes.saturating_mul(3).saturating_add(METADATA_TABLES);
    let is_full = || arena::limit().is_some_and(|limit| Chunks::committed() > limit) || !arena::has_room(wanted);
    let full = is_full();
    if full || Chunks::passing() > METADATA_LIMIT.load(Ordering::Relaxed) {
        collect(thread, Cause::MetadataThreshold);
    }
    if full && is_full() {
        return Err(exceptions::throw(thread, "java/lang/OutOfMemoryError", "Metaspace"));
    }
    Ok(())
}

/// Makes room in the heap for a request that was refused.
///
/// # Errors
/// If there is no room.
pub fn make_room(thread: &mut Thread, request: Full) -> std::result::Result<(), OutOfMemory> {
    let result = thread.control.clone().stop_world(|| {
        lock::deflate_idle();
        heap().make_room(request, &mut Vm)
    });
    tell_pending();
    result
}

/// Collects everything, as `System.gc()` wants it.
pub(crate) fn collect(thread: &mut Thread, cause: Cause) {
    let before = heap().collections();
    thread.control.clone().stop_world(|| {
        // Several threads may have found that there is much metadata.
        if cause == Cause::MetadataThreshold && heap().collections() != before {
            return;
        }
        lock::deflate_idle();
        heap().collect(cause, &mut Vm);
    });
    tell_pending();
}

fn tell_pending() {
    sun_management_memory::collected();
    if heap().has_pending() {
        drop(PENDING.lock().unwrap_or_else(PoisonError::into_inner));
        FOUND.notify_all();
    }
}

/// Waits until the collector has found references whose objects are gone.
pub(crate) fn wait_for_pending(thread: &mut Thread) {
    thread.blocked(|| {
        let mut guard = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
        while !heap().has_pending() {
            guard = FOUND.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    });
}

/// The virtual machine while the world is stopped.
struct Vm;

impl Roots for Vm {
    fn buffers(&mut self, visit: &mut dyn FnMut(&mut Buffer)) {
        thread::visit_all(|thread| visit(&mut thread.buffer));
    }

    fn strong(&mut self, scope: Scope, visit: &mut dyn FnMut(&mut Reference)) {
        let mut maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
        thread::visit_all(|thread| {
            thread.visit_roots(|slot| visit_word(slot, visit));
            for frame in thread.frames() {
                visit_frame(frame, &mut maps, visit);
                if scope == Scope::Full {
                    visit(&mut frame.method().class.mirror());
                }
            }
        });
        match scope {
            Scope::Young => handle::visit_young_globals(|object| heap().is_young(object), visit),
            Scope::Full => handle::visit_globals(visit),
        }
    }

    fn weak(&mut self, scope: Scope, visit: &mut dyn FnMut(&mut Reference)) {
        match scope {
            Scope::Young => handle::visit_young_weak(|object| heap().is_young(object), visit),
            Scope::Full => handle::visit_weak(visit),
        }
        strings::visit_weak(scope, visit);
        lock::visit_weak(visit);
    }

    fn classes(&mut self, visit: &mut dyn FnMut(&Shape)) {
        CLASSES.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|class| visit(&class.shape));
    }

    fn data_of(&self, loader: Reference) -> u32 {
        match loader.read(known::loader_data()) {
            0 => 0,
            id => loader::data(id).unit(),
        }
    }

    fn pinned(&mut self, visit: &mut dyn FnMut(u32)) {
        loader::visit_pinned(visit);
    }

    fn loader(&mut self, loader: u32, visit: &mut dyn FnMut(&mut Reference), other: &mut dyn FnMut(u32)) {
        loader::visit(loader, visit, other);
    }

    fn unload(&mut self, lives: &dyn Fn(u32) -> bool) {
        symbol::release_passed();
        let dead = loader::take_dead(lives);
        if !dead.is_empty() {
            unload(dead);
        }
        METADATA_LIMIT.store(METADATA_FIRST.max(Chunks::passing() / 3 * 5), Ordering::Relaxed);
    }

    fn soft_clock(&mut self, milliseconds: i64) {
        let Some(class) = loader::boot().find(Symbol::new("java/lang/ref/SoftReference")) else { return };
        let mirror = class.mirror();
        if let Some(field) = class.declared_field(Symbol::new("clock"), Symbol::new("J"))
            && !mirror.is_null()
        {
            mirror.write(field.offset, milliseconds);
        }
    }
}

/// Takes all that leads to the classes of these loaders away, and then their memory.
fn unload(dead: Vec<Dead>) {
    let mut loaders = HashSet::new();
    dead.iter().for_each(|loader| {
        loaders.insert(loader.id());
    });
    let is_dead = |class: Meta<Class>| class.shape.loader != 0 && loaders.contains(&class.shape.loader);
    {
        let mut classes = CLASSES.lock().unwrap_or_else(PoisonError::into_inner);
        classes.retain(|&class| !is_dead(class));
        for class in classes.iter() {
            class.forget_caches(is_dead);
        }
    }
    // SAFETY: the numbers are those of methods, and methods whose loaders are dead are still there.
    let class_of = |method: u32| unsafe { Meta::<Method>::from_offset(method) }.map(|method| method.class);
    MAPS.lock().unwrap_or_else(PoisonError::into_inner).retain(|method| !class_of(method).is_some_and(is_dead));
    link::forget_constraints(|loader| loaders.contains(&loader));
    link::forget_errors(is_dead);
    jni::forget_fields(is_dead);
    for class in dead.iter().flat_map(Dead::classes) {
        jni::forget_functions(class);
        UNLOADED.fetch_add(1, Ordering::Relaxed);
        if log::is_on(log::UNLOAD) {
            let line = format!("unloading class {} {:#018x}", class.external_name(), class.as_ptr().addr());
            log::write(log::UNLOAD, &line);
        }
        link::release_symbols(class);
    }
}

/// Visits a reference in 32 bits of a thread.
fn visit_word(slot: *mut u32, visit: &mut dyn FnMut(&mut Reference)) {
    // SAFETY: a slot of a thread that stands still; a Reference is its 32 bits.
    visit(unsafe { &mut *slot.cast::<Reference>() });
}

/// Visits a reference in a slot of a frame: its low half, on a little-endian host.
fn visit_slot(slot: *mut u64, visit: &mut dyn FnMut(&mut Reference)) {
    // SAFETY: a slot of a frame of a thread that stands still.
    let mut reference = Reference::of_slot(unsafe { slot.read() });
    if !reference.is_null() {
        visit(&mut reference);
        // SAFETY: as above.
        unsafe { slot.write(reference.slot()) };
    }
}

fn visit_frame(frame: Frame, maps: &mut Cache, visit: &mut dyn FnMut(&mut Reference)) {
    let method = frame.method();
    visit_slot(frame.lock(), visit);
    let locals = frame.locals();
    let Some(bci) = frame.bci() else {
        for (index, is_reference) in
            stackmap::arguments(method.descriptor.bytes(), method.is_static()).into_iter().enumerate()
        {
            if is_reference {
                visit_slot(locals.wrapping_add(index), visit);
            }
        }
        return;
    };
    let drops_dead = drops_dead(method);
    let maps = maps.get(method.offset(), !drops_dead, || analyze(method, drops_dead));
    let stack = frame.stack();
    let max_locals = method.max_locals as usize;
    let address = |index: usize| {
        let slot = if index < max_locals { locals.wrapping_add(index) } else { stack.wrapping_add(index - max_locals) };
        // SAFETY: a slot of the frame.
        u16::try_from(unsafe { slot.read() }).unwrap_or(u16::MAX)
    };
    let Some(map) = maps.at(bci, address) else {
        panic!("{} at {bci}: a frame is where control never gets", method.external_name())
    };
    (0..max_locals).filter(|&index| map.local(index)).for_each(|index| visit_slot(locals.wrapping_add(index), visit));
    let depth = frame.depth();
    (0..depth).filter(|&index| map.operand(index)).for_each(|index| visit_slot(stack.wrapping_add(index), visit));
}

struct PoolConstants(&'static Pool);

impl Constants for PoolConstants {
    fn is_reference(&self, index: u16) -> bool {
        match self.0.tag(index) {
            Tag::String | Tag::Class | Tag::MethodHandle | Tag::MethodType => true,
            Tag::Dynamic => {
                let (_, descriptor) = self.0.name_and_type(self.0.pair(index).1);
                matches!(descriptor.bytes().first(), Some(b'L' | b'['))
            }
            _ => false,
        }
    }

    fn descriptor(&self, index: u16, _dynamic: bool) -> &[u8] {
        let (_, descriptor) = self.0.name_and_type(self.0.pair(index).1);
        descriptor.bytes()
    }
}

fn analyze(method: Meta<Method>, drops_dead: bool) -> Maps {
    let code = interpreter::original_code(&method);
    let handlers: Vec<(u16, u16, u16)> =
        method.handlers.get().iter().map(|handler| (handler.start, handler.end, handler.target)).collect();
    let source = Source {
        code: &code,
        handlers: &handlers,
        max_locals: method.max_locals,
        max_stack: method.max_stack,
        is_static: method.is_static(),
        descriptor: method.descriptor.bytes(),
    };
    let mut maps = stackmap::analyze(source, &PoolConstants(method.constants())).unwrap_or_default();
    if drops_dead {
        maps.drop_dead(source);
    }
    maps
}
