//! `-XX:` flags. Those of HotSpot are known by name, so that a misspelt one is refused as `java` does it; nearly all of them tune what is not here, and are
//! accepted. What a flag must look like is checked, and that those for diagnosis and experiments are unlocked before.

use std::sync::LazyLock;

use super::OptionError;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `+` or `-` in front of it.
    Switch,
    /// `=` and a number, maybe with a unit.
    Number,
    /// `=` and a fraction.
    Fraction,
    /// `=` and any text.
    Text,
}

/// What must be said before a flag may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    None,
    Diagnostic,
    Experimental,
}

#[derive(Clone, Copy, Debug)]
struct Flag {
    name: &'static str,
    kind: Kind,
    lock: Lock,
}

/// By name.
static FLAGS: LazyLock<Vec<Flag>> = LazyLock::new(|| {
    let flag = |line: &'static str| {
        let (name, letters) = line.split_once(' ')?;
        let kind = match letters.as_bytes()[0] {
            b'b' => Kind::Switch,
            b'n' => Kind::Number,
            b'f' => Kind::Fraction,
            _ => Kind::Text,
        };
        let lock = match letters.as_bytes()[1] {
            b'd' => Lock::Diagnostic,
            b'e' => Lock::Experimental,
            _ => Lock::None,
        };
        Some(Flag { name, kind, lock })
    };
    include_str!("flags.txt").lines().filter(|line| !line.starts_with('#')).filter_map(flag).collect()
});

/// Which flags may be used beside those for everybody, and what becomes of unknown ones.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rules {
    pub(super) ignore_unknown: bool,
    diagnostic: bool,
    experimental: bool,
}

impl Rules {
    /// Checks what is behind `-XX:`.
    pub(super) fn check(&mut self, text: &str) -> Result<(), OptionError> {
        let sign = text.starts_with(['+', '-']);
        let bare = text.strip_prefix(['+', '-']).unwrap_or(text);
        let name = bare.split('=').next().unwrap_or_default();
        let wrong = |what: String| Err(OptionError::Flag(what));
        let Ok(index) = FLAGS.binary_search_by(|flag| flag.name.cmp(name)) else {
            if self.ignore_unknown {
                return Ok(());
            }
            let mut what = format!("Unrecognized VM option '{bare}'\n");
            if let Some(flag) = nearest(bare) {
                let sign = if flag.kind == Kind::Switch { "(+/-)" } else { "" };
                what += &format!("Did you mean '{sign}{}'? ", flag.name);
            }
            return wrong(what);
        };
        let flag = FLAGS[index];
        let locked = match flag.lock {
            Lock::Diagnostic if !self.diagnostic => Some(("diagnostic", "UnlockDiagnosticVMOptions")),
            Lock::Experimental if !self.experimental => Some(("experimental", "UnlockExperimentalVMOptions")),
            _ => None,
        };
        if let Some((kind, unlock)) = locked.filter(|(_, unlock)| *unlock != name) {
            return wrong(format!(
                "Error: VM option '{name}' is {kind} and must be enabled via -XX:+{unlock}.\n\
                 Error: The unlock option must precede '{name}'.\n"
            ));
        }
        let value = bare.split_once('=').map(|(_, value)| value);
        match (flag.kind, sign, value) {
            (Kind::Switch, false, _) => wrong(format!("Missing +/- setting for VM option '{bare}'\n")),
            (Kind::Number | Kind::Fraction | Kind::Text, true, _) => {
                wrong(format!("Unexpected +/- setting in VM option '{bare}'\n"))
            }
            (Kind::Switch, true, Some(_)) | (Kind::Number | Kind::Fraction | Kind::Text, false, None) => {
                wrong(format!("Improperly specified VM option '{bare}'\n"))
            }
            (Kind::Number, _, Some(value)) if !is_number(value) => {
                wrong(format!("Improperly specified VM option '{bare}'\n"))
            }
            (Kind::Fraction, _, Some(value)) if value.parse::<f64>().is_err() => {
                wrong(format!("Improperly specified VM option '{bare}'\n"))
            }
            _ => {
                let on = text.starts_with('+');
                match name {
                    "UnlockDiagnosticVMOptions" => self.diagnostic = on,
                    "UnlockExperimentalVMOptions" => self.experimental = on,
                    _ => {}
                }
                Ok(())
            }
        }
    }
}

/// Whether it is a number as flags take it: of base 10 or 16, maybe negative, maybe with a unit of 1,024 or a power of that.
fn is_number(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let text = text.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G', 't', 'T']).unwrap_or(text);
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).is_ok(),
        None => text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u64>().is_ok(),
    }
}

/// The flag whose name has the most pairs of letters in common with a text, if these are most of all.
fn nearest(text: &str) -> Option<Flag> {
    let likeness = |name: &str| {
        let common = text.as_bytes().windows(2).filter(|pair| name.as_bytes().windows(2).any(|other| other == *pair));
        #[allow(clippy::cast_precision_loss, reason = "lengths of names")]
        let ratio = 2.0 * common.count() as f32 / (text.len() + name.len()) as f32;
        ratio
    };
    let mut best = (0.7, None);
    for flag in FLAGS.iter() {
        let like = likeness(flag.name);
        if like > best.0 {
            best = (like, Some(*flag));
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(rules: &mut Rules, text: &str) -> String {
        match rules.check(text) {
            Err(OptionError::Flag(what)) => what,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn flags_are_checked_as_java_does() {
        let rules = &mut Rules::default();
        assert!(FLAGS.is_sorted_by_key(|flag| flag.name));
        for good in ["+UseG1GC", "-UseG1GC", "MaxHeapSize=3g", "MaxTenuringThreshold=0x10", "MaxRAMPercentage=12.5"] {
            assert_eq!(told(rules, good), "Ok(())");
        }
        assert_eq!(told(rules, "+Foo"), "Unrecognized VM option 'Foo'\n");
        assert_eq!(told(rules, "+UseG1G"), "Unrecognized VM option 'UseG1G'\nDid you mean '(+/-)UseG1GC'? ");
        assert_eq!(told(rules, "UseG1GC"), "Missing +/- setting for VM option 'UseG1GC'\n");
        assert_eq!(told(rules, "+MaxHeapSize=3"), "Unexpected +/- setting in VM option 'MaxHeapSize=3'\n");
        assert_eq!(told(rules, "NewRatio"), "Improperly specified VM option 'NewRatio'\n");
        assert_eq!(told(rules, "NewRatio=x"), "Improperly specified VM option 'NewRatio=x'\n");
        assert!(told(rules, "+PrintInlining").starts_with("Error: VM option 'PrintInlining' is diagnostic and must"));
        assert_eq!(told(rules, "+UnlockDiagnosticVMOptions"), "Ok(())");
        assert_eq!(told(rules, "+PrintInlining"), "Ok(())");
        rules.ignore_unknown = true;
        assert_eq!(told(rules, "+Foo"), "Ok(())");
    }
}
