//! What differs between Debian's ports: the processor that an image is for.

/// A port of Debian.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// The image's name.
    pub(crate) name: &'static str,
    /// Debian's name for it, which is also the image's kind.
    pub(crate) architecture: &'static str,
    /// The package that depends on the kernel's, and is on hold inside.
    pub(crate) kernel_package: &'static str,
    /// What the kernel's file in `/boot` is called before its version.
    pub(crate) kernel_file: &'static str,
    /// The module that the virtio bus of the machine needs.
    pub(crate) bus_module: &'static str,
    /// What such a file is, for an error.
    kernel_kind: &'static str,
    is_kernel: fn(&[u8]) -> bool,
}

/// 64-bit RISC-V: the machine that runs everywhere.
pub(crate) const RISCV64: Port = Port {
    name: "debian",
    architecture: "riscv64",
    kernel_package: "linux-image-riscv64",
    kernel_file: "vmlinux-",
    bus_module: "virtio_mmio",
    kernel_kind: "an uncompressed RISC-V Image",
    is_kernel: is_riscv_image,
};

/// x86-64, on KVM. Its kernel is the one for machines in clouds, which has no drivers of hardware that no virtual machine has.
pub(crate) const AMD64: Port = Port {
    name: "debian:amd64",
    architecture: "amd64",
    kernel_package: "linux-image-cloud-amd64",
    kernel_file: "vmlinuz-",
    bus_module: "virtio_pci",
    kernel_kind: "an x86-64 bzImage",
    is_kernel: is_bzimage,
};

/// All that images are built of.
pub(crate) const ALL: [Port; 2] = [RISCV64, AMD64];
/// Their names, for people.
pub(crate) const NAMES: &str = "debian, debian:amd64, sysroot, java";

impl Port {
    /// The port whose image is called `name`; with its architecture's name every image can be asked for.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        ALL.into_iter().find(|port| port.name == name || name.strip_prefix("debian:") == Some(port.architecture))
    }

    /// What the image is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The kind of machine that runs it, as in a manifest.
    #[must_use]
    pub fn kind(self) -> &'static str {
        self.architecture
    }

    /// What is wrong with a kernel, if anything is.
    pub(crate) fn check_kernel(self, version: &str, bytes: &[u8]) -> Result<(), String> {
        if (self.is_kernel)(bytes) { Ok(()) } else { Err(format!("kernel {version} is not {}", self.kernel_kind)) }
    }
}

/// Whether `bytes` begin with the header of Documentation/arch/riscv/boot-image-header.rst of the kernel.
fn is_riscv_image(bytes: &[u8]) -> bool {
    bytes.get(48..56) == Some(b"RISCV\0\0\0") && bytes.get(56..60) == Some(b"RSC\x05")
}

/// Whether `bytes` begin with the header of Documentation/arch/x86/boot.rst of the kernel.
fn is_bzimage(bytes: &[u8]) -> bool {
    bytes.get(0x1fe..0x200) == Some(&[0x55, 0xaa]) && bytes.get(0x202..0x206) == Some(b"HdrS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_flat_image_is_a_kernel() {
        let mut header = vec![0; 64];
        header[48..56].copy_from_slice(b"RISCV\0\0\0");
        header[56..60].copy_from_slice(b"RSC\x05");
        assert!(is_riscv_image(&header));
        assert!(!is_riscv_image(&header[..58]));
        assert!(!is_riscv_image(b"\x1f\x8b"));
        assert!(RISCV64.check_kernel("6", &header).is_ok() && AMD64.check_kernel("6", &header).is_err());
        let mut header = vec![0; 0x210];
        header[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        header[0x202..0x206].copy_from_slice(b"HdrS");
        assert!(is_bzimage(&header) && !is_bzimage(&header[..0x205]));
    }

    #[test]
    fn images_are_found_by_name_and_by_architecture() {
        let kind = |name| Port::find(name).map(Port::kind);
        assert_eq!((kind("debian"), kind("debian:riscv64")), (Some("riscv64"), Some("riscv64")));
        assert_eq!((kind("debian:amd64"), kind("debian:arm64")), (Some("amd64"), None));
        assert!(ALL.iter().all(|port| NAMES.split(", ").any(|name| name == port.name)));
    }
}
