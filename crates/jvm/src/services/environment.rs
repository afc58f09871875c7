//! The environment that the machine was started with, as far as the program may see it, and what it was given beside.

use std::ffi::{OsStr, OsString};

/// Names and values of the variables that the program may see.
pub fn variables() -> Vec<(OsString, OsString)> {
    let policy = super::policy();
    let given = |name: &OsStr| policy.variables.iter().any(|(known, _)| known == name);
    let allowed = &policy.permissions.environment;
    let own = std::env::vars_os().filter(|(name, _)| allowed.contains(&name.to_string_lossy()) && !given(name));
    own.chain(policy.variables.iter().cloned()).collect()
}
