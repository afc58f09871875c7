//! Java programs in the sandbox: what they cannot do, how they are told, and what each flag allows; the class library, and how it is found.
//!
//! Needs JDK 17 (`cargo xtask setup`).

use std::fs;
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder with the hostile program compiled into `classes`, and a secret beside.
struct World {
    _folder: tempfile::TempDir,
    root: PathBuf,
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run cargo xtask setup"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn isomorph() -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "120", env!("CARGO_BIN_EXE_isomorph")]);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl World {
    fn new() -> Self {
        // Not below /tmp, which is the folder of temporary files.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let root = folder.path().canonicalize().unwrap();
        let world = Self { root, _folder: folder };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java/Hostile.java");
        succeed(Command::new("javac").args(["-nowarn", "-d"]).arg(world.at("classes")).arg(source));
        fs::write(world.at("secret"), "secret").unwrap();
        for folder in ["readable", "writable"] {
            fs::create_dir(world.at(folder)).unwrap();
            fs::write(world.at(folder).join("file"), "contents").unwrap();
        }
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn output(&self, flags: &[String], ways: &[String]) -> Output {
        let mut command = isomorph();
        command.arg("run").args(flags).arg(self.at("classes/Hostile.class")).args(ways);
        command.env("SECRET", "value").env("OTHER", "else").output().unwrap()
    }

    /// What came of each way.
    fn tries<const N: usize>(&self, flags: &[String], ways: [String; N]) -> [String; N] {
        let output = self.output(flags, &ways);
        let error = text(&output.stderr);
        assert!(output.status.success(), "{error}");
        let out = text(&output.stdout);
        let results: Vec<_> =
            out.lines().map(|line| line.split_once(" -> ").unwrap_or(("", line)).1.to_owned()).collect();
        results.try_into().unwrap_or_else(|results| panic!("{results:?}: {error}"))
    }
}

#[track_caller]
fn refused(result: &str, exception: &str, flag: &str) {
    assert!(result.starts_with(exception) && result.contains(&format!("not allowed; start with {flag}")), "{result}");
}

#[test]
fn files_are_out_of_reach() {
    let world = World::new();
    let secret = world.at("secret").display().to_string();
    let none: &[String] = &[];
    for way in ["read", "random"] {
        for path in [&secret, "/etc/passwd", "/proc/self/environ", "/proc/1/cmdline", "/proc/self/mem", "/dev/kmsg"] {
            let [result] = world.tries(none, [format!("{way}={path}")]);
            refused(&result, "FileNotFoundException: ", "--allow-read=");
            assert!(result.contains(path), "{result}");
        }
    }
    let ways = ["nio", "map", "attributes", "stream"].map(|way| format!("{way}={secret}"));
    for result in world.tries(none, ways) {
        refused(&result, "AccessDeniedException: ", &format!("--allow-read={secret}"));
    }
    let quiet = world.tries(none, ["exists", "list", "mode"].map(|way| format!("{way}=/etc")));
    assert_eq!(quiet, ["false", "false", "false"]);
    let ways = ["write", "append", "make", "delete", "move", "link", "hard", "copy"];
    for result in world.tries(none, ways.map(|way| format!("{way}={secret}"))) {
        assert!(result.contains("is not allowed; start with --allow-"), "{result}");
    }
    assert_eq!(fs::read_to_string(world.at("secret")).unwrap(), "secret");
    let [result] = world.tries(none, ["temp".into()]);
    refused(&result, "AccessDeniedException: ", "--allow-write=/tmp");
    // What it has: itself, classes beside it, the zone, randomness, a heap of the size that is said, certificates.
    let own = world.tries(
        &["--memory".into(), "300M".into()],
        ["own", "beside=Hostile", "zone", "secure", "heap", "certificates", "memory"].map(str::to_owned),
    );
    assert!(own[1].starts_with("Hostile@"), "{}", own[1]);
    assert_eq!([&own[0], &own[2], &own[3], &own[5], &own[6]], ["true", "true", "true", "true", "42"]);
    assert!((200..=300).contains(&own[4].parse::<u32>().unwrap()), "{}", own[4]);
}

#[test]
fn folders_that_are_allowed_are_no_way_out() {
    let world = World::new();
    let (readable, writable) = (world.at("readable"), world.at("writable"));
    symlink(world.at("secret"), readable.join("link")).unwrap();
    symlink(&world.root, writable.join("up")).unwrap();
    let flags = [format!("--allow-read={}", readable.display()), format!("--allow-write={}", writable.display())];
    let readable = readable.display();
    let writable = writable.display();
    let [read, list, size] = world.tries(
        &flags,
        ["nio", "stream", "attributes"].map(|way| match way {
            "stream" => format!("stream={readable}"),
            way => format!("{way}={readable}/file"),
        }),
    );
    assert_eq!([&*read, &*list, &*size], ["8", "true", "8"]);
    for way in [
        format!("nio={readable}/link"),
        format!("read={readable}/../secret"),
        format!("nio={writable}/up/secret"),
        format!("link={writable}/made"),
        format!("hard={writable}/hard"),
        format!("copy={writable}/copy"),
        format!("write={readable}/new"),
        format!("delete={readable}/file"),
        format!("write={writable}/up/new"),
        format!("make={writable}/../folder"),
    ] {
        let [result] = world.tries(&flags, [way.clone()]);
        assert!(result.contains("is not allowed; start with --allow-"), "{way}: {result}");
    }
    let done = world.tries(
        &flags,
        [
            format!("write={writable}/new"),
            format!("make={writable}/folder"),
            format!("append={writable}/file"),
            format!("move={writable}/new"),
            format!("delete={writable}/new.moved"),
        ],
    );
    assert!(done.iter().all(|result| !result.contains("Exception")), "{done:?}");
    assert_eq!(fs::read_to_string(world.at("writable/file")).unwrap(), "contentsx");
    // A file to be made; and what is not there.
    let new = world.at("new").display().to_string();
    assert_eq!(world.tries(&[format!("--allow-write={new}")], [format!("write={new}")]), ["written"]);
    let output = world.output(&[format!("--allow-read={}/nothing", world.root.display())], &[]);
    assert!(!output.status.success() && text(&output.stderr).contains("nothing cannot be given to the program"));
}

#[test]
fn the_network_is_out_of_reach() {
    let world = World::new();
    let none: &[String] = &[];
    let (server, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let [connect, channel, listen, send, name, local] = world.tries(
        none,
        [
            format!("connect={address}"),
            format!("channel={address}"),
            "listen=0".into(),
            format!("send={}", datagrams.local_addr().unwrap()),
            "name=example.org".into(),
            "local=/run/systemd/journal/stdout".into(),
        ],
    );
    for result in [connect, channel, listen, send] {
        refused(&result, "SocketException: ", "--allow-net=");
    }
    refused(&name, "UnknownHostException: ", "--allow-net=example.org");
    refused(&local, "SocketException: ", "--allow-all");
    // One port of one host.
    let flags = [format!("--allow-net={address}")];
    let [yes, channel, no, listen] = world.tries(
        &flags,
        [
            format!("connect={address}"),
            format!("channel={address}"),
            format!("connect={}", other.local_addr().unwrap()),
            "listen=0".into(),
        ],
    );
    assert_eq!([&*yes, &*channel, &*listen], ["true", "true", "true"]);
    refused(&no, "SocketException: ", &format!("--allow-net={}", other.local_addr().unwrap()));
    // By name.
    let by_name = format!("localhost:{}", address.port());
    let [yes, no] = world.tries(
        &[format!("--allow-net={by_name}")],
        [format!("connect={by_name}"), format!("connect=localhost:{}", other.local_addr().unwrap().port())],
    );
    assert_eq!(yes, "true");
    refused(&no, "SocketException: ", "--allow-net=");
    // All of it.
    let [yes, send, local] = world.tries(
        &["--allow-net".into()],
        [
            format!("connect={}", other.local_addr().unwrap()),
            format!("send={}", datagrams.local_addr().unwrap()),
            "local=/run/systemd/journal/stdout".into(),
        ],
    );
    assert_eq!([&*yes, &*send], ["true", "sent"]);
    refused(&local, "SocketException: ", "--allow-all");
}

#[test]
fn programs_and_variables_are_out_of_reach() {
    let world = World::new();
    let none: &[String] = &[];
    let mut victim = Command::new("sleep").arg("1000").spawn().unwrap();
    let [run, exec, kill, others, variable] = world.tries(
        none,
        [
            "run=id".into(),
            "exec=/bin/sh".into(),
            format!("kill={}", victim.id()),
            "processes".into(),
            "env=SECRET".into(),
        ],
    );
    refused(&run, "IOException: Cannot run program \"id\": starting id", "--allow-run");
    refused(&exec, "IOException: Cannot run program \"/bin/sh\": starting /bin/sh", "--allow-run");
    assert_eq!([&*kill, &*others, &*variable], ["false", "false", "null false"]);
    assert!(victim.try_wait().unwrap().is_none(), "it lives");
    victim.kill().unwrap();
    victim.wait().unwrap();

    let [status, output, secret] = world.tries(
        &["--allow-run".into(), "--allow-env=OTHER".into()],
        ["run=true".into(), "output=env".into(), format!("output=cat {}", world.at("secret").display())],
    );
    assert_eq!(status, "0");
    assert!(output.contains("OTHER=else") && !output.contains("SECRET"), "{output}");
    assert_eq!(secret, "", "what is started may do no more");
    let all = world.tries(&["--allow-env".into()], ["env=SECRET".into(), "env=OTHER".into()]);
    assert_eq!(all, ["value true", "else true"]);
    let given = world.tries(&["--env".into(), "SECRET=told".into()], ["env=SECRET".into(), "env=OTHER".into()]);
    assert_eq!(given, ["told true", "null false"]);
}

/// The kernel holds the process, too.
#[test]
fn the_fence_is_up() {
    let world = World::new();
    let source = "class Wait { public static void main(String[] a) throws Exception {
        System.out.println(1); System.in.read(); } }";
    fs::write(world.at("Wait.java"), source).unwrap();
    succeed(Command::new("javac").arg("-d").arg(world.at("classes")).arg(world.at("Wait.java")));
    for (flag, up) in [("--memory=100M", true), ("--allow-all", false)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isomorph"));
        command.args(["run", flag]).arg(world.at("classes/Wait.class"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 2];
        child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        // Closing its input ends it.
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        assert_eq!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), up, "{status}");
    }
}

#[test]
fn native_code_and_internals_are_out_of_reach() {
    let world = World::new();
    let source = world.at("library.c");
    fs::write(&source, "int nothing;").unwrap();
    let library = world.at("liblibrary.so");
    succeed(Command::new("gcc").args(["-shared", "-o"]).arg(&library).arg(&source));
    let way = format!("load={}", library.display());
    let flags = [format!("--allow-read={}", world.root.display())];
    let [load, reflect, dispatcher] =
        world.tries(&flags, [way.clone(), "reflect".into(), "dispatcher=/etc/passwd".into()]);
    refused(&load, "UnsatisfiedLinkError: ", "--allow-all");
    assert!(reflect.starts_with("InaccessibleObjectException: "), "{reflect}");
    assert!(dispatcher.starts_with("InaccessibleObjectException: "), "{dispatcher}");
    let secret = format!("nio={}", world.at("secret").display());
    assert_eq!(world.tries(&["--allow-all".into()], [way, secret, "run=true".into()]), ["loaded", "6", "0"]);
}

/// What draws is in the JDK's own libraries, which only a trusted program gets; pictures as such are Java.
#[test]
fn pictures_are_drawn_by_native_code() {
    let world = World::new();
    let source = "import java.awt.image.BufferedImage;
        public class Picture {
            public static void main(String[] args) {
                BufferedImage image = new BufferedImage(9, 9, BufferedImage.TYPE_INT_RGB);
                image.setRGB(4, 4, 0x123456);
                System.out.println(Integer.toHexString(image.getRGB(4, 4)) + new java.awt.Rectangle(1, 2).getSize());
                image.createGraphics().fillOval(0, 0, 9, 9);
                System.out.println(Integer.toHexString(image.getRGB(4, 4)));
            }
        }";
    fs::write(world.at("Picture.java"), source).unwrap();
    succeed(Command::new("javac").arg("-d").arg(&world.root).arg(world.at("Picture.java")));
    let run = |flags: &[&str]| isomorph().arg("run").args(flags).arg(world.at("Picture.class")).output().unwrap();
    let (refused, allowed) = (run(&[]), run(&["--allow-all"]));
    let pure = "ff123456java.awt.Dimension[width=1,height=2]\n";
    assert_eq!((text(&refused.stdout).as_str(), refused.status.code()), (pure, Some(1)), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("is not allowed; start with --allow-all"), "{}", text(&refused.stderr));
    assert_eq!(text(&allowed.stdout), format!("{pure}ffffffff\n"), "{}", text(&allowed.stderr));
}

/// An agent could give the class library other code, which nobody verifies.
#[test]
fn agents_are_out_of_reach() {
    let world = World::new();
    let source = "public class Agent {
        public static void agentmain(String options, java.lang.instrument.Instrumentation tool) { System.out.println(\"agent\"); }
        public static void main(String[] args) throws Exception {
            var field = sun.misc.Unsafe.class.getDeclaredField(\"theUnsafe\");
            field.setAccessible(true);
            var memory = (sun.misc.Unsafe) field.get(null);
            var kind = Class.forName(\"sun.instrument.InstrumentationImpl\", false, null);
            var tool = (java.lang.instrument.Instrumentation) memory.allocateInstance(kind);
            for (int at = 8; at < 40; at++) { memory.putByte(tool, at, (byte) (at < 12 ? memory.getByte(tool, at) : 1)); }
            var file = Integer.class.getResourceAsStream(\"/java/lang/Integer.class\").readAllBytes();
            try {
                tool.redefineClasses(new java.lang.instrument.ClassDefinition(Integer.class, file));
                System.out.println(\"redefined\");
            } catch (SecurityException error) {
                System.out.println(error.getMessage());
            }
        }
    }";
    fs::write(world.at("Agent.java"), source).unwrap();
    succeed(Command::new("javac").args(["-nowarn", "-d"]).arg(world.at("agent")).arg(world.at("Agent.java")));
    fs::write(world.at("manifest"), "Main-Class: Agent\nLauncher-Agent-Class: Agent\n").unwrap();
    let mut jar = Command::new("jar");
    succeed(jar.args(["cfm", "agent.jar", "manifest", "-C", "agent", "."]).current_dir(&world.root));
    let refusal = "an agent, which changes classes, is not allowed; start with --allow-all";
    let output = isomorph().arg("run").arg(world.at("agent.jar")).output().unwrap();
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("", Some(1)));
    assert!(text(&output.stderr).starts_with(&format!("Error: {refusal}\n")), "{}", text(&output.stderr));
    // Nor without the launcher.
    let output = isomorph().arg("run").arg(world.at("agent/Agent.class")).output().unwrap();
    assert_eq!(text(&output.stdout), format!("{refusal}\n"), "{}", text(&output.stderr));
    let output = isomorph().args(["run", "--allow-all"]).arg(world.at("agent.jar")).output().unwrap();
    assert!(text(&output.stdout).starts_with("agent\n"), "{}", text(&output.stderr));
}

#[test]
fn jars_and_sources() {
    let world = World::new();
    let jar = |manifest: &str, to: &str, files: &[&str]| {
        fs::write(world.at("manifest"), manifest).unwrap();
        let mut jar = Command::new("jar");
        jar.arg("cfm").arg(world.at(to)).arg(world.at("manifest"));
        for file in files {
            jar.arg("-C").arg(world.at("classes")).arg(file);
        }
        succeed(&mut jar);
    };
    fs::create_dir_all(world.at("app/lib")).unwrap();
    fs::write(
        world.at("Main.java"),
        "public class Main { public static void main(String[] a) throws Exception {
        System.out.println(new Part().text() + \" \" + String.join(\",\", a)); new Outside(); } }
        class Part { String text() { return \"part\"; } } class Outside { }",
    )
    .unwrap();
    succeed(Command::new("javac").arg("-d").arg(world.at("classes")).arg(world.at("Main.java")));
    jar("", "app/lib/a part.jar", &["Part.class"]);
    jar("", "outside.jar", &["Outside.class"]);
    jar(
        "Main-Class: Main\nClass-Path: lib/a%20part.jar ../outside.jar lib/missing.jar\n",
        "app/main.jar",
        &["Main.class"],
    );
    // The jar in its folder is the program's; that outside of it is not.
    let output = isomorph().arg("run").arg(world.at("app/main.jar")).args(["-x", "--allow-all"]).output().unwrap();
    assert_eq!(text(&output.stdout), "part -x,--allow-all\n", "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("java.lang.NoClassDefFoundError: Outside"), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(1));
    let allowed =
        isomorph().arg("run").arg("--allow-read=outside.jar").arg("app/main.jar").current_dir(&world.root).output();
    let allowed = allowed.unwrap();
    assert!(allowed.status.success(), "{}", text(&allowed.stderr));
    // A source file, and the status of a program.
    fs::write(world.at("Status.java"), "class Status { public static void main(String[] a) { System.exit(7); } }")
        .unwrap();
    assert_eq!(isomorph().arg("run").arg(world.at("Status.java")).output().unwrap().status.code(), Some(7));
    // What is no program.
    fs::write(world.at("empty.jar"), "").unwrap();
    jar("", "nowhere.jar", &["Part.class"]);
    fs::create_dir(world.at("elsewhere")).unwrap();
    fs::copy(world.at("classes/Main.class"), world.at("elsewhere/Other.class")).unwrap();
    for (file, says) in [
        ("empty.jar", "is no jar"),
        ("missing.jar", "No such file"),
        ("nowhere.jar", "no main manifest attribute"),
        ("elsewhere/Other.class", "holds the class Main"),
    ] {
        let output = isomorph().arg("run").arg(world.at(file)).output().unwrap();
        let error = text(&output.stderr);
        assert!(error.contains(says) && error.lines().count() == 1 && output.status.code() == Some(1), "{error}");
    }
}

#[test]
fn the_class_library_is_found_or_told_how_to_get() {
    let folder = tempfile::tempdir().unwrap();
    let fake = folder.path().join("jdk21");
    fs::create_dir_all(fake.join("lib")).unwrap();
    fs::write(fake.join("lib/modules"), "").unwrap();
    fs::write(fake.join("release"), "JAVA_VERSION=\"21.0.1\"\n").unwrap();
    let command = |words: &[&str]| {
        let mut command = isomorph();
        command
            .args(words)
            .env_remove("JAVA_HOME")
            .env_remove("ISOMORPH_JAVA_HOME")
            .env("ISOMORPH_HOME", folder.path());
        command
    };
    let output = command(&["java", "--java-home", &fake.display().to_string(), "-version"]).output().unwrap();
    assert!(text(&output.stderr).contains("is not the folder of a JDK 17"), "{}", text(&output.stderr));
    let output = command(&["java", "-version"]).env("ISOMORPH_JAVA_HOME", &fake).output().unwrap();
    assert!(text(&output.stderr).contains("is not the folder of a JDK 17"), "{}", text(&output.stderr));
    // Everybody's variable may name another version.
    let output = command(&["java", "-version"]).env("JAVA_HOME", &fake).output().unwrap();
    assert!(output.status.success() && text(&output.stderr).contains("\"17."), "{}", text(&output.stderr));
}

#[test]
fn a_class_library_is_pulled_listed_used_and_removed() {
    let world = World::new();
    // Downloaded packages are kept for the next run.
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("java-library");
    let command = |words: &[&str]| {
        let output = isomorph().args(words).env("ISOMORPH_HOME", &home).output().unwrap();
        (text(&output.stdout), text(&output.stderr), output.status.success())
    };
    let (_, error, done) = command(&["image", "pull", "java"]);
    assert!(done, "{error}");
    let (list, error, _) = command(&["image", "ls"]);
    assert!(list.lines().any(|line| line.starts_with("java ") && line.contains("JDK 17")), "{list}{error}");
    let library = format!("--java-home={}", home.join("java").display());
    let own = world.tries(&[library], ["certificates", "zone", "secure"].map(str::to_owned));
    assert_eq!(own, ["true", "true", "true"]);
    let (_, error, done) = command(&["image", "rm", "java"]);
    assert!(done && !home.join("java").exists(), "{error}");
}
