//! Drivers that do anything: the card survives, keeps inside its bounds, and then serves an honest driver.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Register { at: u32, value: u32 },
    Descriptor { number: u64, words: [u64; 2] },
    Tail { at: u32, value: u32 },
    Give { to_us: bool, bytes: usize },
}

fn value() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), 0u32..64, Just(0xffff_ffff), (0u32..32).prop_map(|bit| 1 << bit)]
}

fn register() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => prop::sample::select(vec![
            offset::CTRL, offset::EECD, offset::EERD, offset::MDIC, offset::ICR, offset::ITR, offset::ICS, offset::IMS, offset::IMC, offset::RCTL,
            offset::TCTL, offset::RDBAL, offset::RDLEN, offset::RDH, offset::TDBAL, offset::TDLEN, offset::TDH, offset::RXCSUM, offset::VET,
        ]),
        1 => (0u32..0x8000).prop_map(|word| word * 4),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let address = || prop_oneof![8 => (0u64..0x10_0000).prop_map(|offset| BASE + offset), 1 => any::<u64>()];
    let second = (any::<u64>(), prop_oneof![0u64..2000, 0u64..0x10_0000]).prop_map(|(high, length)| {
        // Any command, type and options; lengths that make sense now and then.
        (high & 0xffff_ffff_fff0_0000) | length
    });
    prop_oneof![
        3 => (register(), value()).prop_map(|(at, value)| Step::Register { at, value }),
        5 => (0u64..64, address(), second).prop_map(|(number, at, second)| Step::Descriptor { number, words: [at, second] }),
        3 => (prop::sample::select(vec![offset::TDT, offset::RDT]), prop_oneof![4 => 0u32..40, 1 => any::<u32>()])
            .prop_map(|(at, value)| Step::Tail { at, value }),
        3 => (any::<bool>(), 0usize..20_000).prop_map(|(to_us, bytes)| Step::Give { to_us, bytes }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_driver_is_survived(steps in proptest::collection::vec(step(), 1..120)) {
        let mut machine = Machine::up(rctl::BROADCAST);
        for step in steps {
            match step {
                Step::Register { at, value } => {
                    machine.write(at, value);
                    machine.read(at);
                }
                Step::Descriptor { number, words } => {
                    for (place, word) in (0..).zip(words) {
                        machine.memory.store(GuestPhysical(TX_RING + 16 * number + 8 * place), word).unwrap();
                    }
                }
                Step::Tail { at, value } => machine.write(at, value),
                Step::Give { to_us, bytes } => {
                    machine.give(&frame(if to_us { MAC } else { [0xff; 6] }, bytes)[..bytes.min(20_000)]);
                }
            }
        }
        let longest = machine.sent().iter().map(Vec::len).max().unwrap_or(0);
        prop_assert!(longest <= 0x1_0000 + 255 + 4, "{longest}");
        // The driver gives up, and another one begins.
        machine.write(offset::CTRL, 1 << 26);
        machine.write(offset::CTRL, ctrl::SET_LINK_UP | 1 << 31);
        machine.write(offset::CTRL, ctrl::SET_LINK_UP);
        machine.write(offset::TDBAL, u32::try_from(TX_RING).unwrap());
        machine.write(offset::TDLEN, RING_SIZE * 16);
        machine.write(offset::TCTL, tctl::ENABLE);
        machine.memory.write(GuestPhysical(DATA), &frame([0xff; 6], 100)).unwrap();
        machine.tail = 0;
        machine.offer([DATA, 100 | 0x0900_0000]);
        machine.go();
        prop_assert_eq!(machine.sent(), [frame([0xff; 6], 100)]);
    }
}
