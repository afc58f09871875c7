//! WebAssembly programs, by the command.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const HELLO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/hello.wat");

fn isomorph(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isomorph"));
    command.current_dir(folder).env("XDG_CACHE_HOME", folder.join("cache")).env("ISOMORPH_HOME", folder.join("home"));
    command.args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_text_program_runs_at_once_and_from_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let output = isomorph(folder.path(), &["run", HELLO]);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "Hello from WebAssembly\n"));
        assert_eq!(text(&output.stderr), "");
    }
    assert_eq!(std::fs::read_dir(folder.path().join("cache/isomorph/wasm")).unwrap().count(), 1);
    let output = isomorph(folder.path(), &["run", "--invoke", "gcd", HELLO, "48", "36"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "12\n"));
}

#[test]
fn a_trap_is_told_in_one_line_and_a_backtrace() {
    let folder = tempfile::tempdir().unwrap();
    let program = r#"(module (func $inner unreachable) (func $outer (export "_start") (call $inner)))"#;
    std::fs::write(folder.path().join("bad.wat"), program).unwrap();
    let output = isomorph(folder.path(), &["run", "bad.wat"]);
    assert_eq!(output.status.code(), Some(1));
    let report = text(&output.stderr);
    assert!(
        report.starts_with("isomorph: bad.wat: it aborted (unreachable instruction)\n    at inner (+0x"),
        "{report}"
    );
    assert!(report.lines().nth(2).unwrap().starts_with("    at outer"), "{report}");
}

/// What a path is decides what runs it: its name, else its first bytes; and each kind refuses what is another's.
#[test]
fn each_kind_of_file_has_its_machine() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let fails = |arguments: &[&str], expected: &str| {
        let output = isomorph(folder.path(), arguments);
        let line = text(&output.stderr);
        assert!(
            !output.status.success() && line.contains(expected) && line.lines().count() == 1,
            "{arguments:?}: {line}"
        );
    };
    let module = wat::parse_str(r#"(module (func (export "_start")))"#).unwrap();
    std::fs::write(path("program"), &module).unwrap();
    assert!(isomorph(folder.path(), &["run", "./program"]).status.success(), "a module by its content");
    fails(&["run", "--no-network", "program"], "image");
    std::fs::copy("/bin/true", path("elf.wasm")).unwrap();
    fails(&["run", "elf.wasm"], "not a valid WebAssembly program");
    fails(&["run", "./elf.cwasm"], "cannot read it");
    std::fs::copy("/bin/true", path("compiled.cwasm")).unwrap();
    fails(&["run", "compiled.cwasm"], "not a valid WebAssembly program");
    fails(&["run", "--append", "x", "./program"], "takes no machine's flags");
    std::fs::write(path("script"), "#!/bin/sh\n").unwrap();
    fails(&["run", "./script"], "script");
    fails(&["run", "--invoke", "f", "./script"], "are for WebAssembly");
    fails(&["run", "--invoke", "x", "debian"], "are for programs, not for a machine");
}

#[test]
fn a_program_goes_on_from_its_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let counter = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/counter.wat");
    let counts = |arguments: &[&str]| {
        let output = isomorph(folder.path(), &[&["run", "--invoke", "count"], arguments].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    };
    assert_eq!(counts(&["--snapshot", "one", counter]), "1");
    assert_eq!(counts(&["./one"]), "2");
    assert_eq!(counts(&["./one"]), "2", "the snapshot stays as it is");
    assert_eq!(counts(&["--snapshot", "one", "./one"]), "2", "and is replaced when asked");
    assert_eq!(counts(&["./one"]), "3");
    let output = isomorph(folder.path(), &["snapshot", "inspect", "--verify", "one"]);
    let report = text(&output.stdout);
    assert!(output.status.success() && report.starts_with("kind     wasm\n") && report.contains("globals"), "{report}");
    let path = folder.path().join("one/state");
    let mut state = std::fs::read(&path).unwrap();
    *state.last_mut().unwrap() ^= 1;
    std::fs::write(&path, state).unwrap();
    let output = isomorph(folder.path(), &["run", "--invoke", "count", "./one"]);
    assert!(text(&output.stderr).contains("the snapshot is damaged"), "{}", text(&output.stderr));
}

const TEAPOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/teapot.wat");

/// A server, killed at the end.
struct Server {
    process: std::process::Child,
    address: String,
    errors: BufReader<std::process::ChildStderr>,
}

impl Server {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isomorph"));
        command.env("XDG_CACHE_HOME", folder.join("cache")).env("ISOMORPH_HOME", folder.join("home"));
        command.args(["run", "--serve", "0"]).args(arguments);
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        errors.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("isomorph: serving http://").unwrap_or_else(|| panic!("{line}"));
        Self { address: address.trim_end_matches('/').to_owned(), process, errors }
    }

    /// The first line of the answer to a request on a connection of its own.
    fn ask(&self) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn a_component_answers_requests() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[TEAPOT]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(server.ask(), "HTTP/1.1 418 I'm a teapot");
                }
            });
        }
    });
}

/// A component asks another one over HTTP, if it may.
#[test]
fn a_component_makes_requests_where_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[TEAPOT]);
    let fetch = include_str!("../../../docs/examples/fetch.wat");
    let mut of_server = fetch.replace("\"127.0.0.1:8080\"", &format!("\"{}\"", server.address));
    of_server = of_server.replace("(i32.const 14)", &format!("(i32.const {})", server.address.len()));
    std::fs::write(folder.path().join("fetch.wat"), of_server).unwrap();
    let fetches = |flags: &[&str]| {
        let output = isomorph(folder.path(), &[&["run"], flags, &["fetch.wat"]].concat());
        assert_eq!(text(&output.stderr), "", "a refused request is the program's business");
        output.status.code()
    };
    let port = server.address.rsplit_once(':').unwrap().1;
    assert_eq!(fetches(&[&format!("--allow-net=127.0.0.1:{port}")]), Some(0));
    assert_eq!(fetches(&["--allow-net=:1"]), Some(1), "another port");
    assert_eq!(fetches(&[]), Some(1), "no network at all");
}

/// What one request does wrong is its own end, and told.
#[test]
fn a_server_outlives_its_requests() {
    let folder = tempfile::tempdir().unwrap();
    let teapot = std::fs::read_to_string(TEAPOT).unwrap();
    let broken = |name: &str, body: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, teapot.replace("(local.set $response", &format!("{body} (local.set $response"))).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let reports = |path: &str, expected: &str| {
        let mut server = Server::start(folder.path(), &["--cpu-time", "0.05", "--memory", "16M", path]);
        for _ in 0..2 {
            assert_eq!(server.ask(), "HTTP/1.1 500 Internal Server Error");
            let mut line = String::new();
            server.errors.read_line(&mut line).unwrap();
            assert!(line.contains(expected), "{line}");
            // The frame below it.
            server.errors.read_line(&mut line).unwrap();
        }
    };
    reports(&broken("trap.wat", "unreachable"), "it aborted (unreachable instruction)");
    reports(&broken("loop.wat", "(loop (br 0))"), "processor time");
}
