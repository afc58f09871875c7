//! What the translator may do: every optimisation has a name and can be switched off.

/// A name that is no switch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not an optimisation; there are: {known}", known = Options::NAMES.join(", "))]
pub struct UnknownOption {
    /// What was written.
    pub name: String,
}

/// What a compiler of Debian's executes fits; guests that execute less touch no more.
const CODE_BYTES: usize = 256 << 20;
const CODE_CACHE: &str = "code-cache=";

macro_rules! switches {
    ($($(#[$doc:meta])* $field:ident $name:literal;)*) => {
        /// What the translator may do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Options {
            $($(#[$doc])* pub $field: bool,)*
            /// How often the interpreter executes a block before it is translated; at least 1.
            pub threshold: u32,
            /// How often slices end in a block before a region is made around it; at least 1.
            pub samples: u8,
            /// Instructions in a slice: between two looks at signals and at the clock.
            pub slice: u32,
            /// Bytes of host code kept at most. What belongs to the code takes up to twice as much, of the heap.
            pub code_bytes: usize,
        }

        impl Default for Options {
            /// Everything on.
            fn default() -> Self {
                Self { $($field: true,)* threshold: 16, samples: 3, slice: 16384, code_bytes: CODE_BYTES }
            }
        }

        impl Options {
            /// The names of the switches.
            pub const NAMES: &[&str] = &[$($name),*];

            /// Switches one by its name, with `no-` before it for off; or says how many bytes of code are kept, as `code-cache=N`.
            ///
            /// # Errors
            /// There is none of that name.
            pub fn set(&mut self, name: &str) -> Result<(), UnknownOption> {
                if let Some(bytes) = name.strip_prefix(CODE_CACHE).and_then(|bytes| bytes.parse().ok()) {
                    self.code_bytes = bytes;
                    return Ok(());
                }
                let (plain, on) = name.strip_prefix("no-").map_or((name, true), |plain| (plain, false));
                match plain {
                    $($name => self.$field = on,)*
                    _ => return Err(UnknownOption { name: name.into() }),
                }
                Ok(())
            }

            /// What [`Self::parse`] makes the same switches of.
            #[must_use]
            pub fn switches(&self) -> String {
                let off = [$((self.$field, concat!("no-", $name))),*].into_iter().filter(|(on, _)| !on);
                let mut all: Vec<String> = off.map(|(_, name)| name.to_owned()).collect();
                if self.code_bytes != CODE_BYTES {
                    all.push(format!("{CODE_CACHE}{}", self.code_bytes));
                }
                all.join(",")
            }
        }
    };
}

switches! {
    /// Translate at all; without, everything is interpreted.
    translate "translate";
    /// Units of several blocks, with their own assignment of registers.
    regions "regions";
    /// Jumps from unit to unit.
    links "links";
    /// Indirect jumps look for the unit themselves.
    jump_cache "jump-cache";
    /// Calls remember where the return goes on.
    return_stack "return-stack";
    /// Known values of registers are used instead of the registers.
    constants "constants";
    /// Instructions that belong together become one.
    fusion "fusion";
    /// Results of 32-bit operations are sign-extended where that is looked at.
    words "words";
    /// Loads and stores without a call.
    memory "memory";
    /// One check for neighbouring loads and stores.
    groups "groups";
    /// Loads and stores in loops look at the last page before the TLB.
    spots "spots";
    /// Floating point on the host's.
    float "float";
    /// Loops over arrays of floating-point numbers several iterations at a time.
    packed "packed";
    /// Atomic operations on the host's.
    atomics "atomics";
    /// Bit manipulation, and the steps of ciphers and hashes, on the host's.
    bits "bits";
    /// Accesses to control and status registers, fences of translations, and system calls of programs do not leave translated code.
    system "system";
}

impl Options {
    /// Nothing but the interpreter.
    #[must_use]
    pub fn interpreter() -> Self {
        Self { translate: false, ..Self::default() }
    }

    /// No unit is larger than a block.
    #[must_use]
    pub fn block() -> Self {
        Self { regions: false, ..Self::default() }
    }

    /// The default with switches applied: names separated by commas, each with `no-` before it for off.
    ///
    /// # Errors
    /// A name is not one of [`Self::NAMES`].
    pub fn parse(text: &str) -> Result<Self, UnknownOption> {
        let mut options = Self::default();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            options.set(name)?;
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_switch_fields() {
        let options = Options::parse("no-links, no-regions").unwrap();
        assert_eq!(options, Options { links: false, regions: false, ..Options::default() });
        assert_eq!(Options::parse("").unwrap(), Options::default());
        assert_eq!((options.switches().as_str(), Options::default().switches().as_str()), ("no-regions,no-links", ""));
        for name in Options::NAMES {
            assert_ne!(Options::parse(&format!("no-{name}")).unwrap(), Options::default(), "{name}");
            assert_eq!(Options::parse(&format!("no-{name},{name}")).unwrap(), Options::default(), "{name}");
        }
        let small = Options { code_bytes: 1 << 20, links: false, ..Options::default() };
        assert_eq!(small.switches(), "no-links,code-cache=1048576");
        assert_eq!(Options::parse(&small.switches()), Ok(small));
        assert!(Options::parse("code-cache=much").is_err());
        let error = Options::parse("no-luck").unwrap_err();
        assert!(error.to_string().contains("no-luck") && error.to_string().contains("links"), "{error}");
    }
}
