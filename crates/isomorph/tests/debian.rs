//! Debian, unmodified, on the RISC-V machine: pulled from its packages, booted, used, powered off.

mod guest;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use guest::{Session, home, isomorph, pull_debian};

const PASSWORD: &str = "isomorph";
/// A boot takes some seconds on an idle host; this is for one that is busy.
const BOOT: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_secs(60);

/// Boots a new machine of the Debian image that goes when it ends.
fn boot(name: &str, flags: &[&str]) -> Session {
    pull_debian();
    // One that a run of these tests left, since it was killed, would be taken up.
    guest::output(isomorph().args(["rm", name]));
    let mut session = Session::start(isomorph().args(["run", "debian", "--rm", "--name", name]).args(flags));
    session.log_in(PASSWORD, BOOT);
    session
}

fn power_off(mut session: Session) {
    session.send("poweroff\n");
    assert_eq!(session.wait(BOOT).code(), Some(0), "{}", session.text());
}

#[test]
fn guest_boots_to_login_with_one_hart_and_powers_off() {
    let mut debian = boot("one", &["--cpus", "1"]);
    assert_eq!(debian.run("nproc", SOON).trim(), "1");
    assert_eq!(debian.run("uname -m", SOON).trim(), "riscv64");
    assert_eq!(debian.run("systemctl is-system-running --wait", BOOT).trim(), "running");
    power_off(debian);
    assert!(!home().join("machines/one").exists(), "--rm removes the machine");
}

#[test]
fn guest_boots_with_four_harts_that_all_work_and_shuts_down_when_asked() {
    let mut debian = boot("four", &["--cpus", "4", "--no-network"]);
    assert_eq!(debian.run("nproc", SOON).trim(), "4");
    let sums = debian.run("for i in 1 2 3 4; do (seq 1 200000 | sha256sum) & done; wait", BOOT);
    let mut lines: Vec<_> = sums.lines().filter(|line| line.ends_with('-')).collect();
    lines.dedup();
    assert_eq!(lines.len(), 1, "{sums}");
    // Once all is up, there is someone who listens to the power button.
    debian.run("systemctl is-system-running --wait", BOOT);
    let stopped = guest::output(isomorph().args(["stop", "four", "--timeout", "300"]));
    assert!(stopped.status.success() && stopped.stderr.is_empty(), "{}", String::from_utf8_lossy(&stopped.stderr));
    assert_eq!(debian.wait(SOON).code(), Some(0), "{}", debian.text());
    assert!(debian.text().contains("reboot: Power down"), "{}", debian.text());
}

#[test]
fn guest_software_installs_over_the_network_compiles_and_runs() {
    let mut debian = boot("work", &["--cpus", "2", "--memory", "2G"]);
    let minutes = Duration::from_secs(1200);
    // A mirror that is being brought up to date lacks some index of the updates now and then; the release itself it must have.
    let (said, _) = debian.shell("apt-get update -q", minutes);
    debian.run("apt-get install -q --print-uris -y gcc | grep -q '^.http'", minutes);
    assert!(said.contains("trixie InRelease"), "{said}");
    debian.run(
        "DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends gcc libc6-dev python3",
        minutes,
    );
    debian.run("dpkg --audit && dpkg -s gcc | grep -q 'ok installed'", minutes);
    debian.run(
        r#"printf '#include <stdio.h>\nint main(void) { puts("hello from gcc"); }\n' > hello.c && gcc -O2 -o hello hello.c"#,
        minutes,
    );
    assert_eq!(debian.run("./hello", SOON).trim(), "hello from gcc");
    assert_eq!(debian.run("python3 -c 'print(sum(range(1000)) * 1.5)'", minutes).trim(), "749250.0");
    debian.run("ping -c 1 10.0.2.2", SOON);
    power_off(debian);
}

#[test]
fn guest_a_machine_keeps_its_disk_and_the_image_stays() {
    pull_debian();
    let image = home().join("images/debian/disk.raw");
    let before = fs::metadata(&image).unwrap().modified().unwrap();
    let start = || {
        let mut session = Session::start(isomorph().args(["run", "debian", "--name", "keeper", "--console", "virtio"]));
        session.log_in(PASSWORD, BOOT);
        session
    };
    let mut debian = start();
    debian.run("echo kept > /root/note && sync", SOON);
    // A second machine of the same name would destroy the first one's disk.
    let second = guest::output(isomorph().args(["run", "debian", "--name", "keeper"]));
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8(second.stderr).unwrap().contains("running already"));
    // What was synced survives the plug being pulled.
    debian.child.kill().unwrap();
    drop(debian);
    let mut debian = start();
    assert_eq!(debian.run("cat /root/note", SOON).trim(), "kept");
    power_off(debian);
    assert_eq!(fs::metadata(&image).unwrap().modified().unwrap(), before);
    assert!(guest::output(isomorph().args(["rm", "keeper"])).status.success());
}

#[test]
fn guest_published_ports_lead_into_the_guest_and_a_reboot_comes_back() {
    let mut debian = boot("web", &["--publish", "127.0.0.1:0:7777"]);
    let text = debian.text();
    let published = text.lines().find(|line| line.contains("published")).expect("the chosen port is told").to_owned();
    let port: u16 = published.split("127.0.0.1:").nth(1).unwrap().split(':').next().unwrap().parse().unwrap();
    debian.run(
        "cat > /root/serve.pl <<'END'\nuse IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 7777, Listen => 5, ReuseAddr => 1) or die; \
         while (my $c = $s->accept) { my $l = <$c>; print $c \"heard $l\"; close $c }\nEND\nperl /root/serve.pl > /dev/null & sleep 2",
        SOON,
    );
    let deadline = Instant::now() + SOON;
    let answer = loop {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut answer = String::new();
        if stream.write_all(b"hello\n").is_ok() && stream.read_to_string(&mut answer).is_ok() && !answer.is_empty() {
            break answer;
        }
        assert!(Instant::now() < deadline, "no answer from the guest");
        thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(answer, "heard hello\n");
    debian.send("reboot\n");
    debian.log_in(PASSWORD, BOOT);
    power_off(debian);
}
