//! Reading big-endian numbers from bytes: a cursor over a class file, and tables that stay in it.

use std::marker::PhantomData;

use crate::error::{Result, truncated};

/// A place in the bytes of a class file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        let (first, rest) = self.rest.split_first().ok_or_else(truncated)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(truncated)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*taken))
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(truncated)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*taken))
    }

    /// A table whose length is in a `u2` before it.
    pub(crate) fn table<T: Entry>(&mut self) -> Result<Table<'a, T>> {
        let count = self.u16()?;
        self.entries(usize::from(count))
    }

    /// A table of `count` entries.
    pub(crate) fn entries<T: Entry>(&mut self, count: usize) -> Result<Table<'a, T>> {
        Ok(Table { bytes: self.take(count * T::SIZE)?, entry: PhantomData })
    }
}

/// What a [`Table`] can hold: a record of fixed size.
pub trait Entry: Sized {
    /// Bytes that one takes in the file.
    const SIZE: usize;
    /// Makes one of its bytes, of which there are `SIZE`.
    fn read(bytes: &[u8]) -> Self;
}

impl Entry for u16 {
    const SIZE: usize = 2;
    fn read(bytes: &[u8]) -> Self {
        u16::from_be_bytes([bytes[0], bytes[1]])
    }
}

/// Records of fixed size that stay in the file and are read when asked for.
#[derive(Debug)]
pub struct Table<'a, T> {
    bytes: &'a [u8],
    entry: PhantomData<T>,
}

impl<T> Clone for Table<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Table<'_, T> {}

impl<T> Default for Table<'_, T> {
    fn default() -> Self {
        Self { bytes: &[], entry: PhantomData }
    }
}

impl<'a, T: Entry> Table<'a, T> {
    /// How many records.
    pub fn len(&self) -> usize {
        self.bytes.len() / T::SIZE
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The record at `index`.
    pub fn get(&self, index: usize) -> Option<T> {
        self.bytes.get(index.checked_mul(T::SIZE)?..)?.get(..T::SIZE).map(T::read)
    }

    /// All of them, in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = T> + use<'a, T> {
        self.bytes.chunks_exact(T::SIZE).map(T::read)
    }

    /// The records as they are in the file.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}
