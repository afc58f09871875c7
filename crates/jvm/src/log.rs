//! `-Xlog`: what the virtual machine says of its work, where, and how its lines begin.
//!
//! A configuration is `what:output:decorators:options`. What is logged here has the tags that HotSpot gives it ([`GC`], [`LOAD`] and so on); other tags of
//! HotSpot are accepted, and say nothing.

use std::fs::File;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use crate::bootstrap;

/// Collections, a line each.
pub const GC: &str = "gc";
/// Classes and where they are from.
pub const LOAD: &str = "class,load";
/// Classes that go with their loaders.
pub const UNLOAD: &str = "class,unload";
/// Which classes name which others, and where; of the level debug.
pub const RESOLVE: &str = "class,resolve";

#[derive(Debug)]
enum Output {
    Standard,
    Error,
    File(File),
}

#[derive(Debug)]
struct Sink {
    /// Of those that fit, the last counts.
    selections: Vec<Selection>,
    output: Output,
    /// Of `uptime`, `level`, `tags`: whether it is written, and how wide it has been.
    decorators: [(bool, usize); 3],
}

/// Which lines are meant.
#[derive(Debug)]
struct Selection {
    tags: Vec<String>,
    /// Whether lines may have more tags.
    more: bool,
    /// Index in [`LEVELS`] of the lowest that is written.
    level: usize,
}

/// The level of lines with these tags.
fn level_of(tags: &str) -> usize {
    if tags == RESOLVE { DEBUG } else { INFO }
}

impl Sink {
    fn takes(&self, tags: &str) -> bool {
        let fits = |selection: &&Selection| {
            let has = |wanted: &String| wanted == "all" || tags.split(',').any(|tag| tag == wanted);
            selection.tags.iter().all(has)
                && (selection.more || selection.tags[0] == "all" || selection.tags.len() == tags.split(',').count())
        };
        self.selections.iter().rfind(fits).is_some_and(|selection| level_of(tags) >= selection.level)
    }
}

static SINKS: Mutex<Vec<Sink>> = Mutex::new(Vec::new());

/// Tags of HotSpot's logs, and `all`, between spaces.
const TAGS: &str = "\
    all add age alloc annotation arguments attach barrier biasedlocking blocks bot breakpoint bytecode cds census class classhisto cleanup codecache \
    compaction compilation condy constantpool constraints container coops cpu cset data datacreation dcmd decoder defaultmethods director dump dynamic \
    ergo event exceptions exit fingerprint free freelist gc handshake hashtables heap humongous ihop iklass indy init inlining install interpreter itables \
    jfr jit jni jvmci jvmti lambda library liveness load loader logging malloc map mark marking membername memops metadata metaspace methodcomparator \
    methodhandles mirror mmu module monitorinflation monitormismatch nestmates nmethod nmt normalize numa objecttagging obsolete oldobject oom oopmap oops \
    oopstorage os owner pagesize parser patch path perf periodic phases plab placeholders preorder preview promotion protectiondomain ptrqueue purge \
    record redefine ref refine region reloc remset resolve safepoint sampling scavenge sealed setting smr stackbarrier stackmap stacktrace stackwalk start \
    startup startuptime state stats streaming stringdedup stringtable subclass survivor suspend sweep symboltable system table task thread throttle time \
    timer tlab tracking trimnative unload unshareable update valuebasedclasses verification verify vmmutex vmoperation vmthread vtables vtablestubs \
    workgang";

/// Levels, from the most lines on.
const LEVELS: &[&str] = &["trace", "debug", "info", "warning", "error", "off"];
const DEBUG: usize = 1;
const INFO: usize = 2;
const OFF: usize = 5;

/// Adds a configuration, what is behind `-Xlog` and `:`; what is wrong with it, as HotSpot says.
///
/// # Errors
/// If it names a tag, level or output that there is not.
pub fn configure(text: &str) -> Result<(), String> {
    let mut sinks = SINKS.lock().unwrap_or_else(PoisonError::into_inner);
    if text == "disable" {
        sinks.clear();
        return Ok(());
    }
    let mut parts = split(text).into_iter();
    let what = parts.next().filter(|what| !what.is_empty()).unwrap_or_else(|| "all".into());
    let output = parts.next().unwrap_or_default();
    let decorators = parts.next().unwrap_or_default();
    let mut selections = Vec::new();
    for selection in what.split(',') {
        let (tags, level) = selection.split_once('=').unwrap_or((selection, "info"));
        let index = LEVELS.iter().position(|known| *known == level);
        let Some(level) = index else { return Err(format!("Invalid level '{level}' in log selection.")) };
        let (tags, more) = tags.strip_suffix('*').map_or((tags, false), |tags| (tags, true));
        let tags: Vec<String> = tags.split('+').map(str::to_owned).collect();
        if let Some(unknown) = tags.iter().find(|tag| !TAGS.split(' ').any(|known| known == tag.as_str())) {
            return Err(format!("Invalid tag '{unknown}' in log selection."));
        }
        selections.push(Selection { tags, more, level });
    }
    let output = match output.as_str() {
        "" | "stdout" => Output::Standard,
        "stderr" => Output::Error,
        path => {
            let path = path.strip_prefix("file=").unwrap_or(path).trim_matches('"');
            let path = path.replace("%p", &std::process::id().to_string());
            Output::File(File::create(&path).map_err(|error| format!("Error opening log file '{path}': {error}"))?)
        }
    };
    let wanted =
        |name: &str, short: &str| decorators.is_empty() || decorators.split(',').any(|d| d == name || d == short);
    let decorators = [wanted("uptime", "u"), wanted("level", "l"), wanted("tags", "tg")].map(|wanted| (wanted, 0));
    sinks.push(Sink { selections, output, decorators });
    Ok(())
}

/// The parts between `:`, which means nothing within quotes.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut quoted) = (vec![String::new()], false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ':' if !quoted => parts.push(String::new()),
            _ => parts.last_mut().into_iter().for_each(|part| part.push(c)),
        }
    }
    parts
}

/// Whether lines with these tags go anywhere.
pub fn is_on(tags: &str) -> bool {
    SINKS.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|sink| sink.takes(tags))
}

/// Whether all lines with these tags, and those of classes with more, go to standard output: what beans call verbose.
pub fn is_verbose(tags: &str) -> bool {
    let sinks = SINKS.lock().unwrap_or_else(PoisonError::into_inner);
    let standard = || sinks.iter().filter(|sink| matches!(sink.output, Output::Standard));
    // HotSpot has lines about why a class is loaded.
    let more = format!("{tags},cause");
    standard().any(|sink| sink.takes(tags)) && (tags == GC || standard().any(|sink| sink.takes(&more)))
}

/// Switches lines with these tags, or more, on or off for standard output, as beans do it while a program runs.
pub fn set_verbose(tags: &str, on: bool) {
    let mut sinks = SINKS.lock().unwrap_or_else(PoisonError::into_inner);
    let more = tags != GC;
    let level = if on { INFO } else { OFF };
    let selection = Selection { tags: tags.split(',').map(str::to_owned).collect(), more, level };
    match sinks.iter_mut().find(|sink| matches!(sink.output, Output::Standard)) {
        Some(sink) => sink.selections.push(selection),
        None if on => {
            sinks.push(Sink { selections: vec![selection], output: Output::Standard, decorators: [(true, 0); 3] });
        }
        None => {}
    }
}

/// Writes a line, which is made if it goes anywhere.
pub fn tell(tags: &str, line: &dyn Fn() -> String) {
    if is_on(tags) {
        write(tags, &line());
    }
}

/// Writes a line.
pub fn write(tags: &str, line: &str) {
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let seconds = bootstrap::clock().now_ns() as f64 / 1e9;
    let mut sinks = SINKS.lock().unwrap_or_else(PoisonError::into_inner);
    for sink in sinks.iter_mut().filter(|sink| sink.takes(tags)) {
        let mut text = String::new();
        for ((wanted, width), part) in sink.decorators.iter_mut().zip([
            format!("{seconds:.3}s"),
            LEVELS[level_of(tags)].to_owned(),
            tags.to_owned(),
        ]) {
            if *wanted {
                // What follows stays below what followed before.
                *width = part.len().max(*width);
                text += &format!("[{part:<0$}]", *width);
            }
        }
        let space = if text.is_empty() { "" } else { " " };
        let line = format!("{text}{space}{line}\n");
        // A log that cannot be written does not end the program.
        let _ = match &mut sink.output {
            Output::Standard => std::io::stdout().write_all(line.as_bytes()),
            Output::Error => std::io::stderr().write_all(line.as_bytes()),
            Output::File(file) => file.write_all(line.as_bytes()),
        };
    }
}

/// What `-Xlog:help` says.
pub const HELP: &str = "\
-Xlog Usage: -Xlog[:[selections][:[output][:[decorators][:output-options]]]]
\t where 'selections' are combinations of tags and levels of the form tag1[+tag2...][*][=level][,...]
Available log levels:
 off, trace, debug, info, warning, error
Available log decorators:
 uptime (u), level (l), tags (tg)
What is logged here:
 gc, gc+start, gc+heap, gc+metaspace, gc+cpu, gc+init, class+load, class+unload, class+resolve (debug); other tags of HotSpot are accepted, and say nothing
Available log outputs:
 stdout, stderr, file=<filename>, where %p in the name is the process's number
Some examples:
 -Xlog:gc
\t Log collections to stdout.
 -Xlog:gc*
\t The same with what each space has before and after.
 -Xlog:class+load:file=classes.txt
\t Log the classes that are loaded, and where from, to a file.
 -Xlog:disable
\t Turn off all logging.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations() {
        assert_eq!(configure("nosuch"), Err("Invalid tag 'nosuch' in log selection.".into()));
        assert_eq!(configure("gc=loud"), Err("Invalid level 'loud' in log selection.".into()));
        assert_eq!(configure("gc*:stderr:u,l,tg"), Ok(()));
        assert!(is_on(GC) && is_on("gc,heap") && !is_on(LOAD));
        assert_eq!(configure("class*,class+unload=off"), Ok(()));
        assert!(is_on(LOAD) && !is_on(UNLOAD));
        assert_eq!(configure("disable"), Ok(()));
        assert_eq!(configure("gc"), Ok(()));
        assert!(is_on(GC) && !is_on("gc,heap") && !is_on(LOAD));
        assert_eq!(configure("disable"), Ok(()));
        assert!(!is_on(GC));
        set_verbose(LOAD, true);
        assert!(is_on(LOAD) && !is_on(UNLOAD) && is_verbose(LOAD));
        assert_eq!(configure("class+load*,class+load=off"), Ok(()));
        set_verbose(LOAD, false);
        assert!(!is_verbose(LOAD));
        assert_eq!(configure("disable"), Ok(()));
        assert!(!is_on(LOAD));
        assert_eq!(configure("all"), Ok(()));
        assert!(is_on("gc,cpu") && is_on(LOAD) && !is_on(RESOLVE));
        assert_eq!(configure("class+resolve=debug"), Ok(()));
        assert!(is_on(RESOLVE));
        assert_eq!(configure("disable"), Ok(()));
        assert_eq!(split("gc:file=\"a:b\":u"), ["gc", "file=a:b", "u"]);
    }
}
