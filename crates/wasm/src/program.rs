//! Programs: from a file to compiled code.
//!
//! Compiling and running are two engines with the same settings: the one that runs has no compiler, and the one that compiles is made when something
//! is not in the cache. So a program that is there does not pay for a compiler.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use machine::snapshot::{Snapshot, SnapshotError};
use wasmtime::component::Component;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, Module, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::cache::{Cache, Key};
use crate::exposed::expose;
use crate::snapshot;

/// What a guest may use of its stack, in bytes: as much as a Linux program.
const STACK_BYTES: usize = 8 << 20;
/// The host's part of the stack below the guest's.
const HOST_STACK_BYTES: usize = 1 << 20;
/// Requests that a server handles at once.
pub(crate) const REQUESTS_MAX: u32 = 1000;

/// The engine, and where it keeps what it has compiled.
#[derive(Clone)]
pub struct Host {
    pub(crate) engine: Engine,
    config: Config,
    compiler: Arc<OnceLock<Engine>>,
    cache: Option<Cache>,
}

/// Why a file is not a program that can run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read it")]
    Read(#[from] io::Error),
    /// It is compiled code.
    #[error("it is compiled code, which cannot be checked for safety; run the .wasm file that it was made from")]
    Compiled,
    /// It is neither a valid module nor a valid component.
    #[error("not a valid WebAssembly program: {0}")]
    Invalid(String),
    /// It is a snapshot, and a bad one.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The engine cannot be set up.
    #[error("this host cannot run WebAssembly: {0}")]
    Engine(String),
}

/// One line of an error and its causes.
pub(crate) fn one_line(error: &wasmtime::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // A cause may be repeated by what wraps it; what follows the first line is a listing.
        let text = text.lines().next().unwrap_or_default().trim_end_matches(':');
        if !text.is_empty() && !line.contains(text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(text);
        }
    }
    line
}

impl Host {
    /// An engine for one guest after another; compiled code is kept in `cache`, if there is one.
    ///
    /// # Errors
    /// [`LoadError::Engine`].
    pub fn new(cache: Option<Cache>) -> Result<Self, LoadError> {
        Self::with_config(&Self::config(), cache)
    }

    /// An engine for many short-lived guests at once: their memories come from a pool.
    ///
    /// # Errors
    /// [`LoadError::Engine`].
    pub fn pooling(cache: Option<Cache>, memory_bytes_max: usize) -> Result<Self, LoadError> {
        let mut pool = PoolingAllocationConfig::default();
        pool.total_component_instances(REQUESTS_MAX);
        pool.total_core_instances(REQUESTS_MAX * 4);
        pool.total_memories(REQUESTS_MAX * 2);
        pool.total_tables(REQUESTS_MAX * 4);
        pool.total_stacks(REQUESTS_MAX);
        pool.total_gc_heaps(REQUESTS_MAX);
        pool.max_memory_size(memory_bytes_max);
        pool.max_unused_warm_slots(64);
        pool.linear_memory_keep_resident(64 << 10);
        let mut config = Self::config();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        Self::with_config(&config, cache)
    }

    /// An engine as programs get it, with a compiler.
    ///
    /// # Errors
    /// [`LoadError::Engine`].
    pub fn compiler(&self) -> Result<&Engine, LoadError> {
        if let Some(engine) = self.compiler.get() {
            return Ok(engine);
        }
        let engine = Engine::new(&self.config).map_err(|error| LoadError::Engine(one_line(&error)))?;
        Ok(self.compiler.get_or_init(|| engine))
    }

    fn config() -> Config {
        let mut config = Config::new();
        config.epoch_interruption(true);
        config.max_wasm_stack(STACK_BYTES);
        config.async_stack_size(STACK_BYTES + HOST_STACK_BYTES);
        // Line numbers cost only when a trap is told, and only where a program carries them.
        config.wasm_backtrace_details(WasmBacktraceDetails::Enable);
        config
    }

    fn with_config(config: &Config, cache: Option<Cache>) -> Result<Self, LoadError> {
        let mut without = config.clone();
        without.enable_compiler(false);
        let engine = Engine::new(&without).map_err(|error| LoadError::Engine(one_line(&error)))?;
        Ok(Self { engine, config: config.clone(), compiler: Arc::default(), cache })
    }

    /// The code of `bytes`: from the cache, else compiled.
    fn code(&self, bytes: &[u8], form: Form) -> Result<Code, LoadError> {
        let key = Key::new(bytes, &(CACHE_VERSION, form));
        if let Some(cache) = &self.cache
            && let Some(file) = cache.open(&key)
        {
            // What was compiled for another processor or by another version of the engine is not taken, and made anew.
            match self.code_of_file(file, form) {
                Ok(code) => return Ok(code),
                Err(_) => cache.forget(&key),
            }
        }
        let invalid = |error: wasmtime::Error| LoadError::Invalid(one_line(&error));
        let compiler = self.compiler()?;
        let code = match form {
            Form::Module => compiler.precompile_module(bytes),
            Form::Component => compiler.precompile_component(bytes),
            // What is not valid is told of the program itself.
            Form::ExposedModule => Module::validate(compiler, bytes)
                .and_then(|()| expose(bytes))
                .and_then(|exposed| compiler.precompile_module(&exposed)),
        };
        let code = code.map_err(invalid)?;
        if let Some(cache) = &self.cache {
            // A cache that cannot be written costs time, nothing else.
            let _ = cache.store(&key, &code);
        }
        let internal = |error: wasmtime::Error| LoadError::Engine(one_line(&error));
        // SAFETY: the code was made just now, by an engine of the same settings.
        unsafe {
            Ok(match form {
                Form::Component => Code::Component(Component::deserialize(&self.engine, code).map_err(internal)?),
                _ => Code::Module(Module::deserialize(&self.engine, code).map_err(internal)?),
            })
        }
    }

    /// The code in a file of the cache.
    fn code_of_file(&self, file: fs::File, form: Form) -> wasmtime::Result<Code> {
        // SAFETY: the cache gives out only what an engine stored there, and what is intact; whether it was one of this version and these
        // settings, the engine looks at itself.
        unsafe {
            Ok(match form {
                Form::Component => {
                    // The very file whose checksum was right, whatever has its name by now.
                    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                    Code::Component(Component::deserialize_file(&self.engine, path)?)
                }
                _ => Code::Module(Module::deserialize_open_file(&self.engine, file)?),
            })
        }
    }
}

/// Part of every key of the cache: to be counted up when [`Host::config`] or [`expose`] makes other code of a program.
const CACHE_VERSION: u32 = 1;

/// What a program is compiled as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    Module,
    /// A module of which snapshots can be taken.
    ExposedModule,
    Component,
}

/// The two shapes of WebAssembly programs.
#[derive(Clone)]
pub(crate) enum Code {
    /// A core module: WASI preview 1.
    Module(Module),
    /// A component: WASI preview 2.
    Component(Component),
}

/// A compiled program.
#[derive(Clone)]
pub struct Program {
    pub(crate) host: Host,
    pub(crate) name: String,
    pub(crate) code: Code,
    /// What snapshots need, if they were asked for.
    pub(crate) exposed: Option<Arc<Exposed>>,
}

/// What a program has of which snapshots can be taken.
pub(crate) struct Exposed {
    /// The module as it was read.
    pub(crate) source: Vec<u8>,
    /// Where it goes on from.
    pub(crate) snapshot: Option<Snapshot>,
}

/// Whether these are the first bytes of a WebAssembly module or component, or of its compiled form.
#[must_use]
pub fn is_wasm(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\0asm")
}

/// The program in binary form.
fn binary(bytes: &[u8]) -> Result<std::borrow::Cow<'_, [u8]>, LoadError> {
    if Engine::detect_precompiled(bytes).is_some() {
        return Err(LoadError::Compiled);
    }
    wat::parse_bytes(bytes).map_err(|error| {
        // The message shows the place in several lines; the first says what and the second where.
        let text = error.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(2).collect();
        LoadError::Invalid(lines.join(" "))
    })
}

/// The name of a program in a file.
fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

impl Program {
    /// Reads and compiles a program: `.wasm`, or `.wat` text.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(host: &Host, path: &Path) -> Result<Self, LoadError> {
        Self::from_bytes(host, &name_of(path), &fs::read(path)?)
    }

    /// As [`Self::load`], of the file's content.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_bytes(host: &Host, name: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        let bytes = binary(bytes)?;
        // Bytes 4 to 8: version 1 of modules; components have another layer.
        let form = if bytes.get(6..8) == Some(&[0, 0]) { Form::Module } else { Form::Component };
        Ok(Self { host: host.clone(), name: name.to_owned(), code: host.code(&bytes, form)?, exposed: None })
    }

    /// As [`Self::load`], of a module that snapshots will be taken of. `host` is not a pooling one.
    ///
    /// # Errors
    /// As [`Self::load`], and if it has state that a snapshot cannot hold.
    pub fn load_for_snapshots(host: &Host, path: &Path) -> Result<Self, LoadError> {
        let source = binary(&fs::read(path)?)?.into_owned();
        Self::exposed(host, name_of(path), source, None)
    }

    /// The program in a snapshot, which goes on from there. `host` is not a pooling one.
    ///
    /// # Errors
    /// As [`Self::load`]; and if it is no snapshot of a WebAssembly program.
    pub fn restore(host: &Host, directory: &Path) -> Result<Self, LoadError> {
        let snapshot = Snapshot::open(directory)?;
        snapshot.check_kind(snapshot::KIND)?;
        let mut parts = snapshot.parts();
        let name = String::from_utf8_lossy(&parts.section(snapshot::NAME, snapshot::SECTION_VERSION)?).into_owned();
        let source = parts.section(snapshot::PROGRAM, snapshot::SECTION_VERSION)?;
        Self::exposed(host, name, source, Some(snapshot))
    }

    fn exposed(host: &Host, name: String, source: Vec<u8>, snapshot: Option<Snapshot>) -> Result<Self, LoadError> {
        let code = host.code(&source, Form::ExposedModule)?;
        Ok(Self { host: host.clone(), name, code, exposed: Some(Arc::new(Exposed { source, snapshot })) })
    }

    /// The name of the file that it came from.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}
