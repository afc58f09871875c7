use std::ffi::OsStr;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::manifest::InstalledPackage;
use crate::progress::Silent;

fn store() -> (tempfile::TempDir, ImageStore) {
    let root = tempfile::tempdir().unwrap();
    let store = ImageStore::open(root.path().join("images"), root.path().join("cache"));
    (root, store)
}

/// Makes the files of a small image.
fn make(directory: &Path, name: &str, content: &str) -> Manifest {
    for file in ["kernel", "initrd", "disk.raw"] {
        fs::write(directory.join(file), content).unwrap();
    }
    let bytes = content.len() as u64;
    Manifest {
        format: 1,
        name: name.into(),
        kind: "riscv64".into(),
        description: "test".into(),
        kernel_version: "6.12".into(),
        append: "root=/dev/vda".into(),
        user: "root".into(),
        password: "isomorph".into(),
        created_s: 1,
        kernel_bytes: bytes,
        initrd_bytes: bytes,
        disk_bytes: bytes,
        packages: vec![InstalledPackage { name: "libc6".into(), version: "2.41-1".into() }],
    }
}

fn install(store: &ImageStore, name: &str, content: &str, replace: bool) -> Result<Image, Error> {
    store.install(name, replace, &mut Silent, |directory, _| Ok(make(directory, name, content)))
}

#[test]
fn images_are_installed_listed_and_removed() {
    let (_root, store) = store();
    assert!(store.list().unwrap().is_empty());
    let image = install(&store, "debian", "one", false).unwrap();
    assert_eq!((image.name(), image.append()), ("debian", "root=/dev/vda"));
    assert_eq!(image.manifest().packages.len(), 1);
    assert_eq!(fs::read(image.disk()).unwrap(), b"one");
    assert!(image.occupied_bytes().unwrap() >= 3 * 512);
    install(&store, "alpha", "two", false).unwrap();
    let names: Vec<_> = store.list().unwrap().into_iter().map(|listed| listed.name).collect();
    assert_eq!(names, ["alpha", "debian"]);
    store.remove("debian").unwrap();
    let text = store.remove("debian").unwrap_err().to_string();
    assert_eq!(text, "image debian is not here; get it with: isomorph image pull debian");
    assert!(matches!(store.get("debian"), Err(Error::NotFound { .. })));
}

#[test]
fn an_image_that_is_there_is_not_made_again_unless_asked() {
    let (_root, store) = store();
    install(&store, "debian", "one", false).unwrap();
    let image = install(&store, "debian", "two", false).unwrap();
    assert_eq!(fs::read(image.kernel()).unwrap(), b"one");
    let image = install(&store, "debian", "three", true).unwrap();
    assert_eq!(fs::read(image.kernel()).unwrap(), b"three");
    let left: Vec<_> = fs::read_dir(store.root()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the image and the lock: {left:?}");
}

#[test]
fn a_failed_build_leaves_nothing() {
    let (_root, store) = store();
    let failed = store.install("debian", false, &mut Silent, |directory, _| {
        make(directory, "debian", "half");
        Err(Error::NoHome)
    });
    assert!(failed.is_err());
    assert!(store.list().unwrap().is_empty());
    let left: Vec<_> = fs::read_dir(store.root()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, [OsStr::new(LOCK)]);
}

/// A pull that never ends, for a process of its own to be killed in.
fn build_for_ever(root: &Path) -> ! {
    let store = ImageStore::open(root, root);
    let ended = store.install("debian", false, &mut Silent, |directory, _| {
        let manifest = make(directory, "debian", "half");
        Image::write(directory, &manifest)?;
        fs::write(root.join(".begun"), "").unwrap();
        std::thread::sleep(Duration::from_secs(600));
        Ok(manifest)
    });
    panic!("it was to be killed: {ended:?}");
}

#[test]
fn a_killed_pull_leaves_no_image() {
    const ROOT: &str = "IMAGE_TEST_ROOT";
    // This test runs itself again as the process to be killed.
    if let Some(root) = std::env::var_os(ROOT) {
        build_for_ever(Path::new(&root));
    }
    let (_root, store) = store();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::a_killed_pull_leaves_no_image"])
        .env(ROOT, store.root())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !store.root().join(".begun").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the builder ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    // It is in the middle of its work: a complete directory under a temporary name.
    assert!(store.root().join(".pull-debian/manifest.json").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(store.list().unwrap().is_empty());
    assert!(matches!(store.get("debian"), Err(Error::NotFound { .. })));
    assert!(matches!(store.get(".pull-debian"), Err(Error::BadName { .. })));
    // The lock died with it, and the next pull clears up.
    install(&store, "debian", "whole", false).unwrap();
    assert!(!store.root().join(".pull-debian").exists());
}

#[test]
fn a_second_pull_waits_for_the_first() {
    struct Tell(mpsc::Sender<Phase>);
    impl Progress for Tell {
        fn phase(&mut self, phase: Phase, _: u64) {
            self.0.send(phase).unwrap();
        }
        fn position(&mut self, _: u64, _: &str) {}
        fn note(&mut self, _: &str) {}
    }
    let (_root, store) = store();
    let (sender, receiver) = mpsc::channel();
    let mut waiter = None;
    let first = store.install("debian", false, &mut Silent, |directory, _| {
        let manifest = make(directory, "debian", "first");
        let second = store.clone();
        waiter = Some(std::thread::spawn(move || {
            second.install("debian", false, &mut Tell(sender), |_, _| panic!("the first has made it"))
        }));
        assert_eq!(receiver.recv_timeout(Duration::from_secs(30)).unwrap(), Phase::Waiting);
        Ok(manifest)
    });
    let second = waiter.unwrap().join().unwrap();
    assert_eq!(first.unwrap().manifest(), second.unwrap().manifest());
}

#[test]
fn damage_is_named_with_the_way_out() {
    let (_root, store) = store();
    let image = install(&store, "debian", "one", false).unwrap();
    let manifest = store.root().join("debian/manifest.json");
    let good = fs::read_to_string(&manifest).unwrap();
    let check = |text: &str, cause: &str| {
        fs::write(&manifest, text).unwrap();
        let error = store.get("debian").unwrap_err().to_string();
        assert!(error.contains(cause) && error.ends_with("isomorph image rm debian"), "{cause}: {error}");
        assert!(!error.contains('\n'), "{error}");
        assert!(store.list().unwrap()[0].image.is_err());
    };
    check("", "EOF");
    check(&good[..good.len() / 2], "manifest.json");
    check(&good.replace("\"format\": 1", "\"format\": 2"), "format 2");
    check(&good.replace("\"user\"", "\"extra\": 1, \"user\""), "extra");
    check(&good.replace("\"name\": \"debian\"", "\"name\": \"other\""), "other");
    check(&good.replace("\"kernel_bytes\": 3", "\"kernel_bytes\": 4"), "kernel has 3 bytes, not 4");
    fs::write(&manifest, &good).unwrap();
    store.get("debian").unwrap();
    fs::remove_file(image.initrd()).unwrap();
    check(&good, "initrd");
    fs::remove_file(&manifest).unwrap();
    assert!(store.get("debian").unwrap_err().to_string().contains("no manifest.json"));
    store.remove("debian").unwrap();
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn names_are_checked() {
    let (_root, store) = store();
    for name in ["", ".", "..", "a/b", "../x", "Debian", "a b", "-x", ".pull-x", &"a".repeat(65)] {
        assert!(matches!(store.get(name), Err(Error::BadName { .. })), "{name:?}");
        assert!(matches!(store.remove(name), Err(Error::BadName { .. })), "{name:?}");
    }
    struct None;
    impl Configurator for None {
        fn run(
            &mut self,
            _: &crate::HalfMade<'_>,
            _: &mut dyn FnMut(&[u8]),
        ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            Err("not to be run".into())
        }
    }
    let error = store.pull("windows", &PullOptions::default(), &mut None, &mut Silent).unwrap_err().to_string();
    assert_eq!(error, "there is no image called windows to pull; there is: debian, debian:amd64, sysroot, java");
}

#[test]
fn the_environment_says_where() {
    let from = |set: &[(&str, &str)]| {
        ImageStore::from_variables(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| PathBuf::from(value)))
    };
    let store = from(&[("ISOMORPH_HOME", "/h"), ("HOME", "/u")]).unwrap();
    assert_eq!((store.root, store.cache), ("/h/images".into(), "/h/cache".into()));
    let store = from(&[("XDG_DATA_HOME", "/d"), ("XDG_CACHE_HOME", "relative"), ("HOME", "/u")]).unwrap();
    assert_eq!((store.root, store.cache), ("/d/isomorph/images".into(), "/u/.cache/isomorph".into()));
    let store = from(&[("HOME", "/u"), ("ISOMORPH_HOME", "")]).unwrap();
    assert_eq!(store.root, PathBuf::from("/u/.local/share/isomorph/images"));
    assert!(matches!(from(&[]), Err(Error::NoHome)));
}

#[test]
fn too_little_room_is_said_at_once() {
    let (root, _) = store();
    check_room(root.path(), 1).unwrap();
    let text = check_room(root.path(), u64::MAX).unwrap_err().to_string();
    assert!(text.contains("MiB are needed") && text.contains("ISOMORPH_HOME"), "{text}");
}
