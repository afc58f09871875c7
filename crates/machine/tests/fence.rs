//! The fence keeps a thread from what its permissions do not name, without the help of any check.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::Command;

use machine::permissions::Permissions;
use machine::sys::fence::{Strength, raise};

/// Does `work` behind a fence. It is for good, so it is around a thread of its own.
fn behind(permissions: Permissions, work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        assert_eq!(
            raise(&permissions, &[]).unwrap(),
            Strength::Full,
            "the tests need a kernel with Landlock, version 6"
        );
        work();
    });
    thread.join().unwrap();
}

#[track_caller]
fn denied<T>(result: io::Result<T>) {
    let error = result.err().expect("refused");
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
}

#[test]
fn nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "s").unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let mut other = Command::new("sleep").arg("1").spawn().unwrap();
    behind(Permissions::default(), move || {
        denied(fs::read(&secret));
        denied(fs::write(&secret, "x"));
        denied(fs::remove_file(&secret));
        denied(fs::rename(&secret, secret.with_extension("x")));
        denied(fs::hard_link(&secret, secret.with_extension("x")));
        denied(std::os::unix::fs::symlink("/", secret.with_extension("x")));
        denied(fs::create_dir(secret.with_extension("x")));
        denied(fs::set_permissions(&secret, fs::metadata(&secret).unwrap().permissions()));
        denied(fs::read_dir("/").map(drop));
        denied(fs::read("/proc/self/environ"));
        denied(TcpStream::connect(address));
        denied(TcpListener::bind("127.0.0.1:0"));
        denied(UdpSocket::bind("127.0.0.1:0"));
        denied(UnixStream::connect("/run/systemd/journal/stdout"));
        denied(Command::new("/bin/true").status());
        denied(other.kill());
        drop(other);
        // It goes on living.
        assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
        assert_eq!(fs::write("/dev/null", "x").map_err(|error| error.kind()), Ok(()));
    });
    assert_eq!(fs::read_to_string(folder.path().join("secret")).unwrap(), "s");
}

#[test]
fn what_is_named_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let (read, write) = (folder.path().join("r"), folder.path().join("w"));
    fs::create_dir(&read).unwrap();
    fs::create_dir(&write).unwrap();
    fs::write(read.join("a"), "a").unwrap();
    std::os::unix::fs::symlink(folder.path(), write.join("up")).unwrap();
    fs::write(folder.path().join("secret"), "s").unwrap();
    let (server, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (address, other) = (server.local_addr().unwrap(), other.local_addr().unwrap());
    let permissions = Permissions {
        read: vec![read.clone()],
        write: vec![write.clone()],
        network: vec![address.to_string().parse().unwrap()],
        run: true,
        ..Permissions::default()
    };
    behind(permissions, move || {
        assert_eq!(fs::read(read.join("a")).unwrap(), b"a");
        denied(fs::write(read.join("a"), "x"));
        fs::write(write.join("b"), "b").unwrap();
        fs::rename(write.join("b"), write.join("c")).unwrap();
        denied(fs::read(write.join("up/secret")));
        TcpStream::connect(address).unwrap();
        denied(TcpStream::connect(other));
        denied(UnixStream::connect("/run/systemd/journal/stdout"));
        assert!(Command::new("/bin/true").status().unwrap().success());
        let secret = write.join("up/secret");
        assert!(!Command::new("/bin/cat").arg(secret).stderr(std::process::Stdio::null()).status().unwrap().success());
    });
}
