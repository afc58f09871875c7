//! Raw host calls. Everything above uses these safe wrappers.

pub mod file;
mod mapping;

pub use mapping::Mapping;
