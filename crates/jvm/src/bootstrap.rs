//! From nothing to a virtual machine that runs programs: the order of the class library of JDK 17.
//!
//! ```text
//! arenas -> Object, Class, mirrors, primitive classes -> String, System -> thread groups, the main thread -> Module, Finalizer
//!        -> System.initPhase1 (properties, console) -> errors made in advance -> initPhase2 (modules) -> initPhase3 (application loader)
//! ```

use std::path::PathBuf;
use std::sync::{LazyLock, OnceLock};

use classfile::jimage::Image;
use machine::clock::Clock;

use crate::agent::{self, Agent};
use crate::allocate;
use crate::arena;
use crate::assertions::Assertions;
use crate::boot_path;
use crate::exceptions;
use crate::handle::{Global, Handle};
use crate::heap;
use crate::interpreter;
use crate::known;
use crate::library::release;
use crate::link;
use crate::loader;
use crate::natives;
use crate::object::Reference;
use crate::roots;
use crate::services::Policy;
use crate::stackmap;
use crate::strings;
use crate::symbol::Symbol;
use crate::thread::{Result, Thread, Thrown};

/// How a virtual machine is started.
#[derive(Debug, Default)]
pub struct Options {
    /// The JDK's folder, in which `lib/modules` is.
    pub home: PathBuf,
    /// The words of the command line that are for the virtual machine.
    pub arguments: Vec<String>,
    /// System properties, in order.
    pub properties: Vec<(String, String)>,
    /// Whether NullPointerException says nothing: `-XX:-ShowCodeDetailsInExceptionMessages`.
    pub plain_messages: bool,
    /// Whether C code is checked: `-Xcheck:jni`.
    pub check_jni: bool,
    /// Whether errors of C code end the process with a status, not by a signal: `-XX:-CreateCoredumpOnCrash`.
    pub no_core: bool,
    /// Whether stack traces have hidden frames: `-XX:+ShowHiddenFrames`.
    pub hidden_frames: bool,
    /// Which assertions are on: `-ea` and the like.
    pub assertions: Assertions,
    /// What is done when memory has run out.
    pub no_memory: exceptions::Reaction,
    /// Processors that programs are told of; 0: those of the host that this process may use.
    pub processors: i32,
    /// Bytes of a thread's Java stack; 0: as many as is usual.
    pub stack_size: usize,
    /// `-Xrs`: the signals of shutdown and of the thread dump are left to the host.
    pub reduced_signals: bool,
    /// `-XX:MaxMetaspaceSize`: bytes of classes at most; 0: no limit but that of their address range.
    pub metadata_max: usize,
    /// `-Xint`: local variables keep their objects also when they are not read any more.
    pub keeps_dead_locals: bool,
    /// `-Xverify:all`: the class library is verified, too.
    pub verifies_all: bool,
    /// `-Xnoclassgc`: classes stay when nobody needs them.
    pub keeps_classes: bool,
    /// The heap.
    pub heap: heap::Options,
    /// Agents, which begin before the program.
    pub agents: Vec<Agent>,
    /// What the program may do.
    pub policy: Policy,
}

/// Why no virtual machine was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The class library's image cannot be read.
    #[error("cannot read {0}: {1}; give the folder of a JDK 17 by --java-home")]
    Library(PathBuf, std::io::Error),
    /// It is no image, or of another version.
    #[error("{0}: {1}")]
    Image(PathBuf, classfile::jimage::Error),
    /// Memory is not to be had.
    #[error("cannot reserve address space for classes: {0}; raise `ulimit -v`")]
    Memory(#[from] std::io::Error),
    /// The heap is not to be had.
    #[error(transparent)]
    Heap(#[from] heap::HeapError),
    /// The modules do not fit together, which the class library has said.
    #[error("the boot layer cannot be made")]
    Modules,
    /// Java code of the start threw.
    #[error("the class library did not start: {0}")]
    Library17(String),
}

static PROPERTIES: OnceLock<Vec<(String, String)>> = OnceLock::new();
static ARGUMENTS: OnceLock<Vec<String>> = OnceLock::new();
static PROCESSORS: OnceLock<i32> = OnceLock::new();
static HIDDEN_FRAMES: OnceLock<bool> = OnceLock::new();
static PLAIN_MESSAGES: OnceLock<bool> = OnceLock::new();
static ASSERTIONS: OnceLock<Assertions> = OnceLock::new();
static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::new);

/// System properties that the virtual machine sets.
pub fn properties() -> &'static [(String, String)] {
    PROPERTIES.get().map_or(&[], Vec::as_slice)
}

/// The words of the command line that are for the virtual machine.
pub fn arguments() -> &'static [String] {
    ARGUMENTS.get().map_or(&[], Vec::as_slice)
}

/// How many processors programs are told of.
pub fn processors() -> i32 {
    match PROCESSORS.get() {
        Some(&count @ 1..) => count,
        _ => std::thread::available_parallelism().map_or(1, |count| i32::try_from(count.get()).unwrap_or(1)),
    }
}

/// Which assertions are on.
pub fn assertions() -> &'static Assertions {
    ASSERTIONS.get_or_init(Assertions::default)
}

/// Whether NullPointerException does not tell what was null.
pub fn plain_messages() -> bool {
    PLAIN_MESSAGES.get().copied().unwrap_or(false)
}

/// Whether stack traces have hidden frames.
pub fn hidden_frames() -> bool {
    HIDDEN_FRAMES.get().copied().unwrap_or(false)
}

/// The clock of `System.nanoTime`.
pub fn clock() -> &'static Clock {
    &CLOCK
}

/// The version of the class library, as stack traces have it.
pub fn java_version() -> String {
    properties().iter().find(|(name, _)| name == "java.version").map_or_else(|| "17".into(), |(_, value)| value.clone())
}

/// The version of the class library in a folder.
pub fn library_version(home: &std::path::Path) -> String {
    release(home, "JAVA_VERSION").unwrap_or_else(|| "17".into())
}

/// Where libraries are looked for: what the host's linker is told, then the usual places of the distribution.
fn library_path() -> String {
    let usual = "/usr/java/packages/lib:/usr/lib/x86_64-linux-gnu/jni:/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu:/usr/lib/jni:/lib:/usr/lib";
    match std::env::var("LD_LIBRARY_PATH") {
        Ok(path) if !path.is_empty() => format!("{path}:{usual}"),
        _ => usual.into(),
    }
}

fn all_properties(options: &Options) -> Vec<(String, String)> {
    let version = release(&options.home, "JAVA_VERSION").unwrap_or_else(|| "17".into());
    let runtime = release(&options.home, "JAVA_RUNTIME_VERSION").unwrap_or_else(|| version.clone());
    let home = options.home.to_string_lossy().into_owned();
    let boot_path = format!("{home}/lib");
    let library_path = library_path();
    let fixed = [
        ("java.home", home.as_str()),
        ("java.vm.specification.name", "Java Virtual Machine Specification"),
        ("java.vm.specification.vendor", "Oracle Corporation"),
        ("java.vm.specification.version", "17"),
        ("java.vm.name", "Isomorph Server VM"),
        ("java.vm.vendor", "Isomorph"),
        ("java.vm.version", env!("CARGO_PKG_VERSION")),
        ("java.vm.info", "interpreted mode"),
        ("java.vm.compressedOopsMode", "Zero based"),
        ("java.specification.version", "17"),
        ("java.version", version.as_str()),
        ("java.runtime.version", runtime.as_str()),
        ("java.class.version", "61.0"),
        ("java.library.path", library_path.as_str()),
        ("sun.boot.library.path", boot_path.as_str()),
        ("java.vm.debug", ""),
        ("jdk.debug", "release"),
        ("sun.nio.MaxDirectMemorySize", "-1"),
        ("sun.nio.PageAlignDirectMemory", "false"),
    ];
    let mut all: Vec<(String, String)> = fixed
        .into_iter()
        .filter(|(name, _)| *name != "java.vm.debug")
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    for (name, value) in &options.properties {
        all.retain(|(other, _)| other != name);
        all.push((name.clone(), value.clone()));
    }
    all
}

/// Starts the virtual machine of this process, and makes this host thread its main thread.
///
/// # Errors
/// If the class library or memory is not to be had.
pub fn start(options: Options) -> std::result::Result<&'static mut Thread, StartError> {
    let path = options.home.join("lib/modules");
    let file = std::fs::File::open(&path).map_err(|error| StartError::Library(path.clone(), error))?;
    let bytes = machine::sys::map_file(&file).map_err(|error| StartError::Library(path.clone(), error))?;
    let image = Image::new(bytes).map_err(|error| StartError::Image(path, error))?;
    for (name, value) in &options.properties {
        if name == "jdk.boot.class.path.append" {
            boot_path::append(value);
        } else if name.starts_with("jdk.module.patch.")
            && let Some((module, path)) = value.split_once('=')
        {
            boot_path::patch(module, path);
        }
    }
    agent::prepare(&options.agents);
    loader::set_image(image, bytes);
    let _ = PROPERTIES.set(all_properties(&options));
    let _ = ARGUMENTS.set(options.arguments);
    let _ = ASSERTIONS.set(options.assertions);
    let _ = PROCESSORS.set(options.processors);
    exceptions::set_reaction(options.no_memory);
    crate::services::set_policy(options.policy);
    let _ = PLAIN_MESSAGES.set(options.plain_messages);
    let _ = HIDDEN_FRAMES.set(options.hidden_frames);
    if options.check_jni {
        crate::jni::checks::begin();
    }
    if options.no_core {
        crate::jni::end_quietly();
    }
    let _ = clock().now_ns();
    arena::reserve()?;
    allocate::start(options.heap)?;
    if options.metadata_max > 0 {
        arena::set_limit(options.metadata_max);
    }
    if options.keeps_dead_locals {
        roots::keep_dead_locals();
    }
    if options.verifies_all {
        link::verify_all();
    }
    if options.keeps_classes {
        loader::keep_all();
    }
    if options.reduced_signals {
        crate::signals::reduce();
    }
    crate::signals::start()?;
    crate::thread::set_stack_size(options.stack_size);
    let thread = Thread::attach(1)?;
    if run(thread).is_err() {
        if thread.exception.is_null() {
            return Err(StartError::Modules);
        }
        return Err(StartError::Library17(describe(thread)));
    }
    crate::signals::set_started();
    crate::jni::invocation::set_ready();
    agent::start(thread, options.agents);
    Ok(thread)
}

/// What went wrong, for people.
pub(crate) fn describe(thread: &mut Thread) -> String {
    let exception = thread.take_exception();
    let message = exception.reference(known::throwable_message());
    let mut text = exception.class().external_name();
    if !message.is_null() {
        text = format!("{text}: {}", strings::text(message));
    }
    let backtrace = natives::throwable::backtrace(exception);
    if !backtrace.is_null() {
        for index in 0..backtrace.length().min(40) {
            let word: u64 = backtrace.element(index);
            #[allow(clippy::cast_possible_truncation, reason = "packed by Throwable's native")]
            // SAFETY: packed from a method by Throwable's native.
            if let Some(method) = unsafe { arena::Meta::<crate::metadata::Method>::from_offset((word >> 16) as u32) } {
                let line = u16::try_from(word & 0xFFFF).ok().and_then(|bci| method.line_at(bci));
                text = format!("{text}\n\tat {}:{}", method.external_name(), line.map_or(-1, i32::from));
            }
        }
    }
    let cause = exception.reference(known::throwable_cause());
    if !cause.is_null() && cause != exception {
        thread.throw(cause);
        text = format!("{text}\nCaused by: {}", describe(thread));
    }
    text
}

/// Calls a static method of a class of the library.
pub(crate) fn call_static(
    thread: &mut Thread,
    class: &str,
    name: &str,
    descriptor: &str,
    arguments: &[u64],
) -> Result<u64> {
    // Loading and initialising may collect: references among the arguments wait in handles.
    let mark = thread.handles.mark();
    let references = stackmap::arguments(descriptor.as_bytes(), true);
    let kept: Vec<Option<Handle>> = references
        .iter()
        .zip(arguments)
        .map(|(&is_reference, &slot)| is_reference.then(|| thread.handle(Reference::of_slot(slot))))
        .collect();
    let class = loader::boot_class(class);
    let initialized = link::initialize(thread, class);
    let arguments: Vec<u64> =
        kept.iter().zip(arguments).map(|(handle, &slot)| handle.map_or(slot, Handle::slot)).collect();
    thread.handles.release(mark);
    initialized?;
    let method =
        class.find_method(Symbol::new(name), Symbol::new(descriptor)).expect("the class library of JDK 17 has it");
    interpreter::call(thread, method, &arguments)
}

fn run(thread: &mut Thread) -> Result<()> {
    loader::boot_class("java/lang/Object");
    loader::boot_class("java/lang/Class");
    set_reference_fields();
    link::make_first_mirrors(thread)?;
    link::make_primitive_classes(thread)?;
    link::initialize(thread, known::string())?;
    link::initialize(thread, known::system())?;
    link::initialize(thread, known::class())?;
    threads(thread)?;
    link::initialize(thread, known::module())?;
    unsafe_constants(thread)?;
    link::initialize(thread, known::reflect_method())?;
    link::initialize(thread, loader::boot_class("java/lang/ref/Finalizer"))?;
    call_static(thread, "java/lang/System", "initPhase1", "()V", &[])?;
    exceptions::preallocate(thread)?;
    for class in ["MethodHandle", "ResolvedMethodName", "MemberName", "MethodHandleNatives"] {
        link::initialize(thread, loader::boot_class(&format!("java/lang/invoke/{class}")))?;
    }
    let result = call_static(thread, "java/lang/System", "initPhase2", "(ZZ)I", &[0, 0])?;
    if result != 0 {
        return Err(Thrown);
    }
    call_static(thread, "java/lang/System", "initPhase3", "()V", &[])?;
    Ok(())
}

fn set_reference_fields() {
    let offset =
        |class: &str, name: &str, descriptor: &str| known::field(loader::boot_class(class), name, descriptor) as usize;
    let reference = "java/lang/ref/Reference";
    allocate::heap().set_reference_fields(heap::ReferenceFields {
        referent: offset(reference, "referent", "Ljava/lang/Object;"),
        next: offset(reference, "next", "Ljava/lang/ref/Reference;"),
        discovered: offset(reference, "discovered", "Ljava/lang/ref/Reference;"),
        timestamp: offset("java/lang/ref/SoftReference", "timestamp", "J"),
    });
}

/// The thread groups and the object of the main thread.
fn threads(thread: &mut Thread) -> Result<()> {
    let init = Symbol::new("<init>");
    let class = known::thread_group();
    link::initialize(thread, class)?;
    let system = allocate::instance(thread, class)?;
    let system = thread.handle(system);
    let constructor = class.declared_method(init, Symbol::new("()V")).expect("ThreadGroup has a plain constructor");
    interpreter::call(thread, constructor, &[system.slot()])?;
    let main = allocate::instance(thread, class)?;
    let main = thread.handle(main);
    let name = strings::new(thread, "main")?;
    let name = thread.handle(name);
    let descriptor = Symbol::new("(Ljava/lang/ThreadGroup;Ljava/lang/String;)V");
    let constructor = class.declared_method(init, descriptor).expect("ThreadGroup has a constructor with a name");
    interpreter::call(thread, constructor, &[main.slot(), system.slot(), name.slot()])?;
    natives::threads::set_main_group(main.get());

    let class = known::thread();
    let object = allocate::instance(thread, class)?;
    let global = Global::new(object);
    thread.object = Some(global);
    thread.control.set_object(global);
    object.write(known::thread_priority(), 5_i32);
    let number = natives::enter_main(thread);
    object.write(known::thread_eetop(), number);
    link::initialize(thread, class)?;
    let name = thread.handle(name.get());
    let constructor = class.declared_method(init, descriptor).expect("Thread has a constructor with group and name");
    let object = thread.object.map_or(Reference::NULL, Global::get);
    interpreter::call(thread, constructor, &[object.slot(), main.slot(), name.slot()])?;
    let object = thread.object.map_or(Reference::NULL, Global::get);
    object.write(known::thread_status(), 5_i32);
    Ok(())
}

/// `jdk.internal.misc.UnsafeConstants` has what the virtual machine says.
fn unsafe_constants(thread: &mut Thread) -> Result<()> {
    let class = loader::boot_class("jdk/internal/misc/UnsafeConstants");
    link::initialize(thread, class)?;
    let mirror = class.mirror();
    mirror.write(known::field(class, "ADDRESS_SIZE0", "I"), 8_i32);
    mirror.write(known::field(class, "PAGE_SIZE", "I"), 4096_i32);
    mirror.write(known::field(class, "BIG_ENDIAN", "Z"), false);
    mirror.write(known::field(class, "UNALIGNED_ACCESS", "Z"), true);
    mirror.write(known::field(class, "DATA_CACHE_LINE_FLUSH_SIZE", "I"), 0_i32);
    Ok(())
}
