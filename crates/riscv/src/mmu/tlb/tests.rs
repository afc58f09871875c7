use super::*;

const SPACE: Satp = Satp(8 << 60 | 5 << 44 | 0x80000);
const OTHER: Satp = Satp(8 << 60 | 6 << 44 | 0x80001);
const USER: Class = Class(1);
const SUPERVISOR: Class = Class(0);
const SUPERVISOR_SUM: Class = Class(2);
const READ: Permissions = Permissions { read: true, write: false, execute: false };
const WRITE: Permissions = Permissions { read: true, write: true, execute: false };
const SMALL: Extent = Extent { size_shift: 12, global: false };
const GLOBAL: Extent = Extent { size_shift: 12, global: true };

const CODE: FetchPage = FetchPage { physical: 0x8000_0000, host: NonNull::dangling() };

fn tlb() -> Tlb {
    let mut tlb = Tlb::new();
    tlb.select(SPACE, USER, USER);
    tlb
}

fn frame(n: usize) -> *mut u8 {
    (n << 12) as *mut u8
}

fn space(n: u64) -> Satp {
    Satp(8 << 60 | n << 44)
}

#[test]
fn hits_know_alignment_and_permission() {
    let mut tlb = tlb();
    assert_eq!(tlb.read(0x1000, 1), None);
    tlb.enter(0x1234, frame(0x7f), READ, SMALL);
    assert_eq!(tlb.read(0x1238, 8), Some((0x7f238) as *mut u8));
    assert_eq!(tlb.read(0x123c, 8), None, "misaligned");
    assert_eq!(tlb.read(0x123c, 4), Some((0x7f23c) as *mut u8));
    assert_eq!(tlb.write(0x1238, 8), None);
    assert_eq!(tlb.read(0x2238, 8), None);
    tlb.enter(u64::MAX, frame(0x7f), Permissions::ALL, SMALL);
    assert_eq!(tlb.write(u64::MAX - 7, 8), Some(0x7fff8 as *mut u8));
}

#[test]
fn contexts_are_apart_and_come_back() {
    let mut tlb = tlb();
    tlb.enter(0x1000, frame(1), READ, SMALL);
    for (satp, class) in
        [(SPACE, SUPERVISOR), (SPACE, SUPERVISOR_SUM), (OTHER, USER), (Satp(0), SUPERVISOR), (Satp(0), Class::MACHINE)]
    {
        tlb.select(satp, class, class);
        assert_eq!(tlb.read(0x1000, 8), None);
    }
    tlb.select(SPACE, USER, USER);
    assert_eq!(tlb.read(0x1000, 8), Some(frame(1)));
}

#[test]
fn global_pages_of_the_kernel_are_there_in_all_spaces() {
    let mut tlb = tlb();
    tlb.select(SPACE, SUPERVISOR, SUPERVISOR);
    tlb.enter(0x1000, frame(1), READ, GLOBAL);
    let fetches = tlb.fetch_context();
    tlb.select(OTHER, SUPERVISOR, SUPERVISOR);
    assert_eq!((tlb.read(0x1000, 8), tlb.fetch_context()), (Some(frame(1)), fetches));
    tlb.flush_space(6);
    tlb.select(OTHER, SUPERVISOR, SUPERVISOR);
    assert_eq!(tlb.read(0x1000, 8), Some(frame(1)), "a fence of one space leaves them");
    tlb.select(Satp(9 << 60), SUPERVISOR, SUPERVISOR);
    assert_eq!(tlb.read(0x1000, 8), None, "other page tables");
}

#[test]
fn local_pages_of_a_kernel_stay_in_their_space() {
    let mut tlb = tlb();
    tlb.select(SPACE, SUPERVISOR, SUPERVISOR);
    let fetches = tlb.fetch_context();
    tlb.enter_fetch(0x1000, CODE, SMALL);
    tlb.enter(0x1000, frame(1), READ, SMALL);
    tlb.select(OTHER, SUPERVISOR, SUPERVISOR);
    assert_eq!((tlb.read(0x1000, 8), tlb.fetch(0x1000)), (None, None));
    assert_ne!(tlb.fetch_context(), fetches);
    tlb.enter(0x1000, frame(1), READ, SMALL);
    tlb.flush_space(6);
    tlb.select(OTHER, SUPERVISOR, SUPERVISOR);
    assert_eq!(tlb.read(0x1000, 8), None, "they belong to the space");
}

#[test]
fn flushes_reach_what_they_name() {
    let fill = || {
        let mut tlb = tlb();
        for satp in [OTHER, SPACE] {
            tlb.select(satp, USER, USER);
            tlb.enter(0x1000, frame(1), READ, SMALL);
            tlb.enter(0x2000, frame(2), READ, SMALL);
        }
        tlb
    };
    let state = |mut tlb: Tlb| {
        let mut found = Vec::new();
        for satp in [SPACE, OTHER] {
            tlb.select(satp, USER, USER);
            found.extend([tlb.read(0x1000, 8).is_some(), tlb.read(0x2000, 8).is_some()]);
        }
        found
    };
    assert_eq!(state(fill()), [true; 4]);
    let mut tlb = fill();
    tlb.flush_all();
    assert_eq!(state(tlb), [false; 4]);
    let mut tlb = fill();
    tlb.flush_space(6);
    assert_eq!(state(tlb), [true, true, false, false]);
    let mut tlb = fill();
    tlb.flush_page(0x1fff, None);
    assert_eq!(state(tlb), [false, true, false, true]);
    let mut tlb = fill();
    tlb.flush_page(0x2000, Some(5));
    assert_eq!(state(tlb), [true, false, true, true]);
    let mut tlb = fill();
    for n in 0..100 {
        tlb.flush_page(0x10_0000 + (n << 12), None);
    }
    assert_eq!(state(tlb), [true, true, false, false], "too many to catch up with");
}

#[test]
fn a_fence_inside_a_superpage_reaches_all_of_it() {
    let mut tlb = tlb();
    tlb.enter(0x20_1000, frame(1), READ, Extent { size_shift: 21, global: false });
    tlb.flush_page(0x20_5000, None);
    tlb.select(SPACE, USER, USER);
    assert_eq!(tlb.read(0x20_1000, 8), None);
}

#[test]
fn a_fence_of_a_fetched_page_changes_the_fetch_context() {
    let mut tlb = tlb();
    tlb.enter(0x3000, frame(3), READ, SMALL);
    tlb.enter_fetch(0x1000, CODE, SMALL);
    let before = tlb.fetch_context();
    assert_eq!(tlb.fetch(0x1ffe), Some(CODE));
    tlb.flush_page(0x9_9000, None);
    tlb.select(SPACE, USER, USER);
    assert_eq!(tlb.fetch_context(), before);
    tlb.flush_page(0x1000, None);
    tlb.select(SPACE, USER, USER);
    assert_ne!(tlb.fetch_context(), before);
    assert_eq!(tlb.fetch(0x1ffe), None);
    assert_eq!(tlb.read(0x3000, 8), Some(frame(3)), "data has another context");
}

#[test]
fn withdrawn_frames_have_no_writes_in_any_space() {
    let fill = || {
        let mut tlb = tlb();
        for satp in [OTHER, SPACE] {
            tlb.select(satp, USER, USER);
            tlb.enter(0x1000, frame(1), WRITE, SMALL);
            tlb.enter(0x2000, frame(2), WRITE, SMALL);
        }
        tlb
    };
    let check = |tlb: &mut Tlb, other: bool| {
        for satp in [SPACE, OTHER] {
            tlb.select(satp, USER, USER);
            assert_eq!((tlb.read(0x1000, 8), tlb.write(0x1000, 8)), (Some(frame(1)), None));
            assert_eq!(tlb.write(0x2000, 8).is_some(), other || satp == SPACE);
        }
    };
    let mut tlb = fill();
    tlb.withdraw(frame(1));
    check(&mut tlb, true);
    let mut tlb = fill();
    tlb.withdraw(frame(1));
    for n in 100..200 {
        tlb.withdraw(frame(n));
    }
    check(&mut tlb, false);
    let mut tlb = fill();
    tlb.withdraw_all();
    assert_eq!((tlb.read(0x2000, 8), tlb.write(0x2000, 8)), (Some(frame(2)), None));
}

#[test]
fn spaces_beyond_the_bound_take_the_place_of_the_oldest() {
    let mut tlb = tlb();
    for n in 0..3000_u64 {
        tlb.select(space(n % 40), USER, SUPERVISOR);
        assert_eq!(tlb.read(0x1000, 8), None, "{n}");
        tlb.enter(0x1000, frame(1), READ, SMALL);
    }
    assert!(tlb.spaces.len() <= FIRST + SPACES_MAX);
    tlb.select(space(38), USER, SUPERVISOR);
    assert_eq!(tlb.read(0x1000, 8), Some(frame(1)), "used not long ago");
}

#[test]
fn a_table_grows_with_what_is_used_and_shrinks_when_it_is_not() {
    const MANY: u64 = 20_000;
    let mut tlb = tlb();
    let slots = |tlb: &Tlb| host_size(tlb.mask) / size_of::<Slot>() + 1;
    let found = |tlb: &Tlb| (0..MANY).filter(|page| tlb.read(page << 12, 8).is_some()).count();
    for round in 0..3 {
        for page in 0..MANY {
            if tlb.read(page << 12, 8).is_none() {
                tlb.enter(page << 12, frame(host_size(page)), READ, SMALL);
            }
            assert_eq!(tlb.read(page << 12, 8), Some(frame(host_size(page))), "round {round}");
        }
    }
    assert_eq!((slots(&tlb), found(&tlb)), (SLOTS_MAX, SLOTS_MAX));
    tlb.flush_all();
    tlb.select(SPACE, USER, USER);
    assert_eq!(found(&tlb), 0);
    for _ in 0..9 {
        tlb.enter(0x1000, frame(1), READ, SMALL);
        tlb.flush_all();
        tlb.select(SPACE, USER, USER);
    }
    assert_eq!(slots(&tlb), SLOTS_MIN);
    tlb.enter(0x1000, frame(1), WRITE, SMALL);
    tlb.select(OTHER, USER, USER);
    assert_eq!(tlb.read(0x1000, 8), None);
    tlb.select(SPACE, USER, USER);
    assert_eq!((tlb.read(0x1000, 8), tlb.write(0x1000, 8)), (Some(frame(1)), Some(frame(1))));
}
