//! Memory that C code gets and gives back by its address alone: its size, and what it is, are in front of it.

use std::alloc::{Layout, alloc, dealloc};

/// Bytes in front, so that what follows is aligned for any type.
const HEADER: usize = 16;

/// Which function gave memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Origin {
    /// `GetIntArrayElements` and the like.
    Elements = 0x4A4E_4945_4C45_4D01,
    /// `GetStringChars`
    Units = 0x4A4E_4945_4C45_4D02,
    /// `GetStringUTFChars`
    Text = 0x4A4E_4945_4C45_4D03,
    /// `GetPrimitiveArrayCritical`, which gives the array itself.
    Critical = 0x4A4E_4945_4C45_4D04,
}

impl Origin {
    /// Its name.
    pub(super) fn function(self) -> &'static str {
        match self {
            Self::Elements => "GetArrayElements",
            Self::Units => "GetStringChars",
            Self::Text => "GetStringUTFChars",
            Self::Critical => "GetPrimitiveArrayCritical",
        }
    }
}

/// Which function gave this memory; `None` if none of ours did.
pub(super) fn origin(memory: *const u8) -> Option<Origin> {
    if !memory.addr().is_multiple_of(HEADER) {
        return None;
    }
    // SAFETY: any memory that was allocated has something in front: the allocator's own notes, if it is not ours.
    let mark = unsafe { memory.sub(8).cast::<u64>().read() };
    [Origin::Elements, Origin::Units, Origin::Text].into_iter().find(|&origin| origin as u64 == mark)
}

fn layout(size: usize) -> Option<Layout> {
    Layout::from_size_align(size.checked_add(HEADER)?, HEADER).ok()
}

/// Memory of so many bytes, not initialised; `None` if there is none.
pub(super) fn take(size: usize, origin: Origin) -> Option<*mut u8> {
    let layout = layout(size)?;
    // SAFETY: the layout is not empty.
    let start = unsafe { alloc(layout) };
    if start.is_null() {
        return None;
    }
    // SAFETY: the header has room for a size and a mark, and the rest follows it.
    unsafe {
        start.cast::<usize>().write(size);
        start.cast::<u64>().add(1).write(origin as u64);
        Some(start.add(HEADER))
    }
}

/// Gives back what [`take`] gave; nothing if it is null.
pub(super) fn give(memory: *mut u8) {
    if memory.is_null() {
        return;
    }
    // SAFETY: C code passes what it got from `take`, so the size is in front.
    unsafe {
        let start = memory.sub(HEADER);
        if let Some(layout) = layout(start.cast::<usize>().read()) {
            dealloc(start, layout);
        }
    }
}
