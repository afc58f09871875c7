//! Which files of packages an image leaves out, as dpkg's own `path-exclude` and `path-include` rules.
//!
//! The builder follows the rules when it unpacks, and writes them to the image as `/etc/dpkg/dpkg.cfg.d/isomorph`, so that upgrades inside the
//! guest follow them too. Deleting that file and reinstalling a package brings its files back.

/// One rule: whether it includes, and a pattern in which `*` stands for any characters, slashes too.
type Rule = (bool, &'static str);

/// In dpkg's order: the last rule that matches a path decides.
const RULES: &[Rule] = &[
    (false, "/usr/share/doc/*"),
    (true, "/usr/share/doc/*/copyright"),
    (false, "/usr/share/info/*"),
    (false, "/usr/share/lintian/*"),
    (false, "/usr/share/locale/*"),
    (true, "/usr/share/locale/locale.alias"),
    (false, "/usr/share/man/*"),
    // Names of PCI, USB and other hardware that the machine does not have; compiling them takes longer than all else of udev.
    (false, "/usr/lib/udev/hwdb.d/*"),
    // Drivers of hardware that the machine does not have: four fifths of the kernel's modules.
    (false, "/usr/lib/modules/*/kernel/sound/*"),
    (false, "/usr/lib/modules/*/kernel/net/bluetooth/*"),
    (false, "/usr/lib/modules/*/kernel/net/can/*"),
    (false, "/usr/lib/modules/*/kernel/net/ieee802154/*"),
    (false, "/usr/lib/modules/*/kernel/net/mac80211/*"),
    (false, "/usr/lib/modules/*/kernel/net/mac802154/*"),
    (false, "/usr/lib/modules/*/kernel/net/nfc/*"),
    (false, "/usr/lib/modules/*/kernel/net/wireless/*"),
    (false, "/usr/lib/modules/*/kernel/drivers/*"),
    (true, "/usr/lib/modules/*/kernel/drivers/block/*"),
    (true, "/usr/lib/modules/*/kernel/drivers/cdrom/*"),
    (true, "/usr/lib/modules/*/kernel/drivers/char/*"),
    (true, "/usr/lib/modules/*/kernel/drivers/crypto/virtio/*"),
    (true, "/usr/lib/modules/*/kernel/drivers/dax/*"),
    (true, "/usr/lib/modules/*/kernel/drivers/input/*"),
    (true, "/usr/lib/modules/*/kernel/drivers/md/*"),
    (true, "/usr/lib/modules/*/kernel/drivers/net/*"),
    (false, "/usr/lib/modules/*/kernel/drivers/net/*/*"),
    (true, "/usr/lib/modules/*/kernel/drivers/net/bonding/*"),
    (true, "/usr/lib/modules/*/kernel/drivers/net/ethernet/intel/e1000*"),
    (true, "/usr/lib/modules/*/kernel/drivers/net/ipvlan/*"),
    (true, "/usr/lib/modules/*/kernel/drivers/net/netdevsim/*"),
    (true, "/usr/lib/modules/*/kernel/drivers/net/ppp/*"),
    (true, "/usr/lib/modules/*/kernel/drivers/net/team/*"),
    (true, "/usr/lib/modules/*/kernel/drivers/net/vxlan/*"),
    (true, "/usr/lib/modules/*/kernel/drivers/net/wireguard/*"),
    (true, "/usr/lib/modules/*/kernel/drivers/nvdimm/*"),
    (true, "/usr/lib/modules/*/kernel/drivers/nvme/*"),
    (true, "/usr/lib/modules/*/kernel/drivers/rtc/rtc-goldfish.ko*"),
    (true, "/usr/lib/modules/*/kernel/drivers/scsi/scsi_*"),
    (true, "/usr/lib/modules/*/kernel/drivers/scsi/sd_mod*"),
    (true, "/usr/lib/modules/*/kernel/drivers/scsi/sr_mod*"),
    (true, "/usr/lib/modules/*/kernel/drivers/scsi/virtio_scsi*"),
    (true, "/usr/lib/modules/*/kernel/drivers/vhost/*"),
    (true, "/usr/lib/modules/*/kernel/drivers/virtio/*"),
];

/// Whether the file at `path` (absolute) is left out.
pub(crate) fn leaves_out(path: &[u8]) -> bool {
    RULES.iter().rev().find(|(_, pattern)| matches(pattern.as_bytes(), path)).is_some_and(|(include, _)| !include)
}

/// The rules as dpkg's configuration.
pub(crate) fn configuration() -> String {
    let mut text = String::from("# Files that this machine image leaves out.\n");
    for (include, pattern) in RULES {
        text += if *include { "path-include=" } else { "path-exclude=" };
        text += pattern;
        text.push('\n');
    }
    text
}

/// Whether `path` matches `pattern`. Backtracks to the last star only, so the cost is at most the product of the lengths.
fn matches(pattern: &[u8], path: &[u8]) -> bool {
    let (mut p, mut s) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while s < path.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, s));
                p += 1;
            }
            Some(byte) if *byte == path[s] => {
                p += 1;
                s += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                s = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_dpkg_matches() {
        assert!(matches(b"/a/*", b"/a/b/c"));
        assert!(matches(b"/a/*/c", b"/a/b/x/c"));
        assert!(!matches(b"/a/*/c", b"/a/b/x/cd"));
        assert!(!matches(b"/a/*", b"/a"));
        assert!(matches(b"*a*a*b", b"aaaaaaaab"));
        assert!(!matches(b"*a*a*b", b"aaaaaaaa"));
    }

    #[test]
    fn the_last_rule_decides() {
        assert!(leaves_out(b"/usr/share/doc/bash/README"));
        assert!(!leaves_out(b"/usr/share/doc/bash/copyright"));
        assert!(leaves_out(b"/usr/lib/modules/6.12/kernel/drivers/gpu/drm/amd/amdgpu.ko.xz"));
        assert!(!leaves_out(b"/usr/lib/modules/6.12/kernel/drivers/virtio/virtio_mmio.ko.xz"));
        assert!(!leaves_out(b"/usr/lib/modules/6.12/kernel/drivers/net/virtio_net.ko.xz"));
        assert!(leaves_out(b"/usr/lib/modules/6.12/kernel/drivers/net/wireless/x/y.ko.xz"));
        assert!(!leaves_out(b"/usr/lib/modules/6.12/kernel/fs/ext4/ext4.ko.xz"));
        assert!(!leaves_out(b"/usr/bin/env"));
    }

    #[test]
    fn the_guest_gets_the_same_rules() {
        let text = configuration();
        assert_eq!(text.lines().count(), RULES.len() + 1);
        assert!(text.contains("\npath-include=/usr/share/doc/*/copyright\n"));
    }
}
