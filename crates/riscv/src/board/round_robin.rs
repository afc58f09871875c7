//! The schedule of a machine whose run can be repeated: all harts on one thread, in turns of a fixed number of instructions, with a time of their own.
//!
//! ```text
//! round:  input enters, devices work | hart 0: 10,000 instructions | hart 1: 10,000 | ... | time + 10,000 ns
//! ```
//!
//! Time is that of a processor that executes an instruction in a nanosecond, and stands still during a round. When every hart waits, it skips to
//! the next timer. So everything that happens is decided by what was executed before, but for one thing: what comes from
//! outside, and when. That enters between rounds only; a [record](machine::record) of it, and of the time at which it entered, is enough to run the
//! machine again as it ran.
//!
//! **Turns** are exact: [`Hart::run_exactly`](crate::hart::Hart::run_exactly) retires the same instructions in every tier of the engine. What another thread asks (a pause, a look at the
//! registers) holds the machine between two turns and changes nothing. A debugger's stop in the middle of a turn leaves the rest of it to be done first.
//!
//! **Idle** with a console or a network, the machine lets as much host time pass as it skips, or as passes until something comes: else a login would time out
//! before anybody could type. That wait is in the time at which the input enters; a replay does not wait.
//!
//! Cost: the harts share one of the host's processors, and a round costs some hundred nanoseconds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use devices::worker::Roster;
use machine::clock::Clock;
use machine::record::{Entry, Event, Reader, RecordError, Setup, Writer};

use super::build::Parts;
use super::hsm::HartState;
use super::input::{Doorbell, Ports};
use super::vcpu::{Exited, Vcpu};
use crate::hart::Exact;

/// Instructions of a turn.
const TURN: i64 = 10_000;
/// How much time passes in a round, in nanoseconds.
const ROUND_NS: u64 = 10_000;
/// How often the registers are compared, in nanoseconds of the machine's time.
const CHECK_NS: u64 = 1_000_000_000;

/// See the [module](self).
pub(super) struct RoundRobin {
    pub(super) clock: Arc<Clock>,
    pub(super) roster: Arc<Roster>,
    pub(super) ports: Ports,
    pub(super) doorbell: Arc<Doorbell>,
    turns: Mutex<Turns>,
}

/// What of a run is known from before, or is to be known later.
pub(super) enum Log {
    /// Nothing.
    Nothing,
    /// All of it is written.
    Record(Writer),
    /// It goes as the reader says; with the entry that comes next.
    Replay(Reader, Option<Entry>),
}

/// Where the schedule is.
struct Turns {
    log: Log,
    /// The machine ends once so many instructions have retired.
    until: Option<u64>,
    /// Whose turn it is: past the last, the round is over.
    hart: usize,
    /// What is left of its turn, if that has begun.
    turn: Option<Exact>,
    /// The last time at which input entered.
    attended_ns: Option<u64>,
    check_ns: u64,
    /// In a replay: its end is known.
    ended: bool,
    /// In a replay: how many instructions retire before the guest ends the machine.
    ends_at: Option<u64>,
    over: bool,
}

/// Why the schedule stands still.
enum Pause {
    /// The gate is closed, or about to be.
    Gate,
    /// The machine cannot go on.
    Fault(String),
    /// It has come to the end that was asked for.
    Over,
}

impl From<RecordError> for Pause {
    fn from(error: RecordError) -> Self {
        Self::Fault(error.to_string())
    }
}

impl RoundRobin {
    pub(super) fn new(
        clock: Arc<Clock>,
        roster: Arc<Roster>,
        ports: Ports,
        doorbell: Arc<Doorbell>,
        until: Option<u64>,
    ) -> Self {
        let turns = Turns {
            log: Log::Nothing,
            until,
            hart: 0,
            turn: None,
            attended_ns: None,
            check_ns: CHECK_NS,
            ended: false,
            ends_at: None,
            over: false,
        };
        Self { clock, roster, ports, doorbell, turns: Mutex::new(turns) }
    }

    pub(super) fn set_log(&self, log: Log) {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).log = log;
    }

    /// The body of the one thread of all harts: ends when the gate does.
    pub(super) fn serve(&self, parts: &Parts) {
        while let Some((_pass, staying)) = parts.gate.enter_any(parts.vcpus.len()) {
            let _report = parts.report_panic();
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            let pause = loop {
                if let Err(pause) = self.round(parts, &mut turns, &staying) {
                    break pause;
                }
            };
            match pause {
                Pause::Gate => {}
                Pause::Fault(why) => parts.supervisor.switch.fault(why),
                Pause::Over => parts.supervisor.switch.over(),
            }
        }
    }

    /// The machine has ended.
    pub(super) fn close(&self, parts: &Parts, by_guest: bool) -> Result<(), RecordError> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut turns.log, Log::Nothing) {
            Log::Record(mut writer) => writer.append(&self.entry(parts, Event::End { by_guest })),
            Log::Nothing | Log::Replay(..) => Ok(()),
        }
    }

    fn entry(&self, parts: &Parts, event: Event) -> Entry {
        Entry { time_ns: self.clock.now_ns(), instructions: instructions(parts), event }
    }

    fn round(&self, parts: &Parts, turns: &mut Turns, staying: &[usize]) -> Result<(), Pause> {
        if turns.over {
            return Err(Pause::Gate);
        }
        if turns.hart == 0 && turns.turn.is_none() {
            self.attend(parts, turns)?;
            let mut runs = parts.vcpus.iter().filter(|vcpu| !staying.contains(&vcpu.id));
            if !runs.any(is_runnable) {
                return self.pass_time(parts, turns);
            }
        }
        while let Some(vcpu) = parts.vcpus.get(turns.hart) {
            if !parts.gate.is_open() {
                return Err(Pause::Gate);
            }
            if !staying.contains(&vcpu.id) {
                self.turn(parts, turns, vcpu)?;
            }
            turns.hart += 1;
        }
        turns.hart = 0;
        self.clock.advance_to(self.clock.now_ns() + ROUND_NS);
        Ok(())
    }

    /// Lets in what comes from outside at this time, and has the devices work.
    fn attend(&self, parts: &Parts, turns: &mut Turns) -> Result<(), Pause> {
        let now_ns = self.clock.now_ns();
        if turns.attended_ns.replace(now_ns) == Some(now_ns) {
            return Ok(());
        }
        match &mut turns.log {
            Log::Nothing => self.ports.inbox.take().into_iter().for_each(|event| {
                self.ports.enter(event);
            }),
            Log::Record(writer) => {
                for event in self.ports.inbox.take() {
                    writer.append(&self.entry(parts, event.clone()))?;
                    self.ports.enter(event);
                }
                if now_ns >= turns.check_ns {
                    turns.check_ns = now_ns + CHECK_NS;
                    writer.append(&self.entry(parts, Event::Check(digest(parts))))?;
                }
            }
            Log::Replay(reader, next) => {
                let instructions = instructions(parts);
                while let Some(entry) = next.take_if(|entry| entry.time_ns <= now_ns) {
                    if let Event::End { by_guest } = entry.event {
                        turns.ended = true;
                        // It came in the middle of the round that begins now.
                        if by_guest {
                            turns.ends_at = Some(entry.instructions);
                        } else {
                            turns.until = Some(turns.until.map_or(entry.instructions, |n| n.min(entry.instructions)));
                        }
                        break;
                    }
                    let same = match &entry.event {
                        Event::Check(before) => *before == digest(parts),
                        _ => true,
                    };
                    if (entry.time_ns, entry.instructions) != (now_ns, instructions) || !same {
                        return Err(Pause::Fault(format!(
                            "the replay diverges: {instructions} instructions at {now_ns} ns, where the record has {} at {} ns{}",
                            entry.instructions,
                            entry.time_ns,
                            if same { "" } else { ", and the registers differ" }
                        )));
                    }
                    *next = reader.next_entry()?;
                    if !matches!(entry.event, Event::Check(_)) && !self.ports.enter(entry.event) {
                        return Err(Pause::Fault(
                            "the replay has not the consoles and the network of the record; give it the same flags"
                                .into(),
                        ));
                    }
                }
                if turns.ends_at.is_some_and(|end| instructions > end) {
                    return Err(Pause::Fault(format!(
                        "the replay diverges: {instructions} instructions at {now_ns} ns, where the guest of the record had ended"
                    )));
                }
                let cut_off = next.is_none() && !turns.ended;
                if cut_off || turns.until.is_some_and(|until| instructions >= until) {
                    // If the recording was cut off, nobody knows what came next.
                    turns.over = true;
                    return Err(Pause::Over);
                }
            }
        }
        self.ports.offer();
        self.roster.work();
        Ok(())
    }

    /// No hart has anything to do: time passes until one has, or something else happens.
    fn pass_time(&self, parts: &Parts, turns: &Turns) -> Result<(), Pause> {
        let now_ns = self.clock.now_ns();
        let time = &parts.supervisor.time;
        let deadlines = parts.vcpus.iter().filter(|vcpu| vcpu.is_waiting());
        let deadlines = deadlines.filter_map(|vcpu| vcpu.core().hart.next_deadline());
        // At least a nanosecond passes, so that no time is attended to twice.
        let harts = deadlines.map(|ticks| now_ns.saturating_add(time.ns_until(ticks).max(1)));
        let devices = self.roster.next_deadline_ns().map(|ns| ns.max(now_ns + 1));
        let recorded = match &turns.log {
            Log::Replay(_, next) => next.as_ref().map(|entry| entry.time_ns.max(now_ns + 1)),
            Log::Nothing | Log::Record(_) => None,
        };
        let target = harts.chain(devices).chain(recorded).min();
        let replay = matches!(turns.log, Log::Replay(..));
        let target_ns = match target {
            Some(ns) if replay || !self.ports.is_paced() => ns,
            target => self.wait(parts, now_ns, target)?,
        };
        if !parts.gate.is_open() {
            return Err(Pause::Gate);
        }
        self.clock.advance_to(target_ns);
        Ok(())
    }

    /// Waits on the host until something comes, or it is `target`, and says when that was.
    fn wait(&self, parts: &Parts, now_ns: u64, target: Option<u64>) -> Result<u64, Pause> {
        let watch = Clock::new();
        loop {
            let elapsed_ns = now_ns.saturating_add(watch.now_ns().max(1));
            if !self.ports.inbox.is_empty() {
                return Ok(target.map_or(elapsed_ns, |target| target.min(elapsed_ns)));
            }
            if let Some(target) = target.filter(|target| elapsed_ns >= *target) {
                return Ok(target);
            }
            if !parts.gate.is_open() {
                return Err(Pause::Gate);
            }
            self.doorbell.wait(target.map(|target| Duration::from_nanos(target - elapsed_ns)));
        }
    }

    /// The turn of one hart, or the rest of it.
    fn turn(&self, parts: &Parts, turns: &mut Turns, vcpu: &Vcpu) -> Result<(), Pause> {
        let mut turn = turns.turn.take().unwrap_or(Exact { left: TURN, look_due: true });
        loop {
            if !is_runnable(vcpu) || turn.left <= 0 {
                return Ok(());
            }
            let mut granted = turn.left;
            if let Some(until) = turns.until {
                granted = granted.min(i64::try_from(until.saturating_sub(instructions(parts))).unwrap_or(i64::MAX));
                if granted == 0 {
                    turns.over = true;
                    turns.turn = Some(turn);
                    return Err(Pause::Over);
                }
            }
            let mut exact = Exact { left: granted, look_due: turn.look_due };
            let exited = vcpu.advance_exactly(&mut exact, &parts.vcpus, &parts.supervisor);
            turn = Exact { left: turn.left - (granted - exact.left), look_due: exact.look_due };
            match exited {
                Exited::Used => {}
                Exited::Waits => return Ok(()),
                Exited::Leaves => {
                    turns.hart += 1;
                    return Err(Pause::Gate);
                }
                Exited::Stopped(stop) => {
                    turns.turn = Some(turn);
                    parts.supervisor.switch.stopped(vcpu.id, stop);
                    return Err(Pause::Gate);
                }
                Exited::Failed(why) => return Err(Pause::Fault(why)),
            }
        }
    }
}

/// Whether the hart has anything to execute now.
fn is_runnable(vcpu: &Vcpu) -> bool {
    match vcpu.lifecycle.get() {
        HartState::Stopped => false,
        HartState::StartPending(_) => true,
        HartState::Started | HartState::Suspended => vcpu.is_awake(),
    }
}

fn instructions(parts: &Parts) -> u64 {
    parts.vcpus.iter().map(|vcpu| vcpu.core().hart.instructions_retired()).sum()
}

/// A number that other registers would most likely not have: FNV-1a by words.
fn digest(parts: &Parts) -> u64 {
    let mut digest = 0xcbf2_9ce4_8422_2325;
    let mut add = |word: u64| digest = (digest ^ word).wrapping_mul(0x100_0000_01b3).rotate_left(23);
    for vcpu in &parts.vcpus {
        let core = vcpu.core();
        add(core.hart.pc());
        add(core.hart.instructions_retired());
        (1..32).for_each(|number| add(core.hart.x(number)));
        (0..32).for_each(|number| add(core.hart.f(number)));
    }
    digest
}

/// The first of the things in which a machine is not that of the record, in one line.
pub(super) fn difference(now: &Setup, then: &Setup) -> Option<String> {
    let differs = |what: &str, now: u64, then: u64| {
        (now != then).then(|| format!("{what} is {now} here and {then} in the record"))
    };
    differs("the number of processors", now.cpus.into(), then.cpus.into())
        .or_else(|| differs("the size of memory", now.memory_bytes, then.memory_bytes))
        .or_else(|| differs("the MTU of the network", now.mtu.into(), then.mtu.into()))
        .or_else(|| {
            (now.digest != then.digest).then(|| "the images, the kernel's command line or the disks are others".into())
        })
}
