//! The machine as a debugger sees it: processors that halt all together, and move one by one. See [`machine::debug`].

use std::ops::Range;
use std::sync::{Arc, mpsc};

use devices::syscon::{PowerRequest, PowerSwitch};
use machine::GuestPhysical;
use machine::debug::{Halting, Move, Points, Request, Stop};

use super::Board;
use super::build::Parts;
use super::patches::Patches;
use super::power::Event;
use super::trace::Tracer;
use crate::kvm::points::{Hit, Manner, Stepping};
use crate::kvm::{Vcpu, lock};

/// How processors move, and where they stop.
#[derive(Default)]
pub(super) struct Debugging {
    points: Points,
    /// Of those that step: while the program counter is in this range.
    steps: Vec<Option<Range<u64>>>,
    pub(super) patches: Patches,
    pub(super) tracer: Option<Arc<dyn Tracer>>,
}

impl Board {
    /// Has all processors stop at these points. False if they cannot; then all is as before.
    #[must_use]
    pub fn set_points(&self, points: &Points) -> bool {
        if self.shared.parts.vm.abilities().manner(points).is_none() {
            return false;
        }
        let points = points.clone();
        self.visit(move |parts| parts.set_points(points)) == Some(true)
    }

    /// From now on `tracer` sees every instruction that processors execute, but for those of interrupts' handlers.
    pub fn set_tracer(&self, tracer: Option<Arc<dyn Tracer>>) {
        self.visit(|parts| {
            lock(&parts.debugging).tracer = tracer;
            parts.apply_debugging();
        });
    }

    /// Starts the guest again from power-on. A halted machine stays halted.
    pub fn reset(&self) {
        self.shared.parts.switch.request(PowerRequest::Reboot);
        self.settle();
    }

    /// Calls `look` with a processor while none runs. `None` if there is no such processor or the machine has ended.
    pub fn with_processor<T: Send + 'static>(
        &self,
        number: usize,
        look: impl FnOnce(&Vcpu) -> T + Send + 'static,
    ) -> Option<T> {
        self.visit(move |parts| (number < parts.cpus_count()).then(|| look(&parts.vcpu(number))))?
    }

    /// Reads RAM for a debugger. False if part of it is not RAM.
    pub fn read_physical(&self, at: GuestPhysical, bytes: &mut [u8]) -> bool {
        self.shared.parts.read_physical(at, bytes)
    }

    /// Writes RAM for a debugger. False if part of it is not RAM.
    pub fn write_physical(&self, at: GuestPhysical, bytes: &[u8]) -> bool {
        let parts = &self.shared.parts;
        lock(&parts.debugging).patches.write(&parts.memory, at, bytes)
    }

    /// Calls `look` while nothing moves, after all earlier events. `None` if the machine has ended.
    fn visit<T: Send + 'static>(&self, look: impl FnOnce(&Parts) -> T + Send + 'static) -> Option<T> {
        let (answer, answers) = mpsc::channel();
        let look: super::power::Look = Box::new(move |parts, _| {
            // Whoever asked waits for the answer.
            let _ = answer.send(look(parts));
        });
        self.queue.send(Event::StandStill(look)).ok()?;
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
    /// False if the host refuses, or a breakpoint is where no memory is; then all is as before.
    pub(super) fn set_points(&self, points: Points) -> bool {
        let before = std::mem::replace(&mut lock(&self.debugging).points, points);
        let set = self.apply_debugging();
        if !set {
            lock(&self.debugging).points = before;
            // What went before goes again.
            self.apply_debugging();
        }
        set
    }

    /// Reads RAM as the guest has written it.
    pub(super) fn read_physical(&self, at: GuestPhysical, bytes: &mut [u8]) -> bool {
        let read = self.memory.read(at, bytes).is_ok();
        lock(&self.debugging).patches.hide(at, bytes);
        read
    }

    /// Calls `look` while memory is as the guest has written it. No processor runs.
    pub(super) fn without_patches<T>(&self, look: impl FnOnce() -> T) -> T {
        lock(&self.debugging).patches.remove_all(&self.memory);
        let result = look();
        // Where there was memory, there is.
        self.patch();
        result
    }

    /// Puts `int3` where breakpoints are, if they are to be found so. False if one of them leads nowhere.
    fn patch(&self) -> bool {
        let places: Vec<u64> = {
            let mut debugging = lock(&self.debugging);
            debugging.patches.remove_all(&self.memory);
            if self.vm.abilities().manner(&debugging.points) != Some(Manner::Patches) {
                return true;
            }
            debugging.points.breakpoints.iter().copied().collect()
        };
        // Any processor may be in the address space that knows it.
        let place = |at: &u64| (0..self.cpus_count()).find_map(|id| self.vcpu(id).translate(*at));
        places.iter().all(|at| place(at).is_some_and(|at| lock(&self.debugging).patches.put(&self.memory, at)))
    }

    /// Tells every processor how to move, and which do not pass the gate.
    pub(super) fn set_moves(&self, moves: &[Move]) {
        let mut staying = Vec::new();
        let mut steps = vec![None; self.cpus_count()];
        for (id, step) in steps.iter_mut().enumerate() {
            match moves.get(id) {
                Some(Move::Run) => {}
                Some(Move::Step(range)) => *step = Some(range.clone()),
                Some(Move::Stay) | None => staying.push(id),
            }
        }
        lock(&self.debugging).steps = steps;
        // What the host refuses now it has refused before, when the points were set.
        self.apply_debugging();
        self.gate.set_staying(staying);
    }

    /// All processors run, and stop nowhere.
    pub(super) fn forget_debugger(&self) {
        {
            let mut debugging = lock(&self.debugging);
            debugging.points = Points::default();
            debugging.steps.clear();
        }
        self.apply_debugging();
        self.gate.set_staying(Vec::new());
    }

    fn apply_debugging(&self) -> bool {
        let patched = self.patch();
        let debugging = lock(&self.debugging);
        let apply = |id| {
            let stepping = match debugging.steps.get(id) {
                Some(Some(_)) => Stepping::Single,
                _ if debugging.tracer.is_some() => Stepping::Every,
                _ => Stepping::Off,
            };
            self.vcpu(id).stop_at(&debugging.points, stepping).is_ok()
        };
        // All of them, whatever one says.
        (0..self.cpus_count()).map(apply).fold(patched, |all, one| all & one)
    }

    /// Why processor `id` stops, if it does.
    pub(super) fn stop_of(&self, id: usize, vcpu: &Vcpu, hit: Hit) -> Option<Stop> {
        let debugging = lock(&self.debugging);
        if hit.is_guests_own(&debugging.points) {
            // A guest that has an exception under way already, KVM refuses another; it comes to this instruction again.
            let _ = vcpu.give_breakpoint();
        }
        hit.stop(&debugging.points, debugging.steps.get(id).and_then(Option::as_ref))
    }
}
