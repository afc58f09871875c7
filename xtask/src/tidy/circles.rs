//! Circles between the modules of a crate.
//!
//! A simple tool can tell this much: which top-level module names which other by a `crate::` path (or, from the module's own root file,
//! a `super::` path), outside comments and tests. Names that the crate's root re-exports belong to no module and are not
//! followed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, without_tests};

/// Modules that count as one, since what they do is defined by each other: in a Java virtual machine linking a class runs Java code, agents' too, which loads and
/// links classes, calls natives, allocates, throws, and stops for the collector.
const KNOTS: &[(&str, &[&str])] = &[(
    "crates/jvm",
    &[
        "access",
        "agent",
        "lock",
        "safepoint",
        "allocate",
        "bootstrap",
        "boxing",
        "dump",
        "exceptions",
        "frame",
        "interpreter",
        "jni",
        "known",
        "link",
        "loader",
        "log",
        "metadata",
        "monitor",
        "natives",
        "roots",
        "signals",
        "strings",
        "thread",
    ],
)];

type Graph = BTreeMap<String, BTreeSet<String>>;

/// Finds a circle in each crate that has one.
pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let mut crates: BTreeMap<&str, Vec<&Source>> = BTreeMap::new();
    for source in sources {
        if let Some((folder, _)) = source.path.split_once("/src/")
            && source.path.ends_with(".rs")
        {
            crates.entry(folder).or_default().push(source);
        }
    }
    let circle = |(folder, sources): (&str, Vec<&Source>)| {
        let circle = find_circle(&graph(folder, &sources))?;
        Some(format!(
            "{folder}: modules need each other in a circle: {}; move what they share below both",
            circle.join(" -> ")
        ))
    };
    crates.into_iter().filter_map(circle).collect()
}

/// Which top-level module names which.
fn graph(folder: &str, sources: &[&Source]) -> Graph {
    let inside = |source: &Source| source.path[folder.len() + "/src/".len()..].to_owned();
    let knot: &[&str] = KNOTS.iter().find(|(name, _)| *name == folder).map_or(&[], |(_, modules)| modules);
    let knotted = |name: String| if knot.contains(&name.as_str()) { "the core".to_owned() } else { name };
    let module =
        |path: &str| knotted(path.split('/').next().map_or("", |first| first.trim_end_matches(".rs")).to_owned());
    let is_root = |name: &str| matches!(name, "lib" | "main");
    let modules: BTreeSet<String> =
        sources.iter().map(|source| module(&inside(source))).filter(|m| !is_root(m)).collect();
    let mut graph = Graph::new();
    for source in sources {
        let path = inside(source);
        let from = module(&path);
        if is_root(&from) || source.is_test {
            continue;
        }
        let code = without_tests(&source.text);
        let mut named = names_after(&code, "crate::");
        if !path.contains('/') || path.ends_with("/mod.rs") && path.matches('/').count() == 1 {
            named.extend(names_after(&code, "super::"));
        }
        let edges = graph.entry(from.clone()).or_default();
        edges.extend(named.into_iter().map(knotted).filter(|name| *name != from && modules.contains(name)));
    }
    graph
}

/// The first name of every path that follows `prefix`, also inside braces.
fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let name =
        |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        // `$crate::` in a macro is expanded elsewhere, `super::super::` leads elsewhere.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | ':')) {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(name(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = 0;
        for (position, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                ',' | '}' if depth == 0 => {
                    names.insert(name(&group[start..position]));
                    start = position + 1;
                    if character == '}' {
                        break;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    names
}

/// A path that ends where it began.
fn find_circle(graph: &Graph) -> Option<Vec<String>> {
    fn walk(graph: &Graph, at: &str, path: &mut Vec<String>, done: &mut BTreeSet<String>) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|name| name == at) {
            let mut circle = path[start..].to_vec();
            circle.push(at.to_owned());
            return Some(circle);
        }
        if !done.insert(at.to_owned()) {
            return None;
        }
        path.push(at.to_owned());
        let found = graph.get(at).into_iter().flatten().find_map(|next| walk(graph, next, path, done));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|start| walk(graph, start, &mut Vec::new(), &mut done))
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    #[test]
    fn a_circle_is_found() {
        let sources = [
            source("crates/x/src/lib.rs", "pub mod a; pub mod b; pub mod c; use crate::a::A;"),
            source("crates/x/src/a.rs", "use crate::{Root, b::{B, Other}};\n"),
            source("crates/x/src/b/mod.rs", "fn f() -> super::c::C {}\n"),
            source("crates/x/src/c/deep.rs", "use crate::a::A;\n"),
        ];
        let findings = check(&sources);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].contains("a -> b -> c -> a"), "{findings:?}");
    }

    #[test]
    fn comments_tests_and_macros_do_not_count() {
        let sources = [
            source("crates/x/src/a.rs", "use crate::b::B;\n"),
            source(
                "crates/x/src/b.rs",
                "/// See [`crate::a`].\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\nfn g() { $crate::a::x!() } // crate::a\n",
            ),
            source("crates/x/src/b/tests.rs", "use crate::a::A;\n"),
            source("crates/y/src/b.rs", "use crate::a::A;\n"),
        ];
        assert_eq!(check(&sources), [""; 0]);
    }

    #[test]
    fn code_after_a_module_for_tests_counts() {
        let sources = [
            source("crates/x/src/a.rs", "use crate::b::B;\n"),
            source("crates/x/src/b.rs", "#[cfg(test)]\nmod tests;\n\nuse crate::a::A;\n"),
        ];
        assert_eq!(check(&sources).len(), 1);
    }
}
