//! Harts of programs: U-mode and nothing else.
//!
//! There is no kernel in the machine, so nothing is translated and no trap is taken: addresses are those of a [`UserMemory`], and every exception
//! ends [`Hart::run`] with [`Exit::Exception`](super::Exit::Exception), the program counter at the instruction. In place of the physical address, by which
//! a system machine knows its code, stands the address itself.
//!
//! Whoever changes what is mapped asks the harts for a fence of the pages, and of instructions where code was or will be.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;

use machine::GuestPhysical;
use machine::address::{PAGE_SIZE, host_size};
use machine::bus::Bus;
use machine::memory::{GuestMemory, MemoryError, Scalar};

use super::access::Place;
use super::csr::number;
use super::status::{envcfg, mstatus};
use super::{Hart, HartConfig, HartSignals, Privilege, TimeSource};
use crate::mmu::tlb::{Extent, FetchPage};
use crate::mmu::{Access, Fault, Permissions};
use crate::translate::CodeCache;

/// The memory of a program.
///
/// If code is translated for it, it is flat: the base of `gs` is where address zero is, what the program may not access faults, and so does all that
/// is up to [`GUARD`] bytes before address zero and behind the last address.
pub trait UserMemory: Send + Sync {
    /// Where the page that begins at `page` is on the host, and what may be done with it. Both hold until the harts are asked for a fence.
    ///
    /// # Errors
    /// [`Fault::Page`] if there is none, [`Fault::Access`] if there is, but nothing behind it: past the end of a mapped file.
    fn page(&self, page: u64) -> Result<(NonNull<u8>, Permissions), Fault>;
}

/// What answers a program's system calls where its translated code makes them, without an end of [`Hart::run`].
pub trait SystemCalls: Send + Sync {
    /// Makes system call `number` with the arguments of `a0` to `a5`, and answers what is to be in `a0`. `None` if it is not one of those that
    /// concern neither registers nor mappings: then nothing was done.
    ///
    /// Meanwhile the hart is not running. If someone asks for its attention, or the answer is below -511, the run ends as for any other call, and
    /// [`Hart::take_answer`] has the answer.
    fn call(&self, number: u64, arguments: [u64; 6]) -> Option<i64>;
}

/// How far translated code may miss flat memory without looking.
pub const GUARD: u64 = 1 << 31;

/// The code in a program's memory. Of use until the next fence.
pub(crate) struct Code<'a> {
    memory: &'a dyn UserMemory,
    /// A page that was looked up, and where it is on the host if it may be executed.
    page: Cell<(u64, Option<NonNull<u8>>)>,
}

impl<'a> Code<'a> {
    pub(crate) fn new(memory: &'a dyn UserMemory) -> Self {
        Self { memory, page: Cell::new((u64::MAX, None)) }
    }

    /// The halfword at an address, if it may be executed.
    pub(crate) fn half(&self, at: u64) -> Option<u32> {
        let start = at & !(PAGE_SIZE - 1);
        if self.page.get().0 != start {
            let page = self.memory.page(start).ok().filter(|(_, permissions)| permissions.execute);
            self.page.set((start, page.map(|(host, _)| host)));
        }
        let host = self.page.get().1?;
        // SAFETY: inside the page, which stays as long as this hart acknowledges no fence, and even, as program counters are.
        let half = unsafe { u16::load(host.as_ptr().add(host_size(at & (PAGE_SIZE - 2)))) };
        Some(half.into())
    }
}

impl Hart {
    /// A hart of a program, all registers zero.
    ///
    /// # Errors
    /// See [`MemoryError`].
    pub fn user(
        program: Arc<dyn UserMemory>,
        time: Arc<dyn TimeSource>,
        signals: Arc<HartSignals>,
    ) -> Result<Self, MemoryError> {
        let config = HartConfig { id: 0, hardware_ad_updates: false, monitor_sbi: false };
        // Nobody sees it.
        let memory = Arc::new(GuestMemory::new(GuestPhysical(0), PAGE_SIZE)?);
        let mut hart = Self::new(config, memory, Arc::new(Bus::new()), time, signals);
        hart.program = Some(program);
        hart.set_csr(number::MCOUNTEREN, 7);
        hart.set_csr(number::SCOUNTEREN, 7);
        hart.set_csr(number::MENVCFG, envcfg::WRITABLE);
        hart.set_csr(number::SENVCFG, envcfg::WRITABLE);
        hart.set_csr(number::MSTATUS, mstatus::FS);
        hart.set_privilege(Privilege::User);
        Ok(hart)
    }

    /// From now on these answer system calls, as long as nobody looks at the hart's instructions.
    pub fn answer_calls_with(&mut self, calls: Arc<dyn SystemCalls>) {
        self.calls = Some(calls);
    }

    /// After an [`Exit::Exception`](super::Exit::Exception) for a system call: its answer, if [`SystemCalls`] have made it.
    pub fn take_answer(&mut self) -> Option<i64> {
        self.answer.take()
    }

    /// Translated code is at a system call: whether that is answered, and the code goes on behind it. `cache` is the hart's.
    pub(super) fn answer_call(&mut self, cache: &CodeCache) -> bool {
        let Some(calls) = &self.calls else { return false };
        let arguments = [10, 11, 12, 13, 14, 15].map(|register| self.x.get(register));
        // It may wait: nobody shall wait for the hart meanwhile.
        cache.end();
        self.leave_guest();
        let answer = calls.call(self.x.get(17), arguments);
        self.enter_guest();
        cache.begin();
        let goes_on = !self.signals.is_polled() && cache.generation() == self.translator.generation;
        match answer {
            Some(answer) if goes_on && answer > -512 => {
                self.x.set(10, answer.cast_unsigned());
                true
            }
            answer => {
                self.answer = answer;
                false
            }
        }
    }

    /// The place of an access inside one page.
    pub(super) fn resolve_in_program(
        &mut self,
        program: &dyn UserMemory,
        at: u64,
        access: Access,
    ) -> Result<Place, Fault> {
        let start = at & !(PAGE_SIZE - 1);
        let (host, permissions) = program.page(start)?;
        if !permissions.allow(access) {
            return Err(Fault::Page);
        }
        if access == Access::Fetch {
            self.tlb.enter_fetch(at, FetchPage { physical: start, host }, Extent::default());
        } else {
            self.tlb.enter(at, host.as_ptr(), permissions, Extent::default());
        }
        // SAFETY: the offset is inside the page.
        Ok(Place::Memory(unsafe { host.as_ptr().add(host_size(at & (PAGE_SIZE - 1))) }))
    }

    /// The halfword of code at `physical`, which [`Self::fetch_address`] has answered, or in the same page.
    pub(crate) fn code_half(&self, physical: GuestPhysical) -> Option<u16> {
        let Some(program) = &self.program else { return self.memory.load(physical).ok() };
        let (host, permissions) = program.page(physical.0 & !(PAGE_SIZE - 1)).ok()?;
        // SAFETY: the offset is inside the page, and even, as program counters are.
        permissions.execute.then(|| unsafe { u16::load(host.as_ptr().add(host_size(physical.0 & (PAGE_SIZE - 2)))) })
    }
}
