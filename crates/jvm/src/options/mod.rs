//! The options of the `java` command.

mod flags;
mod words;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use crate::agent::Agent;
use crate::bootstrap::Options;
use crate::library::{self, NoLibrary};
use crate::log;
use crate::services::Policy;

use words::Words;

/// Where the main class is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A class of the class path.
    Class = 1,
    /// The manifest of a jar names it.
    Jar = 2,
    /// A module.
    Module = 3,
    /// A source file.
    Source = 4,
}

/// What a command line of `java` asks for.
#[derive(Debug)]
pub enum Request {
    /// Run a program.
    Run {
        /// How the virtual machine is started.
        options: Box<Options>,
        /// What the name is.
        mode: Mode,
        /// The main class, jar, or module.
        name: String,
        /// The program's arguments.
        arguments: Vec<String>,
        /// What else is asked for.
        about: About,
    },
    /// Tell something that the class library knows.
    Tell {
        /// How the virtual machine is started.
        options: Box<Options>,
        /// What to tell.
        what: Tell,
    },
    /// `-Xlog:help`
    LogHelp,
}

/// What is told or left out when a program is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// `-showversion`, or, to standard output, `--show-version`.
    pub version: Option<Stream>,
    /// `-XshowSettings`, as it is written.
    pub settings: Option<String>,
    /// `--show-module-resolution`
    pub resolution: bool,
    /// `--dry-run`: everything but calling `main`.
    pub dry_run: bool,
}

/// Where something is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// What is told instead of running a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tell {
    /// The version.
    Version(Stream, Option<String>),
    /// How the command is used, and why that is told, if something is wrong.
    Usage(Stream, Option<String>),
    /// `-X`, `--help-extra`
    ExtraUsage(Stream),
    /// `--list-modules`
    Modules,
    /// `--describe-module`
    Module(String),
    /// `--validate-modules`
    Validation,
}

/// Why a command line is refused, as `java` says it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// An option that is not known.
    #[error("Unrecognized option: {0}")]
    Unknown(String),
    /// An option without its value.
    #[error("Error: {0} requires {1}")]
    Missing(String, &'static str),
    /// A size that is none: of what, and the option.
    #[error("Invalid {0} size: {1}")]
    Size(&'static str, String),
    /// A stack that is too small; so many KiB is the least.
    #[error("\nThe Java thread stack size specified is too small. Specify at least {0}k")]
    Stack(usize),
    /// A jar that cannot be read.
    #[error("Error: Unable to access jarfile {0}")]
    Jar(String),
    /// A selection of logs that there is not: what is wrong, and the option.
    #[error("Invalid -Xlog option '{1}', see error log for details.")]
    Log(String, String),
    /// A `-XX:` flag that there is not, or that is misused: what is wrong.
    #[error("{}", .0.trim_end())]
    Flag(String),
    /// An argument file that cannot be read.
    #[error("Error: could not open `{0}'")]
    ArgumentFile(String),
    /// The virtual machine would not start.
    #[error("Error occurred during initialization of VM\n{0}")]
    Start(String),
    /// There is no class library.
    #[error(transparent)]
    Library(#[from] NoLibrary),
}

impl OptionError {
    /// Writes it where and as `java` does.
    pub fn print(&self) {
        match self {
            Self::Start(_) => println!("{self}"),
            Self::Flag(what) => {
                eprint!("{what}");
                eprintln!("Error: Could not create the Java Virtual Machine.");
                eprintln!("Error: A fatal exception has occurred. Program will exit.");
            }
            Self::Missing(..) | Self::ArgumentFile(_) | Self::Jar(_) | Self::Library(_) => eprintln!("{self}"),
            Self::Unknown(_) | Self::Size(..) | Self::Stack(_) | Self::Log(..) => {
                match self {
                    Self::Log(reason, _) => println!("[0.000s][error][logging] {reason}"),
                    Self::Stack(_) => println!("{self}"),
                    _ => {}
                }
                if !matches!(self, Self::Stack(_)) {
                    eprintln!("{self}");
                }
                eprintln!("Error: Could not create the Java Virtual Machine.");
                eprintln!("Error: A fatal exception has occurred. Program will exit.");
            }
        }
    }
}

/// Options whose value is the next word, or behind `=` if they begin with `--`; and what the value is.
const VALUED: &[(&str, &str)] = &[
    ("-cp", "class path specification"),
    ("-classpath", "class path specification"),
    ("--class-path", "class path specification"),
    ("--java-home", "a folder"),
    ("-p", "module path specification"),
    ("--module-path", "module path specification"),
    ("--upgrade-module-path", "module path specification"),
    ("--add-modules", "modules to be specified"),
    ("--limit-modules", "modules to be specified"),
    ("--add-exports", "modules to be specified"),
    ("--add-opens", "modules to be specified"),
    ("--add-reads", "modules to be specified"),
    ("--patch-module", "modules to be specified"),
    ("--enable-native-access", "modules to be specified"),
    ("-d", "module name"),
    ("--describe-module", "module name"),
    ("-m", "module name"),
    ("--module", "module name"),
    ("--source", "source version"),
];

/// Those that may be given several times, and the property that the class library reads, which is numbered.
const NUMBERED: &[(&str, &str)] = &[
    ("--add-modules", "addmods"),
    ("--add-exports", "addexports"),
    ("--add-opens", "addopens"),
    ("--add-reads", "addreads"),
    ("--patch-module", "patch"),
    ("--enable-native-access", "enable.native.access"),
];

/// How options begin that are for the virtual machine, and which programs can ask for.
const OF_MACHINE: &[&str] = &[
    "-X",
    "-D",
    "-ea",
    "-da",
    "-esa",
    "-dsa",
    "-enable",
    "-disable",
    "-verbose",
    "-javaagent",
    "--enable-preview",
    "--illegal-access",
];

/// Options with values that are for the command alone.
const LAUNCHER: &[&str] = &["--class-path", "--java-home", "--describe-module", "--module", "--source"];

/// Options that are accepted and change nothing here.
const ACCEPTED: &[&str] = &[
    "-server",
    "-client",
    "-Xmixed",
    "-Xcomp",
    "-Xbatch",
    "-Xfuture",
    "-Xdiag",
    "-Xdebug",
    "-Xnoagent",
    "-Xshare:off",
    "-Xshare:auto",
    "-Xshare:on",
    "-verifyremote",
    "-Xverify:remote",
    "-jre-restrict-search",
    "-no-jre-restrict-search",
    "--enable-preview",
];

/// What is found while options are read.
#[derive(Debug, Default)]
struct Reader {
    options: Options,
    counts: [usize; NUMBERED.len()],
    home: Option<PathBuf>,
    class_path: Option<String>,
    about: About,
    tell: Option<Tell>,
    source: bool,
    log_help: bool,
    flags: flags::Rules,
}

impl Reader {
    fn property(&mut self, name: &str, value: impl Into<String>) {
        self.options.properties.push((name.into(), value.into()));
    }

    /// An option with a value.
    fn valued(&mut self, option: &str, value: String) {
        let known_as = if option == "-p" { "--module-path" } else { option };
        if known_as.starts_with("--") && !LAUNCHER.contains(&known_as) {
            self.options.arguments.push(format!("{known_as}={value}"));
        }
        match option {
            option if NUMBERED.iter().any(|(known, _)| *known == option) => self.numbered(option, value),
            "-cp" | "-classpath" | "--class-path" => self.class_path = Some(value),
            "--java-home" => self.home = Some(value.into()),
            "-p" | "--module-path" => self.property("jdk.module.path", value),
            "--upgrade-module-path" => self.property("jdk.module.upgrade.path", value),
            "--limit-modules" => self.property("jdk.module.limitmods", value),
            "-d" | "--describe-module" => self.tell = Some(Tell::Module(value)),
            "--source" => {
                self.source = true;
                self.property("jdk.internal.javac.source", value);
            }
            _ => {}
        }
    }

    /// An option that may be there several times, to the class library a property with a number.
    fn numbered(&mut self, option: &str, value: String) {
        if let Some(index) = NUMBERED.iter().position(|(known, _)| *known == option) {
            let name = format!("jdk.module.{}.{}", NUMBERED[index].1, self.counts[index]);
            self.counts[index] += 1;
            self.property(&name, value);
        }
    }

    /// An option that is a word of its own.
    fn plain(&mut self, word: &str) -> Result<(), OptionError> {
        if OF_MACHINE.iter().any(|prefix| word.starts_with(prefix)) && !word.starts_with("-XshowSettings") {
            self.options.arguments.push(word.into());
        }
        match word {
            "-version" | "-fullversion" => self.tell = Some(Tell::Version(Stream::Error, self.about.settings.clone())),
            "--version" | "--full-version" => {
                self.tell = Some(Tell::Version(Stream::Output, self.about.settings.clone()));
            }
            "-showversion" => self.about.version = Some(Stream::Error),
            "--show-version" => self.about.version = Some(Stream::Output),
            "--show-module-resolution" => {
                self.about.resolution = true;
                self.property("jdk.module.showModuleResolution", "true");
            }
            "-?" | "-h" | "-help" => self.tell = Some(Tell::Usage(Stream::Error, None)),
            "--help" => self.tell = Some(Tell::Usage(Stream::Output, None)),
            "-X" => self.tell = Some(Tell::ExtraUsage(Stream::Error)),
            "--help-extra" => self.tell = Some(Tell::ExtraUsage(Stream::Output)),
            "--list-modules" => self.tell = Some(Tell::Modules),
            "--validate-modules" => {
                self.property("jdk.module.validation", "true");
                self.tell = Some(Tell::Validation);
            }
            "--dry-run" => self.about.dry_run = true,
            "-esa" | "-enablesystemassertions" => self.options.assertions.system = true,
            "-dsa" | "-disablesystemassertions" => self.options.assertions.system = false,
            "-Xrs" => self.options.reduced_signals = true,
            "-Xlog:help" => self.log_help = true,
            "-verbose:gc" => return self.log("gc", word),
            "-verbose" | "-verbose:class" => return self.log("class+load,class+unload", word),
            "-Xlog" => return self.log("all", word),
            "-noverify" | "-Xverify:none" => hint(word, "is accepted, but classes are verified all the same"),
            "-verify" | "-Xverify" | "-Xverify:all" => self.options.verifies_all = true,
            "-Xcheck:jni" => self.options.check_jni = true,
            "-XX:+PageAlignDirectMemory" => self.property("sun.nio.PageAlignDirectMemory", "true"),
            "-XX:+ExitOnOutOfMemoryError" => self.options.no_memory.exits = true,
            "-XX:+DisplayVMOutputToStderr" => self.options.no_memory.to_errors = true,
            "-XX:-CreateCoredumpOnCrash" => self.options.no_core = true,
            "-Xint" => self.options.keeps_dead_locals = true,
            "-Xnoclassgc" | "-XX:-ClassUnloading" => self.options.keeps_classes = true,
            "-XX:+VerifyHeap" => self.options.heap.verify = true,
            "-XX:-ShowCodeDetailsInExceptionMessages" => self.options.plain_messages = true,
            "-XX:+ShowHiddenFrames" => self.options.hidden_frames = true,
            _ if ACCEPTED.contains(&word) => {}
            _ => return self.joined(word),
        }
        Ok(())
    }

    /// An option whose value is joined to it.
    fn joined(&mut self, word: &str) -> Result<(), OptionError> {
        let value = |prefix: &str| word.strip_prefix(prefix);
        let unknown = || OptionError::Unknown(word.into());
        if let Some(property) = value("-D") {
            let (name, value) = property.split_once('=').unwrap_or((property, ""));
            // That is for the flag alone to say.
            if name != DIRECT_MEMORY {
                self.property(name, value);
            }
        } else if let Some(text) = value("-Xmx").or_else(|| value("-XX:MaxHeapSize=")) {
            self.options.heap.maximum = size(text, "maximum heap", word)?;
        } else if let Some(text) = value("-Xms").or_else(|| value("-XX:InitialHeapSize=")) {
            self.options.heap.initial = size(text, "initial heap", word)?;
        } else if let Some(text) = value("-Xmn").or_else(|| value("-XX:NewSize=")) {
            self.options.heap.young = size(text, "initial young generation", word)?;
        } else if let Some(text) = value("-Xss").or_else(|| value("-XX:ThreadStackSize=")) {
            let unit = if word.starts_with("-Xss") { 1 } else { 1024 };
            self.options.stack_size = size(text, "thread stack", word)?.saturating_mul(unit);
            if (1..STACK_MIN).contains(&self.options.stack_size) {
                return Err(OptionError::Stack(STACK_MIN >> 10));
            }
        } else if let Some(names) = value("-ea").or_else(|| value("-enableassertions")) {
            self.options.assertions.set(names, true).ok_or_else(unknown)?;
        } else if let Some(names) = value("-da").or_else(|| value("-disableassertions")) {
            self.options.assertions.set(names, false).ok_or_else(unknown)?;
        } else if let Some(text) = value("-Xlog:") {
            return self.log(text, word);
        } else if let Some(path) = value("-Xloggc:") {
            return self.log(&format!("gc:file={path}"), word);
        } else if let Some(text) = value("-XX:MaxDirectMemorySize=") {
            self.flags.check(&word[4..])?;
            let bytes = size(text, "maximum direct memory", word);
            let bytes =
                bytes.map_err(|_| OptionError::Flag(format!("Improperly specified VM option '{}'\n", &word[4..])))?;
            self.property(DIRECT_MEMORY, bytes.to_string());
        } else if let Some(command) = value("-XX:OnOutOfMemoryError=") {
            self.options.no_memory.commands.push(command.into());
        } else if let Some(text) = value("-XX:AutoBoxCacheMax=") {
            self.property("java.lang.Integer.IntegerCache.high", text);
        } else if let Some(text) = value("-XX:ActiveProcessorCount=") {
            self.options.processors = text.parse().map_err(|_| unknown())?;
        } else if let Some(text) = value("-XX:CollectEveryAllocations=") {
            self.options.heap.stress = text.parse().map_err(|_| unknown())?;
        } else if let Some(path) = value("-Xbootclasspath/a:") {
            let name = "jdk.boot.class.path.append";
            match self.options.properties.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => *known = format!("{known}:{path}"),
                None => self.property(name, path),
            }
        } else if word.starts_with("-XshowSettings") {
            self.about.settings = Some(word.into());
        } else if let Some(level) = value("--illegal-access=") {
            eprintln!("warning: Ignoring option --illegal-access={level}; support was removed in 17.0");
        } else if let Some(name) = value("-agentlib:").or_else(|| value("-Xrun")) {
            let name = name.split(['=', ':']).next().unwrap_or_default();
            return Err(OptionError::Start(format!(
                "Could not find agent library {name} on the library path, with error: agents are not supported here"
            )));
        } else if let Some(path) = value("-agentpath:") {
            let path = path.split('=').next().unwrap_or_default();
            return Err(OptionError::Start(format!(
                "Could not find agent library {path} in absolute path, with error: agents are not supported here"
            )));
        } else if let Some(text) = value("-javaagent:") {
            let agent = Agent::read(text).map_err(|what| {
                eprintln!("{what}");
                OptionError::Start("agent library failed to init: instrument".into())
            })?;
            self.options.agents.push(agent);
            self.numbered("--add-modules", "java.instrument".into());
        } else if let Some(text) = value("-XX:MaxMetaspaceSize=") {
            self.flags.check(&word[4..])?;
            self.options.metadata_max = size(text, "class metadata", word)?.max(1);
        } else if let Some(text) = value("-XX:SoftRefLRUPolicyMSPerMB=") {
            self.options.heap.soft_ms_per_mb = text
                .parse()
                .map_err(|_| OptionError::Flag(format!("Improperly specified VM option '{}'\n", &word[4..])))?;
        } else if let Some(text) = value("-XX:") {
            self.flags.check(text)?;
            hint(word, "tunes HotSpot and means nothing here");
        } else if self.flags.ignore_unknown && word.starts_with("-X") {
            hint(word, "is not known, and ignored");
        } else if !word.starts_with("-verbose:") && !word.starts_with("-Xverify:") && !word.starts_with("-splash:") {
            return Err(unknown());
        }
        Ok(())
    }

    fn log(&mut self, configuration: &str, word: &str) -> Result<(), OptionError> {
        log::configure(configuration).map_err(|reason| OptionError::Log(reason, word.into()))
    }
}

/// The property by which the class library is told how much memory there may be outside of the heap.
const DIRECT_MEMORY: &str = "sun.nio.MaxDirectMemorySize";

/// The smallest stack of a thread, as HotSpot has it.
const STACK_MIN: usize = 136 << 10;

/// Tells people something that another program, which reads the errors of `java`, does not expect.
fn hint(word: &str, what: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("isomorph: warning: {word} {what}");
    }
}

/// The words of the variables that `java` looks at, in front of those of its command line.
#[must_use]
pub fn with_environment(words: Vec<String>) -> Vec<String> {
    let mut all = Vec::new();
    for (name, note) in [("JAVA_TOOL_OPTIONS", ""), ("JDK_JAVA_OPTIONS", "NOTE: "), ("_JAVA_OPTIONS", "")] {
        if let Ok(text) = std::env::var(name)
            && !text.is_empty()
        {
            eprintln!("{note}Picked up {name}: {text}");
            all.extend(words::split(&text));
        }
    }
    all.extend(words);
    all
}

/// Reads a command line, without the command's name. `pulled` is where Isomorph's own copy of the class library would be.
///
/// # Errors
/// If an option is unknown or misses its value.
pub fn parse(arguments: Vec<String>, pulled: Option<&Path>) -> Result<Request, OptionError> {
    let mut words = Words::new(arguments);
    let mut reader =
        Reader { options: Options { policy: Policy::trusting(), ..Options::default() }, ..Reader::default() };
    reader.options.heap.log = Some(log::tell);
    // Wherever it is, it concerns all options.
    reader.flags.ignore_unknown =
        words.has_option("-XX:+IgnoreUnrecognizedVMOptions", |word| VALUED.iter().any(|(known, _)| *known == word));
    let (mut name, mut mode) = (None, Mode::Class);
    while reader.tell.is_none() && !reader.log_help {
        let Some(word) = words.next_option()? else { break };
        if !word.starts_with('-') {
            name = Some(word);
            break;
        }
        if word == "-jar" {
            mode = Mode::Jar;
            name = words.next();
            break;
        }
        let (option, joined) = match word.split_once('=') {
            Some((option, value)) if word.starts_with("--") => (option, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        let Some((_, what)) = VALUED.iter().find(|(known, _)| *known == option) else {
            reader.plain(&word)?;
            continue;
        };
        let value = joined.filter(|value| !value.is_empty()).or_else(|| words.next());
        let value = value.ok_or_else(|| OptionError::Missing(option.to_owned(), what))?;
        if matches!(option, "-m" | "--module") {
            mode = Mode::Module;
            name = Some(value);
            break;
        }
        reader.valued(option, value);
    }
    if reader.log_help {
        return Ok(Request::LogHelp);
    }
    finish(reader, mode, name, words.rest(), pulled)
}

/// Reads the options that a program in C gives the virtual machine that it starts. `home` is where the class library is expected; if it is not there, it is
/// looked for as usual.
///
/// # Errors
/// If an option is unknown, unless that is to be ignored, or there is no class library.
pub fn for_library(words: Vec<String>, ignores_unknown: bool, home: Option<PathBuf>) -> Result<Options, OptionError> {
    let mut reader =
        Reader { options: Options { policy: Policy::trusting(), ..Options::default() }, ..Reader::default() };
    reader.options.heap.log = Some(log::tell);
    reader.flags.ignore_unknown = ignores_unknown;
    for word in words {
        let read = match word.split_once('=') {
            Some((option, value)) if VALUED.iter().any(|(known, _)| *known == option) => {
                reader.valued(option, value.into());
                Ok(())
            }
            _ => reader.plain(&word),
        };
        match read {
            Err(OptionError::Unknown(_)) if ignores_unknown => {}
            read => read?,
        }
    }
    let home = reader.home.take().or(home.filter(|home| home.join("lib/modules").is_file()));
    reader.options.home = library::find(home, None)?;
    if !reader.options.properties.iter().any(|(name, _)| name == "java.class.path") {
        reader.property("java.class.path", std::env::var("CLASSPATH").unwrap_or_else(|_| ".".into()));
    }
    Ok(reader.options)
}

fn finish(
    mut reader: Reader,
    mut mode: Mode,
    name: Option<String>,
    mut arguments: Vec<String>,
    pulled: Option<&Path>,
) -> Result<Request, OptionError> {
    reader.options.home = library::find(reader.home.take(), pulled)?;
    let mut tell = reader.tell.take();
    if name.is_none() && tell.is_none() {
        let reason = (mode == Mode::Jar).then(|| "Error: -jar requires jar file specification".into());
        tell = Some(Tell::Usage(Stream::Error, Some(reason.unwrap_or_default())));
    }
    let class_path = match &name {
        Some(jar) if mode == Mode::Jar => jar.clone(),
        _ => match reader.class_path.take().or_else(|| std::env::var("CLASSPATH").ok()) {
            Some(path) => expanded(&path),
            None if mode == Mode::Module => String::new(),
            None => ".".into(),
        },
    };
    reader.property("java.class.path", class_path);
    if let Some(what) = tell {
        return Ok(Request::Tell { options: Box::new(reader.options), what });
    }
    let mut name = name.unwrap_or_default();
    if mode == Mode::Jar && std::fs::File::open(&name).is_err() {
        return Err(OptionError::Jar(name));
    }
    if mode == Mode::Class && (reader.source || (name.ends_with(".java") && Path::new(&name).is_file())) {
        // As java does: the compiler's launcher compiles it in memory.
        arguments.insert(0, name);
        name = "jdk.compiler/com.sun.tools.javac.launcher.Main".into();
        mode = Mode::Module;
        reader.valued("--add-modules", "ALL-DEFAULT".into());
    }
    if mode == Mode::Module {
        reader.property("jdk.module.main", name.split('/').next().unwrap_or_default());
    }
    let command = [&[name.clone()], arguments.as_slice()].concat().join(" ");
    reader.property("sun.java.command", command);
    Ok(Request::Run { options: Box::new(reader.options), mode, name, arguments, about: reader.about })
}

/// A class path with the jars of a folder for `folder/*`.
fn expanded(path: &str) -> String {
    let entry = |entry: &str| -> String {
        let Some(folder) = entry.strip_suffix('*').filter(|folder| folder.is_empty() || folder.ends_with('/')) else {
            return entry.into();
        };
        let place = if folder.is_empty() { "." } else { folder };
        let files = std::fs::read_dir(place).into_iter().flatten().filter_map(Result::ok);
        let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
        let jars = names.filter(|name| name.ends_with(".jar") || name.ends_with(".JAR"));
        let jars: Vec<String> = jars.map(|name| format!("{folder}{name}")).collect();
        if jars.is_empty() { entry.into() } else { jars.join(":") }
    };
    path.split(':').map(entry).collect::<Vec<_>>().join(":")
}

/// A size such as `512m`.
fn size(text: &str, what: &'static str, word: &str) -> Result<usize, OptionError> {
    let wrong = || OptionError::Size(what, word.into());
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong()),
    };
    let number: usize = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let size = |text| size(text, "maximum heap", "-Xmx");
        assert_eq!(size("512m"), Ok(512 << 20));
        assert_eq!(size("3"), Ok(3));
        assert!(size("12x").is_err() && size("99999999999t").is_err());
    }

    #[test]
    fn direct_memory_is_for_its_flag_to_say() {
        let mut reader = Reader::default();
        assert_eq!(reader.joined("-Dsun.nio.MaxDirectMemorySize=1k"), Ok(()));
        assert!(reader.options.properties.is_empty());
        assert_eq!(reader.joined("-XX:MaxDirectMemorySize=10m"), Ok(()));
        assert_eq!(reader.options.properties, [(DIRECT_MEMORY.into(), (10 << 20).to_string())]);
        for wrong in ["foo", "10kmt", "-1"] {
            let told = format!("Improperly specified VM option 'MaxDirectMemorySize={wrong}'\n");
            assert_eq!(reader.joined(&format!("-XX:MaxDirectMemorySize={wrong}")), Err(OptionError::Flag(told)));
        }
    }

    #[test]
    fn folders_in_class_paths() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        assert_eq!(expanded(&format!("a:{path}/*:b*")), format!("a:{path}/*:b*"));
        std::fs::write(folder.path().join("x.jar"), "").unwrap();
        assert_eq!(expanded(&format!("a:{path}/*")), format!("a:{path}/x.jar"));
    }
}
