//! OpenJDK's own tests, run by `jtreg` (Debian's jtreg7): on our machine, and those that it did not pass, or did not find fit for it, on `java`.
//!
//! ```text
//! target/jtreg/home         links to everything of the JDK, but bin/java starts our machine, and lib/server/libjvm.so is ours
//! target/jtreg/SUITE/native libraries and programs, compiled of the tests' C code
//! target/jtreg/SUITE/ours   jtreg's work on our machine: a .jtr file for each test, written when it ends  } also of a run that is cut off,
//! target/jtreg/SUITE/java   the same on the JDK, of what is never run twice                               } so that --keep goes on with it
//! ```

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::{Keep, Options, Outcomes, expect};
use crate::conformance::collect;
use crate::workspace;

/// Runs the tests of a folder below `root` on our machine, and what it does not pass on `java`.
pub(super) fn run(
    options: &Options,
    home: &Path,
    ours: &Path,
    library: &Path,
    root: &Path,
    folder: &Path,
) -> Result<(Outcomes, Outcomes)> {
    let place = std::path::absolute(workspace::target().join("jtreg"))?;
    fs::create_dir_all(&place)?;
    let suite = place.join(root.strip_prefix("/").unwrap_or(root).display().to_string().replace('/', "-"));
    let imitation = imitate(home, ours, library, &options.option, &place.join("home"))?;
    let below = folder.strip_prefix(root).unwrap_or(folder);
    let select = |outcomes: Outcomes| -> Outcomes {
        let filter = options.selection.filter.as_deref().unwrap_or_default();
        outcomes.into_iter().filter(|(name, _)| name.contains(filter) && Path::new(name).starts_with(below)).collect()
    };
    compile_natives(home, root, folder, &suite.join("native"))?;
    let own = suite.join("ours");
    let keep = match options.keep {
        None => None,
        Some(Keep::Passed) => Some("fail,error,notRun"),
        Some(Keep::Results) => Some("notRun"),
    };
    jtreg(options, &imitation, home, folder, &own, keep, &[])?;
    let found = select(results(&own.join("work"))?);
    // What java passes does not change.
    let peer = suite.join("java");
    let passed: Vec<&str> =
        found.iter().filter(|(_, outcome)| outcome.is_none()).map(|(name, _)| name.as_str()).collect();
    jtreg(options, home, home, folder, &peer, Some("notRun"), &passed)?;
    let expected = expect(&found, select(results(&peer.join("work"))?));
    ensure!(expected.values().any(Option::is_none), "java passes no test in {}", folder.display());
    Ok((expected, found))
}

/// Compiles the C code of tests as the JDK does: `libNAME.c` is a library, `exeNAME.c` a program that may start virtual machines. What does not compile here
/// is told in the log; its tests fail on `java`, too.
fn compile_natives(home: &Path, root: &Path, folder: &Path, place: &Path) -> Result<()> {
    let mut files = Vec::new();
    collect(folder, &mut files).with_context(|| format!("cannot read {}", folder.display()))?;
    fs::create_dir_all(place)?;
    for file in files {
        let (Some(name), Some(kind)) = (file.file_stem().and_then(OsStr::to_str), file.extension()) else { continue };
        if kind != "c" && kind != "cpp" {
            continue;
        }
        let (to, options): (_, &[&str]) = match (name.strip_prefix("lib"), name.strip_prefix("exe")) {
            (Some(library), _) => (format!("lib{library}.so"), &["-shared"]),
            (_, Some(program)) => (program.to_owned(), &["-ljvm", "-ldl", "-lm"]),
            _ => continue,
        };
        let to = place.join(to);
        let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
        if changed(&to) > changed(&file) {
            continue;
        }
        let mut compiler = Command::new(if kind == "c" { "gcc" } else { "g++" });
        compiler.args(["-w", "-fPIC", "-O1", "-pthread", "-D_GNU_SOURCE", "-D_REENTRANT", "-DLINUX"]);
        for include in [home.join("include"), home.join("include/linux"), root.join("../lib/native")] {
            compiler.arg("-I").arg(include);
        }
        compiler.arg(&file).arg("-o").arg(&to).arg("-L").arg(home.join("lib/server")).args(options);
        let output = compiler.output().context("running the C compiler; `cargo xtask setup` installs it")?;
        if !output.status.success() {
            eprintln!("{} does not compile: {}", file.display(), String::from_utf8_lossy(&output.stderr));
        }
    }
    Ok(())
}

/// A Java home whose `java` and `libjvm.so` are our machine.
fn imitate(home: &Path, ours: &Path, library: &Path, options: &[String], place: &Path) -> Result<PathBuf> {
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    const OWN: [&str; 5] = ["bin", "bin/java", "lib", "lib/server", "lib/server/libjvm.so"];
    for folder in ["", "bin", "lib", "lib/server"] {
        fs::create_dir_all(place.join(folder))?;
        let from = home.join(folder);
        for entry in fs::read_dir(&from).with_context(|| format!("cannot read {}", from.display()))? {
            let name = Path::new(folder).join(entry?.file_name());
            if !OWN.iter().any(|own| name == Path::new(own)) {
                symlink(home.join(&name), place.join(&name))?;
            }
        }
    }
    symlink(library, place.join("lib/server/libjvm.so"))?;
    let java = place.join("bin/java");
    if options.is_empty() {
        // It knows by where it is. A script would leave variables behind, which tests see.
        fs::copy(ours, &java)?;
        return Ok(place.to_path_buf());
    }
    let words: Vec<String> = options.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
    let script = format!(
        "#!/bin/sh\nISOMORPH_JAVA_HOME='{}' exec '{}' {} \"$@\"\n",
        place.display(),
        ours.display(),
        words.join(" ")
    );
    fs::write(&java, script)?;
    fs::set_permissions(&java, fs::Permissions::from_mode(0o755))?;
    Ok(place.to_path_buf())
}

/// Runs the tests in `folder` on the JDK in `home`, but those that are left out; if `status` is given, only those that have such a one in `place`.
fn jtreg(
    options: &Options,
    home: &Path,
    compiler: &Path,
    folder: &Path,
    place: &Path,
    status: Option<&str>,
    left_out: &[&str],
) -> Result<()> {
    fs::create_dir_all(place)?;
    let excluded = place.join("excluded");
    let lines: Vec<String> = left_out.iter().map(|name| format!("{name} 0 generic-all\n")).collect();
    fs::write(&excluded, lines.concat())?;
    let jobs = options.selection.jobs.map_or_else(super::super::host_cpus, usize::from);
    let mut command = Command::new("jtreg");
    command
        .arg(format!("-jdk:{}", home.display()))
        .arg(format!("-compilejdk:{}", compiler.display()))
        .arg(format!("-w:{}", place.join("work").display()))
        .arg(format!("-r:{}", place.join("report").display()))
        .arg(format!("-concurrency:{jobs}"))
        .arg(format!("-nativepath:{}", place.with_file_name("native").display()))
        .args(["-agentvm", "-ignore:quiet", "-a", "-verbose:fail", "-retain:none"])
        .arg(format!("-exclude:{}", excluded.display()))
        .arg(format!("-timeoutFactor:{}", (options.selection.timeout as f64 / 120.0).max(0.25)));
    if let Some(status) = status {
        command.arg(format!("-status:{status}"));
    }
    command.arg(folder);
    command.env("JTREG_JAVA", compiler.join("bin/java")).stdin(Stdio::null());
    let log = fs::File::create(place.join("log"))?;
    let status = command.stdout(log.try_clone()?).stderr(log).status();
    let status = status.context("running jtreg; install Debian's jtreg7 and testng")?;
    // 0: all passed; 1: there were none; 2: some failed; 3: some could not be run.
    match status.code() {
        Some(0..=3) => Ok(()),
        _ => bail!("jtreg failed; see {}", place.join("log").display()),
    }
}

/// The outcomes in jtreg's work folder.
fn results(work: &Path) -> Result<Outcomes> {
    let mut files = Vec::new();
    collect(work, &mut files).with_context(|| format!("cannot read {}", work.display()))?;
    let mut outcomes = Outcomes::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "jtr")) {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        outcomes.extend(result(&String::from_utf8_lossy(&bytes)));
    }
    Ok(outcomes)
}

/// The test and its outcome in a result file, whose properties are before the sections with what the test wrote; a backslash protects a letter.
fn result(text: &str) -> Option<(String, Option<String>)> {
    let head = text.split("\n#section:").next()?;
    let property = |name: &str| {
        let value = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.replace('\\', ""))
    };
    let status = property("execStatus").filter(|status| !status.starts_with("Not run"))?;
    Some((property("test")?, (!status.starts_with("Passed")).then_some(status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_files() {
        let text = "#Test Results (version 2)\n#-----testresult-----\nexecStatus=Failed. Execution failed\\: exit 1\n\
                    sections=main\ntest=a/B.java\\#id0\n\n#section:main\nexecStatus=Passed. no\n";
        let failed = Some("Failed. Execution failed: exit 1".to_owned());
        assert_eq!(result(text), Some(("a/B.java#id0".to_owned(), failed)));
        assert_eq!(result(&text.replace("Failed.", "Passed.")), Some(("a/B.java#id0".to_owned(), None)));
        assert_eq!(result(&text.replace("Failed.", "Not run.")), None);
        assert_eq!(result("test=a/B.java\n"), None);
    }
}
