//! Programs of Debian's that nobody here has written, as Linux programs on `isomorph run`: they must print what the host's own print.
//!
//! They come from a sysroot (`isomorph image pull sysroot`), which is pulled once.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod guest;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use guest::{home, isomorph, pull_sysroot};

/// A program of the sysroot as a command of the host.
fn program(path: &str) -> Command {
    pull_sysroot();
    let mut command = isomorph();
    command.arg("run").arg(home().join("sysroot").join(path));
    same_for_all(&mut command);
    command
}

/// What must not differ between a guest and the host.
fn same_for_all(command: &mut Command) {
    command.env("LC_ALL", "C").env("TZ", "UTC").env("PATH", "/usr/bin:/bin");
}

fn output(command: &mut Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut pipe = child.stdin.take().expect("its input is a pipe");
    let input = input.to_vec();
    // A program that does not read its input closes it.
    let writer = std::thread::spawn(move || drop(pipe.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// What a command that must succeed prints.
fn printed(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let output = output(command, input);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {}: {error}", output.status);
    output.stdout
}

/// The same program with the same arguments, on the host and as a guest, must do the same.
fn same(path: &str, arguments: &[&str], input: &[u8]) {
    let mut host = Command::new(Path::new("/").join(path));
    same_for_all(&mut host);
    let host = output(host.args(arguments), input);
    let guest = output(program(path).args(arguments), input);
    let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned();
    assert_eq!(guest.status.code(), host.status.code(), "{path} {arguments:?}: {}", text(&guest.stderr));
    assert!(
        guest.stdout == host.stdout,
        "{path} {arguments:?} printed {:?}, on the host {:?}",
        text(&guest.stdout),
        text(&host.stdout)
    );
}

/// Lines of text that repeat in part, the same at every run.
fn text() -> Vec<u8> {
    (0..20_000_u64)
        .flat_map(|n| format!("{} line {n} {:x}\n", n % 97, (n * n * 2_654_435_761) >> 7).into_bytes())
        .collect()
}

/// A folder with files of many kinds.
fn folder(root: &Path) -> PathBuf {
    let folder = root.join("files");
    std::fs::create_dir_all(folder.join("deep/er")).unwrap();
    std::fs::write(folder.join("text"), text()).unwrap();
    std::fs::write(folder.join("deep/empty"), b"").unwrap();
    std::fs::write(folder.join("deep/er/zeroes"), vec![0; 300_000]).unwrap();
    std::os::unix::fs::symlink("../text", folder.join("deep/link")).unwrap();
    folder
}

/// Two folders have the same files with the same content.
fn same_folders(one: &Path, other: &Path) {
    let status = Command::new("diff").args(["-r", "--no-dereference"]).arg(one).arg(other).status().unwrap();
    assert!(status.success(), "{} and {} differ", one.display(), other.display());
}

#[test]
fn guest_program_coreutils() {
    let text = text();
    for (path, arguments) in [
        ("usr/bin/seq", &["1", "3", "20000"][..]),
        ("usr/bin/sort", &["-k3", "-r"]),
        ("usr/bin/sort", &["-n", "--parallel=2", "-S1M"]),
        ("usr/bin/sha256sum", &[]),
        ("usr/bin/sha512sum", &[]),
        ("usr/bin/md5sum", &[]),
        ("usr/bin/b2sum", &[]),
        ("usr/bin/cksum", &[]),
        ("usr/bin/base64", &["-w", "60"]),
        ("usr/bin/tr", &["a-z", "A-Z"]),
        ("usr/bin/cut", &["-d", " ", "-f", "2,4"]),
        ("usr/bin/wc", &[]),
        ("usr/bin/tac", &[]),
        ("usr/bin/uniq", &["-c", "-w", "2"]),
        ("usr/bin/od", &["-A", "x", "-t", "x4z"]),
        ("usr/bin/fold", &["-w", "13"]),
        ("usr/bin/expand", &[]),
        ("usr/bin/factor", &["18446744073709551557", "600851475143", "1000000016000000063"]),
        ("usr/bin/date", &["-u", "-d", "@1234567890", "+%A %F %T"]),
        ("usr/bin/printf", &["%s %d %x %.17g\\n", "word", "42", "255", "0.1"]),
        ("usr/bin/env", &["-i", "A=1", "B=2"]),
        ("usr/bin/head", &["-c", "1000"]),
        ("usr/bin/tail", &["-n", "5"]),
        ("usr/bin/nl", &["-b", "a"]),
        ("usr/bin/shuf", &["-i", "1-50", "--random-source=/usr/bin/seq", "-n", "0"]),
        ("usr/bin/test", &["-d", "/tmp"]),
        ("usr/bin/false", &[]),
        ("usr/bin/expr", &["(", "7", "*", "6", ")", "-", "5"]),
        ("usr/bin/grep", &["-c", "7 line [0-9]*3 "]),
        ("usr/bin/sed", &["-n", "s/line \\([0-9]*\\)/<\\1>/;5,9p"]),
    ] {
        same(path, arguments, &text);
    }
}

#[test]
fn guest_program_ls_and_find() {
    let root = tempfile::tempdir().unwrap();
    let folder = folder(root.path());
    let folder = folder.to_str().unwrap();
    same("usr/bin/ls", &["-lanR", "--time-style=full-iso", folder], b"");
    same("usr/bin/find", &[folder, "-type", "f", "-size", "+1k", "-printf", "%p %s %m\\n"], b"");
    same("usr/bin/stat", &["-c", "%n %s %f %u %h %Y", folder], b"");
}

const SCRIPT: &str = r#"
set -eu
declare -A count
while read -r number _ rest; do
    key=$((number % 7))
    count[$key]=$((${count[$key]:-0} + ${#rest}))
done < <(seq 1 500 | awk '{ print $1, "x", $1 * $1 }')
for key in $(printf '%s\n' "${!count[@]}" | sort -n); do echo "$key ${count[$key]}"; done
fib() { local n=$1; if ((n < 2)); then echo "$n"; else echo $(($(fib $((n - 1))) + $(fib $((n - 2))))); fi; }
fib 9
cat <<END | tr a-z A-Z | rev
here is a document of $((6 * 7)) words
END
trap 'echo trapped' USR1
kill -USR1 $$
{ for i in 1 2 3; do (sleep 0.0$i; echo "child $i") & done; wait; } | sort
(exit 3) || echo "status $?"
[[ "abc123" =~ ([a-z]+)([0-9]+) ]] && echo "${BASH_REMATCH[2]}-${BASH_REMATCH[1]}"
x=$(mktemp -d); echo inside > "$x/file"; cat "$x"/f*; rm -r "$x"
seq 100000 | sort -rn | head -n 3 | paste -sd+ | sed 's/+/ + /g'
printf '%s\n' {a..e}{1..3} | xargs -n 5 echo
"#;

#[test]
fn guest_program_bash_runs_scripts() {
    same("usr/bin/bash", &["-c", SCRIPT], b"");
    same("usr/bin/bash", &["-c", "kill -TERM $$; sleep 5"], b"");
    // A script by its first line, and what it starts.
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("script");
    std::fs::write(&path, format!("#!/bin/bash\n{SCRIPT}\nuname -m")).unwrap();
    let mut chmod = Command::new("chmod");
    printed(chmod.arg("+x").arg(&path), b"");
    let printed = printed(program("usr/bin/bash").arg("-c").arg(&path), b"");
    assert!(printed.ends_with(b"riscv64\n"), "{}", String::from_utf8_lossy(&printed));
}

#[test]
fn guest_program_archives_go_round() {
    let root = tempfile::tempdir().unwrap();
    let folder = folder(root.path());
    let names = ["-C", root.path().to_str().unwrap()];
    for (compressor, flags) in [("gzip", "-9"), ("xz", "-T2"), ("bzip2", "-9"), ("zstd", "-T2")] {
        let tar = printed(program("usr/bin/tar").arg("cf").arg("-").args(names).arg("files"), b"");
        let packed = printed(program(&format!("usr/bin/{compressor}")).args([flags, "-c"]), &tar);
        assert!(packed.len() < tar.len() / 2, "{compressor}");
        let unpacked = printed(program(&format!("usr/bin/{compressor}")).args(["-d", "-c"]), &packed);
        assert!(unpacked == tar, "{compressor}");
        let other = root.path().join(compressor);
        std::fs::create_dir(&other).unwrap();
        printed(program("usr/bin/tar").arg("xf").arg("-").arg("-C").arg(&other), &unpacked);
        same_folders(&folder, &other.join("files"));
    }
    // The host reads what a guest has packed, and the other way round; tar starts the compressor.
    let (ours, theirs) = (root.path().join("ours.tar.gz"), root.path().join("theirs.tar.gz"));
    printed(program("usr/bin/tar").arg("czf").arg(&ours).args(names).arg("files"), b"");
    printed(Command::new("tar").arg("czf").arg(&theirs).args(names).arg("files"), b"");
    for (name, mut tar, archive) in [("a", Command::new("tar"), &ours), ("b", program("usr/bin/tar"), &theirs)] {
        let other = root.path().join(name);
        std::fs::create_dir(&other).unwrap();
        printed(tar.arg("xzf").arg(archive).arg("-C").arg(&other), b"");
        same_folders(&folder, &other.join("files"));
    }
}

#[test]
fn guest_program_interpreters() {
    same(
        "usr/bin/perl",
        &[
            "-e",
            r#"my %h; $h{$_ % 7} += $_ ** 1.5 for 1..9999; printf "%s %.6f\n", $_, $h{$_} for sort keys %h; print join(",", map { sprintf "%b", $_ } 1..9), "\n"; print `echo from a shell`;"#,
        ],
        b"",
    );
    let lua = r#"local t = {} for i = 1, 20000 do t[i] = (i * 7919) % 10007 end table.sort(t) print(t[1], t[10000], t[20000])
        print(string.format("%.14g %5.2f %q", math.pi, 1/3, "a\nb"), #string.rep("x", 1000), ("hello world"):gsub("o", "0"))
        local co = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i * i) end end) print(co(), co(), co())
        print(pcall(error, "caught")) print(1 << 62, 7 // 2, 7.5 // 2, -7 % 3, 2^53 | 0)"#;
    let expected = "0\t5003\t10006\n3.1415926535898  0.33 \"a\\\nb\"\t1000\thell0 w0rld\t2\n1\t4\t9\nfalse\tcaught\n\
        4611686018427387904\t3\t3.0\t2\t9007199254740992\n";
    let said = printed(program("usr/bin/lua5.4").args(["-e", lua]), b"");
    let said = String::from_utf8(said).unwrap();
    assert_eq!(said, expected);
    let bc = printed(program("usr/bin/bc").args(["-l"]), b"scale=60; 4*a(1)\n2^200\n");
    let bc = String::from_utf8(bc).unwrap();
    assert!(bc.starts_with("3.14159265358979323846264338327950288419716939937510582097494"), "{bc}");
    assert!(bc.contains("1606938044258990275541962092341162602522202993782792835301376"), "{bc}");
}

#[test]
fn guest_program_sqlite() {
    let root = tempfile::tempdir().unwrap();
    let sql = "PRAGMA journal_mode=WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c REAL); \
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) \
        INSERT INTO t SELECT i, printf('%x', i * i), i / 7.0 FROM n; CREATE INDEX x ON t(b); \
        SELECT count(*), sum(a), max(b), round(sum(c), 6) FROM t; SELECT a FROM t WHERE b = '1e8480'; PRAGMA integrity_check;";
    let said = printed(program("usr/bin/sqlite3").arg(root.path().join("db")).arg(sql), b"");
    assert_eq!(String::from_utf8(said).unwrap(), "wal\n5000|12502500|ffe001|1786071.428571\nok\n");
}

#[test]
fn guest_program_busybox() {
    let said = printed(
        program("usr/bin/busybox").args([
            "sh",
            "-c",
            "echo $((6 * 7)); busybox seq 3 | busybox tac; busybox printf '%05d\\n' 42",
        ]),
        b"",
    );
    assert_eq!(String::from_utf8(said).unwrap(), "42\n3\n2\n1\n00042\n");
    let text = text();
    let sum = printed(program("usr/bin/busybox").arg("sha256sum"), &text);
    assert_eq!(sum, printed(&mut Command::new("sha256sum"), &text));
}

/// Python's own tests of some modules.
#[test]
fn guest_program_python_passes_its_own_tests() {
    let modules = ["test_json", "test_struct", "test_bisect", "test_heapq", "test_string"];
    let output = output(program("usr/bin/python3").args(["-B", "-m", "test", "--timeout", "600"]).args(modules), b"");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{}", &said[said.len().saturating_sub(4000)..], complaint);
}

#[test]
fn guest_program_gcc_compiles_the_suite() {
    let root = tempfile::tempdir().unwrap();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/riscv");
    for name in ["core", "sha256", "qsort", "hello"] {
        let (source, made) = (sources.join(format!("{name}.c")), root.path().join(name));
        let flags = ["-std=gnu11", "-O2", "-Wall"];
        printed(program("usr/bin/gcc").args(flags).arg("-o").arg(&made).arg(&source), b"");
        let mut run = isomorph();
        let said = printed(run.arg("run").arg(&made), b"");
        let native = root.path().join(format!("{name}-native"));
        printed(Command::new("gcc").args(flags).arg("-o").arg(&native).arg(&source), b"");
        assert_eq!(said, printed(&mut Command::new(&native), b""), "{name}");
    }
}

/// A program in Go: a runtime with threads, signals and memory of its own.
#[test]
fn guest_program_in_go_keeps_a_backup() {
    let root = tempfile::tempdir().unwrap();
    let folder = folder(root.path());
    let restic = |arguments: &[&str]| {
        let mut command = program("usr/bin/restic");
        command.env("RESTIC_PASSWORD", "secret").env("HOME", root.path());
        printed(command.args(["--no-cache", "-r"]).arg(root.path().join("store")).args(arguments), b"")
    };
    restic(&["init"]);
    restic(&["backup", folder.to_str().unwrap()]);
    restic(&["check"]);
    let target = root.path().join("restored");
    restic(&["restore", "latest", "--target", target.to_str().unwrap()]);
    same_folders(&folder, &target.join(folder.strip_prefix("/").unwrap()));
}

/// With flags of permissions, a program has its own files and those named, and nothing else; without, it may do what the user may.
#[test]
fn guest_program_confined() {
    let place = tempfile::tempdir().unwrap();
    let (open, other) = (place.path().join("open"), place.path().join("other"));
    for folder in [&open, &other] {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("text"), "told").unwrap();
    }
    pull_sysroot();
    let confined = |flags: &[String], path: &str, arguments: &[&str]| {
        let mut command = isomorph();
        command.arg("run").args(flags).arg(home().join("sysroot").join(path)).args(arguments);
        same_for_all(&mut command);
        let output = output(&mut command, b"");
        let printed = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        (output.status.success(), printed)
    };
    let flag = |name: &str, path: &Path| format!("--allow-{name}={}", path.display());
    let read = || flag("read", &open);
    let [inside, outside] = [&open, &other].map(|folder| folder.join("text").display().to_string());

    assert_eq!(confined(&[read()], "usr/bin/cat", &[&inside]), (true, "told".into()));
    let (succeeded, printed) = confined(&[read()], "usr/bin/cat", &[&outside]);
    assert!(!succeeded && printed.contains("Permission denied"), "{printed}");
    assert_eq!(confined(&[], "usr/bin/cat", &[&outside]), (true, "told".into()));
    assert_eq!(confined(&["--allow-all".into()], "usr/bin/cat", &[&outside]), (true, "told".into()));

    let (succeeded, printed) = confined(&[read()], "usr/bin/rm", &["-f", &inside]);
    assert!(!succeeded && open.join("text").exists(), "{printed}");
    let (succeeded, printed) = confined(&[flag("write", &open)], "usr/bin/cp", &[&inside, &format!("{inside}2")]);
    assert!(succeeded && std::fs::read(open.join("text2")).unwrap() == b"told", "{printed}");

    // Variables that are not named are not there.
    assert_eq!(confined(&["--allow-env=TZ".into()], "usr/bin/env", &[]), (true, "TZ=UTC\n".into()));
    let both = ["--allow-env=TZ".into(), "--env".into(), "A=1".into()];
    assert_eq!(confined(&both, "usr/bin/env", &[]), (true, "TZ=UTC\nA=1\n".into()));

    // What it starts is confined as it is.
    let sysroot = home().join("sysroot");
    let list = format!("{0} {inside} && {0} {outside}", sysroot.join("usr/bin/cat").display());
    let (succeeded, printed) = confined(&[read()], "usr/bin/bash", &["-c", &list]);
    assert!(!succeeded && !printed.contains("told"), "{printed}");
    let (succeeded, printed) = confined(&[read(), "--allow-run".into()], "usr/bin/bash", &["-c", &list]);
    assert!(!succeeded && printed.starts_with("told") && printed.contains("Permission denied"), "{printed}");

    let (succeeded, printed) = confined(&[read()], "usr/bin/perl", &["-MIO::Socket::INET", "-e", PERL]);
    assert!(!succeeded, "{printed}");
    assert_eq!(
        confined(&["--allow-net".into()], "usr/bin/perl", &["-MIO::Socket::INET", "-e", PERL]),
        (true, "out".into())
    );

    for flags in [["--allow-net=127.0.0.1:80"].as_slice(), &["--allow-read=/", "--gdb", "1"], &["--invoke", "f"]] {
        let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let (succeeded, printed) = confined(&flags, "usr/bin/true", &[]);
        assert!(!succeeded && printed.starts_with("isomorph: ") && printed.lines().count() == 1, "{printed}");
    }
}

const PERL: &str = "IO::Socket::INET->new(Proto => 'udp', PeerAddr => '127.0.0.1:9') or die $!; print 'out'";
