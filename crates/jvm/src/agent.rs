//! Agents in Java (`-javaagent:JAR[=OPTIONS]`, package `java.lang.instrument`): they begin before the program, and may change each class file before a class
//! is made of it, and classes that are there.
//!
//! What programs see of an agent is an `InstrumentationImpl` of the class library, which keeps its transformers; its natives are in `natives::sun_instrument`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError, RwLock};

use classfile::jar::Jar;
use classfile::manifest::Manifest;

use crate::allocate;
use crate::arena::Meta;
use crate::boot_path;
use crate::exceptions;
use crate::handle::{Global, Handle};
use crate::interpreter;
use crate::jni;
use crate::known;
use crate::link::{self, redefine};
use crate::loader::{self, LoaderData};
use crate::metadata::Class;
use crate::object::Reference;
use crate::services;
use crate::strings;
use crate::symbol::Symbol;
use crate::thread::{Result, Thread};

/// An agent, as the command line and its jar's manifest tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agent {
    jar: String,
    options: Option<String>,
    class: String,
    boot_class_path: Vec<String>,
    redefines: bool,
    retransforms: bool,
    prefixes: bool,
}

impl Agent {
    /// Reads the manifest of the jar in `JAR[=OPTIONS]`.
    ///
    /// # Errors
    /// A line that says what is wrong, as `java` does.
    pub fn read(text: &str) -> std::result::Result<Self, String> {
        let (jar, options) = match text.split_once('=') {
            Some((jar, options)) => (jar, Some(options.to_owned())),
            None => (text, None),
        };
        Self::of_jar(jar, options, "Premain-Class")
            .ok_or_else(|| format!("Error opening zip file or JAR manifest missing : {jar}"))?
            .ok_or_else(|| format!("Failed to find Premain-Class manifest attribute in {jar}"))
    }

    /// The agent in a jar, whose class an attribute names: `None` if there is no such jar, `Some(None)` if it has no such attribute.
    fn of_jar(jar: &str, options: Option<String>, attribute: &str) -> Option<Option<Self>> {
        let bytes = std::fs::read(jar).ok()?;
        let archive = Jar::new(&bytes).ok()?;
        archive.entry("META-INF/MANIFEST.MF")?;
        let manifest = archive.manifest();
        let folder = Path::new(jar).parent().unwrap_or(Path::new(""));
        let beside = |url: &str| folder.join(path_of_url(url)).to_string_lossy().into_owned();
        let is = |name: &str| manifest.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let boot_class_path = manifest.get("Boot-Class-Path").unwrap_or("").split_whitespace().map(beside).collect();
        let agent = |class: &str| Self {
            jar: jar.into(),
            options,
            class: class.into(),
            boot_class_path,
            redefines: is("Can-Redefine-Classes"),
            retransforms: is("Can-Retransform-Classes"),
            prefixes: is("Can-Set-Native-Method-Prefix"),
        };
        Some(Manifest::get(manifest, attribute).map(agent))
    }
}

/// The path of a `file:` URL, or of a relative one.
fn path_of_url(url: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = url.strip_prefix("file:").unwrap_or(url).as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| str::from_utf8(digits).ok());
        let escaped = digits.filter(|_| first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Which transformers of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Those that see a class file once.
    Plain,
    /// Those that are asked again when a class is to be transformed again, after the others.
    Again,
}

/// An agent that has begun.
struct Running {
    instance: Global,
    retransforms: bool,
    /// Whether it has transformers, by [`Kind`].
    transforms: [bool; 2],
    /// Prefixes of native methods' names, by [`Kind`].
    prefixes: [Vec<String>; 2],
}

/// By the number that each has for its natives, less 1.
static RUNNING: RwLock<Vec<Running>> = RwLock::new(Vec::new());
/// Whether an agent has a transformer.
static IS_ANY: AtomicBool = AtomicBool::new(false);
/// The files of classes that transformers of [`Kind::Again`] have changed, as these got them, by the class's offset.
static BEFORE: LazyLock<Mutex<HashMap<u32, Vec<u8>>>> = LazyLock::new(Mutex::default);

fn change<T>(number: i64, change: impl FnOnce(&mut Running) -> T) -> Option<T> {
    let mut running = RUNNING.write().unwrap_or_else(PoisonError::into_inner);
    let index = usize::try_from(number).ok()?.checked_sub(1)?;
    running.get_mut(index).map(change)
}

/// Notes whether an agent has transformers of a kind.
pub(crate) fn set_transforms(number: i64, kind: Kind, has: bool) {
    change(number, |agent| agent.transforms[kind as usize] = has);
    let running = RUNNING.read().unwrap_or_else(PoisonError::into_inner);
    IS_ANY.store(running.iter().any(|agent| agent.transforms != [false; 2]), Ordering::Release);
}

/// Notes the prefixes that an agent gives to names of native methods.
pub(crate) fn set_prefixes(number: i64, kind: Kind, prefixes: Vec<String>) {
    change(number, |agent| agent.prefixes[kind as usize] = prefixes);
}

/// Whether an agent may transform classes again.
pub(crate) fn retransforms(number: i64) -> bool {
    change(number, |agent| agent.retransforms).unwrap_or(false)
}

/// The names that a native method may have had before agents put prefixes to it, the longest first; its own among them.
pub(crate) fn original_names(name: &[u8]) -> Vec<&[u8]> {
    let running = RUNNING.read().unwrap_or_else(PoisonError::into_inner);
    let all = running.iter().flat_map(|agent| agent.prefixes.iter().flatten()).filter(|prefix| !prefix.is_empty());
    let prefixes: Vec<&[u8]> = all.map(|prefix| prefix.as_bytes()).collect();
    let mut names = vec![name];
    let mut rest = name;
    while let Some(shorter) = prefixes.iter().find_map(|prefix| rest.strip_prefix(*prefix)) {
        names.push(shorter);
        rest = shorter;
    }
    names
}

/// Adds to the class paths what agents say, before the virtual machine starts.
pub(crate) fn prepare(agents: &[Agent]) {
    agents.iter().flat_map(|agent| &agent.boot_class_path).for_each(|path| boot_path::append(path));
}

/// Lets agents begin, in order. Ends the process if one cannot, as `java` does.
pub(crate) fn start(thread: &mut Thread, agents: Vec<Agent>) {
    for agent in agents {
        if begin(thread, &agent, "loadClassAndCallPremain").is_err() {
            jni::describe_pending(thread);
            jni::refuse_start("processing of -javaagent failed, processJavaStart failed");
        }
    }
}

/// The agent of the program's own jar (`Launcher-Agent-Class`), whose jar is on the class path already.
pub(crate) fn load(thread: &mut Thread, jar: &str) -> Result<()> {
    // The launcher does not tell why its agent could not begin.
    if let Err(refused) = services::allow_agents() {
        eprintln!("Error: {refused}");
    }
    allow(thread)?;
    match Agent::of_jar(jar, Some(String::new()), "Launcher-Agent-Class").flatten() {
        Some(agent) => {
            prepare(std::slice::from_ref(&agent));
            begin(thread, &agent, "loadClassAndCallAgentmain").map_err(|_| {
                jni::describe_pending(thread);
                exceptions::throw(thread, "java/lang/InternalError", "the agent cannot begin")
            })
        }
        None => Err(exceptions::throw(thread, "java/lang/Error", format!("{jar} has no agent"))),
    }
}

/// Throws unless the program may do all that an agent may.
pub(crate) fn allow(thread: &mut Thread) -> Result<()> {
    let refused =
        |failure: services::Failure| exceptions::throw(thread, "java/lang/SecurityException", failure.to_string());
    services::allow_agents().map_err(refused)
}

fn begin(thread: &mut Thread, agent: &Agent, entry: &str) -> Result<()> {
    thread.scope(|thread| {
        append_to_class_path(thread, &agent.jar)?;
        let class = loader::load(thread, Symbol::new("sun/instrument/InstrumentationImpl"), loader::boot())?;
        link::initialize(thread, class)?;
        let instance = allocate::instance(thread, class)?;
        let instance = thread.handle(instance);
        let number = {
            let mut running = RUNNING.write().unwrap_or_else(PoisonError::into_inner);
            let (transforms, prefixes) = ([false; 2], [Vec::new(), Vec::new()]);
            let instance = Global::new(instance.get());
            running.push(Running { instance, retransforms: agent.retransforms, transforms, prefixes });
            running.len() as u64
        };
        let own = |name: &str, descriptor: &str| class.declared_method(Symbol::new(name), Symbol::new(descriptor));
        let missing = "the class library of JDK 17 has it";
        let (redefines, prefixes) = (u64::from(agent.redefines), u64::from(agent.prefixes));
        let constructor = own("<init>", "(JZZ)V").expect(missing);
        interpreter::call(thread, constructor, &[instance.slot(), number, 0, redefines, prefixes])?;
        let name = strings::new(thread, &agent.class)?;
        let name = thread.handle(name);
        let options = match &agent.options {
            Some(options) => strings::new(thread, options)?,
            None => Reference::NULL,
        };
        let entry = own(entry, "(Ljava/lang/String;Ljava/lang/String;)V").expect(missing);
        interpreter::call(thread, entry, &[instance.slot(), name.slot(), options.slot()]).map(drop)
    })
}

/// Appends a jar to what the system's class loader looks into.
pub(crate) fn append_to_class_path(thread: &mut Thread, jar: &str) -> Result<()> {
    thread.scope(|thread| {
        let descriptor = "()Ljava/lang/ClassLoader;";
        let system =
            crate::bootstrap::call_static(thread, "java/lang/ClassLoader", "getSystemClassLoader", descriptor, &[])?;
        let system = thread.handle(Reference::of_slot(system));
        let name = Symbol::new("appendToClassPathForInstrumentation");
        let append = system.get().class().find_method(name, Symbol::new("(Ljava/lang/String;)V"));
        let Some(append) = append else {
            let message = format!("System class loader does not define {} method", name.text());
            return Err(exceptions::throw(thread, "java/lang/InternalError", message));
        };
        let jar = strings::new(thread, jar)?;
        interpreter::call(thread, append, &[system.slot(), jar.slot()]).map(drop)
    })
}

/// A class file on its way to a class.
#[derive(Clone, Copy)]
pub(crate) struct Offer {
    /// The loader.
    pub data: &'static LoaderData,
    /// The internal name; none if who defines it has told none.
    pub name: Option<Symbol>,
    /// The class that is there already.
    pub redefined: Option<Meta<Class>>,
    /// The protection domain.
    pub domain: Option<Handle>,
}

/// What a class is made of.
#[derive(Debug)]
pub(crate) struct Transformed {
    /// The class file.
    pub file: Vec<u8>,
    /// What transformers of [`Kind::Again`] got, if they have changed it.
    before: Option<Vec<u8>>,
}

impl Transformed {
    /// Notes what a class was made of, so that it can be transformed again.
    pub(crate) fn keep(self, class: Meta<Class>) {
        // The file of a class of the library is not kept with the class: what the loader finds again is what it was at first.
        let before = self.before.or_else(|| class.trusted.then_some(self.file));
        let mut files = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
        match before {
            Some(before) => drop(files.insert(class.offset(), before)),
            None => drop(files.remove(&class.offset())),
        }
    }
}

/// Forgets the files of classes that are unloaded, told by their offsets.
pub(crate) fn forget(is_dead: impl Fn(u32) -> bool) {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner).retain(|&class, _| !is_dead(class));
}

/// Lets all transformers see a class file. `None` if none changes it.
#[inline]
pub(crate) fn transform(thread: &mut Thread, offer: Offer, bytes: &[u8]) -> Option<Transformed> {
    if IS_ANY.load(Ordering::Acquire) { transform_by_all(thread, offer, bytes) } else { None }
}

fn transform_by_all(thread: &mut Thread, offer: Offer, bytes: &[u8]) -> Option<Transformed> {
    let first = transform_by(thread, offer, bytes, Kind::Plain);
    let again = transform_by(thread, offer, first.as_deref().unwrap_or(bytes), Kind::Again);
    match again {
        Some(file) => Some(Transformed { file, before: Some(first.unwrap_or_else(|| bytes.to_vec())) }),
        None => first.map(|file| Transformed { file, before: None }),
    }
}

/// Lets the transformers of one kind see a class file. Classes that they need themselves they do not see.
fn transform_by(thread: &mut Thread, offer: Offer, bytes: &[u8], kind: Kind) -> Option<Vec<u8>> {
    let agents: Vec<Global> = {
        let running = RUNNING.read().unwrap_or_else(PoisonError::into_inner);
        running.iter().filter(|agent| agent.transforms[kind as usize]).map(|agent| agent.instance).collect()
    };
    if agents.is_empty() || std::mem::replace(&mut thread.transforming, true) {
        return None;
    }
    let mut changed: Option<Vec<u8>> = None;
    for agent in agents {
        let before = changed.as_deref().unwrap_or(bytes);
        match thread.scope(|thread| ask(thread, agent, offer, before, kind)) {
            Ok(None) => {}
            Ok(after) => changed = after,
            // Those of transformers the class library has caught: this one is of the virtual machine itself, memory that has run out for example.
            Err(_) => drop(thread.take_exception()),
        }
    }
    thread.transforming = false;
    changed
}

/// `InstrumentationImpl.transform`
fn ask(thread: &mut Thread, agent: Global, offer: Offer, bytes: &[u8], kind: Kind) -> Result<Option<Vec<u8>>> {
    let class = agent.get().class();
    let descriptor = "(Ljava/lang/Module;Ljava/lang/ClassLoader;Ljava/lang/String;Ljava/lang/Class;Ljava/security/ProtectionDomain;[BZ)[B";
    let method = class.declared_method(Symbol::new("transform"), Symbol::new(descriptor));
    let method = method.expect("the class library of JDK 17 has it");
    let name = match offer.name {
        Some(name) => strings::new(thread, &name.text())?,
        None => Reference::NULL,
    };
    let name = thread.handle(name);
    let file = allocate::byte_array(thread, bytes)?;
    // The library finds the module of a class that is there, and the unnamed one.
    let package = |name: Symbol| {
        let name = name.bytes();
        offer.data.module_of(name.iter().rposition(|&byte| byte == b'/').map_or(&[][..], |at| &name[..at]))
    };
    let module = offer.name.filter(|_| offer.redefined.is_none()).and_then(package);
    let arguments = [
        agent.get().slot(),
        module.map_or(0, |module| module.get().slot()),
        offer.data.reference().slot(),
        name.slot(),
        offer.redefined.map_or(0, |class| class.mirror().slot()),
        offer.domain.map_or(0, Handle::slot),
        file.slot(),
        u64::from(kind == Kind::Again),
    ];
    let result = Reference::of_slot(interpreter::call(thread, method, &arguments)?);
    Ok((!result.is_null()).then(|| (0..result.length()).map(|index| result.element(index)).collect()))
}

fn offer_of(thread: &mut Thread, class: Meta<Class>) -> Offer {
    let domain = class.mirror().reference(known::class_protection_domain());
    let domain = thread.handle(domain);
    Offer { data: loader::data(class.loader), name: Some(class.name), redefined: Some(class), domain: Some(domain) }
}

fn refuse_unmodifiable(thread: &mut Thread, class: Meta<Class>) -> Result<()> {
    if redefine::is_modifiable(class) {
        return Ok(());
    }
    Err(exceptions::throw_plain(thread, "java/lang/instrument/UnmodifiableClassException"))
}

/// Gives classes other files, which transformers see.
pub(crate) fn redefine(thread: &mut Thread, classes: Vec<(Meta<Class>, Vec<u8>)>) -> Result<()> {
    allow(thread)?;
    let mut versions = Vec::with_capacity(classes.len());
    for (class, file) in classes {
        if file.is_empty() {
            return Err(exceptions::throw_plain(thread, "java/lang/ClassFormatError"));
        }
        refuse_unmodifiable(thread, class)?;
        let transformed = thread.scope(|thread| {
            let offer = offer_of(thread, class);
            transform(thread, offer, &file)
        });
        versions.push((class, transformed.unwrap_or(Transformed { file, before: None })));
    }
    install(thread, versions)
}

/// Has the transformers of [`Kind::Again`] see the files of classes again, and gives the classes what they make of these.
pub(crate) fn retransform(thread: &mut Thread, classes: &[Meta<Class>]) -> Result<()> {
    allow(thread)?;
    let mut versions = Vec::with_capacity(classes.len());
    for &class in classes {
        refuse_unmodifiable(thread, class)?;
        let Some(file) = file_of(class) else {
            return Err(exceptions::throw_plain(thread, "java/lang/instrument/UnmodifiableClassException"));
        };
        let changed = thread.scope(|thread| {
            let offer = offer_of(thread, class);
            transform_by(thread, offer, &file, Kind::Again)
        });
        let transformed = match changed {
            Some(changed) => Transformed { file: changed, before: Some(file) },
            None => Transformed { file, before: None },
        };
        versions.push((class, transformed));
    }
    install(thread, versions)
}

fn install(thread: &mut Thread, versions: Vec<(Meta<Class>, Transformed)>) -> Result<()> {
    redefine::redefine(thread, versions.iter().map(|(class, version)| (*class, version.file.as_slice())))?;
    versions.into_iter().for_each(|(class, version)| version.keep(class));
    Ok(())
}

/// What transformers of [`Kind::Again`] got of a class when it was made.
fn file_of(class: Meta<Class>) -> Option<Vec<u8>> {
    if let Some(file) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).get(&class.offset()) {
        return Some(file.clone());
    }
    let (start, length) = class.class_file;
    if length == 0 {
        return loader::boot_file(class.name.bytes()).map(<[u8]>::to_vec);
    }
    // SAFETY: the class's file is in its loader's part of the arena, which lives as long as the class, and is never written.
    Some(unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(start), length) }.to_vec())
}
