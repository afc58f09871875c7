//! WebAssembly: from nothing to a program's first words and its end, the memory that takes, and requests that a server answers with a fresh
//! instance each. Beside node: its WASI for programs, its HTTP server, which makes no instances, for requests.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Figure;
use crate::guest::isomorph;
use crate::workspace;

const PEER: &str = "node";
/// Starts in a round: short ones, so that many are taken.
const STARTS: u32 = 40;
/// How long a server is asked, and by how many at once.
const SERVE_TIME: Duration = Duration::from_secs(3);
const CLIENTS: usize = 8;

/// A program that says a word, and then works until it is killed, so that it can be looked at.
const ENDLESS: &str = r#"(module (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1) (data (i32.const 16) "here\n")
    (func (export "_start") (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 5))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (loop (br 0))))"#;

/// What node is told to do the same: the module's bytes are compiled by node itself, as it keeps no code.
const NODE_RUN: &str = "const { WASI } = require('node:wasi'); const { readFileSync } = require('node:fs');
    const wasi = new WASI({ version: 'preview1' });
    WebAssembly.instantiate(readFileSync(process.argv[1]), wasi.getImportObject()).then(({ instance }) => wasi.start(instance));";
const NODE_SERVE: &str = "const server = require('node:http').createServer((request, response) => { response.writeHead(418); response.end(); });
    server.listen(0, '127.0.0.1', () => console.log('serving http://127.0.0.1:' + server.address().port + '/'));";
/// A program that does nothing.
const EMPTY: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;

/// A process that is killed when it is no longer looked at.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.args(["--no-warnings", "-e", script]);
    command
}

/// Milliseconds that a command takes to its end: the median of [`STARTS`].
fn start(command: &mut Command) -> Result<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let begin = Instant::now();
        ensure!(command.status()?.success(), "{command:?} failed");
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// A line of what the host knows of a process's memory, in MiB: the most so far (`VmHWM`), or what is the process's own (`RssAnon`).
fn memory_mib(process: &Running, name: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.0.id()))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(":"))
        .context("the host does not tell resident memory")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// Starts a command and gives it with its first line, of standard output or error.
fn first_line(command: &mut Command, errors: bool) -> Result<(Running, String, Option<BufReader<ChildStdout>>)> {
    let piped = |wanted| if wanted { Stdio::piped() } else { Stdio::null() };
    let mut process = Running(command.stdin(Stdio::null()).stdout(piped(!errors)).stderr(piped(errors)).spawn()?);
    let mut line = String::new();
    if errors {
        BufReader::new(process.0.stderr.take().context("no pipe")?).read_line(&mut line)?;
        return Ok((process, line, None));
    }
    let mut reader = BufReader::new(process.0.stdout.take().context("no pipe")?);
    reader.read_line(&mut line)?;
    Ok((process, line, Some(reader)))
}

/// Microseconds for each request of a server whose first line names its address: many clients at once, connections kept.
fn serve(command: &mut Command, errors: bool) -> Result<f64> {
    let (process, line, _reader) = first_line(command, errors)?;
    let address =
        line.rsplit_once("http://").context("the server does not say where it is")?.1.trim().trim_end_matches('/');
    let answered = AtomicU64::new(0);
    let begin = Instant::now();
    let client = || -> Result<()> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut answer = [0; 4096];
        while begin.elapsed() < SERVE_TIME {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")?;
            let mut length = 0;
            // The answers are small, and have no body or an empty chunked one.
            while !(answer[..length].ends_with(b"\r\n\r\n") && is_whole(&answer[..length])) {
                let more = stream.read(&mut answer[length..])?;
                ensure!(more > 0, "the server hung up");
                length += more;
            }
            ensure!(answer.starts_with(b"HTTP/1.1 418 "), "{}", String::from_utf8_lossy(&answer[..length]));
            answered.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    drop(process);
    #[expect(clippy::cast_precision_loss, reason = "a count of requests in seconds")]
    Ok(seconds * 1e6 / answered.into_inner() as f64)
}

/// Whether an answer has its empty body: a chunked one ends with a last chunk.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    !text.contains("transfer-encoding: chunked") || text.ends_with("0\r\n\r\n")
}

fn write(folder: &Path, name: &str, content: &[u8]) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// Measures all.
pub(super) fn measure(rounds: u32) -> Result<Vec<Figure>> {
    let folder = workspace::target().join("tmp/bench-wasm");
    fs::create_dir_all(&folder)?;
    let binary = |name, text| write(&folder, name, &wat::parse_str(text)?);
    let (empty, endless) = (binary("empty.wasm", EMPTY)?, binary("endless.wasm", ENDLESS)?);
    let run = |program: &Path| {
        let mut command = isomorph();
        command.arg("run").arg(program);
        command
    };
    let teapot = workspace::root().join("docs/examples/teapot.wat");
    // Compiles, so that all that is measured is warm.
    start(&mut run(&empty))?;
    let mut best = [[f64::MAX; 2]; 4];
    let mut native = f64::MAX;
    for _ in 0..rounds.max(1) {
        let (ours, _, _) = first_line(&mut run(&endless), false)?;
        // Node says nothing, so it is given the time that it needs.
        let node_loop = Running(node(NODE_RUN).arg(&endless).stdin(Stdio::null()).spawn()?);
        std::thread::sleep(Duration::from_millis(500));
        let resident = [memory_mib(&ours, "VmHWM")?, memory_mib(&node_loop, "VmHWM")?];
        let private = [memory_mib(&ours, "RssAnon")?, memory_mib(&node_loop, "RssAnon")?];
        drop((ours, node_loop));
        let starts = [start(&mut run(&empty))?, start(node(NODE_RUN).arg(&empty))?];
        native = native.min(start(&mut Command::new("true"))?);
        let served = [
            serve(isomorph().args(["run", "--serve", "127.0.0.1:0"]).arg(&teapot), true)?,
            serve(&mut node(NODE_SERVE), false)?,
        ];
        for (best, new) in best.iter_mut().zip([starts, resident, private, served]) {
            *best = [best[0].min(new[0]), best[1].min(new[1])];
        }
    }
    let figure = |name: &str, unit, [ours, peer]: [f64; 2], note: String| Figure {
        name: name.into(),
        unit,
        ours,
        peer,
        peer_name: PEER,
        note,
    };
    let [starts, resident, private, served] = best;
    Ok(vec![
        figure(
            "wasm start",
            "ms",
            starts,
            format!("process and all, code in the cache; a native process takes {native:.2}"),
        ),
        figure(
            "wasm resident",
            "MiB",
            resident,
            "of a small program that runs, the mapped parts of executables with it".into(),
        ),
        figure("wasm private", "MiB", private, "of that, what another program at the same time takes once more".into()),
        figure(
            "wasm request",
            "us",
            served,
            format!("a fresh instance each, {:.0} a second; node's server makes none", 1e6 / served[0]),
        ),
    ])
}
