//! `isomorph compare`, as a user calls it.

mod guest;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use guest::{isomorph, output};

/// What `--json` has written.
fn record(file: &std::path::Path) -> serde_json::Value {
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
fn a_quick_comparison_takes_less_than_a_minute_and_all_machines_compute_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (json, html) = (folder.path().join("a.json"), folder.path().join("a.html"));
    let start = Instant::now();
    let compared = output(isomorph().args(["compare", "--quick", "--json"]).arg(&json).arg("--html").arg(&html));
    let took = start.elapsed();
    let text = String::from_utf8(compared.stdout).unwrap();
    assert!(compared.status.success(), "{text}\n{}", String::from_utf8_lossy(&compared.stderr));
    assert!(took < Duration::from_secs(60), "{took:?}");
    let record = record(&json);
    assert_eq!(record["errors"].as_array().unwrap().len(), 0);
    let sums: Vec<(&str, &str)> = record["figures"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|figure| Some((figure["workload"].as_str()?, figure["checksum"].as_str()?)))
        .collect();
    for (workload, sum) in &sums {
        assert!(sums.iter().all(|(other, same)| other != workload || same == sum), "{workload}: {sums:?}");
    }
    // What the tests install is measured, and the machines of Isomorph that need nothing; a slow host has no time for all.
    let is_complete = !fs::read_to_string(&json).unwrap().contains("no time was left");
    for engine in ["native", "java", "isomorph-wasm", "node-wasm", "isomorph-linux", "qemu-linux"] {
        let has = |figure: &&serde_json::Value| figure["engine"] == engine && figure["steady_ns"].is_object();
        let count = record["figures"].as_array().unwrap().iter().filter(has).count();
        assert!(count >= if is_complete { 10 } else { 1 }, "{engine}: {count} figures; {text}");
    }
    assert!(!is_complete || record["mechanisms"].as_array().unwrap().len() >= 8, "{text}");
    assert!(text.contains("prime sieve") && text.contains("claims") && text.contains("Not measured here"), "{text}");
    let page = fs::read_to_string(&html).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    assert!(page.matches("<svg").count() >= 6 && !page.contains("NaN") && !page.contains("http"), "{page}");
}

#[test]
fn a_peer_that_crashes_is_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let (json, node) = (folder.path().join("a.json"), folder.path().join("node"));
    // One that starts, and then breaks at the work.
    let script = "#!/bin/sh\nPATH=${PATH#*:}\ncase \"$*\" in *sieve*) kill -SEGV $$;; esac\nexec node \"$@\"\n";
    fs::write(&node, script).unwrap();
    fs::set_permissions(&node, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let only = ["compare", "--quick", "--only", "sieve,native,node-wasm", "--json"];
    let compared = output(isomorph().args(only).arg(&json).env("PATH", path));
    let text = String::from_utf8(compared.stdout).unwrap();
    assert!(compared.status.success() && text.contains("SIGSEGV"), "{text}");
    let record = record(&json);
    assert_eq!(record["errors"].as_array().unwrap().len(), 0);
    let figure = record["figures"].as_array().unwrap().iter().find(|figure| figure["engine"] == "node-wasm").unwrap();
    assert!(figure["gap"].as_str().unwrap().contains("SIGSEGV") && figure["steady_ns"].is_null(), "{figure}");
}

#[test]
fn two_comparisons_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["a.json", "b.json"].map(|name| folder.path().join(name));
    for file in &files {
        let only = ["compare", "--quick", "--only", "sieve,isomorph-linux", "--json"];
        assert!(output(isomorph().args(only).arg(file)).status.success());
    }
    let compared = output(isomorph().args(["compare", "--diff"]).args(&files));
    let text = String::from_utf8(compared.stdout).unwrap();
    assert!(compared.status.success() && text.contains("prime sieve") && text.contains("B/A"), "{text}");
    let wrong = output(isomorph().args(["compare", "--diff"]).arg(&files[0]).arg(folder.path().join("none.json")));
    assert_eq!(wrong.status.code(), Some(1));
    assert_eq!(String::from_utf8(wrong.stderr).unwrap().lines().count(), 1);
}

#[test]
fn an_interrupted_comparison_gives_what_there_is() {
    let mut command = isomorph();
    command.args(["compare", "--only", "sieve,java,isomorph-linux"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ended = child.wait_with_output().unwrap();
    let text = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success() && text.contains("Interrupted"), "{text}");
}
