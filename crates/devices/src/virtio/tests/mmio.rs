use machine::address::GuestPhysical;

use super::super::driver::{BASE, Driver, wait_for};
use super::super::probe::Probe;
use super::*;

#[test]
fn identity_and_features() {
    let driver = Driver::idle(Arc::new(Probe::default()));
    assert_eq!(driver.read(0x000), 0x7472_6976);
    assert_eq!((driver.read(0x004), driver.read(0x008)), (2, 42));
    assert_eq!(driver.read(0x010), 0x3000_0005);
    driver.write(0x014, 1);
    assert_eq!(driver.read(0x010), 1);
    driver.write(0x014, 2);
    assert_eq!(driver.read(0x010), 0);
    assert_eq!(driver.read(0x0b0), u32::MAX, "no shared memory region");
    driver.write(0x030, 1);
    assert_eq!(driver.read(0x034), 16);
    driver.write(0x030, 2);
    assert_eq!(driver.read(0x034), 0);
}

#[test]
fn features_must_be_agreed_on() {
    let probe = Arc::new(Probe::default());
    let driver = Driver::idle(Arc::clone(&probe) as Arc<dyn VirtioDevice>);
    driver.write(0x020, 1);
    driver.write(0x070, 0xb);
    assert_eq!(driver.status(), 3, "version 1 is not taken");
    driver.write(0x070, 0xf);
    assert_eq!(driver.status(), 3, "and the driver cannot be ready");
    driver.write(0x024, 1);
    driver.write(0x020, 1);
    driver.write(0x024, 0);
    driver.write(0x020, 2);
    driver.write(0x070, 0xb);
    assert_eq!(driver.status(), 3, "bit 1 was not offered");
    driver.write(0x020, 4);
    driver.write(0x070, 0xb);
    driver.write(0x020, 1);
    driver.write(0x070, 0xf);
    assert_eq!(driver.status(), 0xf);
    assert_eq!(probe.events(), ["activate 0x100000004 [None, None]"], "features stand after FEATURES_OK");
}

#[test]
fn a_life() {
    let probe = Arc::new(Probe::default());
    let mut driver = Driver::start(Arc::clone(&probe) as Arc<dyn VirtioDevice>, 1);
    assert_eq!(probe.events(), ["reset", "activate 0x100000001 [Some(8), Some(16)]"]);
    driver.write(0x050, 1);
    driver.write(0x050, 0x1_0000);
    assert_eq!(probe.events(), ["notify 1"]);

    probe.signals().used(0);
    assert!(driver.line.is_raised());
    probe.signals().configuration_changed();
    assert_eq!((driver.read(0x060), driver.read(0x0fc)), (3, 1));
    driver.write(0x064, 1);
    assert!(driver.line.is_raised(), "the other one is not acknowledged");
    driver.write(0x064, 2);
    assert!(!driver.line.is_raised());

    // A live queue cannot be moved or taken away.
    driver.write(0x030, 0);
    driver.write(0x044, 0);
    assert_eq!(driver.read(0x044), 1);

    probe.signals().needs_reset(&QueueError::Long);
    assert_eq!((driver.status(), driver.read(0x060)), (0x4f, 2));
    assert_eq!(driver.transport.last_error(), Some(QueueError::Long));
    driver.write(0x070, 0);
    assert_eq!((driver.status(), driver.read(0x060), driver.read(0x044)), (0, 0, 0));
    assert!(!driver.line.is_raised());
    driver.bring_up(0);
    assert_eq!(probe.events(), ["reset", "reset", "activate 0x100000000 [Some(8), Some(16)]"]);
}

#[test]
fn configuration_space() {
    let probe = Arc::new(Probe::default());
    let driver = Driver::idle(Arc::clone(&probe) as Arc<dyn VirtioDevice>);
    let read = |offset, width| driver.transport.read(offset, width);
    assert_eq!(read(0x100, Width::Byte), 1);
    assert_eq!(read(0x102, Width::Half), 0x0403);
    assert_eq!(read(0x100, Width::Double), 0x0605_0403_0201);
    assert_eq!(read(0x104, Width::Word), 0x0605);
    assert_eq!(read(0xffc, Width::Word), 0);
    driver.transport.write(0x102, Width::Half, 0x1234_0201);
    assert_eq!(probe.events(), ["config 2 [1, 2]"]);
}

#[test]
fn impossible_queues_need_a_reset() {
    for (register, value, expected) in [
        (0x038, 0, QueueError::Size(0)),
        (0x038, 6, QueueError::Size(6)),
        (0x038, 16, QueueError::Size(16)),
        (0x038, 0x1_0008, QueueError::Size(0xffff)),
        (0x080, 0x8000_0008, QueueError::Alignment(GuestPhysical(BASE + 8))),
        (0x090, 0x8000_0001, QueueError::Alignment(GuestPhysical(BASE + 1))),
        (0x0a0, 0x8000_0002, QueueError::Alignment(GuestPhysical(BASE + 2))),
    ] {
        let probe = Arc::new(Probe::default());
        let driver = Driver::idle(Arc::clone(&probe) as Arc<dyn VirtioDevice>);
        driver.write(0x024, 1);
        driver.write(0x020, 1);
        driver.write(0x070, 0xb);
        for (register, value) in [(0x038, 8), (0x080, 0x8000_0000), (0x090, 0x8000_1000), (0x0a0, 0x8000_2000)] {
            driver.write(register, value);
        }
        driver.write(register, value);
        driver.write(0x044, 1);
        driver.write(0x070, 0xf);
        assert_eq!(driver.status(), 0x4f, "{expected}");
        assert_eq!(driver.transport.last_error(), Some(expected));
        assert!(probe.events().is_empty(), "the device does not start");
        wait_for(|| driver.line.is_raised());
    }
}

#[test]
fn rings_outside_memory_need_a_reset() {
    for register in [0x080, 0x090, 0x0a0, 0x084, 0x094, 0x0a4] {
        let driver = Driver::idle(Arc::new(Probe::default()));
        driver.write(0x024, 1);
        driver.write(0x020, 1);
        driver.write(0x070, 0xb);
        for (register, value) in [(0x038, 8), (0x080, 0x8000_0000), (0x090, 0x8000_1000), (0x0a0, 0x8000_2000)] {
            driver.write(register, value);
        }
        driver.write(register, 0xffff_fff0);
        driver.write(0x044, 1);
        driver.write(0x070, 0xf);
        assert_eq!(driver.status(), 0x4f, "{register:#x}");
        assert!(matches!(driver.transport.last_error(), Some(QueueError::Address(_))));
    }
}

#[test]
fn any_access_is_answered() {
    let driver = Driver::start(Arc::new(Probe::default()), 0);
    for width in [Width::Byte, Width::Half, Width::Word, Width::Double] {
        for offset in (0..SIZE).step_by(width.bytes().try_into().unwrap()) {
            driver.transport.read(offset, width);
            driver.transport.write(offset, width, u64::MAX);
            driver.transport.write(offset, width, 0);
        }
    }
    assert_eq!(driver.status(), 0);
}
