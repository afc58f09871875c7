//! Hostile firmware: whatever it asks the configuration device for and writes to flash memory, in whatever order, nothing panics, and flash keeps its size and
//! shows what is in its file.
#![no_main]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use devices::BoardDevice;
use devices::flash::{ArrayView, Flash};
use devices::fw_cfg::{Content, FwCfg, Items, item};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use machine::GuestPhysical;
use machine::bus::{BusDevice, Width};
use machine::memory::GuestMemory;
use machine::sys::file::unnamed_file;

const MEMORY_BYTES: u64 = 1 << 16;
const FLASH_BYTES: u64 = 3 << 12;

/// One thing that firmware does.
#[derive(Arbitrary, Debug)]
enum Action {
    Config {
        offset: u8,
        width: u8,
        value: u32,
    },
    ReadConfig {
        offset: u8,
        width: u8,
    },
    /// A request for the configuration device, in memory, and that it is there.
    Request {
        at: u16,
        control: u32,
        length: u32,
        address: u64,
    },
    Flash {
        offset: u16,
        width: u8,
        value: u8,
    },
    ReadFlash {
        offset: u16,
        width: u8,
    },
    Reset,
}

struct Nobody;

impl ArrayView for Nobody {
    fn show(&self, _: bool) {}
}

/// An access as a bus lets it through: inside the device.
fn access(offset: u64, size: u64, code: u8) -> (u64, Width) {
    let width = [Width::Byte, Width::Half, Width::Word, Width::Double][usize::from(code % 4)];
    ((offset % size).min(size - width.bytes()), width)
}

fn file(length: u64) -> File {
    let file = unnamed_file("fuzz").expect("the host has files");
    file.set_len(length).expect("the host has room");
    file
}

libfuzzer_sys::fuzz_target!(|actions: Vec<Action>| {
    let memory = Arc::new(GuestMemory::new(GuestPhysical(0), MEMORY_BYTES).expect("the host has memory"));
    let mut items = Items::default();
    items.add_file("etc/bytes", vec![1, 2, 3]);
    // A file that became shorter than it was.
    items.add(item::KERNEL, Content::File { file: file(100), offset: 50, length: 5000 });
    let config = FwCfg::new(items, Arc::clone(&memory));
    let chip = file(FLASH_BYTES);
    let flash =
        Flash::new(chip.try_clone().expect("the host has descriptors"), Arc::new(Nobody)).expect("it has a length");
    for action in actions {
        match action {
            Action::Config { offset, width, value } => {
                let (offset, width) = access(offset.into(), devices::fw_cfg::SIZE, width);
                config.write(offset, width, value.into());
            }
            Action::ReadConfig { offset, width } => {
                let (offset, width) = access(offset.into(), devices::fw_cfg::SIZE, width);
                let value = config.read(offset, width);
                assert_eq!(value, width.truncate(value));
            }
            Action::Request { at, control, length, address } => {
                let words = [control.to_be_bytes(), length.to_be_bytes()].concat();
                let _ = memory.write(GuestPhysical(at.into()), &[words, address.to_be_bytes().to_vec()].concat());
                config.write(4, Width::Word, 0);
                config.write(8, Width::Word, u64::from(u32::from(at).swap_bytes()));
            }
            Action::Flash { offset, width, value } => {
                let (offset, width) = access(offset.into(), FLASH_BYTES, width);
                flash.write(offset, width, value.into());
            }
            Action::ReadFlash { offset, width } => {
                let (offset, width) = access(offset.into(), FLASH_BYTES, width);
                let _ = flash.read(offset, width);
            }
            Action::Reset => {
                config.reset();
                flash.reset();
                let mut byte = [0];
                chip.read_exact_at(&mut byte, FLASH_BYTES - 1).expect("it keeps its size");
                assert_eq!(flash.read(FLASH_BYTES - 1, Width::Byte), u64::from(byte[0]));
            }
        }
    }
    assert_eq!(chip.metadata().expect("it is open").len(), FLASH_BYTES);
});
