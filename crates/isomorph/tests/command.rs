//! The command without a guest: wrong ways to call it, and what it says of itself and the host.

mod guest;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use guest::output;

fn isomorph(home: &Path) -> Command {
    let mut command = guest::isomorph();
    command.env("ISOMORPH_HOME", home);
    command
}

/// The one line on standard error of a call that must fail with `status`.
fn failure(command: &mut Command, status: i32) -> String {
    let output = output(command);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{command:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{command:?}: {text}");
    assert!(text.starts_with("isomorph: "), "{text}");
    text
}

#[test]
fn wrong_command_lines_end_with_2_and_one_line() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, said) in [
        (&["run", "--frobnicate"][..], "'--frobnicate'"),
        (&["run"], "required"),
        (&["run", "debian", "--cpus", "0"], "0 is not in 1..=128"),
        (&["run", "debian", "--memory", "lots"], "512M"),
        (&["run", "debian", "--publish", "80"], "publish"),
        (&["frobnicate"], "frobnicate"),
    ] {
        let line = failure(isomorph(home.path()).args(arguments), 2);
        assert!(line.contains(said), "{line}");
        assert!(line.contains("--help'"), "{line}");
    }
}

#[test]
fn missing_and_wrong_files_are_named() {
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = home.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let text = file("notes.txt", b"this is no kernel, whatever its name");
    let empty = file("empty", b"");
    let this_program = env!("CARGO_BIN_EXE_isomorph").to_owned();
    let mut header = [0; 64];
    header[48..56].copy_from_slice(b"RISCV\0\0\0");
    header[56..60].copy_from_slice(b"RSC\x05");
    header[16..24].copy_from_slice(&(8u64 << 20).to_le_bytes());
    let truncated = file("truncated", &header[..60]);
    let mut efi = [0; 100];
    efi[..64].copy_from_slice(&header);
    efi[..2].copy_from_slice(b"MZ");
    efi[60..64].copy_from_slice(&64_u32.to_le_bytes());
    let cut_efi = file("cut_efi", &efi[..80]);
    for (kernel, said) in [
        ("/nonexistent/Image", "/nonexistent/Image"),
        (&text, "kernel"),
        (&empty, "is empty"),
        (&this_program, "x86-64"),
        (&truncated, "truncated"),
        (&cut_efi, "truncated"),
    ] {
        let line = failure(isomorph(home.path()).args(["run", "--kernel", kernel]), 1);
        assert!(line.contains(said), "{kernel}: {line}");
        assert!(line.matches("os error").count() < 2, "a cause is told once: {line}");
    }
}

#[test]
fn disks_are_checked_before_anything_runs() {
    let home = tempfile::tempdir().unwrap();
    let kernel = guest::kernel::image(&guest::kernel::power_off());
    let path = home.path().join("Image");
    fs::write(&path, kernel).unwrap();
    let run = || {
        let mut command = isomorph(home.path());
        command.args(["run", "--no-network", "--kernel"]).arg(&path);
        command
    };
    let line = failure(run().args(["--disk", "/nonexistent/disk.raw"]), 1);
    assert!(line.contains("/nonexistent/disk.raw"), "{line}");

    let disk = home.path().join("disk.raw");
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let held = fs::File::options().read(true).write(true).open(&disk).unwrap();
    held.lock().unwrap();
    let line = failure(run().arg("--disk").arg(&disk), 1);
    assert!(line.contains("in use"), "{line}");
    drop(held);
    assert_eq!(output(run().arg("--disk").arg(&disk)).status.code(), Some(0));
}

#[test]
fn a_port_in_use_and_too_little_memory_are_told() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("Image");
    fs::write(&path, guest::kernel::image(&guest::kernel::power_off())).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let publish = format!("127.0.0.1:{}:80", taken.local_addr().unwrap().port());
    let line = failure(isomorph(home.path()).args(["run", "--publish", &publish, "--kernel"]).arg(&path), 1);
    assert!(line.contains("in use"), "{line}");

    let big = home.path().join("big");
    let mut image = guest::kernel::image(&guest::kernel::power_off());
    image.resize(40 << 20, 0);
    fs::write(&big, image).unwrap();
    let line = failure(isomorph(home.path()).args(["run", "--memory", "16M", "--no-network", "--kernel"]).arg(&big), 1);
    assert!(line.contains("--memory"), "{line}");
}

#[test]
fn images_and_machines_that_are_not_there_are_named() {
    let home = tempfile::tempdir().unwrap();
    let line = failure(isomorph(home.path()).args(["run", "plan9"]), 1);
    assert!(line.contains("plan9") && line.contains("debian"), "{line}");
    let line = failure(isomorph(home.path()).args(["image", "pull", "plan9"]), 1);
    assert!(line.contains("plan9"), "{line}");
    let line = failure(isomorph(home.path()).args(["image", "rm", "debian"]), 1);
    assert!(line.contains("debian"), "{line}");
    let line = failure(isomorph(home.path()).args(["rm", "web"]), 1);
    assert!(line.contains("web"), "{line}");
}

#[test]
fn lists_are_empty_at_first_and_json_is_json() {
    let home = tempfile::tempdir().unwrap();
    for arguments in [&["ps", "--json"][..], &["image", "ls", "--json"]] {
        let output = output(isomorph(home.path()).args(arguments));
        assert!(output.status.success());
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(value, serde_json::json!([]), "{arguments:?}");
    }
    let report = output(isomorph(home.path()).args(["doctor", "--json"]));
    let findings: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    let has = |name: &str| findings.as_array().unwrap().iter().any(|finding| finding["name"] == name);
    assert!(has("kvm") && has("class library") && has("size") && has("model"), "{findings}");
    let table = output(isomorph(home.path()).arg("doctor"));
    assert!(String::from_utf8(table.stdout).unwrap().contains("/dev/kvm"));
}

#[test]
fn help_has_examples() {
    for arguments in [&["--help"][..], &["run", "--help"], &["image", "pull", "--help"]] {
        let output = output(guest::isomorph().args(arguments));
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8(output.stdout).unwrap().contains("Examples:"), "{arguments:?}");
    }
}
