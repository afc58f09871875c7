//! Virtual disks behind the block backend trait.
