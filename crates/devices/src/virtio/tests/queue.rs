use super::super::driver::{BASE, MEMORY_BYTES, Piece, Ring, readable, writable};
use super::*;
use crate::lock;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::Mutex;

#[derive(Default)]
struct Recorder {
    used: Mutex<u32>,
}

impl Recorder {
    fn take(&self) -> u32 {
        std::mem::take(&mut *lock(&self.used))
    }
}

impl DriverSignals for Recorder {
    fn used(&self, _: u16) {
        *lock(&self.used) += 1;
    }
    fn configuration_changed(&self) {}
    fn needs_reset(&self, _: &QueueError) {}
}

struct Pair {
    ring: Ring,
    queue: Queue,
    recorder: Arc<Recorder>,
    chain: Chain,
}

const DATA: u64 = BASE + 0x10_0000;

fn pair(size: u16, features: u64) -> Pair {
    let memory = Arc::new(GuestMemory::new(GuestPhysical(BASE), MEMORY_BYTES).unwrap());
    let ring = Ring::new(&memory, size, BASE, features & feature::EVENT_IDX != 0);
    let recorder = Arc::new(Recorder::default());
    let state = State {
        size,
        descriptors: GuestPhysical(ring.descriptors),
        available: GuestPhysical(ring.available),
        used: GuestPhysical(ring.used),
        ..State::default()
    };
    let queue = Queue::new(0, state, features, memory, Arc::clone(&recorder) as Arc<dyn DriverSignals>).unwrap();
    Pair { ring, queue, recorder, chain: Chain::default() }
}

impl Pair {
    fn pop(&mut self) -> Result<bool, QueueError> {
        self.queue.pop(&mut self.chain)
    }
}

#[test]
fn a_chain_there_and_back() {
    let mut pair = pair(8, 0);
    pair.ring.memory.write(GuestPhysical(DATA), b"question").unwrap();
    let head =
        pair.ring.add(&[readable(DATA, 5), readable(DATA + 5, 3), writable(DATA + 100, 2), writable(DATA + 200, 8)]);
    assert!(pair.pop().unwrap());
    assert_eq!((pair.chain.readable_bytes(), pair.chain.writable_bytes()), (8, 10));
    let mut bytes = [0; 6];
    let memory = Arc::clone(pair.queue.memory());
    assert_eq!(pair.chain.read(&memory, 2, &mut bytes), 6);
    assert_eq!(&bytes, b"estion");
    assert_eq!(pair.chain.read(&memory, 7, &mut bytes), 1);
    assert_eq!(pair.chain.write(&memory, 1, b"answer that is too long"), 9);
    let mut back = [0; 8];
    memory.read(GuestPhysical(DATA + 200), &mut back).unwrap();
    assert_eq!(&back, b"nswer th");
    assert!(!pair.pop().unwrap());
    pair.queue.add_used(&pair.chain, 10).unwrap();
    assert_eq!(pair.ring.pop_used(), None, "not before it is published");
    pair.queue.publish().unwrap();
    assert_eq!(pair.ring.pop_used(), Some((head.unwrap(), 10)));
    assert_eq!(pair.recorder.take(), 1);
}

#[test]
fn empty_pieces_are_skipped() {
    let mut pair = pair(8, 0);
    pair.ring.add(&[writable(0, 0), readable(DATA, 1), readable(3, 0)]);
    assert!(pair.pop().unwrap());
    assert_eq!((pair.chain.readable().len(), pair.chain.writable().len()), (1, 0));
}

#[test]
fn chains_put_back_come_again() {
    let mut pair = pair(4, 0);
    let heads = [pair.ring.add(&[readable(DATA, 1)]), pair.ring.add(&[readable(DATA, 2)])].map(Option::unwrap);
    assert!(pair.pop().unwrap() && pair.pop().unwrap());
    pair.queue.unpop(2);
    assert!(pair.pop().unwrap());
    assert_eq!((pair.chain.head, pair.chain.readable_bytes()), (heads[0], 1));
}

#[test]
fn flags_suppress_both_ways() {
    let mut pair = pair(4, 0);
    pair.queue.suppress_notifications().unwrap();
    pair.ring.add(&[readable(DATA, 1)]);
    assert!(!pair.ring.must_kick());
    assert!(pair.queue.request_notification().unwrap(), "one has come meanwhile");
    assert!(pair.pop().unwrap());
    assert!(!pair.queue.request_notification().unwrap());
    pair.ring.memory.store(GuestPhysical(pair.ring.available), 1u16).unwrap();
    pair.queue.add_used(&pair.chain, 0).unwrap();
    pair.queue.publish().unwrap();
    assert_eq!(pair.recorder.take(), 0);
    pair.ring.add(&[readable(DATA, 1)]);
    assert!(pair.ring.must_kick());
}

#[test]
fn event_indices_suppress_both_ways() {
    let mut pair = pair(4, feature::EVENT_IDX);
    assert!(!pair.queue.request_notification().unwrap());
    pair.ring.add(&[readable(DATA, 1)]);
    assert!(pair.ring.must_kick(), "the first is asked for");
    pair.ring.add(&[readable(DATA, 1)]);
    assert!(!pair.ring.must_kick(), "the second is not");
    pair.ring.want_interrupt();
    for expected in [1, 0] {
        assert!(pair.pop().unwrap());
        pair.queue.add_used(&pair.chain, 0).unwrap();
        pair.queue.publish().unwrap();
        assert_eq!(pair.recorder.take(), expected);
    }
    pair.queue.publish().unwrap();
    assert_eq!(pair.recorder.take(), 0, "nothing new");
}

#[test]
fn indirect_tables() {
    let mut pair = pair(4, feature::INDIRECT_DESC);
    let pieces: Vec<Piece> = (0..20).map(|i| readable(DATA + i * 16, 3)).chain([writable(DATA, 7)]).collect();
    pair.ring.add_indirect(DATA + 0x1000, &pieces);
    assert!(pair.pop().unwrap());
    assert_eq!((pair.chain.readable().len(), pair.chain.readable_bytes(), pair.chain.writable_bytes()), (20, 60, 7));
}

/// What one hostile descriptor does to the queue.
fn hostile(features: u64, set_up: impl FnOnce(&mut Ring)) -> QueueError {
    let mut pair = pair(4, features);
    set_up(&mut pair.ring);
    pair.pop().unwrap_err()
}

#[test]
fn loops_and_lies_are_refused() {
    let table = BASE;
    let endless = hostile(0, |ring| {
        ring.descriptor(table, 0, DATA, 1, 1, 1);
        ring.descriptor(table, 1, DATA, 1, 1, 0);
        ring.offer(0);
    });
    assert_eq!(endless, QueueError::Long);
    let empty_loop = hostile(0, |ring| {
        ring.descriptor(table, 0, DATA, 0, 1, 0);
        ring.offer(0);
    });
    assert_eq!(empty_loop, QueueError::Long);
    assert_eq!(hostile(0, |ring| ring.offer(4)), QueueError::Number { number: 4, size: 4 });
    let next = hostile(0, |ring| {
        ring.descriptor(table, 0, DATA, 1, 1, 0xffff);
        ring.offer(0);
    });
    assert_eq!(next, QueueError::Number { number: 0xffff, size: 4 });
    for (at, length) in [(0, 1), (BASE - 1, 2), (BASE + MEMORY_BYTES - 1, 2), (u64::MAX, 1), (u64::MAX - 3, u32::MAX)] {
        let out = hostile(0, |ring| {
            ring.add(&[readable(at, length)]);
        });
        assert_eq!(out, QueueError::Address(OutOfRange { at: GuestPhysical(at), length: length.into() }));
    }
    let order = hostile(0, |ring| {
        ring.add(&[writable(DATA, 1), readable(DATA, 1)]);
    });
    assert_eq!(order, QueueError::Order);
    let jump = hostile(0, |ring| ring.memory.store(GuestPhysical(ring.available + 2), 5u16).unwrap());
    assert_eq!(jump, QueueError::Jump { from: 0, to: 5 });
}

#[test]
fn wrong_indirect_tables_are_refused() {
    let table = BASE;
    let with = |features, at, length, flags| {
        hostile(features, |ring| {
            ring.descriptor(DATA, 0, DATA, 16, 4, 0);
            ring.descriptor(table, 0, at, length, flags, 0);
            ring.offer(0);
        })
    };
    let on = feature::INDIRECT_DESC;
    assert_eq!(with(0, DATA, 16, 4), QueueError::Indirect, "not agreed on");
    assert_eq!(with(on, DATA, 16, 4), QueueError::Indirect, "one inside another");
    assert_eq!(with(on, DATA, 16, 5), QueueError::Indirect, "with a next");
    assert_eq!(with(on, DATA, 0, 4), QueueError::Indirect);
    assert_eq!(with(on, DATA, 17, 4), QueueError::Indirect);
    assert!(matches!(with(on, BASE + MEMORY_BYTES - 16, 32, 4), QueueError::Address(_)));
    assert!(matches!(with(on, DATA, 0xffff_fff0, 4), QueueError::Address(_)));
    assert_eq!(with(on, DATA + 4, 16, 4), QueueError::Alignment(GuestPhysical(DATA + 4)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a correct driver does, every chain comes back once, with its content, and nobody waits for a notification that does not come.
    #[test]
    fn every_chain_comes_back(
        size_shift in 1u32..6,
        event_index in any::<bool>(),
        steps in proptest::collection::vec((1u16..5, 0u8..4, any::<bool>()), 1..200),
    ) {
        let mut features = feature::INDIRECT_DESC;
        if event_index { features |= feature::EVENT_IDX; }
        let mut pair = pair(1 << size_shift, features);
        let mut offered = VecDeque::new();
        let mut asleep = !pair.queue.request_notification().unwrap();
        let mut number = 0u64;
        for (pieces_count, batch, indirect) in steps {
            let pieces: Vec<Piece> = (0..pieces_count)
                .map(|i| Piece { at: DATA + number * 64 + u64::from(i), length: 1, writable: i > pieces_count / 2 })
                .collect();
            let table = DATA + 0x40_0000 + number * 256;
            let head = if indirect { pair.ring.add_indirect(table, &pieces) } else { pair.ring.add(&pieces) };
            if let Some(head) = head {
                offered.push_back((head, pieces));
                number += 1;
            }
            if pair.ring.must_kick() { asleep = false; }
            if asleep {
                // Nothing may be left to do for one who sleeps.
                prop_assert_eq!(pair.queue.waiting_count().unwrap(), 0);
                continue;
            }
            for _ in 0..batch {
                pair.ring.want_interrupt();
                let Some((head, pieces)) = offered.front() else { break };
                prop_assert!(pair.queue.pop(&mut pair.chain).unwrap());
                prop_assert_eq!(pair.chain.head, *head);
                let seen: Vec<_> = pair.chain.segments.iter().map(|s| s.at.0).collect();
                prop_assert_eq!(seen, pieces.iter().map(|p| p.at).collect::<Vec<_>>());
                pair.queue.add_used(&pair.chain, 1).unwrap();
                pair.queue.publish().unwrap();
                prop_assert_eq!(pair.recorder.take(), 1);
                prop_assert_eq!(pair.ring.pop_used(), Some((*head, 1)));
                offered.pop_front();
            }
            asleep = !pair.queue.request_notification().unwrap();
        }
    }

    /// Rubbish in all three rings ends in an error or an end, soon.
    #[test]
    fn rubbish_never_panics(bytes in proptest::collection::vec(any::<u8>(), 512), size_shift in 0u32..5, features in any::<u64>()) {
        let mut pair = pair(1 << size_shift, features);
        for at in [pair.ring.descriptors, pair.ring.available, pair.ring.used] {
            pair.ring.memory.write(GuestPhysical(at), &bytes[..256]).unwrap();
        }
        // Make some of it plausible.
        for number in 0..pair.ring.size {
            let at = pair.ring.descriptors + 16 * u64::from(number);
            pair.ring.memory.store(GuestPhysical(at), BASE + u64::from(bytes[256 + usize::from(number)])).unwrap();
        }
        pair.ring.memory.store(GuestPhysical(pair.ring.available + 2), pair.ring.size).unwrap();
        for _ in 0..100 {
            match pair.pop() {
                Ok(true) => {
                    let memory = Arc::clone(pair.queue.memory());
                    pair.chain.write(&memory, 0, &bytes);
                    pair.queue.add_used(&pair.chain, 1).unwrap();
                    pair.queue.publish().unwrap();
                }
                Ok(false) | Err(_) => break,
            }
        }
    }
}
