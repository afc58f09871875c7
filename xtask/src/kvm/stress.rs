//! The device stress on x86-64 machines, nested: `isomorph run` boots Debian's kernel for any computer, which has a driver for e1000; the guest writes disks at
//! random, flushes them and reads them back, and TCP streams go in both directions and are compared, by virtio and by e1000.
//!
//! The figures beside each load are wall-clock seconds of the guest, and of the first level: processor time of the monitor's process, of which its guest's
//! instructions are told apart, and KVM's count of exits. On an emulated processor they compare only with each other.

use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};

use super::first::{First, Kernel};
use super::machine::isomorph;
use super::second::{self, DISK_MODULES_COUNT, MODULES};
use super::{LIMIT, Options, tell_tail};
use crate::run::{Counts, StepFailure};
use crate::workspace;

/// Cards by name: how they are asked for, and the guest's driver.
const CARDS: [(&str, &str, &str); 2] = [("virtio", "--nic virtio", "virtio_net"), ("e1000", "--nic e1000", "e1000")];
const MODULE_E1000: &str = "drivers/net/ethernet/intel/e1000/e1000.ko";
/// The loads, in their order.
const LOADS: [&str; 4] = ["disk", "disk, cache=none", "send", "receive"];

/// How much is done.
#[derive(Clone, Copy)]
pub(super) struct Amounts {
    disk_mib: u32,
    rounds: u32,
    stream_mib: u32,
}

impl Amounts {
    /// For every change.
    pub(super) const SHORT: Self = Self { disk_mib: 4, rounds: 1, stream_mib: 8 };
    /// For figures.
    pub(super) const LONG: Self = Self { disk_mib: 16, rounds: 2, stream_mib: 64 };
}

/// The guest's side. A mark is an empty stream, by which the first level knows that one load is over and the next not begun.
fn guest_script(amounts: Amounts) -> String {
    let Amounts { disk_mib, rounds, stream_mib } = amounts;
    format!(
        r#"
. /etc/network
mark() {{ sleep 1; until stress send 10.0.2.2 8000 0 > /dev/null; do sleep 1; done; }}
echo "GUEST-DRIVER $(basename $(readlink /sys/class/net/eth0/device/driver)) CPUS $(nproc)"
mark
echo "GUEST-LOAD disk: $(stress disk /dev/vda {disk_mib} 4 {rounds} 77)"
mark
echo "GUEST-LOAD disk, cache=none: $(stress disk /dev/vdb {disk_mib} 4 {rounds} 78)"
mark
sleep 1
echo "GUEST-LOAD send: $(stress send 10.0.2.2 8001 {stream_mib})"
sleep 1
echo "GUEST-LOAD receive: $(stress receive 10.0.2.2 8002 {stream_mib})"
echo "GUEST-ERRORS $(cat /sys/class/net/eth0/statistics/*_errors | sort -u)""#
    )
}

/// The first level's side: the other ends, and between two loads what the monitor has used.
fn first_script(amounts: Amounts) -> String {
    let stream_mib = amounts.stream_mib;
    let mut script = format!(
        r#"
mount -t debugfs debugfs /sys/kernel/debug
ifconfig lo up
# Processor time in all and of the guest's instructions, in hundredths of a second, and exits.
used() {{ echo "USED $1 $2 $(awk '{{ print $14 + $15, $43 }}' /proc/$pid/stat) $(cat /sys/kernel/debug/kvm/exits)"; }}
# PROGRAM-OF-THE-OTHER-END PORT MIB
other_end() {{ timeout 120 stress $1 0.0.0.0 $2 $3 > /dev/null; }}
bear() {{
    card=$1; shift
    cp /empty.img /disk.img
    isomorph run "$@" --kernel /vmlinuz --initrd /guest.cpio --disk /disk.img --disk /dev/vda,cache=none --cpus 2 --memory 256M --append 'console=ttyS0 quiet panic=-1' > /tmp/$card.out 2>&1 < /dev/null &
    pid=$!
    other_end receive 8000 0; used $card 0
    other_end receive 8000 0; used $card 1
    other_end receive 8000 0; used $card 2
    other_end receive 8001 {stream_mib}; used $card 3
    other_end send 8002 {stream_mib}; used $card 4
    wait $pid
    echo "STATUS $card $?"
    sed "s/^/$card: /" /tmp/$card.out
}}
"#
    );
    for (card, flags, _) in CARDS {
        // Writing to a string does not fail.
        let _ = writeln!(script, "bear {card} {flags}");
    }
    script
}

/// Boots both machines, and tells what their devices carried.
pub(super) fn bear(options: &Options, amounts: Amounts) -> Result<Counts, StepFailure> {
    let mut first = First::new("stress-first")?;
    let program = options.program.clone().map_or_else(isomorph, Ok)?;
    first.add_program(&program, "isomorph")?;
    let kernel = Kernel::find_or_download(Kernel::GENERIC)?;
    first.root.add_file(&kernel.image(), "vmlinuz")?;
    let stress = second::stress()?;
    first.root.add_file(&stress, "bin/stress")?;
    let guest = second::in_memory("stress-second", &kernel, &[MODULE_E1000], &stress, &guest_script(amounts))?;
    first.root.add_file(&guest, "guest.cpio")?;
    first.root.add_modules(&first.kernel, &MODULES[..DISK_MODULES_COUNT])?;
    let scratch = workspace::target().join("nested/stress.img");
    let bytes = u64::from(amounts.disk_mib) << 20;
    fs::File::create(&scratch).and_then(|file| file.set_len(bytes)).context("making a disk")?;
    fs::copy(&scratch, first.root.folder.join("empty.img")).context("making a disk")?;
    first.disks.push(scratch);
    let start = Instant::now();
    let output = first.run(&first_script(amounts), 2 * LIMIT, options.verbose)?;
    let took = start.elapsed().as_secs_f64();
    for (card, _, driver) in CARDS {
        if let Err(what) = tell(&output, card, driver) {
            tell_tail(&output);
            return Err(anyhow::anyhow!("the machine with {card} does not say {what}").into());
        }
    }
    println!("    {took:.1} s in all");
    Ok(Counts { passed: CARDS.len(), failed: 0 })
}

/// What the monitor had used when a load began or ended.
struct Used {
    seconds: f64,
    guest_seconds: f64,
    exits: f64,
}

/// `USED card number ticks guest-ticks exits`, in their order.
fn used(output: &str, card: &str) -> Vec<Used> {
    let numbers = |line: &str| -> Option<Used> {
        let words: Vec<_> = line.strip_prefix("USED ")?.split_whitespace().collect();
        let [name, _, ticks, guest_ticks, exits] = words[..] else { return None };
        let number = |text: &str| text.parse::<f64>().ok();
        let used = Used {
            seconds: number(ticks)? / 100.0,
            guest_seconds: number(guest_ticks)? / 100.0,
            exits: number(exits)?,
        };
        (name == card).then_some(used)
    };
    output.lines().filter_map(numbers).collect()
}

/// Prints the figures of a machine, which must have said all that it should; if it has not, what.
fn tell(output: &str, card: &str, driver: &str) -> Result<(), String> {
    let said = |words: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(card)?.strip_prefix(": ")?.strip_prefix(words));
        line.map(str::trim).unwrap_or_default().to_owned()
    };
    let used = used(output, card);
    for (number, load) in LOADS.into_iter().enumerate() {
        let line = said(&format!("GUEST-LOAD {load}:"));
        let numbers: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let ([mib, seconds], true) = (&numbers[..], line.starts_with("ok ")) else {
            return Err(format!("GUEST-LOAD {load}: ok, but {line:?}"));
        };
        let Some([before, after]) = used.get(number..number + 2) else { return Err("what it has used".into()) };
        let processor = after.seconds - before.seconds;
        let guest = after.guest_seconds - before.guest_seconds;
        println!(
            "    {card}, {load}: {mib:.0} MiB in {seconds:.2} s, {:.1} MiB/s; processor time {:.2} s beside the guest's {guest:.2}; {:.0} exits a MiB",
            mib / seconds,
            processor - guest,
            (after.exits - before.exits) / mib,
        );
    }
    let expected = [("GUEST-DRIVER", format!("{driver} CPUS 2")), ("GUEST-ERRORS", "0".into())];
    for (words, rest) in expected {
        let line = said(words);
        if line != rest {
            return Err(format!("{words} {rest}, but {line:?}"));
        }
    }
    let status = format!("STATUS {card} 0");
    if output.lines().any(|line| line == status) { Ok(()) } else { Err(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let mut output = String::new();
        for number in 0..5 {
            let _ =
                writeln!(output, "USED e1000 {number} {} {} {}", 100 + number * 50, 40 + number * 10, number * 1000);
        }
        for load in LOADS {
            let _ = writeln!(output, "e1000: GUEST-LOAD {load}: ok 8.0 2.000");
        }
        output += "e1000: GUEST-DRIVER e1000 CPUS 2\ne1000: GUEST-ERRORS 0\nSTATUS e1000 0\n";
        assert_eq!(tell(&output, "e1000", "e1000"), Ok(()));
        assert_eq!(used(&output, "e1000").len(), 5);
        for (good, bad) in
            [("ERRORS 0", "ERRORS 0 3"), ("STATUS e1000 0", "STATUS e1000 1"), ("ok 8.0", "stress: block 3")]
        {
            assert!(tell(&output.replace(good, bad), "e1000", "e1000").is_err(), "{bad}");
        }
        assert!(tell(&output, "virtio", "virtio_net").unwrap_err().contains("GUEST-LOAD disk"));
    }
}
