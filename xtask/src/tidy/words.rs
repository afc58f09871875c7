//! Words that must not be written, each with its replacement.

use super::{Source, without_tests};

/// A word and where it may stand after all.
struct Banned {
    word: &'static str,
    instead: &'static str,
    /// Beginnings of paths where the word is allowed.
    except: &'static [&'static str],
    place: Place,
}

/// Where a word is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In code, also of tests.
    Code,
    /// In code that is not for tests.
    Product,
    /// In every text, also in comments.
    Text,
}

/// Tools measure themselves by the host's clock.
const TOOLS: &str = "xtask/";
/// The command shows progress to people.
const PROGRESS: &str = "crates/isomorph/src/progress";

const BANNED: &[Banned] = &[
    code("todo!(", "write it, or leave the whole feature out", &[]),
    code("unimplemented!(", "return an error that names what is missing", &[]),
    code("dbg!(", "assert in a test what you wanted to see", &[]),
    code(
        "libc::",
        "a safe wrapper in machine::sys, made with rustix",
        &[
            "crates/machine/src/sys/",
            "crates/linux/src/",
            "crates/x86/src/kvm/",
            "crates/jvm/src/services/",
            "crates/jvm/src/natives/",
        ],
    ),
    code("kvm_ioctls::", "x86::kvm", &["crates/x86/src/kvm/"]),
    code("rustix::", "a backend trait or a safe wrapper in machine::sys", HOST),
    product("Instant::now(", "machine::clock::Clock", &["crates/machine/src/clock.rs", WORKER, TOOLS, PROGRESS]),
    product("SystemTime::now(", "machine::clock::wall_time_ns", &["crates/machine/src/clock.rs", TOOLS, PROGRESS]),
    code("getrandom::", "machine::entropy::Entropy", &["crates/machine/src/entropy.rs"]),
    code("rand::", "machine::entropy::Entropy, seeded where a run must repeat", &[]),
    product("RandomState", "a BTreeMap, or a hash with a fixed seed", &[]),
    // Where it stands among what guests may read.
    code(
        "/dev/urandom",
        "machine::entropy::Entropy",
        &["crates/machine/src/sys/fence.rs", "crates/jvm/src/services/files/mod.rs"],
    ),
    text("/home/", "a path relative to the repository, or a temporary folder"),
    text("/work/", "a path relative to the repository, or a temporary folder"),
];

const fn code(word: &'static str, instead: &'static str, except: &'static [&'static str]) -> Banned {
    Banned { word, instead, except, place: Place::Code }
}

/// A test may wait no longer than some time, or build a table in any order.
const fn product(word: &'static str, instead: &'static str, except: &'static [&'static str]) -> Banned {
    Banned { word, instead, except, place: Place::Product }
}

/// Absolute paths of one machine.
const fn text(word: &'static str, instead: &'static str) -> Banned {
    Banned { word, instead, except: &[], place: Place::Text }
}

/// How long a host thread sleeps between two looks at a backend is no time that a guest sees.
const WORKER: &str = "crates/devices/src/worker.rs";

/// The crates whose business is the host: its memory, sockets, files and terminal. rustix is safe there; what is not is in machine::sys.
const HOST: &[&str] =
    &["crates/machine/src/sys/", "crates/network/", "crates/disk/", "crates/image/", "crates/isomorph/"];

/// This file has to name the words.
const SELF: &str = "xtask/src/tidy/words.rs";

/// Finds every banned word.
pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path != SELF) {
        let is_rust = source.path.ends_with(".rs");
        let product = if source.is_test { String::new() } else { without_tests(&source.text) };
        let mut product = product.lines();
        for (number, line) in source.text.lines().enumerate() {
            let product = product.next().unwrap_or("");
            let code = if line.trim_start().starts_with("//") { "" } else { line };
            for banned in BANNED {
                let searched = match banned.place {
                    Place::Text => line,
                    Place::Code if is_rust => code,
                    Place::Product if is_rust => product,
                    Place::Code | Place::Product => "",
                };
                let excepted = banned.except.iter().any(|path| source.path.starts_with(path));
                if !excepted && stands_in(searched, banned.word) {
                    let (path, number) = (&source.path, number + 1);
                    findings.push(format!(
                        "{path}:{number}: `{}` is not used here; instead: {}",
                        banned.word, banned.instead
                    ));
                }
            }
        }
    }
    findings
}

/// Whether the line has the word, not as the end of a longer one.
fn stands_in(line: &str, word: &str) -> bool {
    let goes_on_before = |at: usize| {
        let before = line[..at].chars().next_back();
        let in_name = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
        if word.starts_with('/') {
            // A folder below another one is not the root's.
            in_name || before.is_some_and(|c| matches!(c, '.' | '}' | '*'))
        } else {
            in_name
        }
    };
    line.match_indices(word).any(|(at, _)| !goes_on_before(at))
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&[source(path, text)]).len()
    }

    #[test]
    fn each_word_is_found_in_code() {
        for banned in BANNED {
            let line = format!("    let x = {}something);\n", banned.word);
            let findings = check(&[source("crates/riscv/src/hart.rs", &line)]);
            assert_eq!(findings.len(), 1, "{line} {findings:?}");
            assert!(findings[0].starts_with("crates/riscv/src/hart.rs:1: ") && findings[0].contains(banned.instead));
            for except in banned.except {
                assert_eq!(count(except, &line), 0, "{line} in {except}");
            }
        }
    }

    #[test]
    fn comments_and_longer_names_are_not_code() {
        assert_eq!(count("crates/riscv/src/hart.rs", "// a todo!() in a comment\n"), 0);
        assert_eq!(count("crates/riscv/src/hart.rs", "let x = operand::new();\n"), 0);
        assert_eq!(count("README.md", "there is no `todo!()` here\n"), 0);
    }

    #[test]
    fn tests_may_read_the_clock_but_not_wait_for_a_rewrite() {
        let inside = |line: &str| format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n    {line}\n}}\n");
        assert_eq!(count("crates/riscv/src/hart.rs", &inside("let t = Instant::now();")), 0);
        assert_eq!(count("crates/riscv/src/hart.rs", &inside("todo!()")), 1);
        assert_eq!(count("crates/riscv/src/hart/tests.rs", "let t = Instant::now();\n"), 0);
        assert_eq!(count("crates/riscv/src/hart.rs", &(inside("") + "let t = Instant::now();\n")), 1);
    }

    #[test]
    fn paths_of_one_machine_are_found_everywhere() {
        assert_eq!(count("README.md", "cd /home/somebody/isomorph\n"), 1);
        assert_eq!(count("crates/riscv/src/hart.rs", "// see /work/notes\n"), 1);
        assert_eq!(count("docs/a.md", "see docs/work/plan.md, https://example.org/home/x\n"), 0);
    }
}
