//! `specification FILE...`: runs test scripts of the WebAssembly specification (`.wast`) on the engine that programs get.
//!
//! A script holds modules, and assertions about them: what a call returns or traps with, what does not validate, what does not parse. It is
//! run by wasmtime's runner of scripts, on an engine made by [`wasm::Host`]: same compiler settings, same stack, epoch checks
//! in all code, and calls as tasks. The tests of this crate run the official scripts so; `cargo xtask conformance wasm` those of a folder.

use std::process::ExitCode;
use std::time::Duration;

use wasm::{Host, LoadError};
use wasmtime_wast::{Async, SpectestConfig, WastContext};

/// How often the epoch moves meanwhile: calls yield and go on, as those of programs do when their machine is asked something.
const TICK: Duration = Duration::from_millis(1);

/// Runs scripts, each for itself.
pub(crate) struct Runner {
    host: Host,
}

impl Runner {
    /// A runner on a new engine, whose epoch moves as long as it lives.
    ///
    /// # Errors
    /// The host cannot run WebAssembly, or gives no thread.
    pub(crate) fn new() -> Result<Self, LoadError> {
        let host = Host::new(None)?;
        let engine = host.compiler()?.weak();
        let tick = move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                std::thread::sleep(TICK);
            }
        };
        std::thread::Builder::new().name("ticker".into()).spawn(tick).map_err(LoadError::Read)?;
        Ok(Self { host })
    }

    /// Runs a script to its end or its first assertion that does not hold.
    ///
    /// # Errors
    /// What did not hold, and where, in one line.
    pub(crate) fn run(&self, name: &str, script: &str) -> Result<(), String> {
        let engine = self.host.compiler().map_err(|error| error.to_string())?;
        let mut context = WastContext::new(engine, Async::Yes, |store| {
            store.set_epoch_deadline(1);
            store.epoch_deadline_async_yield_and_update(1);
        });
        // The names of traps are the specification's; of what does not validate, only that it does not.
        context.ignore_error_messages(true);
        // Programs have no threads, and so no memory to share.
        let imports = SpectestConfig { use_shared_memory: false, suppress_prints: true };
        let outcome = context.register_spectest(&imports).and_then(|()| context.run_wast(name, script.as_bytes()));
        outcome.map_err(|error| format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

#[allow(dead_code, reason = "the tests use the runner alone")]
fn main() -> ExitCode {
    let runner = match Runner::new() {
        Ok(runner) => runner,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut status = ExitCode::SUCCESS;
    for file in std::env::args().skip(1) {
        let outcome = std::fs::read_to_string(&file).map_err(|error| error.to_string());
        if let Err(reason) = outcome.and_then(|script| runner.run(&file, &script)) {
            eprintln!("{file}: {reason}");
            status = ExitCode::FAILURE;
        }
    }
    status
}
