//! The collector against a model: random graphs of objects, and what of them must still be there.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use machine::entropy::Entropy;

use super::*;
use crate::object::{ELEMENTS_OFFSET, MARK_HASH_SHIFT, METADATA_BASE, Span};

const NODE: u32 = 0x1000;
const REFERENCES: u32 = 0x1080;
const BYTES: u32 = 0x1100;
const WEAK: u32 = 0x1180;
const SOFT: u32 = 0x1200;
const FINAL: u32 = 0x1280;
const PHANTOM: u32 = 0x1300;
const CLASS: u32 = 0x1380;
const UNLOADABLE: u32 = 0x1400;
/// Its instances have the number of their loader at 28.
const LOADER: u32 = 0x1480;

static NODE_SPANS: [Span; 1] = [Span { offset: 16, count: 3 }];
/// referent 12 (not followed), queue 16, next 20, discovered 24; timestamp 32.
static REFERENCE_SPANS: [Span; 1] = [Span { offset: 16, count: 3 }];
static CLASS_SPANS: [Span; 1] = [Span { offset: 16, count: 1 }];
const FIELDS: ReferenceFields = ReferenceFields { referent: 12, next: 20, discovered: 24, timestamp: 32 };

/// One heap at a time, with classes beside it.
fn lock() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    static CLASSES: Once = Once::new();
    let guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    CLASSES.call_once(|| {
        machine::sys::reserve_at(METADATA_BASE, 1 << 20).unwrap();
        let define = |class: u32, kind, size, spans: &'static [Span], loader| {
            let mut shape = Shape::new(kind, size);
            shape.span_count = u16::try_from(spans.len()).unwrap();
            shape.reference_map = spans.as_ptr();
            shape.mirror_size = 40;
            shape.statics = Span { offset: 32, count: 1 };
            shape.loader = loader;
            // SAFETY: reserved above, and nobody reads it yet.
            unsafe { std::ptr::with_exposed_provenance_mut::<Shape>(METADATA_BASE + class as usize).write(shape) };
        };
        define(NODE, Kind::Instance, 32, &NODE_SPANS, 0);
        define(REFERENCES, Kind::ReferenceArray, 0, &[], 0);
        define(BYTES, Kind::PrimitiveArray, 0, &[], 0);
        define(WEAK, Kind::WeakReference, 40, &REFERENCE_SPANS, 0);
        define(SOFT, Kind::SoftReference, 40, &REFERENCE_SPANS, 0);
        define(FINAL, Kind::FinalReference, 40, &REFERENCE_SPANS, 0);
        define(PHANTOM, Kind::PhantomReference, 40, &REFERENCE_SPANS, 0);
        define(CLASS, Kind::Mirror, 0, &CLASS_SPANS, 0);
        define(UNLOADABLE, Kind::Instance, 32, &NODE_SPANS, 5);
        define(LOADER, Kind::ClassLoader, 32, &[], 0);
    });
    guard
}

#[derive(Default)]
struct Machine {
    buffer: Buffer,
    strong: Vec<Reference>,
    weak: Vec<Reference>,
    loader_slot: Reference,
    loader_lives: bool,
    pinned: Vec<u32>,
    clock: i64,
}

impl Roots for Machine {
    fn buffers(&mut self, visit: &mut dyn FnMut(&mut Buffer)) {
        visit(&mut self.buffer);
    }
    fn strong(&mut self, scope: Scope, visit: &mut dyn FnMut(&mut Reference)) {
        self.strong.iter_mut().for_each(&mut *visit);
        if scope == Scope::Young && self.loader_lives {
            visit(&mut self.loader_slot);
        }
    }
    fn weak(&mut self, _: Scope, visit: &mut dyn FnMut(&mut Reference)) {
        self.weak.iter_mut().for_each(visit);
    }
    fn classes(&mut self, visit: &mut dyn FnMut(&Shape)) {
        visit(Shape::of(NODE));
        if self.loader_lives {
            visit(Shape::of(UNLOADABLE));
        }
    }
    fn data_of(&self, loader: Reference) -> u32 {
        loader.u32(28).load(Ordering::Relaxed)
    }
    fn pinned(&mut self, visit: &mut dyn FnMut(u32)) {
        self.pinned.iter().for_each(|&loader| visit(loader));
    }
    fn loader(&mut self, loader: u32, visit: &mut dyn FnMut(&mut Reference), other: &mut dyn FnMut(u32)) {
        match loader {
            5 => visit(&mut self.loader_slot),
            6 => other(5),
            _ => panic!("there is no loader {loader}"),
        }
    }
    fn unload(&mut self, lives: &dyn Fn(u32) -> bool) {
        if self.loader_lives && !lives(5) {
            self.loader_lives = false;
            self.loader_slot = Reference::NULL;
            Shape::of(UNLOADABLE).mirror.store(0, Ordering::Relaxed);
        }
    }
    fn soft_clock(&mut self, milliseconds: i64) {
        self.clock = milliseconds;
    }
}

fn heap(options: Options) -> Heap {
    let heap = Heap::new(options).unwrap();
    heap.set_reference_fields(FIELDS);
    for class in [NODE, UNLOADABLE] {
        Shape::of(class).mirror.store(0, Ordering::Relaxed);
    }
    heap
}

impl Machine {
    fn allocate(&mut self, heap: &Heap, class: u32, length: Option<u32>) -> Result<Reference, OutOfMemory> {
        loop {
            let result = match length {
                Some(length) => heap.array(&mut self.buffer, class, length),
                None => heap.instance(&mut self.buffer, class),
            };
            match result {
                Ok(object) => return Ok(object),
                Err(Refusal::Full(full)) => heap.make_room(full, self)?,
                Err(Refusal::TooLong) => panic!("too long"),
            }
        }
    }

    fn mirror(&mut self, heap: &Heap, class: u32) {
        let mirror = heap.mirror(CLASS, class).unwrap();
        Shape::of(class).mirror.store(mirror.0, Ordering::Relaxed);
    }

    fn collect(&mut self, heap: &Heap, scope: Scope) {
        let state = &mut *heap.state();
        heap.run(scope, Cause::SystemGc, false, state, self);
    }
}

struct Random(Entropy);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.0.next_u64().unwrap() % limit as u64).unwrap()
    }
}

/// An object as it should be: its class, its references to other objects, its bytes.
struct Model {
    class: u32,
    fields: Vec<usize>,
    length: Option<u32>,
}

impl Model {
    fn offset(&self, field: usize) -> usize {
        match self.class {
            REFERENCES => ELEMENTS_OFFSET + field * 4,
            WEAK => 12,
            _ => 16 + field * 4,
        }
    }
}

/// Compares all that can be reached. `collected`: everything else is gone.
fn compare(machine: &Machine, roots: &[usize], models: &[Model], collected: bool) {
    let mut known: HashMap<usize, Reference> = HashMap::new();
    let mut stack: Vec<(usize, Reference)> = roots.iter().copied().zip(machine.strong.iter().copied()).collect();
    while let Some((id, object)) = stack.pop() {
        if id == 0 {
            assert!(object.is_null());
            continue;
        }
        if let Some(&before) = known.get(&id) {
            assert_eq!(before, object, "object {id} is in two places");
            continue;
        }
        known.insert(id, object);
        let model = &models[id];
        assert_eq!(object.class_word(), model.class);
        assert_eq!((object.mark().load(Ordering::Relaxed) >> MARK_HASH_SHIFT) as usize, id, "another object");
        if let Some(length) = model.length {
            assert_eq!(object.length(), length);
        }
        if model.class == BYTES {
            for index in (0..object.length() as usize).step_by(7) {
                assert_eq!(object.u8(ELEMENTS_OFFSET + index).load(Ordering::Relaxed), (id + index).to_le_bytes()[0]);
            }
        }
        if model.class != WEAK {
            for (field, &target) in model.fields.iter().enumerate() {
                stack.push((target, object.get(model.offset(field))));
            }
        }
    }
    // Weak references to what lives lead there; others, once everything was collected, nowhere.
    for (&id, &object) in &known {
        if models[id].class == WEAK {
            let referent = object.get(12);
            match known.get(&models[id].fields[0]) {
                Some(&target) => assert_eq!(referent, target),
                None => assert!(referent.is_null() || !collected && models[id].fields[0] != 0),
            }
        }
    }
}

fn random_graph(seed: u64, options: Options, root_count: usize, steps: usize) -> Statistics {
    let _guard = lock();
    let heap = heap(options);
    let mut machine = Machine::default();
    let mut random = Random(Entropy::Seeded(seed));
    let mut models = vec![Model { class: 0, fields: Vec::new(), length: None }];
    let mut roots: Vec<usize> = vec![0; root_count];
    machine.strong = vec![Reference::NULL; root_count];
    machine.mirror(&heap, NODE);
    for step in 0..steps {
        let root = random.below(roots.len());
        match random.below(100) {
            0..60 => {
                let id = models.len();
                let (class, length) = match random.below(20) {
                    0..10 => (NODE, None),
                    10..14 => (REFERENCES, Some(random.below(30))),
                    14 => (REFERENCES, Some(random.below(3000))),
                    15..18 => (BYTES, Some(random.below(300))),
                    18 if random.below(50) == 0 => (BYTES, Some(random.below(700_000))),
                    18 => (BYTES, Some(random.below(9000))),
                    _ => (WEAK, None),
                };
                let length = length.map(|length| u32::try_from(length).unwrap());
                let Ok(object) = machine.allocate(&heap, class, length) else {
                    // Full: forget everything.
                    roots.fill(0);
                    machine.strong.fill(Reference::NULL);
                    continue;
                };
                object.mark().store((id as u64) << MARK_HASH_SHIFT, Ordering::Relaxed);
                let mut model = Model { class, fields: Vec::new(), length };
                match class {
                    BYTES => (0..length.unwrap() as usize).for_each(|index| {
                        object.u8(ELEMENTS_OFFSET + index).store((id + index).to_le_bytes()[0], Ordering::Relaxed)
                    }),
                    REFERENCES => model.fields = vec![0; length.unwrap() as usize],
                    WEAK => {
                        let target = random.below(roots.len());
                        model.fields = vec![roots[target]];
                        object.put(12, machine.strong[target]);
                    }
                    _ => model.fields = vec![0; 3],
                }
                // It takes a root's place, and mostly leads to what was there.
                if random.below(4) != 0 && class != WEAK && !model.fields.is_empty() {
                    let field = random.below(model.fields.len());
                    model.fields[field] = roots[root];
                    object.put(model.offset(field), machine.strong[root]);
                }
                models.push(model);
                roots[root] = id;
                machine.strong[root] = object;
            }
            60..85 => {
                // A field of what is some steps away from a root leads to another root.
                let (mut id, mut object) = (roots[root], machine.strong[root]);
                for _ in 0..random.below(6) {
                    let model = &models[id];
                    if model.fields.is_empty() || model.class == WEAK {
                        break;
                    }
                    let field = random.below(model.fields.len());
                    if model.fields[field] == 0 {
                        break;
                    }
                    object = object.get(model.offset(field));
                    id = model.fields[field];
                }
                if id != 0 && models[id].class != WEAK && !models[id].fields.is_empty() {
                    let other = random.below(roots.len());
                    let field = random.below(models[id].fields.len());
                    models[id].fields[field] = roots[other];
                    object.put(models[id].offset(field), machine.strong[other]);
                }
            }
            85..97 if random.below(root_count) < 40 => {
                roots[root] = 0;
                machine.strong[root] = Reference::NULL;
            }
            97 if random.below(50) == 0 => machine.collect(&heap, Scope::Full),
            _ => {
                if random.below(10) == 0 {
                    machine.collect(&heap, Scope::Young);
                }
            }
        }
        if step % 512 == 0 {
            compare(&machine, &roots, &models, false);
        }
    }
    machine.collect(&heap, Scope::Full);
    compare(&machine, &roots, &models, true);
    heap.statistics()
}

#[test]
fn random_graphs() {
    for seed in 0..6 {
        let options = Options { maximum: 12 << 20, initial: 4 << 20, verify: true, ..Options::default() };
        let statistics = random_graph(seed, options, 40, 60_000);
        assert!(statistics.young_count > 100 && statistics.full_count > 5, "{statistics:?}");
    }
}

#[test]
fn random_graphs_in_a_tight_heap() {
    let mut overflow_count = 0;
    for seed in 10..16 {
        let options = Options { maximum: 3 << 20, initial: 2 << 20, verify: true, ..Options::default() };
        let statistics = random_graph(seed, options, 250, 60_000);
        assert!(statistics.full_count > 20, "{statistics:?}");
        overflow_count += statistics.overflow_count;
    }
    assert!(overflow_count > 0);
}

#[test]
fn random_graphs_with_a_collection_at_every_few_allocations() {
    for seed in 20..23 {
        let options = Options { maximum: 16 << 20, verify: true, stress: 3, ..Options::default() };
        let statistics = random_graph(seed, options, 40, 5_000);
        assert!(statistics.young_count + statistics.full_count > 900, "{statistics:?}");
    }
}

/// A reference object to a new node that nobody else knows, and the node's hash.
fn reference(machine: &mut Machine, heap: &Heap, class: u32) -> usize {
    let node = machine.allocate(heap, NODE, None).unwrap();
    node.mark().store(77 << MARK_HASH_SHIFT, Ordering::Relaxed);
    machine.strong.push(node);
    let reference = machine.allocate(heap, class, None).unwrap();
    let node = machine.strong.pop().unwrap();
    reference.put(FIELDS.referent, node);
    machine.strong.push(reference);
    machine.strong.len() - 1
}

#[test]
fn references_by_strength() {
    let _guard = lock();
    for scope in [Scope::Young, Scope::Full] {
        let heap = heap(Options { maximum: 64 << 20, verify: true, ..Options::default() });
        let mut machine = Machine::default();
        let all = [WEAK, SOFT, FINAL, PHANTOM].map(|class| reference(&mut machine, &heap, class));
        let node = machine.allocate(&heap, NODE, None).unwrap();
        machine.weak.push(node);
        machine.collect(&heap, scope);
        let referent = |machine: &Machine, index: usize| machine.strong[index].get(FIELDS.referent);
        assert!(referent(&machine, all[0]).is_null(), "weak");
        assert!(!referent(&machine, all[1]).is_null(), "a soft reference stays while there is room");
        assert!(!referent(&machine, all[2]).is_null(), "kept for the finalizer");
        assert!(referent(&machine, all[3]).is_null(), "phantom");
        assert_eq!(machine.weak, [Reference::NULL]);
        assert_eq!(machine.strong[all[2]].get(FIELDS.next), machine.strong[all[2]], "not active any more");
        // The three are pending, and stay so through collections.
        machine.collect(&heap, Scope::Young);
        machine.collect(&heap, Scope::Full);
        assert!(heap.has_pending());
        let mut pending = HashSet::new();
        let mut at = heap.take_pending();
        while !at.is_null() {
            pending.insert(at.class_word());
            at = at.get(FIELDS.discovered);
        }
        assert_eq!(pending, HashSet::from([WEAK, FINAL, PHANTOM]));
        assert!(!heap.has_pending());
    }
}

#[test]
fn a_referent_that_lives_stays() {
    let _guard = lock();
    let heap = heap(Options { maximum: 64 << 20, verify: true, ..Options::default() });
    let mut machine = Machine::default();
    let all = [WEAK, SOFT, FINAL, PHANTOM].map(|class| reference(&mut machine, &heap, class));
    for &index in &all {
        let referent = machine.strong[index].get(FIELDS.referent);
        machine.strong.push(referent);
    }
    for scope in [Scope::Young, Scope::Young, Scope::Full, Scope::Young] {
        machine.collect(&heap, scope);
        for &index in &all {
            assert_eq!(machine.strong[index].get(FIELDS.referent), machine.strong[index + 4]);
        }
        assert!(!heap.has_pending());
    }
}

#[test]
fn soft_references_are_cleared_before_memory_runs_out() {
    let _guard = lock();
    let heap = heap(Options { maximum: 8 << 20, verify: true, ..Options::default() });
    let mut machine = Machine::default();
    let index = reference(&mut machine, &heap, SOFT);
    let refused = loop {
        match machine.allocate(&heap, BYTES, Some(100_000)) {
            Ok(object) => machine.strong.push(object),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, OutOfMemory);
    assert!(machine.strong[index].get(FIELDS.referent).is_null());
    // Nearly all of the heap could be used, and can be again.
    assert!(machine.strong.len() * 100_000 > 6 << 20, "{} KB", machine.strong.len() * 100);
    machine.strong.truncate(10);
    machine.allocate(&heap, BYTES, Some(2_000_000)).unwrap();
}

#[test]
fn impossible_arrays() {
    let _guard = lock();
    let heap = heap(Options { maximum: 8 << 20, ..Options::default() });
    let mut machine = Machine::default();
    assert_eq!(heap.array(&mut machine.buffer, BYTES, LENGTH_MAX + 1), Err(Refusal::TooLong));
    assert_eq!(machine.allocate(&heap, BYTES, Some(LENGTH_MAX)), Err(OutOfMemory));
    assert_eq!(machine.allocate(&heap, REFERENCES, Some(LENGTH_MAX)), Err(OutOfMemory));
}

#[test]
fn a_class_lives_with_its_instances() {
    let _guard = lock();
    let heap = heap(Options { maximum: 64 << 20, verify: true, ..Options::default() });
    let mut machine = Machine { loader_lives: true, ..Machine::default() };
    machine.mirror(&heap, UNLOADABLE);
    machine.mirror(&heap, NODE);
    // What the loader owns and what a static field holds.
    let owned = machine.allocate(&heap, NODE, None).unwrap();
    owned.mark().store(5 << MARK_HASH_SHIFT, Ordering::Relaxed);
    machine.loader_slot = owned;
    let held = machine.allocate(&heap, NODE, None).unwrap();
    held.mark().store(6 << MARK_HASH_SHIFT, Ordering::Relaxed);
    Reference(Shape::of(UNLOADABLE).mirror.load(Ordering::Relaxed)).put(32, held);
    let instance = machine.allocate(&heap, UNLOADABLE, None).unwrap();
    machine.strong.push(instance);
    for scope in [Scope::Young, Scope::Full, Scope::Full, Scope::Young] {
        machine.collect(&heap, scope);
        assert!(machine.loader_lives);
        assert_eq!(machine.loader_slot.mark().load(Ordering::Relaxed) >> MARK_HASH_SHIFT, 5);
        let mirror = Reference(Shape::of(UNLOADABLE).mirror.load(Ordering::Relaxed));
        assert_eq!(mirror.class_word(), CLASS);
        assert_eq!(mirror.get(32).mark().load(Ordering::Relaxed) >> MARK_HASH_SHIFT, 6);
    }
    // Its loader keeps it as well, or another one that names its classes, or whoever makes a class of it.
    for number in [5, 6] {
        let loader = machine.allocate(&heap, LOADER, None).unwrap();
        loader.u32(28).store(number, Ordering::Relaxed);
        machine.strong[0] = loader;
        for scope in [Scope::Young, Scope::Full, Scope::Full] {
            machine.collect(&heap, scope);
            assert!(machine.loader_lives);
            let mirror = Reference(Shape::of(UNLOADABLE).mirror.load(Ordering::Relaxed));
            assert_eq!(mirror.get(32).mark().load(Ordering::Relaxed) >> MARK_HASH_SHIFT, 6);
        }
    }
    machine.strong.clear();
    machine.pinned.push(6);
    machine.collect(&heap, Scope::Full);
    assert!(machine.loader_lives);
    machine.pinned.clear();
    machine.collect(&heap, Scope::Young);
    assert!(machine.loader_lives);
    machine.collect(&heap, Scope::Full);
    assert!(!machine.loader_lives);
}

#[test]
fn a_long_list_needs_no_stack() {
    let _guard = lock();
    let heap = heap(Options { maximum: 256 << 20, ..Options::default() });
    let mut machine = Machine::default();
    machine.strong.push(Reference::NULL);
    for _ in 0..1_000_000 {
        let node = machine.allocate(&heap, NODE, None).unwrap();
        node.put(16, machine.strong[0]);
        machine.strong[0] = node;
    }
    machine.collect(&heap, Scope::Full);
    let (mut count, mut at) = (0, machine.strong[0]);
    while !at.is_null() {
        count += 1;
        at = at.get(16);
    }
    assert_eq!(count, 1_000_000);
    // In use are the list and nothing else.
    assert!(heap.used() < 33_000_000, "{}", heap.used());
}

#[test]
fn logs_as_others_do() {
    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let _guard = lock();
    let log = |tags: &str, line: &dyn Fn() -> String| LINES.lock().unwrap().push(format!("{tags}: {}", line()));
    let heap = heap(Options { maximum: 64 << 20, initial: 64 << 20, log: Some(log), ..Options::default() });
    let mut machine = Machine::default();
    let object = machine.allocate(&heap, BYTES, Some(5 << 20)).unwrap();
    machine.strong.push(object);
    heap.collect(Cause::SystemGc, &mut machine);
    let lines = LINES.lock().unwrap();
    assert_eq!(lines[0], "gc: Using Serial");
    let begins = |text: &str| lines.iter().any(|line| line.starts_with(text));
    assert!(lines.iter().any(|line| line == "gc,start: GC(0) Pause Full (System.gc())"), "{lines:?}");
    assert!(begins("gc: GC(0) Pause Full (System.gc()) 5M->5M("), "{lines:?}");
    assert!(begins("gc,heap: GC(0) DefNew: 5120K(") && begins("gc,heap: GC(0) Tenured: 0K("), "{lines:?}");
    assert!(begins("gc,cpu: GC(0) User="), "{lines:?}");
}

#[test]
fn tells_what_spaces_have_and_had() {
    let _guard = lock();
    let heap = heap(Options { maximum: 64 << 20, initial: 64 << 20, ..Options::default() });
    let mut machine = Machine::default();
    heap.notice(true);
    let object = machine.allocate(&heap, BYTES, Some(5 << 20)).unwrap();
    let dead = machine.allocate(&heap, BYTES, Some(3 << 20)).unwrap();
    assert_ne!(object, dead);
    machine.strong.push(object);
    let mib = |usage: Usage| usage.used >> 20;
    assert_eq!((mib(heap.usage(Space::Eden)), mib(heap.usage(Space::Tenured))), (8, 0));
    machine.collect(&heap, Scope::Full);
    machine.collect(&heap, Scope::Young);
    assert_eq!((mib(heap.usage(Space::Eden)), mib(heap.usage(Space::Tenured))), (0, 5));
    assert_eq!((mib(heap.peak(Space::Eden)), mib(heap.after_collection(Space::Tenured))), (8, 5));
    heap.forget_peak(Space::Eden);
    assert_eq!(heap.peak(Space::Eden).used, 0);
    let full = heap.last(Scope::Full).unwrap();
    assert_eq!((full.number, full.cause, mib(full.usage[0][0]), mib(full.usage[1][2])), (1, Cause::SystemGc, 8, 5));
    let taken: Vec<Scope> = std::iter::from_fn(|| heap.take_notice()).map(|record| record.scope).collect();
    assert_eq!(taken, [Scope::Full, Scope::Young]);
}
