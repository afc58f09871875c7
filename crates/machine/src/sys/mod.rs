//! Raw host calls. Everything above uses these safe wrappers.

mod mapping;

pub use mapping::Mapping;
