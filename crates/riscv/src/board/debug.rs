//! The machine as a debugger sees it: harts that halt all together, and move one by one. See [`machine::debug`].

use std::sync::{Arc, mpsc};

use devices::syscon::{PowerRequest, PowerSwitch};
use machine::GuestPhysical;
pub use machine::debug::{Halting, Move, Report, Reporter, Request};

use super::Board;
use super::build::Parts;
use super::power::Event;
use crate::hart::debug::{Points, Tracer};
use crate::hart::{Fence, Hart};

impl Board {
    /// Has all harts stop at these points.
    pub fn set_points(&self, points: Points) {
        self.visit(move |parts| parts.set_points(points));
    }

    /// From now on `tracer` sees every instruction of every hart.
    pub fn set_tracer(&self, tracer: Option<Arc<dyn Tracer>>) {
        self.visit(move |parts| {
            parts.vcpus.iter().for_each(|vcpu| vcpu.core().hart.set_tracer(tracer.clone()));
        });
    }

    /// The integer registers and program counters of all harts; also after the machine's end.
    #[must_use]
    pub fn registers(&self) -> Vec<([u64; 32], u64)> {
        let registers = |hart: &Hart| (std::array::from_fn(|n| hart.x(u8::try_from(n).unwrap_or(0))), hart.pc());
        self.inspect(move |parts| parts.vcpus.iter().map(|vcpu| registers(&vcpu.core().hart)).collect())
    }

    /// Reads memory as hart `number` sees it, also after the machine's end; false if part of it is not memory.
    #[must_use]
    pub fn read_virtual(&self, number: usize, at: u64, bytes: &mut [u8]) -> bool {
        let length = bytes.len();
        let read = self.inspect(move |parts| {
            let mut bytes = vec![0; length];
            let vcpu = parts.vcpus.get(number)?;
            (vcpu.core().hart.read_virtual(at, &mut bytes) == length).then_some(bytes)
        });
        read.inspect(|read| bytes.copy_from_slice(read)).is_some()
    }

    /// How many harts there are.
    #[must_use]
    pub fn harts_count(&self) -> usize {
        self.shared.parts.vcpus.len()
    }

    /// Calls `look` with a hart while none runs. `None` if there is no such hart or the machine has ended.
    pub fn with_hart<T: Send + 'static>(
        &self,
        number: usize,
        look: impl FnOnce(&mut Hart) -> T + Send + 'static,
    ) -> Option<T> {
        self.visit(move |parts| parts.vcpus.get(number).map(|vcpu| look(&mut vcpu.core().hart)))?
    }

    /// Writes memory as hart `number` sees it, so that all harts execute what was written; false if not all of it is memory.
    #[must_use]
    pub fn write_virtual(&self, number: usize, at: u64, bytes: Vec<u8>) -> bool {
        let written = self.visit(move |parts| {
            let written = parts.vcpus.get(number)?.core().hart.write_virtual(at, &bytes);
            parts.fence_instructions();
            Some(written)
        });
        written.flatten().unwrap_or(false)
    }

    /// Reads guest RAM at a physical address; false if part of it is not RAM.
    #[must_use]
    pub fn read_physical(&self, at: GuestPhysical, bytes: &mut [u8]) -> bool {
        self.shared.parts.memory.read(at, bytes).is_ok()
    }

    /// Writes guest RAM at a physical address, so that all harts execute what was written; false if part of it is not RAM.
    #[must_use]
    pub fn write_physical(&self, at: GuestPhysical, bytes: &[u8]) -> bool {
        let written = self.shared.parts.memory.write(at, bytes).is_ok();
        self.visit(|parts| parts.fence_instructions());
        written
    }

    /// Starts the guest again from power-on. A halted machine stays halted.
    pub fn reset(&self) {
        self.shared.parts.supervisor.switch.request(PowerRequest::Reboot);
        self.settle();
    }

    /// Calls `look` while no hart runs, after all earlier events. `None` if the machine has ended.
    fn visit<T: Send + 'static>(&self, look: impl FnOnce(&Parts) -> T + Send + 'static) -> Option<T> {
        let (answer, answers) = mpsc::channel();
        let event = Event::Inspect(Box::new(move |parts| {
            // Whoever asked waits for the answer.
            let _ = answer.send(look(parts));
        }));
        self.queue.send(event).ok()?;
        answers.recv().ok()
    }
}

impl Halting for Board {
    fn request(&self, request: Request) {
        let _ = self.queue.send(Event::Debug(request));
    }

    fn settle(&self) {
        // Events are done in their order.
        self.visit(|_| ());
    }
}

impl Parts {
    fn fence_instructions(&self) {
        self.vcpus.iter().for_each(|vcpu| vcpu.core().hart.fence(Fence::Instructions));
    }

    pub(super) fn set_points(&self, points: Points) {
        let points = Arc::new(points);
        for vcpu in &self.vcpus {
            vcpu.core().hart.set_points(Arc::clone(&points));
        }
    }

    /// Tells every hart how to move, and which do not pass the gate.
    pub(super) fn set_moves(&self, moves: &[Move]) {
        let mut staying = Vec::new();
        for vcpu in &self.vcpus {
            match moves.get(vcpu.id) {
                Some(Move::Run) => vcpu.set_step(None),
                Some(Move::Step(range)) => vcpu.set_step(Some(range.clone())),
                Some(Move::Stay) | None => staying.push(vcpu.id),
            }
        }
        self.gate.set_staying(staying);
    }

    /// All harts run.
    pub(super) fn forget_moves(&self) {
        self.set_moves(&vec![Move::Run; self.vcpus.len()]);
    }
}
