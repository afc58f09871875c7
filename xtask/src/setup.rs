//! What the tests need of the host beside Rust, and installing what is missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::run;
use crate::workspace;

/// Something that a Debian package brings.
struct Need {
    /// A program to be found on the path, or a file by its absolute path.
    what: &'static str,
    /// The packages that bring it. One that releases name differently is written as in `Depends`, `a | b`: the first that the host's apt knows is taken.
    packages: &'static [&'static str],
    why: &'static str,
}

const NEEDS: [Need; 29] = [
    Need {
        what: "qemu-system-riscv64",
        packages: &["qemu-system-riscv | qemu-system-misc"],
        why: "the other implementation that instructions and whole machines are compared with",
    },
    Need {
        what: "qemu-riscv64",
        packages: &["qemu-user"],
        why: "the other implementation that Linux programs are compared with",
    },
    Need {
        what: "riscv64-linux-gnu-objdump",
        packages: &["binutils-riscv64-linux-gnu"],
        why: "the disassembler that ours is compared with",
    },
    Need { what: "gcc", packages: &["gcc", "libc6-dev"], why: "builds the C code that Java programs call" },
    Need { what: "riscv64-linux-gnu-gcc", packages: &["gcc-riscv64-linux-gnu"], why: "builds guest programs" },
    Need {
        what: "/usr/riscv64-linux-gnu/include/stdio.h",
        packages: &["libc6-dev-riscv64-cross"],
        why: "builds guest programs",
    },
    Need {
        what: "qemu-system-x86_64",
        packages: &["qemu-system-x86"],
        why: "the processor with virtualization that x86-64 machines are tested on",
    },
    Need {
        what: "/usr/share/OVMF/OVMF_CODE_4M.fd",
        packages: &["ovmf"],
        why: "the firmware that x86-64 machines start from",
    },
    Need {
        what: "/usr/lib/systemd/boot/efi/systemd-bootx64.efi",
        packages: &["systemd-boot-efi"],
        why: "a boot loader that x86-64 machines start from",
    },
    Need { what: "mformat", packages: &["mtools"], why: "makes the partition that firmware starts from" },
    Need { what: "sfdisk", packages: &["fdisk"], why: "makes the table of partitions that firmware looks at" },
    Need { what: "/bin/busybox", packages: &["busybox-static"], why: "the user space of nested machines" },
    Need { what: "lz4", packages: &["lz4"], why: "unpacks the kernel that x86-64 machines start as an ELF file" },
    Need { what: "strip", packages: &["binutils"], why: "makes programs for nested machines smaller" },
    Need { what: "dtc", packages: &["device-tree-compiler"], why: "checks the device tree of machines" },
    Need { what: "mke2fs", packages: &["e2fsprogs"], why: "makes the file systems of machine images" },
    Need {
        what: "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_jump.elf",
        packages: &["opensbi"],
        why: "firmware that machines start from",
    },
    Need {
        what: "/usr/lib/u-boot/qemu-riscv64_smode/uboot.elf",
        packages: &["u-boot-qemu"],
        why: "a boot loader that machines start from",
    },
    Need { what: "gdb-multiarch", packages: &["gdb-multiarch"], why: "the debugger that guests are looked at with" },
    Need { what: "clang-19", packages: &["clang-19"], why: "builds the workloads of comparisons, for all machines" },
    Need { what: "wasm-ld-19", packages: &["lld-19"], why: "links the workloads of comparisons" },
    Need { what: "node", packages: &["nodejs"], why: "another WebAssembly machine that comparisons measure" },
    Need { what: "cpio", packages: &["cpio"], why: "reads the initial RAM disk that comparisons make" },
    Need { what: "npm", packages: &["npm"], why: "fetches the WebAssembly programs that tests run" },
    Need {
        what: "javac",
        packages: &["openjdk-17-jdk-headless"],
        why: "the class library, and the other implementation that Java programs are compared with",
    },
    Need {
        what: "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf",
        packages: &["fonts-dejavu-core", "fontconfig"],
        why: "the letters that Java programs draw",
    },
    Need {
        what: "/usr/share/java/commons-lang3.jar",
        packages: &["libcommons-lang3-java"],
        why: "classes to verify and run",
    },
    Need {
        what: "/usr/share/java/jetty9-server.jar",
        packages: &[
            "bsh",
            "rhino",
            "clojure",
            "antlr4",
            "junit4",
            "sat4j",
            "libjetty9-java",
            "libservlet-api-java",
            "ecj",
        ],
        why: "Java programs to run as they are",
    },
    Need { what: "g++", packages: &["g++"], why: "builds the fuzzing engine" },
];

/// The host's programs, also those that only root's path has.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

impl Need {
    fn is_met(&self) -> bool {
        if self.what.starts_with('/') { Path::new(self.what).exists() } else { find_program(self.what).is_some() }
    }

    fn packages(&self) -> impl Iterator<Item = &'static str> {
        self.packages.iter().map(|alternatives| {
            let names: Vec<&str> = alternatives.split(" | ").collect();
            let last = names.len() - 1;
            names[..last].iter().find(|name| apt_knows(name)).copied().unwrap_or(names[last])
        })
    }
}

/// Whether the host's apt can install a package of that name.
fn apt_knows(package: &str) -> bool {
    let output = Command::new("apt-cache").args(["policy", package]).output();
    output.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().any(|line| line.trim().strip_prefix("Candidate:").is_some_and(|c| c.trim() != "(none)"))
    })
}

/// How this user can install packages: the words before `apt-get`.
fn privilege() -> Option<&'static [&'static str]> {
    let quiet = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output()
    };
    if quiet("id", &["-u"]).is_ok_and(|output| output.stdout.trim_ascii() == b"0") {
        return Some(&["env", "DEBIAN_FRONTEND=noninteractive"]);
    }
    let sudo = quiet("sudo", &["-n", "true"]).is_ok_and(|output| output.status.success());
    sudo.then_some(&["sudo", "-n", "env", "DEBIAN_FRONTEND=noninteractive"])
}

/// Installs every package that is missing and `cargo-nextest`, saying so; does nothing on a host that has all.
pub(crate) fn install_missing() -> Result<()> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !need.is_met()).collect();
    if !missing.is_empty() {
        install_packages(&missing)?;
    }
    if !has_nextest() {
        println!("    installing cargo-nextest (it runs the tests)");
        run::run(workspace::cargo().args(["install", "--locked", "cargo-nextest"]))?;
    }
    Ok(())
}

/// Installs Debian packages for needs that are not met.
fn install_packages(missing: &[&Need]) -> Result<()> {
    let privilege = privilege();
    if let (Some(privilege), true) = (privilege, find_program("apt-get").is_some()) {
        println!("    bringing the package lists up to date");
        run::run(Command::new(privilege[0]).args(&privilege[1..]).args(["apt-get", "update", "-q"]))?;
    }
    let mut packages: Vec<&str> = Vec::new();
    for need in missing {
        let wanted: Vec<&str> = need.packages().collect();
        println!("    missing: {} ({}), of {}", need.what, need.why, wanted.join(" "));
        packages.extend(wanted);
    }
    packages.sort_unstable();
    packages.dedup();
    let install = ["apt-get", "install", "-y", "--no-install-recommends"];
    let by_hand = format!("{} {}", install.join(" "), packages.join(" "));
    let Some(privilege) = privilege else {
        bail!("tests need packages that this user cannot install; as root, run: {by_hand}");
    };
    if find_program("apt-get").is_none() {
        bail!("this host has no apt-get; install what these Debian packages bring: {}", packages.join(" "));
    }
    println!("    {by_hand}");
    run::run(Command::new(privilege[0]).args(&privilege[1..]).args(install).args(&packages))?;
    let still: Vec<&str> = missing.iter().filter(|need| !need.is_met()).map(|need| need.what).collect();
    if !still.is_empty() {
        bail!("the packages {} did not bring {}", packages.join(" "), still.join(", "));
    }
    Ok(())
}

fn has_nextest() -> bool {
    let output = workspace::cargo().args(["nextest", "--version"]).stderr(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_root_are_found_too() {
        assert!(find_program("sh").is_some());
        assert!(find_program("no-such-program-anywhere").is_none());
    }

    #[test]
    fn a_need_is_a_program_or_a_file() {
        let need = |what| Need { what, packages: &["none"], why: "" };
        assert!(need("sh").is_met() && need("/etc/passwd").is_met());
        assert!(!need("no-such-program-anywhere").is_met() && !need("/no/such/file").is_met());
    }

    #[test]
    fn all_packages_of_a_need_are_wanted_and_one_of_those_that_stand_for_each_other() {
        let need = Need { what: "sh", packages: &["dash", "isomorph-no-such-package | libc6", "a | b"], why: "" };
        assert!(need.packages().eq(["dash", "libc6", "b"]));
    }

    #[test]
    fn a_package_that_no_release_has_is_not_known() {
        assert!(!apt_knows("isomorph-no-such-package"));
    }
}
