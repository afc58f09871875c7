//! The socket, with a machine that only counts what it is asked, and peers that misbehave.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};

use super::ask::{PATIENCE, Peer};
use super::wire::Verb;
use super::*;
use crate::home::SOCKET;

#[derive(Default)]
struct Counting {
    paused: AtomicU32,
}

impl Controlled for Counting {
    fn state(&self) -> State {
        if self.paused.load(Ordering::SeqCst) % 2 == 1 { State::Paused } else { State::Running }
    }

    fn pause(&self) -> Result<(), IllegalTransition> {
        self.state().after(machine::lifecycle::Verb::Pause)?;
        self.paused.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn resume(&self) -> Result<(), IllegalTransition> {
        self.state().after(machine::lifecycle::Verb::Resume)?;
        self.paused.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn stop(&self) -> Result<Asked> {
        Ok(Asked::Ended)
    }

    fn kill(&self) {}

    fn snapshot(&self, directory: &Path) -> Result<()> {
        anyhow::bail!("no snapshot in\n{}", directory.display())
    }

    fn figures(&self) -> Figures {
        Figures { counts: vec![("pauses".into(), self.paused.load(Ordering::SeqCst).into())], ..Figures::default() }
    }
}

/// A served machine in the directory of `name`.
fn serve(home: &Home, place: Place) -> Result<Arc<Shared>> {
    let shared = Arc::new(Shared::default());
    let (answer, answered) = mpsc::channel();
    let machine = Arc::new(Counting::default());
    let description = Description::new("test", "guest");
    let server = serve::Server { home: home.clone(), place, description, machine, shared: Arc::clone(&shared) };
    std::thread::spawn(move || server.run(&answer));
    answered.recv().unwrap().map(|()| shared)
}

fn named(name: &str) -> (tempfile::TempDir, Home, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    // Longer than an address of a socket may be.
    let machines = folder.path().join("x".repeat(100)).join("machines");
    let directory = machines.join(name);
    (folder, Home::at(machines), directory)
}

#[test]
fn verbs_are_answered_and_refused() {
    let (_folder, home, directory) = named("a");
    let shared = serve(&home, Place::Named("a".into())).unwrap();
    let mode = std::fs::metadata(directory.join(SOCKET)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut peer = Peer::connect(&directory).unwrap();
    let info = peer.info(PATIENCE).unwrap();
    assert_eq!((info.name.as_str(), info.kind.as_str(), info.state.as_str()), ("a", "test", "running"));
    assert_eq!(info.pid, std::process::id());
    assert!(info.resident_bytes > 0 && info.cpu_time_ns > 0);
    assert_eq!(peer.ask(Verb::Pause, Some(PATIENCE)).unwrap().info.unwrap().state, "paused");
    let again = peer.ask(Verb::Pause, Some(PATIENCE)).unwrap_err().to_string();
    assert_eq!(again, "cannot pause a machine that is paused");
    assert_eq!(home.list().unwrap().len(), 1);
    assert_eq!(peer.ask(Verb::Resume, Some(PATIENCE)).unwrap().info.unwrap().counts, [("pauses".to_owned(), 2)]);
    assert!(peer.ask(Verb::Stop, Some(PATIENCE)).unwrap().note.unwrap().contains("was ended"));
    let refused = peer.ask(Verb::Snapshot { directory: "/x".into() }, None).unwrap_err().to_string();
    assert_eq!(refused, "no snapshot in /x", "in one line");
    assert!(serve(&home, Place::Named("a".into())).err().unwrap().to_string().contains("running already"));
    shared.lock().directory.take().inspect(|(directory, keep)| serve::forget(directory, *keep));
    assert!(!directory.exists());
}

#[test]
fn a_machine_with_a_disk_keeps_its_name() {
    let (_folder, home, directory) = named("debian");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("disk.raw"), "disk").unwrap();
    let error = serve(&home, Place::Named("debian".into())).err().unwrap().to_string();
    assert!(error.contains("with a disk"), "{error}");
    assert!(directory.join("disk.raw").exists());
}

/// Whatever peers send or leave unsent, those that behave are answered.
#[test]
fn hostile_peers_harm_nobody() {
    let (_folder, home, directory) = named("a");
    let _shared = serve(&home, Place::Named("a".into())).unwrap();
    let connect = || {
        let (_open, path) = crate::home::socket_path(&directory).unwrap();
        UnixStream::connect(path).unwrap()
    };
    let answer = |line: &[u8]| {
        let mut stream = connect();
        let _ = stream.write_all(line);
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    // Silent ones, more than are heard.
    let _silent: Vec<_> = (0..100).map(|_| connect()).collect();
    assert!(answer(b"{\"version\":1,\"verb\":\"info\"}\n").contains("\"info\""));
    for wrong in [
        &b"\n"[..],
        b"{}\n",
        b"null\n",
        b"\xff\xfe\n",
        b"{\"version\":1}\n",
        b"{\"version\":1,\"verb\":\"fly\"}\n",
        b"{\"version\":1,\"verb\":\"snapshot\"}\n",
        b"{\"version\":1,\"verb\":{\"verb\":\"pause\"}}\n",
    ] {
        assert!(answer(wrong).contains("\"error\""), "{}", String::from_utf8_lossy(wrong));
    }
    assert!(answer(b"{\"version\":2,\"verb\":\"info\"}\n").contains("speaks version 1"));
    assert_eq!(answer(b"{\"version\":1,\"verb\":\"inf"), "", "an unfinished line is none");
    assert_eq!(answer(&vec![b'x'; 1 << 20]), "", "a line has an end");
    assert!(answer(&[&[b'['; 60_000][..], b"\n"].concat()).contains("\"error\""), "nesting has an end");
    // One that asks and does not read.
    let mut deaf = connect();
    deaf.set_nonblocking(true).unwrap();
    for _ in 0..20_000 {
        if deaf.write_all(b"{\"version\":1,\"verb\":\"info\"}\n").is_err() {
            break;
        }
    }
    assert!(Peer::connect(&directory).unwrap().info(PATIENCE).is_ok());
}

#[test]
fn automatic_names_are_names() {
    for guest in ["/x/app.wasm", "ä/ö.elf", "", "-", "..", &"y".repeat(200)] {
        let name = automatic_name(OsStr::new(guest));
        crate::home::check_name(&name).unwrap();
        assert!(name.ends_with(&format!("-{}", std::process::id())), "{name}");
    }
    assert!(automatic_name(OsStr::new("/x/app.wasm")).starts_with("app-"));
}
