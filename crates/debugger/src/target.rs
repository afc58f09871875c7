//! A debuggee, to `gdbstub`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use gdbstub::arch::{Arch, RegId, Registers};
use gdbstub::common::{Pid, Signal, Tid};
use gdbstub::target::ext::auxv::{Auxv, AuxvOps};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadRangeStepping, MultiThreadRangeSteppingOps, MultiThreadResume, MultiThreadResumeOps,
    MultiThreadSchedulerLocking, MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::base::single_register_access::{SingleRegisterAccess, SingleRegisterAccessOps};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint,
    SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::exec_file::{ExecFile, ExecFileOps};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::target_description_xml_override::{
    TargetDescriptionXmlOverride, TargetDescriptionXmlOverrideOps,
};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use machine::debug::{Points, Watch, Watchpoint};

use crate::debuggee::{Debuggee, Move, Moves};

/// Points of each kind at most: more than any debugger sets, less than any memory.
const POINTS_MAX: usize = 4096;
/// `EFAULT` and `ENOENT`: numbers of the protocol, which are Linux's.
const BAD_ADDRESS: u8 = 14;
const NO_ENTRY: u8 = 2;

/// A processor of any kind, to `gdbstub`: the debuggee knows its registers.
pub(crate) enum AnyProcessor {}

impl Arch for AnyProcessor {
    type Usize = u64;
    type Registers = Core;
    /// The length of the instruction that a breakpoint would replace, which nothing here does.
    type BreakpointKind = usize;
    type RegId = Register;
}

/// A register by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Register(usize);

impl RegId for Register {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        Some((Self(id), None))
    }
}

/// The registers that every stop transfers, as they travel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Core(Vec<u8>);

impl Registers for Core {
    type ProgramCounter = u64;

    /// Asked for by those only who patch breakpoints into memory.
    fn pc(&self) -> u64 {
        0
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.0.iter().for_each(|byte| write_byte(Some(*byte)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.0 = bytes.to_vec();
        Ok(())
    }
}

/// Nothing that a debugger asks for is fatal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Never {}

/// One debugger's view of the debuggee.
pub(crate) struct View {
    pub(crate) debuggee: Arc<dyn Debuggee>,
    points: Points,
    /// How often each breakpoint was set: gdb may set one of software and one of hardware at the same place.
    counts: BTreeMap<u64, usize>,
    own: Vec<(Tid, Move, Option<u8>)>,
    others: Move,
    /// The thread that was last spoken of, for commands.
    current: Tid,
}

impl View {
    pub(crate) fn new(debuggee: Arc<dyn Debuggee>) -> Self {
        let current = Tid::MIN;
        Self {
            debuggee,
            points: Points::default(),
            counts: BTreeMap::new(),
            own: Vec::new(),
            others: Move::Run,
            current,
        }
    }

    /// Has the debuggee stop at other points than before, if it can.
    fn change_points(&mut self, change: impl FnOnce(&mut Points)) -> bool {
        let mut points = self.points.clone();
        change(&mut points);
        let done = self.debuggee.set_points(points.clone());
        if done {
            self.points = points;
        }
        done
    }

    fn add_breakpoint(&mut self, at: u64) -> bool {
        if self.counts.len() >= POINTS_MAX || !self.change_points(|points| points.breakpoints.extend([at])) {
            return false;
        }
        *self.counts.entry(at).or_default() += 1;
        true
    }

    fn remove_breakpoint(&mut self, at: u64) -> bool {
        let Some(count) = self.counts.get_mut(&at) else { return false };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&at);
            return self.change_points(|points| points.breakpoints.retain(|other| *other != at));
        }
        true
    }
}

/// The part of `all` that a transfer asks for, into `buffer`.
fn part(all: &[u8], offset: u64, length: usize, buffer: &mut [u8]) -> usize {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(all.len());
    let length = length.min(buffer.len()).min(all.len() - start);
    buffer[..length].copy_from_slice(&all[start..start + length]);
    length
}

impl Target for View {
    type Arch = AnyProcessor;
    type Error = Never;

    fn base_ops(&mut self) -> BaseOps<'_, AnyProcessor, Never> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    fn support_target_description_xml_override(&mut self) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }

    fn support_exec_file(&mut self) -> Option<ExecFileOps<'_, Self>> {
        if self.debuggee.exec_file().is_none() { None } else { Some(self) }
    }

    fn support_auxv(&mut self) -> Option<AuxvOps<'_, Self>> {
        if self.debuggee.auxiliary_vector().is_none() { None } else { Some(self) }
    }
}

impl MultiThreadBase for View {
    fn read_registers(&mut self, registers: &mut Core, tid: Tid) -> TargetResult<(), Self> {
        self.current = tid;
        registers.0 = self.debuggee.registers().read_all(tid).ok_or(TargetError::NonFatal)?;
        Ok(())
    }

    fn write_registers(&mut self, registers: &Core, tid: Tid) -> TargetResult<(), Self> {
        self.current = tid;
        if self.debuggee.registers().write_all(tid, &registers.0) { Ok(()) } else { Err(TargetError::NonFatal) }
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        self.current = tid;
        match self.debuggee.read(tid, start, data) {
            0 if !data.is_empty() => Err(TargetError::Errno(BAD_ADDRESS)),
            count => Ok(count),
        }
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        self.current = tid;
        if self.debuggee.write(tid, start, data) { Ok(()) } else { Err(TargetError::Errno(BAD_ADDRESS)) }
    }

    fn list_active_threads(&mut self, register: &mut dyn FnMut(Tid)) -> Result<(), Never> {
        self.debuggee.threads().into_iter().for_each(|(thread, _)| register(thread));
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl SingleRegisterAccess<Tid> for View {
    fn read_register(&mut self, tid: Tid, register: Register, buffer: &mut [u8]) -> TargetResult<usize, Self> {
        self.current = tid;
        let Some(value) = self.debuggee.registers().read_one(tid, register.0) else { return Ok(0) };
        buffer.get_mut(..value.len()).ok_or(TargetError::NonFatal)?.copy_from_slice(&value);
        Ok(value.len())
    }

    fn write_register(&mut self, tid: Tid, register: Register, value: &[u8]) -> TargetResult<(), Self> {
        self.current = tid;
        let set = self.debuggee.registers().write_one(tid, register.0, value);
        if set { Ok(()) } else { Err(TargetError::NonFatal) }
    }
}

impl ThreadExtraInfo for View {
    fn thread_extra_info(&self, tid: Tid, buffer: &mut [u8]) -> Result<usize, Never> {
        let line = self.debuggee.threads().into_iter().find(|(thread, _)| *thread == tid).map(|(_, line)| line);
        Ok(part(line.unwrap_or_default().as_bytes(), 0, buffer.len(), buffer))
    }
}

impl MultiThreadResume for View {
    fn resume(&mut self) -> Result<(), Never> {
        self.debuggee.resume(Moves { own: std::mem::take(&mut self.own), others: self.others.clone() });
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Never> {
        self.own.clear();
        self.others = Move::Run;
        Ok(())
    }

    fn set_resume_action_continue(&mut self, tid: Tid, signal: Option<Signal>) -> Result<(), Never> {
        self.own.push((tid, Move::Run, signal.and_then(linux_signal)));
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_range_step(&mut self) -> Option<MultiThreadRangeSteppingOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for View {
    fn set_resume_action_step(&mut self, tid: Tid, signal: Option<Signal>) -> Result<(), Never> {
        self.own.push((tid, Move::Step(0..0), signal.and_then(linux_signal)));
        Ok(())
    }
}

impl MultiThreadRangeStepping for View {
    fn set_resume_action_range_step(&mut self, tid: Tid, start: u64, end: u64) -> Result<(), Never> {
        self.own.push((tid, Move::Step(start..end), None));
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for View {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Never> {
        self.others = Move::Stay;
        Ok(())
    }
}

impl Breakpoints for View {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for View {
    fn add_sw_breakpoint(&mut self, at: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.add_breakpoint(at))
    }

    fn remove_sw_breakpoint(&mut self, at: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.remove_breakpoint(at))
    }
}

impl HwBreakpoint for View {
    fn add_hw_breakpoint(&mut self, at: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.add_breakpoint(at))
    }

    fn remove_hw_breakpoint(&mut self, at: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.remove_breakpoint(at))
    }
}

fn watch(kind: WatchKind) -> Watch {
    match kind {
        WatchKind::Read => Watch::Read,
        WatchKind::Write => Watch::Write,
        WatchKind::ReadWrite => Watch::Access,
    }
}

impl HwWatchpoint for View {
    fn add_hw_watchpoint(&mut self, address: u64, length: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        if length == 0 || self.points.watchpoints.len() >= POINTS_MAX {
            return Ok(false);
        }
        Ok(self.change_points(|points| points.watchpoints.push(Watchpoint { address, length, watch: watch(kind) })))
    }

    fn remove_hw_watchpoint(&mut self, address: u64, length: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        let wanted = Watchpoint { address, length, watch: watch(kind) };
        let Some(index) = self.points.watchpoints.iter().position(|point| *point == wanted) else { return Ok(false) };
        Ok(self.change_points(|points| {
            points.watchpoints.remove(index);
        }))
    }
}

impl MonitorCmd for View {
    fn handle_monitor_cmd(&mut self, line: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), Never> {
        let text = self.debuggee.command(self.current, String::from_utf8_lossy(line).trim());
        out.write_raw(text.as_bytes());
        Ok(())
    }
}

impl TargetDescriptionXmlOverride for View {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        buffer: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if annex != b"target.xml" {
            return Err(TargetError::Errno(NO_ENTRY));
        }
        Ok(part(self.debuggee.registers().description().as_bytes(), offset, length, buffer))
    }
}

impl ExecFile for View {
    fn get_exec_file(
        &self,
        _pid: Option<Pid>,
        offset: u64,
        length: usize,
        buffer: &mut [u8],
    ) -> TargetResult<usize, Self> {
        let path = self.debuggee.exec_file().ok_or(TargetError::Errno(NO_ENTRY))?;
        Ok(part(&path, offset, length, buffer))
    }
}

impl Auxv for View {
    fn get_auxv(&self, offset: u64, length: usize, buffer: &mut [u8]) -> TargetResult<usize, Self> {
        let vector = self.debuggee.auxiliary_vector().ok_or(TargetError::Errno(NO_ENTRY))?;
        Ok(part(&vector, offset, length, buffer))
    }
}

/// The protocol's own numbers of signals, by Linux's: gdb's manual, "include/gdb/signals.def".
const SIGNALS: [(u8, Signal); 31] = [
    (1, Signal::SIGHUP),
    (2, Signal::SIGINT),
    (3, Signal::SIGQUIT),
    (4, Signal::SIGILL),
    (5, Signal::SIGTRAP),
    (6, Signal::SIGABRT),
    (7, Signal::SIGBUS),
    (8, Signal::SIGFPE),
    (9, Signal::SIGKILL),
    (10, Signal::SIGUSR1),
    (11, Signal::SIGSEGV),
    (12, Signal::SIGUSR2),
    (13, Signal::SIGPIPE),
    (14, Signal::SIGALRM),
    (15, Signal::SIGTERM),
    (17, Signal::SIGCHLD),
    (18, Signal::SIGCONT),
    (19, Signal::SIGSTOP),
    (20, Signal::SIGTSTP),
    (21, Signal::SIGTTIN),
    (22, Signal::SIGTTOU),
    (23, Signal::SIGURG),
    (24, Signal::SIGXCPU),
    (25, Signal::SIGXFSZ),
    (26, Signal::SIGVTALRM),
    (27, Signal::SIGPROF),
    (28, Signal::SIGWINCH),
    (29, Signal::SIGIO),
    (30, Signal::SIGPWR),
    (31, Signal::SIGSYS),
    (33, Signal::SIG33),
];

/// The protocol's number of a signal of Linux.
pub(crate) fn protocol_signal(linux: u8) -> Signal {
    SIGNALS.iter().find(|(number, _)| *number == linux).map_or(Signal::UNKNOWN, |(_, signal)| *signal)
}

/// Linux's number of a signal of the protocol. A stop by the debugger itself is not one to be delivered.
fn linux_signal(signal: Signal) -> Option<u8> {
    let deliverable = |signal: &Signal| *signal != Signal::SIGTRAP && *signal != Signal::SIGZERO;
    SIGNALS.iter().find(|(_, known)| *known == signal && deliverable(known)).map(|(number, _)| *number)
}
