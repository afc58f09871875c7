//! Reports of a record: for the terminal, as a page, and of what differs between two.

pub mod difference;
mod figures;
pub mod page;
mod svg;
pub mod terminal;
