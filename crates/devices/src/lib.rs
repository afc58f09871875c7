//! Device models: pure register models plus thin bus wrappers.
