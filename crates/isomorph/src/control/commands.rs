//! `isomorph pause`, `resume`, `stop`, `kill`, `info`, `snapshot create`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::ask::{PATIENCE, Peer};
use super::wire::{Info, Verb};
use crate::cli::{InfoArgs, NamesArgs, StopArgs};
use crate::home::Home;
use crate::size::{human_bytes, human_time};

/// How long a machine that was killed may take to be gone.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A machine that must run.
fn connect(home: &Home, name: &str) -> Result<Peer> {
    Peer::connect(&home.running(name)?).with_context(|| format!("machine '{name}'"))
}

/// Does something with each machine: with all that can be, then the first error.
fn each(names: &[String], mut act: impl FnMut(&Home, &str) -> Result<()>) -> Result<()> {
    let home = Home::find()?;
    let results: Vec<_> = names.iter().map(|name| act(&home, name)).collect();
    results.into_iter().collect()
}

fn ask_each(names: &[String], verb: &Verb) -> Result<()> {
    each(names, |home, name| {
        let answer = connect(home, name)?.ask(verb.clone(), Some(PATIENCE));
        answer.map(drop).with_context(|| format!("machine '{name}'"))
    })
}

/// `isomorph pause`.
///
/// # Errors
/// A machine does not run, or is paused.
pub fn pause(args: &NamesArgs) -> Result<()> {
    ask_each(&args.names, &Verb::Pause)
}

/// `isomorph resume`.
///
/// # Errors
/// A machine is not paused.
pub fn resume(args: &NamesArgs) -> Result<()> {
    ask_each(&args.names, &Verb::Resume)
}

/// `isomorph stop`: asks, waits, and ends what has not ended.
///
/// # Errors
/// A machine does not run, or cannot be ended.
pub fn stop(args: &StopArgs) -> Result<()> {
    each(&args.names, |home, name| {
        let mut peer = connect(home, name)?;
        // One that is ended by the host at once says nothing any more.
        if let Ok(answer) = peer.ask(Verb::Stop, Some(PATIENCE))
            && let Some(note) = &answer.note
        {
            eprintln!("isomorph: machine '{name}': {note}");
        }
        if peer.wait(Duration::from_secs_f64(args.timeout)) {
            return clear(home, name);
        }
        eprintln!("isomorph: machine '{name}' has not ended within {} s: it is killed", args.timeout);
        end(home, name)
    })
}

/// Takes away what a machine has left that has just ended: its process may hold its lock for a moment longer than its last connection.
fn clear(home: &Home, name: &str) -> Result<()> {
    const STEP: Duration = Duration::from_millis(1);
    let mut left = LAST_WORDS;
    while home.running(name).is_ok() && !left.is_zero() {
        std::thread::sleep(STEP);
        left = left.saturating_sub(STEP);
    }
    home.clear(name)
}

/// `isomorph kill`.
///
/// # Errors
/// A machine does not run, or cannot be ended.
pub fn kill(args: &NamesArgs) -> Result<()> {
    each(&args.names, end)
}

/// Ends a machine: by its own hand, else by the host's.
fn end(home: &Home, name: &str) -> Result<()> {
    let directory = home.running(name)?;
    if let Ok(mut peer) = Peer::connect(&directory) {
        // One that ends at once does not answer.
        let _ = peer.ask(Verb::Kill, Some(LAST_WORDS));
        if peer.wait(LAST_WORDS) {
            return clear(home, name);
        }
    }
    let pid = home.list()?.into_iter().find(|machine| machine.name == name).and_then(|machine| machine.pid);
    let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw) else {
        return clear(home, name);
    };
    match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => clear(home, name),
        Err(error) => bail!("machine '{name}': cannot end process {pid}: {error}", pid = pid.as_raw_nonzero()),
    }
}

/// `isomorph info`.
///
/// # Errors
/// A machine does not run.
pub fn info(args: &InfoArgs) -> Result<()> {
    let home = Home::find()?;
    let ask = |name: &String| {
        let info = connect(&home, name)?.info(PATIENCE);
        info.with_context(|| format!("machine '{name}'"))
    };
    let infos = args.names.iter().map(ask).collect::<Result<Vec<_>>>()?;
    let texts: Vec<_> = infos.iter().map(text).collect();
    crate::print_result(args.json, &texts.join("\n"), &infos)
}

fn text(info: &Info) -> String {
    let mut lines = vec![
        ("name", info.name.clone()),
        ("kind", info.kind.clone()),
        ("guest", info.guest.clone()),
        ("state", info.state.clone()),
        ("process", info.pid.to_string()),
        ("time", human_time(info.time_ns)),
        ("cpu time", human_time(info.cpu_time_ns)),
        ("resident", human_bytes(info.resident_bytes)),
    ];
    if info.memory_bytes != 0 {
        lines.push(("memory", human_bytes(info.memory_bytes)));
    }
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<9} {value}\n")).collect();
    for (name, count) in info.counts.iter().filter(|(_, count)| *count != 0) {
        text += &format!("{count:>12}  {name}\n");
    }
    text
}

/// `isomorph snapshot create`.
///
/// # Errors
/// The machine does not run, or no snapshot can be taken of it.
pub fn snapshot(name: &str, directory: &Path) -> Result<()> {
    let directory = std::path::absolute(directory)?;
    let mut peer = connect(&Home::find()?, name)?;
    let answer = peer.ask(Verb::Snapshot { directory }, None);
    answer.map(drop).with_context(|| format!("machine '{name}'"))
}
