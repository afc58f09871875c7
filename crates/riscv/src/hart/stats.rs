//! What an engine has done, counted where it is slow anyway: nothing on the way of an instruction counts.

use super::trap::{Cause, Trap};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident $text:literal;)*) => {
        /// What a hart, or all harts of a machine, have done.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct EngineStats {
            $($(#[$doc])* pub $name: u64,)*
            /// Exceptions taken, by cause.
            pub exceptions: [u64; 16],
            /// Interrupts taken, by number.
            pub interrupts: [u64; 16],
        }

        impl EngineStats {
            /// Adds what another hart has done.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
                for (sum, count) in self.exceptions.iter_mut().zip(other.exceptions) {
                    *sum += count;
                }
                for (sum, count) in self.interrupts.iter_mut().zip(other.interrupts) {
                    *sum += count;
                }
            }

            /// Every count with its name; of exceptions and interrupts those that happened.
            #[must_use]
            pub fn entries(&self) -> Vec<(String, u64)> {
                let mut entries = vec![$(($text.to_owned(), self.$name)),*];
                for (code, count) in (0_u8..).zip(self.exceptions).filter(|(_, count)| *count != 0) {
                    let name = CAUSES.iter().find(|cause| **cause as u8 == code);
                    entries.push((name.map_or_else(|| format!("exception {code}"), |cause| words(&format!("{cause:?}"))), count));
                }
                for (number, count) in self.interrupts.iter().enumerate().filter(|(_, count)| **count != 0) {
                    let name = INTERRUPTS.iter().find(|(known, _)| *known == number);
                    entries.push((name.map_or_else(|| format!("interrupt {number}"), |(_, name)| (*name).into()), *count));
                }
                entries
            }
        }
    };
}

counters! {
    /// Instructions retired.
    instructions "instructions";
    /// Basic blocks decoded for the interpreter.
    blocks_decoded "blocks decoded";
    /// Units of host code made.
    units_translated "units translated";
    /// Those of them that are loops or hot paths of several blocks.
    regions_translated "regions translated";
    /// Bytes of host code made.
    code_bytes "bytes of code";
    /// Units dropped since their instructions changed.
    units_invalidated "units invalidated";
    /// Times that all units were dropped for want of room.
    code_flushes "flushes of the code cache";
    /// Times that translated code was left since no unit is known for the next program counter.
    left_to_find "exits to find the next unit";
    /// Times that it was left since a jump was not yet linked.
    left_to_link "exits to link a jump";
    /// Times that it was left since the slice was about to end.
    left_at_slice_ends "exits at the end of a slice";
    /// Times that it was left for an instruction that is interpreted.
    left_to_interpret "exits to interpret an instruction";
    /// Times that it was left by what it called: traps, and all that changes where the program goes on.
    left_by_calls "exits by calls";
    /// Translations of addresses that the TLB did not have, with accesses to devices and to watched pages.
    tlb_refills "TLB refills";
    /// Accesses to devices.
    device_accesses "device accesses";
    /// Environment calls answered by the monitor.
    monitor_calls "calls of the monitor";
    /// Times that the guest waited for an interrupt and none was pending.
    idles "waits for interrupts";
    /// Times that someone outside wanted the hart to stop for a moment.
    attentions "stops from outside";
    /// Fences of instructions, its own and others'.
    instruction_fences "fences of instructions";
    /// Fences of address translations, its own and others'.
    translation_fences "fences of translations";
}

const CAUSES: [Cause; 14] = [
    Cause::FetchMisaligned,
    Cause::FetchAccess,
    Cause::IllegalInstruction,
    Cause::Breakpoint,
    Cause::LoadMisaligned,
    Cause::LoadAccess,
    Cause::StoreMisaligned,
    Cause::StoreAccess,
    Cause::UserCall,
    Cause::SupervisorCall,
    Cause::MachineCall,
    Cause::FetchPage,
    Cause::LoadPage,
    Cause::StorePage,
];

const INTERRUPTS: [(usize, &str); 6] = [
    (1, "supervisor software interrupts"),
    (3, "machine software interrupts"),
    (5, "supervisor timer interrupts"),
    (7, "machine timer interrupts"),
    (9, "supervisor external interrupts"),
    (11, "machine external interrupts"),
];

/// `LoadPage` as `load page exceptions`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for character in name.chars() {
        if character.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(character.to_lowercase());
    }
    words + " exceptions"
}

impl EngineStats {
    pub(crate) fn exception(&mut self, trap: Trap) {
        self.exceptions[usize::from(trap.cause as u8 & 15)] += 1;
    }

    pub(crate) fn interrupt(&mut self, bit: u64) {
        self.interrupts[machine::address::host_size(u64::from(bit.trailing_zeros() & 15))] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_have_names() {
        let mut stats = EngineStats { instructions: 3, ..EngineStats::default() };
        stats.exception(Trap::new(Cause::LoadPage, 0));
        stats.interrupt(1 << 5);
        let mut sum = stats.clone();
        sum.add(&stats);
        let entries = sum.entries();
        let count = |name: &str| entries.iter().find(|(known, _)| known == name).map(|(_, count)| *count);
        assert_eq!(count("instructions"), Some(6));
        assert_eq!(count("load page exceptions"), Some(2));
        assert_eq!(count("supervisor timer interrupts"), Some(2));
        assert_eq!(count("store page exceptions"), None);
    }
}
