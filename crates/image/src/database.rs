//! dpkg's database of a system whose packages are unpacked but whose maintainer scripts have not run.
//!
//! What `dpkg --unpack` would leave: an entry a package in `status`, and its list of files, scripts and checksums in `info/`. A package that
//! has nothing to configure (no script, no configuration file, no interest in triggers) is entered as installed at once, which spares
//! the guest the work. Configuration files are in their final places already; dpkg takes their checksums when it configures the package.

use std::fmt::Write as _;

use crate::error::Error;
use crate::package::Control;
use crate::tree::Tree;

/// An unpacked package: what it says of itself, and its files' paths in its own order, absolute and without a slash at the end.
pub(crate) struct Unpacked {
    pub(crate) control: Control,
    pub(crate) paths: Vec<Vec<u8>>,
}

impl Unpacked {
    fn name(&self) -> &str {
        self.control.field("Package").unwrap_or_default()
    }

    /// The stem of its files in `info/`.
    pub(crate) fn stem(&self) -> String {
        let architecture = self.control.field("Architecture").unwrap_or_default();
        match self.control.field("Multi-Arch") {
            Some("same") => format!("{}:{architecture}", self.name()),
            _ => self.name().into(),
        }
    }

    /// Whether dpkg has something to do to configure it.
    pub(crate) fn needs_configuration(&self) -> bool {
        let interested =
            |triggers: &[u8]| String::from_utf8_lossy(triggers).lines().any(|line| line.starts_with("interest"));
        ["postinst", "preinst", "config", "conffiles"].iter().any(|file| self.control.file(file).is_some())
            || self.control.file("triggers").is_some_and(interested)
    }

    /// Its entry in `status`.
    fn status(&self) -> String {
        let state = if self.needs_configuration() { "unpacked" } else { "installed" };
        let mut text = format!("Package: {}\nStatus: install ok {state}\n", self.name());
        for line in self.control.fields.lines().filter(|line| !line.is_empty()) {
            if !line.starts_with("Package:") {
                text += line;
                text.push('\n');
            }
        }
        if let Some(list) = self.control.file("conffiles") {
            text += "Conffiles:\n";
            let list = String::from_utf8_lossy(list);
            // A line may begin with a flag; such a file is going away and is none of this version's.
            for path in list.lines().map(str::trim).filter(|line| line.starts_with('/')) {
                let _ = writeln!(text, " {path} newconffile");
            }
        }
        text
    }
}

/// Writes the database for `packages` into the tree.
pub(crate) fn write(tree: &Tree, packages: &[Unpacked]) -> Result<(), Error> {
    for directory in ["info", "updates", "parts", "alternatives", "triggers"] {
        tree.make_directory(&format!("/var/lib/dpkg/{directory}"))?;
    }
    let mut status = String::new();
    for package in packages {
        let stem = format!("/var/lib/dpkg/info/{}", package.stem());
        let mut list = Vec::new();
        for path in &package.paths {
            list.extend_from_slice(if path.is_empty() { b"/." } else { path });
            list.push(b'\n');
        }
        tree.write(&format!("{stem}.list"), 0o644, &list)?;
        for (name, mode, bytes) in &package.control.files {
            tree.write(&format!("{stem}.{name}"), *mode, bytes)?;
        }
        status += &package.status();
        status.push('\n');
    }
    tree.write("/var/lib/dpkg/info/format", 0o644, b"1\n")?;
    tree.write("/var/lib/dpkg/status", 0o644, status.as_bytes())?;
    tree.write("/var/lib/dpkg/available", 0o644, b"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn package(fields: &str, files: &[(&str, &str)]) -> Unpacked {
        let files = files.iter().map(|(name, text)| ((*name).into(), 0o755, text.as_bytes().to_vec())).collect();
        Unpacked { control: Control { fields: fields.into(), files }, paths: vec![b"".to_vec(), b"/usr".to_vec()] }
    }

    #[test]
    fn the_database_is_what_unpacking_leaves() {
        let root = tempfile::tempdir().unwrap();
        let tree = Tree::new(root.path().join("stage")).unwrap();
        let packages = [
            package(
                "Package: a\nVersion: 1\nArchitecture: riscv64\nMulti-Arch: same\nDescription: x\n more\n",
                &[("triggers", "activate-noawait ldconfig\n")],
            ),
            package(
                "Package: b\nVersion: 2\nArchitecture: all\n",
                &[("postinst", "#!/bin/sh\n"), ("conffiles", "/etc/b\nremove-on-upgrade /etc/old\n")],
            ),
        ];
        write(&tree, &packages).unwrap();
        let read = |path: &str| std::fs::read_to_string(tree.find(path.as_bytes()).unwrap()).unwrap();
        expect![[r#"
            Package: a
            Status: install ok installed
            Version: 1
            Architecture: riscv64
            Multi-Arch: same
            Description: x
             more

            Package: b
            Status: install ok unpacked
            Version: 2
            Architecture: all
            Conffiles:
             /etc/b newconffile

        "#]]
        .assert_eq(&read("/var/lib/dpkg/status"));
        assert_eq!(read("/var/lib/dpkg/info/a:riscv64.list"), "/.\n/usr\n");
        assert_eq!(read("/var/lib/dpkg/info/b.postinst"), "#!/bin/sh\n");
    }

    #[test]
    fn interest_in_triggers_is_work() {
        assert!(package("Package: a\n", &[("triggers", "interest-noawait x\n")]).needs_configuration());
        assert!(!package("Package: a\n", &[("md5sums", ""), ("triggers", "activate x\n")]).needs_configuration());
    }
}
