//! `cargo xtask`: the tasks of this project, in the project's language.
//!
//! | task | what |
//! |---|---|
//! | `test` | everything that must hold before a change is taken; installs what it needs |
//! | `tidy` | the rules of the house that the compiler does not know |
//! | `bench` | figures beside a named peer, kept in a record |
//! | `kvm` | what needs KVM, on the host's and nested |
//! | `fuzz` | hostile input for every parser of it |
//! | `workloads` | the guest programs that `isomorph compare` carries |
//! | `soak` | a guest that works for as long as it is told to |
//! | `conformance` | the test suites of others, from a folder outside the tree |
//!
//! One module a task; [`run`], [`setup`] and [`workspace`] are shared.

mod bench;
mod conformance;
mod fuzz;
mod guest;
mod kvm;
mod readme;
mod run;
mod setup;
mod soak;
mod test;
mod tidy;
mod workloads;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The tasks of this project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run every check and test; install what they need first.
    Test(test::Options),
    /// Check the rules of the house.
    Tidy,
    /// Measure beside a peer and append to the record.
    Bench(bench::Options),
    /// Test what needs KVM: on the host's, where it opens, and inside an emulated machine that has it.
    Kvm(kvm::Options),
    /// Feed hostile input to parsers, guided by coverage.
    Fuzz(fuzz::Options),
    /// Let a guest with four harts compile for a long time, or a Java program work; fail if it hangs, errs or grows.
    Soak(soak::Options),
    /// Build the guest programs that `isomorph compare` carries.
    Workloads(workloads::Options),
    /// Run the conformance tests in a folder.
    #[command(subcommand)]
    Conformance(conformance::Kind),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Test(options) => test::run(&options),
        Task::Tidy => tidy::run(),
        Task::Bench(options) => bench::run(&options),
        Task::Kvm(options) => kvm::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Soak(options) => soak::run(&options),
        Task::Workloads(options) => workloads::run(&options),
        Task::Conformance(kind) => conformance::run(&kind),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure:#}");
            ExitCode::FAILURE
        }
    }
}
