//! Random programs from fixed seeds, on Isomorph and on qemu.

use std::time::Duration;

use lab::differential::{Counts, round};
use machine::clock::Clock;

#[test]
fn random_programs_do_the_same() {
    let (clock, mut counts) = (Clock::new(), Counts::default());
    for seed in 0.. {
        round(seed, &mut counts).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        // Time bounds the test on slow hosts, the number of programs on fast ones.
        let enough = counts.programs >= 20_000 || u128::from(clock.now_ns()) > Duration::from_secs(40).as_nanos();
        if enough && counts.steps > 0 {
            break;
        }
    }
    println!("{counts:?}");
    assert!(counts.programs > 400, "{counts:?}");
}

#[test]
fn tiers_do_the_same() {
    let (clock, mut programs) = (Clock::new(), 0);
    for seed in 0.. {
        programs += lab::tiers::round(seed).unwrap_or_else(|error| panic!("round {seed}: {error}"));
        if programs >= 4_000 || u128::from(clock.now_ns()) > Duration::from_secs(30).as_nanos() {
            break;
        }
    }
    assert!(programs >= 100);
}
