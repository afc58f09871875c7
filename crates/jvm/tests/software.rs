//! Programs that others wrote, as Debian packages them: what they print, their status and the files that they write are those of `java`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const JARS: &str = "/usr/share/java";
/// Collect every so often, and look through the heap each time.
const STRESS: [&str; 2] = ["-XX:CollectEveryAllocations=10000", "-XX:+VerifyHeap"];

/// The example, which Cargo builds beside the tests.
fn isomorph() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(2).unwrap().join("examples/java")
}

/// What a program did: standard output, errors, status, files.
#[derive(PartialEq, Eq)]
struct Done {
    output: String,
    errors: String,
    status: Option<i32>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

/// A program, its files and its input.
#[derive(Default)]
struct Program<'a> {
    jars: &'a [&'a str],
    arguments: &'a [&'a str],
    files: &'a [(&'a str, &'a str)],
    input: &'a str,
    /// Classes of ours, from `tests/java`.
    source: Option<&'a str>,
}

impl Program<'_> {
    fn class_path(&self) -> String {
        let jars = self.jars.iter().map(|jar| format!("{JARS}/{jar}.jar"));
        jars.chain(["classes".into(), ".".into()]).collect::<Vec<_>>().join(":")
    }

    fn run(&self, java: &Path, options: &[&str]) -> Done {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in self.files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        if let Some(source) = self.source {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java").join(source);
            let mut compiler = Command::new("javac");
            compiler.args(["-d", "classes", "-cp", &self.class_path()]).arg(source).current_dir(folder.path());
            let status = compiler.status().expect("run cargo xtask setup");
            assert!(status.success());
        }
        fs::write(folder.path().join("input"), self.input).unwrap();
        let output = Command::new(java)
            .args(options)
            .args(["-cp", &self.class_path()])
            .args(self.arguments)
            .current_dir(folder.path())
            .stdin(Stdio::from(fs::File::open(folder.path().join("input")).unwrap()))
            .output()
            .expect("JDK 17 is installed, and the example is built with the tests; run cargo xtask setup");
        let mut files = BTreeMap::new();
        read_files(folder.path(), folder.path(), &mut files);
        let here = folder.path().to_string_lossy().into_owned();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&here, "here");
        let (output, errors, status) = (text(&output.stdout), text(&output.stderr), output.status.code());
        Done { output, errors, status, files }
    }

    /// Runs it on both, and returns what it printed.
    fn same(&self, options: &[&str]) -> String {
        let expected = self.run(Path::new("java"), &[]);
        assert!(!expected.errors.contains("Could not find or load"), "{}; run cargo xtask setup", expected.errors);
        let done = self.run(&isomorph(), options);
        assert_eq!(done.errors, expected.errors);
        assert_eq!(done.output, expected.output);
        assert_eq!(done.status, expected.status);
        let names = |done: &Done| done.files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&done), names(&expected));
        let differ: Vec<_> = done.files.iter().filter(|(name, bytes)| expected.files[*name] != **bytes).collect();
        assert!(differ.is_empty(), "other contents: {:?}", differ.iter().map(|(name, _)| name).collect::<Vec<_>>());
        done.output
    }
}

fn read_files(root: &Path, folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_files(root, &path, files);
        } else {
            files.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
        }
    }
}

#[test]
fn modules_of_the_class_library() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("keys.p12");
    let keys = Command::new("keytool")
        .args(["-genkeypair", "-keyalg", "RSA", "-alias", "a", "-dname", "CN=localhost", "-ext", "san=dns:localhost"])
        .args(["-storetype", "PKCS12", "-storepass", "secret", "-keystore"])
        .arg(&store)
        .output()
        .expect("JDK 17 is installed; run cargo xtask setup");
    assert!(keys.status.success(), "{}", String::from_utf8_lossy(&keys.stdout));
    let home = format!("-Djava.util.prefs.userRoot={}", folder.path().display());
    let arguments = ["-Djava.awt.headless=true", &home, "Modules", store.to_str().unwrap()];
    let program = Program { arguments: &arguments, source: Some("Modules.java"), ..Program::default() };
    let output = program.run(Path::new("java"), &[]).output;
    assert!(!output.contains(" threw "), "{output}");
    assert_eq!(program.run(&isomorph(), &[]).output, output);
}

#[test]
fn beanshell_calls_by_reflection() {
    let script = "sum(a, b) { return a + b; }\nfor (i = 0; i < 5; i++) print(sum(i, i * i));\n\
        x = new java.util.HashMap(); x.put(\"a\", 1); print(x);\n\
        try { throw new RuntimeException(\"oops\"); } catch (e) { print(e); }\n";
    let program = Program {
        jars: &["bsh"],
        arguments: &["bsh.Interpreter", "a.bsh"],
        files: &[("a.bsh", script)],
        ..Program::default()
    };
    assert!(program.same(&[]).contains("{a=1}"));
    program.same(&STRESS);
}

#[test]
fn rhino_compiles_javascript_to_classes() {
    let script = "function fib(n) { return n < 2 ? n : fib(n - 1) + fib(n - 2) } print(fib(15));\n\
        print(JSON.stringify({ a: [1, 2, 3] })); print('abc'.replace(/b/, 'X'));\n\
        var m = new java.util.TreeMap(); m.put('x', 1); print(m);\n\
        try { null.foo } catch (e) { print(e) }\nthrow new Error('end');\n";
    let main = "org.mozilla.javascript.tools.shell.Main";
    let files = [("a.js", script)];
    for arguments in [&[main, "a.js"][..], &[main, "-opt", "-1", "a.js"]] {
        let program = Program { jars: &["rhino"], arguments, files: &files, ..Program::default() };
        assert!(program.same(&[]).starts_with("610\n"));
        program.same(&STRESS);
    }
}

#[test]
fn clojure_evaluates_and_reads_in_turn() {
    let jars = ["clojure", "core.specs.alpha", "spec.alpha"];
    let expression = "(println (reduce + (range 1000)) (map inc [1 2 3]))";
    let arguments = ["clojure.main", "-e", expression];
    let program = Program { jars: &jars, arguments: &arguments, ..Program::default() };
    assert_eq!(program.same(&[]), "499500 (2 3 4)\n");
    program.same(&STRESS);
    let input = "(+ 1 2)\n(defn f [x] (* x x))\n(map f (range 10))\n(/ 1 0)\n(require '[clojure.string :as s])\n\
        (s/upper-case \"abc\")\n(def a (atom 0))\n@(future (dotimes [i 100] (swap! a inc)) @a)\n(System/exit 3)\n";
    let program = Program { jars: &jars, arguments: &["clojure.main"], input, ..Program::default() };
    assert!(program.same(&[]).contains("\"ABC\""));
}

#[test]
fn antlr_makes_a_parser() {
    let grammar = "grammar Sum; all: (sum NEWLINE)*; sum: sum ('*'|'/') sum | sum ('+'|'-') sum | INT | '(' sum ')';\n\
        NEWLINE: [\\r\\n]+; INT: [0-9]+; WS: [ \\t]+ -> skip;\n";
    let jars = ["stringtemplate4", "antlr4", "antlr4-runtime", "antlr3-runtime", "treelayout"];
    let program = Program {
        jars: &jars,
        arguments: &["org.antlr.v4.Tool", "-o", "made", "Sum.g4"],
        files: &[("Sum.g4", grammar)],
        ..Program::default()
    };
    program.same(&[]);
    program.same(&STRESS);
}

#[test]
fn junit_tells_of_a_failure() {
    let program = Program {
        jars: &["junit4", "hamcrest-core"],
        arguments: &["Failing"],
        source: Some("Failing.java"),
        ..Program::default()
    };
    assert!(program.same(&[]).contains("four expected:<4> but was:<5>"));
    program.same(&STRESS);
}

#[test]
fn sat4j_solves() {
    let problem = "p cnf 5 4\n1 -5 4 0\n-1 5 3 4 0\n-3 -4 0\n2 3 0\n";
    let program = Program {
        jars: &["org.sat4j.core"],
        arguments: &["org.sat4j.BasicLauncher", "a.cnf"],
        files: &[("a.cnf", problem)],
        ..Program::default()
    };
    // Other lines tell of the virtual machine and of time.
    let answers = |done: Done| -> Vec<String> {
        done.output.lines().filter(|line| line.starts_with(['s', 'v'])).map(str::to_owned).collect()
    };
    let ours = answers(program.run(&isomorph(), &STRESS));
    assert_eq!(ours, answers(program.run(Path::new("java"), &[])));
    assert_eq!(ours[0], "s SATISFIABLE");
}

#[test]
fn jetty_serves_500_requests() {
    let program = Program {
        jars: &["jetty9-server", "jetty9-util", "jetty9-http", "jetty9-io", "servlet-api"],
        arguments: &["-Dorg.eclipse.jetty.util.log.class=org.eclipse.jetty.util.log.JavaUtilLog", "Served"],
        source: Some("Served.java"),
        ..Program::default()
    };
    // What it logs has times in it.
    let (ours, theirs) = (program.run(&isomorph(), &[]), program.run(Path::new("java"), &[]));
    assert_eq!(ours.output, theirs.output, "{}", ours.errors);
    let stressed = program.run(&isomorph(), &STRESS);
    assert_eq!(stressed.output, theirs.output, "{}", stressed.errors);
    assert_eq!(ours.output.lines().filter(|line| line.starts_with("200 ")).count(), 500);
    assert_eq!(ours.status, theirs.status);
}

/// A class that uses much of the language, and others of its kind.
fn class(number: usize) -> String {
    let next = (number + 1) % 100;
    format!(
        "package p;\nimport java.util.*;\nimport java.util.function.*;\nimport java.util.stream.*;\n\
        public class C{number}<T extends Comparable<T>> implements Comparable<C{number}<T>> {{\n\
          enum Kind {{ A, B; Kind next() {{ return values()[(ordinal() + 1) % 2]; }} }}\n\
          record Point(int x, long y) {{ Point {{ if (x < 0) throw new IllegalArgumentException(\"x\" + x); }} }}\n\
          sealed interface Shape permits Circle, Square {{ }}\n\
          static final class Circle implements Shape {{ double r = {number}.5; }}\n\
          static final class Square implements Shape {{ int s = {number}; }}\n\
          private final List<T> items = new ArrayList<>();\n  private int count = {};\n\
          @Override public int compareTo(C{number}<T> other) {{ return Integer.compare(count, other.count); }}\n\
          double area(Shape s) {{ if (s instanceof Circle c) return c.r * c.r; return s instanceof Square q ? q.s : 0; }}\n\
          int pick(String key) {{ return switch (key) {{ case \"one\", \"two\" -> {number}; default -> -1; }}; }}\n\
          Map<Kind, List<T>> group(Function<? super T, Kind> by) {{ return items.stream().collect(Collectors.groupingBy(by)); }}\n\
          Supplier<Runnable> nested(int n) {{ return () -> () -> {{ count += n; new C{next}<String>().pick(\"one\"); }}; }}\n\
          int tries(int n) {{ try {{ return 1 / n; }} catch (ArithmeticException | NullPointerException e) {{ return count++; }}\n\
            finally {{ synchronized (this) {{ count <<= 2; }} }} }}\n}}\n",
        number * 7919
    )
}

#[test]
fn javac_compiles_100_files_to_the_same_bytes() {
    let names: Vec<String> = (0..100).map(|number| format!("p/C{number}.java")).collect();
    let texts: Vec<String> = (0..100).map(class).collect();
    let files: Vec<(&str, &str)> =
        names.iter().zip(&texts).map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let mut arguments = vec!["--add-modules", "jdk.compiler", "com.sun.tools.javac.Main", "-Xlint:all", "-d", "made"];
    arguments.extend(names.iter().map(String::as_str));
    let program = Program { arguments: &arguments, files: &files, ..Program::default() };
    program.same(&[]);
    // Fewer files, which need others.
    let arguments = &arguments[..arguments.len() - 95];
    let program = Program { arguments, files: &files, ..Program::default() };
    program.same(&["-XX:CollectEveryAllocations=50000", "-XX:+VerifyHeap"]);
}

#[test]
fn ecj_compiles() {
    let text = "public class Hello { public static void main(String[] a) { int unused; for (String s : a) System.out.println(s); } }\n";
    let program = Program {
        jars: &["eclipse-jdt-core"],
        arguments: &["org.eclipse.jdt.internal.compiler.batch.Main", "-proc:none", "-11", "-d", "made", "Hello.java"],
        files: &[("Hello.java", text)],
        ..Program::default()
    };
    program.same(&[]);
    program.same(&STRESS);
}
