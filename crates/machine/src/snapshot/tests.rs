use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;

const PAGES: usize = 5;
const PAGE: usize = PAGE_LENGTH;

/// A memory of which the second and the last page are not zero.
fn memory() -> Vec<u8> {
    let mut bytes = vec![0; PAGES * PAGE];
    bytes[PAGE + 7] = 1;
    bytes[PAGES * PAGE - 1] = 2;
    bytes
}

fn write(directory: &Path, text: &[u8]) {
    let mut writer = Writer::create(directory, "test", Identity(7), Some(Identity(u128::MAX))).unwrap();
    writer.section("text", 3, text).unwrap();
    writer.section("empty", 1, b"").unwrap();
    let bytes = memory();
    let read = |at: u64, page: &mut [u8]| {
        let at = usize::try_from(at).unwrap();
        page.copy_from_slice(&bytes[at..at + page.len()]);
        Ok(())
    };
    writer
        .memory("first", PAGE_BYTES, |_, page| {
            page.fill(9);
            Ok(())
        })
        .unwrap();
    writer.memory("main", bytes.len() as u64, read).unwrap();
    writer.finish().unwrap();
}

#[test]
fn what_is_written_is_read() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("s");
    write(&directory, b"hello");
    let snapshot = Snapshot::open(&directory).unwrap();
    assert_eq!((snapshot.header().machine, snapshot.header().parent), (Identity(7), Some(Identity(u128::MAX))));
    snapshot.check_kind("test").unwrap();
    assert!(matches!(snapshot.check_kind("other"), Err(SnapshotError::Kind { .. })));
    assert!(matches!(snapshot.parts().section("text", 2), Err(SnapshotError::Version { found: 3, known: 2, .. })));
    let mut parts = snapshot.parts();
    assert_eq!(parts.section("text", 3).unwrap(), b"hello");
    assert!(parts.section("text", 3).is_err(), "each part once");
    assert_eq!(parts.section("empty", 1).unwrap(), b"");
    assert_eq!(parts.memory("first").unwrap().offset, 0);
    assert!(matches!(parts.finish(), Err(SnapshotError::Unknown(name)) if name == "main"));
    let main = parts.memory("main").unwrap();
    let mut bytes = vec![1; usize::try_from(main.length).unwrap()];
    main.file.read_exact_at(&mut bytes, main.offset).unwrap();
    assert_eq!(bytes, memory());
    parts.finish().unwrap();
    snapshot.verify().unwrap();
}

#[test]
fn memory_is_mapped_copy_on_write() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("s");
    write(&directory, b"");
    let snapshot = Snapshot::open(&directory).unwrap();
    let main = snapshot.parts().memory("main").unwrap();
    let length = usize::try_from(main.length).unwrap();
    let mapping = crate::sys::Mapping::new(length).unwrap();
    // SAFETY: all of a mapping of ours, which nobody refers to.
    unsafe { crate::sys::map_file_over(mapping.start(), length, main.file, main.offset) }.unwrap();
    // SAFETY: inside the mapping, which nobody else uses.
    unsafe {
        let byte = mapping.start().add(PAGE + 7);
        assert_eq!(byte.read(), 1);
        byte.write(3);
        assert_eq!(byte.read(), 3);
    }
    Snapshot::open(&directory).unwrap().verify().unwrap();
}

#[test]
fn a_snapshot_is_replaced_as_a_whole_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("s");
    write(&directory, b"one");
    drop(Writer::create(&directory, "test", Identity(1), None).unwrap());
    assert_eq!(
        Snapshot::open(&directory).unwrap().parts().section("text", 3).unwrap(),
        b"one",
        "a writer that gave up"
    );
    write(&directory, b"two");
    assert_eq!(Snapshot::open(&directory).unwrap().parts().section("text", 3).unwrap(), b"two");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing temporary is left");
    let other = folder.path().join("letters");
    fs::create_dir(&other).unwrap();
    assert!(matches!(Writer::create(&other, "test", Identity(1), None), Err(SnapshotError::Occupied(_))));
    assert!(matches!(Snapshot::open(&other), Err(SnapshotError::Magic(_))));
}

#[test]
fn every_changed_byte_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("s");
    write(&directory, b"hello");
    for name in ["header", "state", "memory"] {
        let path = directory.join(name);
        let right = fs::read(&path).unwrap();
        for at in (0..right.len()).step_by(if name == "memory" { 9973 } else { 1 }) {
            let mut wrong = right.clone();
            wrong[at] ^= 4;
            fs::write(&path, &wrong).unwrap();
            let result = Snapshot::open(&directory).and_then(|snapshot| snapshot.verify());
            assert!(result.is_err(), "{name} at {at}");
        }
        fs::write(&path, &right[..right.len() - 1]).unwrap();
        assert!(Snapshot::open(&directory).and_then(|snapshot| snapshot.verify()).is_err(), "{name} cut off");
        fs::write(&path, &right).unwrap();
    }
    Snapshot::open(&directory).unwrap().verify().unwrap();
}

proptest! {
    /// Whatever lines a header has, with a right checksum: parts inside their files, or an error.
    #[test]
    fn headers_are_not_trusted(lines in prop::collection::vec("(section|memory|kind|x) [a-z0-9./-]{0,70}( [0-9]{1,20}){0,4}( [0-9a-f]{1,9})?", 0..6)) {
        let body = format!("isomorph snapshot 1\nkind k\nmachine {0:032x}\nparent -\n{1}\n", 5, lines.join("\n"));
        let text = format!("{body}end {:08x}\n", crc32fast::hash(body.as_bytes()));
        if let Ok(Some(header)) = Header::read(&text, 1000, 10 * PAGE_BYTES) {
            for section in &header.sections {
                prop_assert!(section.offset + section.length <= 1000);
            }
            for memory in &header.memories {
                prop_assert!(memory.offset + memory.length <= 10 * PAGE_BYTES && memory.offset % PAGE_BYTES == 0);
            }
            prop_assert_eq!(Header::read(&header.write(), 1000, 10 * PAGE_BYTES).unwrap(), Some(header));
        }
    }
}
