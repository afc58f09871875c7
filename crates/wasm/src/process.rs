//! A guest with a life: the machine of one program.
//!
//! ```text
//!  verbs --> channel --> driver task ==== polls ====> guest task (compiled code, WASI)
//!              and an epoch tick, so that the guest yields to the driver wherever it is
//! ```
//!
//! Both tasks run on the machine's one thread. A paused guest is one that is not polled; a stopped one is dropped.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use machine::clock::Clock;
use machine::lifecycle::{Asked, Driven, Life, Machine, State, Stats, StopReason};
use tokio::sync::mpsc;
use wasmtime::{Engine, ExternType, Instance, Linker, Module, Store, Val, ValType};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::bindings::Command;

use crate::exposed::Part;
use crate::limits::{CpuTime, MemoryLimit, Ticker, limit};
use crate::program::{Code, Program, one_line};
use crate::settings::Settings;
use crate::snapshot;
use crate::trap::{self, End};
use crate::wasi::{self, ComponentState};

/// How often a guest is made to yield while a verb waits for its driver.
const NUDGE: Duration = Duration::from_micros(100);

/// A snapshot that is waited for: where to, and whom to tell.
type Wanted = (PathBuf, sync_channel::Sender<Result<(), String>>);

struct Shared {
    engine: Engine,
    clock: Clock,
    memory: MemoryLimit,
    cpu_time: CpuTime,
    /// Who waits for a snapshot. None when there will be none: the call has ended, or the program was not loaded for it.
    snapshots: Mutex<Option<Vec<Wanted>>>,
    life: Life,
    /// Verbs that were handed to the driver, and those of them that it has taken.
    handed: AtomicU64,
    taken: AtomicU64,
}

impl Shared {
    fn snapshots(&self) -> MutexGuard<'_, Option<Vec<Wanted>>> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self, reason: StopReason) {
        // Those who wait for one hear that there is none.
        self.snapshots().take();
        self.life.end(reason);
    }
}

/// The machine of one WebAssembly program.
pub struct Process {
    shared: Arc<Shared>,
    verbs: mpsc::UnboundedSender<Asked>,
    thread: Option<JoinHandle<()>>,
}

impl Process {
    /// A machine that has yet to be started.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn new(program: Program, settings: Settings) -> io::Result<Self> {
        let (verbs, commands) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            engine: program.host.engine.clone(),
            clock: Clock::new(),
            memory: MemoryLimit::new(settings.memory_bytes),
            cpu_time: CpuTime::new(settings.cpu_time),
            snapshots: Mutex::new(program.exposed.is_some().then(Vec::new)),
            life: Life::default(),
            handed: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        });
        shared.clock.pause();
        let thread = {
            let shared = Arc::clone(&shared);
            let body = move || {
                let reason = match drive(&shared, program, settings, commands) {
                    Ok(reason) => reason,
                    Err(error) => StopReason::Fault(format!("the host gives no event loop: {error}")),
                };
                shared.stopped(reason);
            };
            thread::Builder::new().name("wasm".into()).spawn(body)?
        };
        Ok(Self { shared, verbs, thread: Some(thread) })
    }

    /// Waits until the call that the guest is in has returned, and leaves a snapshot in `directory`.
    ///
    /// # Errors
    /// One line: there can be none, it cannot be written, or the guest ended otherwise.
    pub fn snapshot(&self, directory: &Path) -> Result<(), String> {
        let (answer, answers) = sync_channel::channel();
        match &mut *self.shared.snapshots() {
            Some(wanted) => wanted.push((directory.to_owned(), answer)),
            None => return Err("a module leaves snapshots if it was started with --snapshot".into()),
        }
        answers.recv().unwrap_or_else(|_| Err("it has ended within its call".into()))
    }
}

impl Driven for Process {
    fn life(&self) -> &Life {
        &self.shared.life
    }

    fn hand(&self, asked: Asked) -> bool {
        let number = self.shared.handed.fetch_add(1, Ordering::SeqCst) + 1;
        let handed = self.verbs.send(asked).is_ok();
        // A guest that goes on after a yield looks for the next epoch from then on: one that begins just before is lost on it.
        while handed && !self.verbs.is_closed() && self.shared.taken.load(Ordering::SeqCst) < number {
            self.shared.engine.increment_epoch();
            thread::sleep(NUDGE);
        }
        handed
    }

    fn used(&self) -> Stats {
        let memory = self.shared.memory.used();
        Stats {
            time_ns: self.shared.clock.now_ns(),
            memory_resident_bytes: memory,
            memory_size_bytes: memory,
            ..Stats::default()
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A machine that has already stopped refuses, which is what we want.
        let _ = self.stop();
        if let Some(thread) = self.thread.take() {
            // Its panic, a bug of ours, was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// The body of the machine's thread: takes the guest through its life.
fn drive(
    shared: &Arc<Shared>,
    program: Program,
    settings: Settings,
    mut commands: mpsc::UnboundedReceiver<Asked>,
) -> io::Result<StopReason> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let reason = runtime.block_on(async {
        let mut guest = pin!(shared.cpu_time.count(run(shared, program, settings)));
        loop {
            tokio::select! {
                biased;
                command = commands.recv() => {
                    let Some(asked) = command else { return StopReason::Requested };
                    shared.taken.fetch_add(1, Ordering::SeqCst);
                    shared.life.obey(asked, |_, next| {
                        match next {
                            State::Running => shared.clock.resume(),
                            _ => shared.clock.pause(),
                        }
                        match next {
                            State::Stopped => shared.stopped(StopReason::Requested),
                            _ => shared.life.enter(next),
                        }
                    });
                    if shared.life.state() == State::Stopped {
                        return StopReason::Requested;
                    }
                }
                end = &mut guest, if shared.life.state() == State::Running => {
                    return match end {
                        End::Exit(status) => StopReason::PowerOff(status),
                        End::Failed(report) => StopReason::Fault(report),
                    };
                }
            }
        }
    });
    // What the guest left behind in blocking calls, as a read of the terminal, must not hold up its end.
    runtime.shutdown_background();
    Ok(reason)
}

/// Runs the program to its end.
async fn run(shared: &Arc<Shared>, program: Program, settings: Settings) -> End {
    let result = match &program.code {
        Code::Module(module) => run_module(shared, &program, module, &settings).await,
        Code::Component(component) => run_component(shared, component, &settings).await,
    };
    match result {
        Ok(status) => End::Exit(status),
        Err(error) => trap::end(&error),
    }
}

/// What a module's store holds.
struct ModuleState {
    wasi: WasiP1Ctx,
    memory: MemoryLimit,
}

async fn run_module(shared: &Shared, program: &Program, module: &Module, settings: &Settings) -> wasmtime::Result<i32> {
    let _ticker = settings.cpu_time.map(|_| Ticker::start(&shared.engine)).transpose()?;
    let permissions = Arc::new(wasi::resolve(&settings.permissions)?);
    let mut own = settings.clone();
    let arguments =
        if settings.invoke.is_some() { own.arguments.split_off(1.min(own.arguments.len())) } else { Vec::new() };
    let state = ModuleState { wasi: wasi::builder(&own, &permissions)?.build_p1(), memory: shared.memory.clone() };
    let mut store = Store::new(&shared.engine, state);
    limit(&mut store, |state| &mut state.memory, &shared.cpu_time);
    let mut linker = Linker::new(&shared.engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |state: &mut ModuleState| &mut state.wasi)?;
    let instance = linker.instantiate_async(&mut store, module).await?;
    let exposed = program.exposed.as_deref();
    let snapshot = exposed.and_then(|exposed| exposed.snapshot.as_ref());
    match snapshot {
        Some(snapshot) => snapshot::restore(&mut store, &instance, module, snapshot)?,
        // An exposed module's start function is called by us.
        None => call_if_there(&mut store, &instance, &Part::Start.name()).await?,
    }
    if let Some(name) = &settings.invoke {
        if snapshot.is_none() {
            call_if_there(&mut store, &instance, "_initialize").await?;
        }
        let Some(function) = instance.get_func(&mut store, name) else {
            wasmtime::bail!("it exports no function '{name}'; {}", exported_functions(module));
        };
        let ty = function.ty(&store);
        let parameters = values(name, &ty.params().collect::<Vec<_>>(), &arguments)?;
        let mut results = vec![Val::I32(0); ty.results().len()];
        function.call_async(&mut store, &parameters, &mut results).await?;
        for result in &results {
            print_value(result);
        }
    } else {
        let Ok(start) = instance.get_typed_func::<(), ()>(&mut store, "_start") else {
            wasmtime::bail!(
                "it has no _start to run; call one of its functions with --invoke; {}",
                exported_functions(module)
            );
        };
        start.call_async(&mut store, ()).await?;
    }
    if let (Some(directory), Some(exposed)) = (&settings.snapshot, exposed) {
        let parent = snapshot.map(|snapshot| snapshot.header().machine);
        let mut save = |directory: &Path| {
            snapshot::save(&mut store, &instance, module, (&program.name, &exposed.source), directory, parent)
        };
        save(directory)?;
        for (directory, answer) in shared.snapshots().take().into_iter().flatten() {
            // Whoever asked may have gone.
            let _ = answer.send(save(&directory).map_err(|error| one_line(&error)));
        }
    }
    Ok(0)
}

/// Calls a function without parameters, if the instance exports it.
async fn call_if_there(store: &mut Store<ModuleState>, instance: &Instance, name: &str) -> wasmtime::Result<()> {
    match instance.get_typed_func::<(), ()>(&mut *store, name) {
        Ok(function) => function.call_async(store, ()).await,
        Err(_) => Ok(()),
    }
}

fn exported_functions(module: &Module) -> String {
    let functions = module.exports().filter(|export| matches!(export.ty(), ExternType::Func(_)));
    let names: Vec<&str> =
        functions.map(|export| export.name()).filter(|name| Part::of(name).is_none()).take(20).collect();
    if names.is_empty() { "it exports none".into() } else { format!("it exports {}", names.join(", ")) }
}

/// Arguments of the command line as values of a function's parameters.
fn values(name: &str, types: &[ValType], arguments: &[String]) -> wasmtime::Result<Vec<Val>> {
    wasmtime::ensure!(
        types.len() == arguments.len(),
        "'{name}' takes {} arguments, not {}",
        types.len(),
        arguments.len()
    );
    let value = |(ty, text): (&ValType, &String)| {
        let parsed = match ty {
            ValType::I32 => {
                text.parse::<i32>().ok().or_else(|| text.parse::<u32>().ok().map(u32::cast_signed)).map(Val::I32)
            }
            ValType::I64 => {
                text.parse::<i64>().ok().or_else(|| text.parse::<u64>().ok().map(u64::cast_signed)).map(Val::I64)
            }
            ValType::F32 => text.parse::<f32>().ok().map(|value| Val::F32(value.to_bits())),
            ValType::F64 => text.parse::<f64>().ok().map(|value| Val::F64(value.to_bits())),
            _ => None,
        };
        parsed.ok_or_else(|| wasmtime::format_err!("'{text}' is no {ty} for '{name}'"))
    };
    types.iter().zip(arguments).map(value).collect()
}

fn print_value(value: &Val) {
    match value {
        Val::I32(value) => println!("{value}"),
        Val::I64(value) => println!("{value}"),
        Val::F32(bits) => println!("{}", f32::from_bits(*bits)),
        Val::F64(bits) => println!("{}", f64::from_bits(*bits)),
        Val::V128(value) => println!("{:#x}", value.as_u128()),
        other => println!("{other:?}"),
    }
}

async fn run_component(
    shared: &Shared,
    component: &wasmtime::component::Component,
    settings: &Settings,
) -> wasmtime::Result<i32> {
    wasmtime::ensure!(settings.invoke.is_none(), "--invoke is for modules; this is a component");
    let _ticker = settings.cpu_time.map(|_| Ticker::start(&shared.engine)).transpose()?;
    let permissions = Arc::new(wasi::resolve(&settings.permissions)?);
    let state = ComponentState::new(settings, &permissions, shared.memory.clone())?;
    let mut store = Store::new(&shared.engine, state);
    limit(&mut store, |state| &mut state.memory, &shared.cpu_time);
    let linker = wasi::component_linker(&shared.engine)?;
    let command = Command::instantiate_async(&mut store, component, &linker).await?;
    let status = command.wasi_cli_run().call_run(&mut store).await?;
    Ok(i32::from(status.is_err()))
}
