//! Writing cpio archives in the "new ASCII" format that Linux unpacks as initramfs (Documentation/driver-api/early-userspace/buffer-format.rst
//! of the kernel): a header of hexadecimal numbers, the name, the content, each padded to four bytes.

/// An archive under construction.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    count: u32,
}

const DIRECTORY: u32 = 0o040_000;
const CHARACTER: u32 = 0o020_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

impl Archive {
    /// An empty archive.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a directory. Names are relative to the root, without a slash in front.
    pub(crate) fn directory(&mut self, name: &str) {
        self.entry(name, DIRECTORY | 0o755, (0, 0), &[]);
    }

    /// Adds a regular file. At most 4 GiB, as the format has it.
    pub(crate) fn file(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        self.entry(name, FILE | mode, (0, 0), bytes);
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, name: &str, target: &str) {
        self.entry(name, LINK | 0o777, (0, 0), target.as_bytes());
    }

    /// Adds a character device with its major and minor number.
    pub(crate) fn character_device(&mut self, name: &str, mode: u32, number: (u32, u32)) {
        self.entry(name, CHARACTER | mode, number, &[]);
    }

    /// The archive with its end mark.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.count = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let content = &content[..length as usize];
        let name_length = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        self.count += 1;
        self.bytes.extend_from_slice(b"070701");
        // inode, mode, uid, gid, links, time, size, device of the file (2), device number (2), length of name, checksum
        for field in [self.count, mode, 0, 0, 1, 0, length, 0, 0, device.0, device.1, name_length, 0] {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_kernel_s() {
        let mut archive = Archive::new();
        archive.directory("dev");
        archive.character_device("dev/console", 0o600, (5, 1));
        archive.file("init", 0o755, b"hello");
        archive.link("bin", "usr/bin");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap().replace('\0', ".").replace("0707", "\n0707");
        let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert!(
            lines[0].starts_with("07070100000001000041ED") && lines[0].ends_with("0000000400000000dev..."),
            "{text}"
        );
        assert!(lines[1].contains("00000005000000010000000C00000000dev/console..."), "{text}");
        assert!(lines[2].contains("000081ED") && lines[2].ends_with("init..hello..."), "{text}");
        assert!(lines[3].contains("0000A1FF") && lines[3].ends_with("bin...usr/bin."), "{text}");
        assert!(lines[4].ends_with("0000000B00000000TRAILER!!!...."), "{text}");
    }
}
