//! `isomorph compare`: the lab, on the terminal.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use clap::CommandFactory;
use compare::engine::{Installation, Watch};
use compare::measure::{Options, Progress, measure};
use compare::record::Record;
use compare::report::terminal::Style;
use compare::report::{difference, page, terminal};
use image::ImageStore;
use signal_hook::consts::SIGINT;

use crate::cli::{Cli, CompareArgs};
use crate::progress::{Bar, Unit};
use crate::x86_64;

/// Columns of what is no terminal.
const WIDTH: usize = 110;

/// Carries out `isomorph compare`.
///
/// # Errors
/// A file cannot be read or written, or the host has no place for the programs.
pub fn compare(args: &CompareArgs) -> Result<ExitCode> {
    if let [a, b] = args.diff.as_slice() {
        print(&difference::report(&read(a)?, &read(b)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    // Found out now, not after ten minutes.
    for file in args.json.iter().chain(&args.html) {
        fs::write(file, "").with_context(|| format!("cannot write {}", file.display()))?;
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    // A second Ctrl-C ends this at once, as it does without us.
    signal_hook::flag::register_conditional_default(SIGINT, Arc::clone(&interrupted))?;
    signal_hook::flag::register(SIGINT, Arc::clone(&interrupted))?;
    let mut told = Told { bar: Bar::new(), total: 0 };
    let options = Options { quick: args.quick, only: args.only.clone() };
    let record = measure(&options, &installation()?, &Watch::new(interrupted), &mut told)?;
    told.bar.finish();
    print(&terminal::report(&record, style()))?;
    if let Some(file) = &args.json {
        fs::write(file, record.to_json()).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if let Some(file) = &args.html {
        fs::write(file, page::report(&record)).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(if record.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn installation() -> Result<Installation> {
    Ok(Installation {
        isomorph: std::env::current_exe().context("cannot tell where this command is")?,
        images: ImageStore::from_environment()?.root().to_path_buf(),
        commands: Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect(),
        no_kvm: x86_64::check_host(true).err().map(|why| format!("{why:#}")),
    })
}

fn read(file: &Path) -> Result<Record> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Record::from_json(&text).with_context(|| format!("{} cannot be compared", file.display()))
}

fn style() -> Style {
    let terminal = io::stdout();
    let width = rustix::termios::tcgetwinsize(&terminal).map_or(0, |size| usize::from(size.ws_col));
    let colour = terminal.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    Style { width: if width == 0 { WIDTH } else { width }, colour }
}

fn print(text: &str) -> Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        // The reader (`head`, a pager) has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Progress on the terminal.
struct Told {
    bar: Bar,
    total: u64,
}

impl Progress for Told {
    fn at(&mut self, done: u64, total: u64, what: &str) {
        if total != self.total {
            self.total = total;
            self.bar.phase("measuring", Unit::Items, total);
        }
        self.bar.position(done, what);
    }

    fn note(&mut self, text: &str) {
        self.bar.note(text);
    }
}
