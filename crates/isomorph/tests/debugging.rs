//! Seeing into guests: the real gdb on bare programs compiled here and on Debian's kernel as it starts; traces; reports of crashes.

mod guest;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use guest::{Session, isomorph, output};

const SOON: Duration = Duration::from_secs(60);

/// A bare program for the monitor's SBI: counts, calls, computes, starts a second hart, powers off.
const PROGRAM: &str = r#"
typedef unsigned long word;

volatile word counter;
volatile double ratio = 1.5;
volatile word other_runs;
char stack[2][8192] __attribute__((aligned(16)));

static word sbi(word extension, word function, word a, word b, word c) {
    register word a0 __asm__("a0") = a;
    register word a1 __asm__("a1") = b;
    register word a2 __asm__("a2") = c;
    register word a6 __asm__("a6") = function;
    register word a7 __asm__("a7") = extension;
    __asm__ volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a2), "r"(a6), "r"(a7) : "memory");
    return a0;
}

__attribute__((noinline)) word triple(word value) {
    word result = value * 3;
    return result;
}

__attribute__((noinline)) word outer(word value) {
    word result = triple(value + 1);
    return result + 1;
}

void other(void) {
    for (;;) other_runs++;
}

__asm__(".globl other_start\nother_start:\nla sp, stack + 16384\nj other\n");
extern char other_start[];

int main(void) {
    if (sbi(0x48534d, 0, 1, (word)other_start, 0) == 0)
        while (other_runs < 1000);
    for (word i = 0; i < 10; i++) {
        counter = counter + 1;
        ratio = ratio * 2;
    }
    word last = outer(counter);
    sbi(0x53525354, 0, 0, 0, 0);
    return (int)last;
}

__asm__(".section .text.start\n.globl _start\n_start:\nla sp, stack + 8192\nj main\n");
"#;

/// The program as an ELF kernel with symbols.
fn compile(folder: &Path) -> PathBuf {
    let (source, elf) = (folder.join("bare.c"), folder.join("bare.elf"));
    fs::write(&source, PROGRAM).unwrap();
    let compiler = output(
        Command::new("riscv64-linux-gnu-gcc")
            .args(["-g", "-O0", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie", "-mcmodel=medany"])
            .args([
                "-Wl,-Ttext=0x80200000,--build-id=none,--section-start=.text.start=0x80200000",
                "-Wl,-Ttext=0x80201000",
            ])
            .arg("-o")
            .args([&elf, &source]),
    );
    assert!(compiler.status.success(), "{}", String::from_utf8_lossy(&compiler.stderr));
    elf
}

/// A machine that waits for a debugger, and where.
fn start(command: &mut Command) -> (Session, String) {
    let mut session = Session::start(command);
    session.expect("target remote ", SOON);
    let address = session.expect("\n", SOON);
    (session, address.trim().to_owned())
}

/// What gdb says to these commands, after it has connected.
fn gdb(file: &Path, address: &str, commands: &[&str]) -> String {
    let mut command = Command::new("sh");
    // Both outputs in the order in which they were said.
    command.args(["-c", "exec timeout -k 5 100 gdb-multiarch \"$@\" 2>&1", "sh", "-nx", "-batch"]);
    command.args(["-ex", "set confirm off"]);
    command.arg("-ex").arg(format!("target remote {address}"));
    for text in commands {
        command.args(["-ex", text]);
    }
    String::from_utf8_lossy(&output(command.arg(file)).stdout).into_owned()
}

#[track_caller]
fn assert_says(said: &str, wanted: &[&str]) {
    let mut rest = said;
    for want in wanted {
        let Some(at) = rest.find(want) else { panic!("{want:?} is not there, or not in its place, in:\n{said}") };
        rest = &rest[at + want.len()..];
    }
}

fn bare(flags: &[&str]) -> (tempfile::TempDir, PathBuf, Session, String) {
    let folder = tempfile::tempdir().unwrap();
    let elf = compile(folder.path());
    let (session, address) =
        start(isomorph().args(["run", "--no-network", "--gdb", "0", "--kernel"]).arg(&elf).args(flags));
    (folder, elf, session, address)
}

#[test]
fn gdb_stops_steps_and_watches() {
    let (_folder, elf, mut session, address) = bare(&[]);
    let said = gdb(
        &elf,
        &address,
        &[
            "info registers pc",
            "break main",
            "continue",
            "hbreak triple",
            "watch counter",
            "continue",
            "continue",
            "print counter",
            "delete 3",
            "print $fcsr",
            "continue",
            "backtrace",
            "finish",
            "stepi",
            "next",
            "print ratio",
            "print $priv",
            "print/x $sstatus & 0x6000",
            "set var counter = 77",
            "print counter",
            "info threads",
            "delete",
            "continue",
        ],
    );
    assert_says(
        &said,
        &[
            "_start",
            "Breakpoint 1, main",
            "atchpoint 3: counter",
            "Old value = 0",
            "New value = 1",
            "Old value = 1",
            "New value = 2",
            "$1 = 2",
            "Breakpoint 2, triple (value=11)",
            "#0  triple (value=11)",
            "#1  ",
            "in outer (value=10)",
            "#2  ",
            "in main ()",
            "Value returned is $3 = 33",
            "$4 = 1536",
            "$5 = 1",
            "= 0x6000",
            "= 77",
            "hart 0: runs at pc",
            "exited normally",
        ],
    );
    assert_eq!(session.wait(SOON).code(), Some(0));
}

#[test]
fn gdb_sees_harts_and_reads_and_lets_the_machine_go_on() {
    let (_folder, elf, mut session, address) = bare(&["--cpus", "2"]);
    let said = gdb(
        &elf,
        &address,
        &["break other", "continue", "info threads", "delete", "rwatch other_runs", "continue", "bt", "detach"],
    );
    assert_says(
        &said,
        &[
            "hit Breakpoint 1, other",
            "1    Thread 1.1",
            "* 2    Thread 1.2",
            "atchpoint 2: other_runs",
            "Value = ",
            "#0  ",
        ],
    );
    // The first hart has powered the machine off meanwhile.
    assert_eq!(session.wait(SOON).code(), Some(0));
}

#[test]
fn gdb_interrupts_resets_looks_and_kills() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("Image");
    fs::write(&image, guest::kernel::image(&guest::kernel::spin())).unwrap();
    let socket = folder.path().join("gdb");
    let place = format!("unix:{}", socket.display());
    let command = &["run", "--no-network", "--gdb-no-wait", "--gdb", &place, "--kernel"];
    let (mut session, address) = start(isomorph().args(command).arg(&image));
    let commands = [
        "set architecture riscv:rv64",
        "python import threading, time, gdb, os, signal",
        "python threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()",
        "continue",
        "x/i $pc",
        "monitor xp 0x80200030",
        "monitor translate 0x80200000",
        "monitor info",
        "monitor nonsense",
        "monitor reset",
        // gdb does not know what a command of ours has changed.
        "maintenance flush register-cache",
        "info registers pc",
        "stepi",
        "info registers pc",
        "x/2wx 0x10000000",
        "detach",
    ];
    let said = gdb(Path::new("/dev/null"), &address, &commands);
    assert_says(
        &said,
        &[
            "SIGINT",
            "80200040",
            "0x0000000080200030: 0x0000005643534952",
            "0x80200000 is at physical address 0x80200000",
            "hart 0: runs",
            "'nonsense' is no command here",
            "as after power-on",
            "0x80200000",
            "0x80200040",
            "Cannot access memory at address 0x10000000",
        ],
    );
    let said = gdb(Path::new("/dev/null"), &address, &["info registers pc", "kill"]);
    assert_says(&said, &["0x80200040", "killed"]);
    assert_eq!(session.wait(SOON).code(), Some(0), "{}", session.text());
    assert!(!socket.exists());
}

#[test]
fn guest_debians_kernel_starts_under_gdb() {
    guest::pull_debian();
    let flags = ["run", "debian", "--rm", "--name", "gdb", "--no-network", "--cpus", "2", "--gdb", "0"];
    let (mut session, address) = start(isomorph().args(flags));
    let interrupt = "python threading.Timer(4, lambda: os.kill(os.getpid(), signal.SIGINT)).start()";
    let said = gdb(
        Path::new("/dev/null"),
        &address,
        &[
            "set architecture riscv:rv64",
            "python import threading, time, gdb, os, signal",
            "info registers pc",
            "stepi",
            "print $satp",
            interrupt,
            "continue",
            // By now there are page tables, and a handler of traps at a virtual address.
            "print $satp >> 63",
            "hbreak *($stvec & ~3)",
            "continue",
            "print $pc == ($stvec & ~3)",
            "print $priv",
            "x/2i $pc",
            "print *(unsigned *) $pc != 0",
            "stepi",
            "info threads",
            "detach",
        ],
    );
    assert_says(
        &said,
        &["0x80200000", "$1 = 0", "SIGINT", "$2 = 1", "Breakpoint 1", "$3 = 1", "$4 = 1", "=> 0xffffffff", "$5 = 1"],
    );
    assert!(said.contains("hart 1: "), "{said}");
    session.expect("login: ", Duration::from_secs(300));
}

#[test]
fn what_is_no_debugger_loses_its_connection_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("Image");
    fs::write(&image, guest::kernel::image(&guest::kernel::spin())).unwrap();
    let (mut session, address) = start(isomorph().args(["run", "--no-network", "--gdb", "0", "--kernel"]).arg(&image));
    let packet = |body: &str| {
        let sum = body.bytes().fold(0_u8, u8::wrapping_add);
        format!("${body}#{sum:02x}").into_bytes()
    };
    let garbage: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 100_000],
        b"$".repeat(70_000),
        packet("mffffffffffffffff,ffffffffffffffff"),
        packet("mfffffffffffffff0,3fff"),
        packet("Mffffffffffffffff,2:0000"),
        packet("Z2,ffffffffffffffff,ffffffffffffffff"),
        packet("Z0,1,99999999999999999999"),
        packet("pffffffffffffffff"),
        packet("P1051=ff"),
        packet("vCont;s:-1"),
        packet("vCont;r5,1:7fffffffffffffff"),
        packet("Hg0"),
        packet("G00"),
        packet("qXfer:features:read:target.xml:ffffffffffffffff,ffff"),
        packet("qRcmd,78702030203939393939393939393939"),
        packet("X0,ffffffff:"),
    ];
    for bytes in garbage {
        let mut stream = TcpStream::connect(&address).unwrap();
        // The connection may be closed under it.
        let _ = stream.write_all(&bytes);
        let _ = stream.write_all(&packet("k")[..2]);
    }
    let said = gdb(Path::new("/dev/null"), &address, &["info registers pc", "kill"]);
    assert_says(&said, &["0x80200040", "killed"]);
    session.wait(SOON);
}

#[test]
fn a_place_where_nobody_can_listen_is_one_line() {
    for (place, said) in [("256.0.0.1:1", "256.0.0.1:1"), ("unix:/nonexistent/gdb", "/nonexistent/gdb")] {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("Image");
        fs::write(&image, guest::kernel::image(&guest::kernel::spin())).unwrap();
        let output = output(isomorph().args(["run", "--no-network", "--gdb", place, "--kernel"]).arg(&image));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
        assert!(text.contains(said) && text.contains("--gdb"), "{text}");
    }
}

#[test]
fn a_trace_has_a_line_for_each_instruction_in_its_range() {
    let folder = tempfile::tempdir().unwrap();
    let elf = compile(folder.path());
    let trace = folder.path().join("trace");
    let run = |flags: &[&str]| output(isomorph().args(["run", "--no-network"]).args(flags).arg("--kernel").arg(&elf));
    let to_file = format!("--trace={}", trace.display());
    assert_eq!(run(&[&to_file]).status.code(), Some(0));
    let all = fs::read_to_string(&trace).unwrap();
    assert!(all.lines().count() > 100, "{all}");
    assert!(all.lines().all(|line| line.starts_with("0 0x0000000080201") && line.contains(" S ")), "{all}");
    assert!(all.contains("fmul.d") || all.contains("fadd.d"), "{all}");
    // `outer` and `triple` are called with ten.
    let some = run(&["--trace", "--trace-range", "80201000-80201060"]);
    let lines = String::from_utf8(some.stderr).unwrap();
    assert!(lines.contains("c.jr ra") && lines.lines().count() < all.lines().count(), "{lines}");
    assert!(lines.contains("=0x21"), "{lines}");
}

#[test]
fn a_machine_that_fails_says_where_by_its_kernels_symbols() {
    let folder = tempfile::tempdir().unwrap();
    let (source, elf) = (folder.path().join("bare.c"), folder.path().join("bare.elf"));
    fs::write(
        &source,
        "void (*nothing)(void);
        __attribute__((noinline)) int inner(int n) { nothing(); return n; }
        __attribute__((noinline)) int outer(int n) { return inner(n + 1) + 1; }
        int main(void) { return outer(1) + 1; }
        char stack[8192];
        __asm__(\".text\\n.globl _start\\n_start:\\nla sp, stack + 8192\\ncall main\\n\");",
    )
    .unwrap();
    let mut compiler = Command::new("riscv64-linux-gnu-gcc");
    compiler.args(["-g", "-O0", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie", "-mcmodel=medany"]);
    let compiler = output(compiler.args(["-Wl,-Ttext=0x80200000,--build-id=none", "-o"]).args([&elf, &source]));
    assert!(compiler.status.success(), "{}", String::from_utf8_lossy(&compiler.stderr));
    let output = output(isomorph().args(["run", "--no-network", "--kernel"]).arg(&elf));
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_says(
        &text,
        &[
            "hart 0: ",
            "pc 0x0000000000000000",
            "#0 ",
            "#1 ",
            "inner+0x",
            "bare.c:2",
            "outer+0x",
            "main+0x",
            "isomorph: the guest was stopped",
        ],
    );
}

#[test]
#[cfg(target_arch = "x86_64")]
fn translated_code_is_named_for_perf() {
    let folder = tempfile::tempdir().unwrap();
    let (source, elf) = (folder.path().join("hot.c"), folder.path().join("hot.elf"));
    fs::write(
        &source,
        "volatile long sink;
        __attribute__((noinline)) void hot(long n) { for (long i = 0; i < n; i++) sink += i; }
        void main(void) {
            hot(1000000);
            __asm__ volatile(\"li a0, 0; li a1, 0; li a6, 0; li a7, 0x53525354; ecall\");
        }
        char stack[8192];
        __asm__(\".section .text.start\\n.globl _start\\n_start:\\nla sp, stack + 8192\\ncall main\\n\");",
    )
    .unwrap();
    let mut compiler = Command::new("riscv64-linux-gnu-gcc");
    compiler.args(["-O1", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie", "-mcmodel=medany"]);
    let compiler = output(compiler.args(["-Wl,-Ttext=0x80200000,--build-id=none", "-o"]).args([&elf, &source]));
    assert!(compiler.status.success(), "{}", String::from_utf8_lossy(&compiler.stderr));
    let child = isomorph()
        .args(["run", "--no-network", "--perf-map", "--stats", "--kernel"])
        .arg(&elf)
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let map = PathBuf::from(format!("/tmp/perf-{}.map", child.id()));
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_says(&String::from_utf8(output.stderr).unwrap(), &["units translated", "bytes of code"]);
    let text = fs::read_to_string(&map).unwrap();
    fs::remove_file(&map).unwrap();
    assert!(text.lines().any(|line| line.contains(" hot+0x") && line.contains("[")), "{text}");
}

#[test]
fn statistics_are_a_table_or_json() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("Image");
    fs::write(&image, guest::kernel::image(&guest::kernel::power_off())).unwrap();
    let file = folder.path().join("stats.json");
    let run = |flag: &str| output(isomorph().args(["run", "--no-network", flag, "--kernel"]).arg(&image));
    let table = String::from_utf8(run("--stats").stderr).unwrap();
    assert_says(&table, &["seconds", "MIPS", "instructions  ", "blocks decoded", "calls of the monitor"]);
    assert_eq!(run(&format!("--stats={}", file.display())).status.code(), Some(0));
    let stats: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(stats["instructions"], 6, "{stats}");
    assert_eq!(stats["calls_of_the_monitor"], 1);
    assert_eq!(stats["fences_of_instructions"], 0);
    assert!(stats["mips"].is_f64() && stats["time_ns"].is_u64());
    let nowhere = run("--stats=/nonexistent/stats.json");
    assert!(String::from_utf8(nowhere.stderr).unwrap().contains("/nonexistent/stats.json"));
}

/// A program for Linux: threads, signals, and a fault if it has an argument.
const THREADS: &str = r#"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

volatile long shared;
volatile int signalled;

__attribute__((noinline)) long triple(long n) {
    long result = n * 3;
    return result;
}

__attribute__((noinline)) void store(long *to, long value) {
    *to = value;
}

static void *work(void *argument) {
    for (long i = 1; i < 5; i++) shared = shared + triple(i);
    return argument;
}

static void caught(int signal) {
    signalled = signal;
}

int main(int argc, char **argv) {
    pthread_t thread;
    signal(SIGUSR1, caught);
    pthread_create(&thread, 0, work, 0);
    pthread_join(thread, 0);
    raise(SIGUSR1);
    printf("shared %ld, signalled %d\n", shared, signalled);
    fflush(stdout);
    if (fork() == 0) _exit(triple(2) == 6 ? 0 : 1);
    if (argc > 1) store((long *)16, 1);
    return 3;
}
"#;

fn compile_program(folder: &Path) -> PathBuf {
    let (source, elf) = (folder.join("threads.c"), folder.join("threads"));
    fs::write(&source, THREADS).unwrap();
    let compiler = output(Command::new("riscv64-linux-gnu-gcc").args(["-g", "-O0", "-o"]).args([&elf, &source]));
    assert!(compiler.status.success(), "{}", String::from_utf8_lossy(&compiler.stderr));
    elf
}

#[test]
fn gdb_debugs_a_program_with_its_threads_signals_and_libraries() {
    let folder = tempfile::tempdir().unwrap();
    let elf = compile_program(folder.path());
    let (mut session, address) = start(isomorph().args(["run", "--gdb", "0"]).arg(&elf));
    let said = gdb(
        &elf,
        &address,
        &[
            "set sysroot /usr/riscv64-linux-gnu",
            "break main",
            "continue",
            "info sharedlibrary",
            "break triple",
            "continue",
            "info threads",
            "backtrace",
            "finish",
            "delete",
            "watch shared",
            "continue",
            "delete",
            "stepi",
            "set var shared = 1000",
            "continue",
            "print shared",
            "print signalled",
            "break caught",
            "continue",
            "print signal",
            "monitor maps",
            "delete",
            "continue",
        ],
    );
    assert_says(
        &said,
        &[
            "Breakpoint 1, main (argc=1",
            "libc.so.6",
            "hit Breakpoint 2, triple (n=1)",
            "* 2  ",
            "#0  triple (n=1)",
            "in work (",
            "Value returned is $1 = 3",
            "Old value = 0",
            "New value = 3",
            "received signal SIGUSR1",
            "$2 = 1027",
            "$3 = 0",
            "Breakpoint 4, caught (signal=10)",
            "$4 = 10",
            "r-x",
            "exited with code 03",
        ],
    );
    assert_eq!(session.wait(SOON).code(), Some(3));
    assert!(session.text().contains("shared 1027, signalled 10"), "{}", session.text());
}

#[test]
fn a_program_that_crashes_says_where_and_dies_of_the_signal() {
    use std::os::unix::process::ExitStatusExt;
    let folder = tempfile::tempdir().unwrap();
    let elf = compile_program(folder.path());
    let crash = output(isomorph().args(["run"]).arg(&elf).arg("fault"));
    let text = String::from_utf8(crash.stderr).unwrap();
    assert_eq!(crash.status.signal(), Some(11), "{text}");
    assert_says(
        &text,
        &[
            "crash: SIGSEGV at 0x",
            "(store+0x",
            "in threads at ",
            "threads.c:",
            "accessing 0x10",
            "a0 0x",
            "#0 ",
            "store+",
            "#1 ",
            "main+",
            "#2 ",
        ],
    );
    // A debugger sees the fault first, and may let the program die of it.
    let (mut session, address) = start(isomorph().args(["run", "--gdb", "0"]).arg(&elf).arg("fault"));
    let said = gdb(&elf, &address, &["handle SIGUSR1 nostop noprint", "continue", "backtrace", "continue"]);
    assert_says(
        &said,
        &["received signal SIGSEGV", "#0 ", "store (", "#1 ", "main (", "terminated with signal SIGSEGV"],
    );
    assert_eq!(session.wait(SOON).signal(), Some(11));
}

#[test]
fn a_program_can_be_traced_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let elf = compile_program(folder.path());
    let (trace, stats) = (folder.path().join("trace"), folder.path().join("stats.json"));
    let run = output(
        isomorph()
            .arg("run")
            .arg(format!("--trace={}", trace.display()))
            .arg(format!("--stats={}", stats.display()))
            .arg(&elf),
    );
    assert_eq!(run.status.code(), Some(3), "{}", String::from_utf8_lossy(&run.stderr));
    let trace = fs::read_to_string(&trace).unwrap();
    assert!(trace.lines().count() > 1000 && trace.lines().all(|line| line.contains(" U ")), "{}", trace.len());
    let stats: serde_json::Value = serde_json::from_slice(&fs::read(&stats).unwrap()).unwrap();
    assert!(stats["instructions"].as_u64() >= Some(1000), "{stats}");
    // One of each: `exit_group`, and `clone` for the thread and the child.
    assert_eq!(stats["system_call_94"], 1, "{stats}");
    assert!(stats["system_call_435"].as_u64().or(stats["system_call_220"].as_u64()) >= Some(1), "{stats}");
}
