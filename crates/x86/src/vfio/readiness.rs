//! Whether the host is ready to give a function away. What is missing is said with the command that mends it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::HostAddress;

/// What is missing.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// No such function.
    #[error("this host has no PCI function {0}; `lspci -D` lists those that it has")]
    Absent(HostAddress),
    /// No IOMMU, or it is off.
    #[error(
        "{0} has no IOMMU before it: switch on VT-d or AMD-Vi in the host's firmware, and boot the host with intel_iommu=on if it is Intel's"
    )]
    NoIommu(HostAddress),
    /// Another driver, or none, has the function.
    #[error(
        "{wanted} has to belong to vfio-pci, and {address} belongs to {owner}: modprobe vfio-pci; echo vfio-pci > {folder}/driver_override; \
         echo {address} > {folder}/driver/unbind; echo {address} > /sys/bus/pci/drivers_probe", folder = .folder.display()
    )]
    Driver {
        /// The function that was asked for: what shares its IOMMU group has to go with it.
        wanted: HostAddress,
        /// The function that another driver has.
        address: HostAddress,
        /// Who has it.
        owner: String,
        /// The function in sysfs.
        folder: PathBuf,
    },
    /// The kernel has no VFIO.
    #[error("the host's kernel offers no VFIO ({} is not there): modprobe vfio-pci", .0.display())]
    NoVfio(PathBuf),
    /// The user may not.
    #[error("no permission to open {path}: sudo chown $USER {path}", path = .0.display())]
    Permission(PathBuf),
    /// The host failed.
    #[error("cannot read {}: {cause}", .path.display())]
    Host {
        /// What was read.
        path: PathBuf,
        /// What the host said.
        cause: io::Error,
    },
}

/// Where the host tells of devices.
#[derive(Clone, Debug)]
pub struct Places {
    /// Sysfs.
    pub sys: PathBuf,
    /// The folder of devices.
    pub dev: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { sys: "/sys".into(), dev: "/dev".into() }
    }
}

/// The last part of what a symbolic link names; `None` if there is no such link.
fn link_name(path: &Path) -> Option<String> {
    Some(fs::read_link(path).ok()?.file_name()?.to_string_lossy().into_owned())
}

fn check_device_file(path: PathBuf) -> Result<(), NotReady> {
    match fs::File::options().read(true).write(true).open(&path) {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Err(NotReady::NoVfio(path)),
            io::ErrorKind::PermissionDenied => Err(NotReady::Permission(path)),
            // Opened by another machine, say: what then fails tells more.
            _ => Ok(()),
        },
    }
}

/// Checks that the function at `address`, and all that share its IOMMU group, are ready. Answers the function's folder in sysfs.
///
/// # Errors
/// What is missing, the first thing first.
pub fn check(places: &Places, address: HostAddress) -> Result<PathBuf, NotReady> {
    let functions = places.sys.join("bus/pci/devices");
    let folder = functions.join(address.to_string());
    if !folder.exists() {
        return Err(NotReady::Absent(address));
    }
    let group = link_name(&folder.join("iommu_group")).ok_or(NotReady::NoIommu(address))?;
    let members = folder.join("iommu_group/devices");
    let entries = fs::read_dir(&members).map_err(|cause| NotReady::Host { path: members, cause })?;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    // The one that was asked for is told of first.
    names.sort_by_key(|name| (*name != address.to_string(), name.clone()));
    for name in names {
        let Ok(member) = name.parse::<HostAddress>() else { continue };
        let folder = functions.join(&name);
        let class = fs::read_to_string(folder.join("class")).unwrap_or_default();
        let driver = link_name(&folder.join("driver"));
        // Bridges stay with the host; so may what no driver has, unless it is the one.
        let allowed = match driver.as_deref() {
            Some("vfio-pci") => true,
            Some("pcieport") | None => member != address,
            Some(_) => class.trim().starts_with("0x0604") && member != address,
        };
        if !allowed {
            let owner = driver.map_or_else(|| "no driver".into(), |driver| format!("driver '{driver}'"));
            return Err(NotReady::Driver { wanted: address, address: member, owner, folder });
        }
    }
    check_device_file(places.dev.join("vfio/vfio"))?;
    check_device_file(places.dev.join("vfio").join(group))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A host with two functions in group 7.
    fn host(folder: &Path) -> Places {
        let places = Places { sys: folder.join("sys"), dev: folder.join("dev") };
        let functions = places.sys.join("bus/pci/devices");
        let group = places.sys.join("kernel/iommu_groups/7");
        fs::create_dir_all(group.join("devices")).unwrap();
        for driver in ["vfio-pci", "e1000e", "pcieport"] {
            fs::create_dir_all(places.sys.join("bus/pci/drivers").join(driver)).unwrap();
        }
        for name in ["0000:01:00.0", "0000:01:00.1"] {
            fs::create_dir_all(functions.join(name)).unwrap();
            fs::write(functions.join(name).join("class"), "0x020000\n").unwrap();
            symlink(&group, functions.join(name).join("iommu_group")).unwrap();
            symlink(functions.join(name), group.join("devices").join(name)).unwrap();
        }
        places
    }

    fn bind(places: &Places, function: &str, driver: &str) {
        let link = places.sys.join("bus/pci/devices").join(function).join("driver");
        let _ = fs::remove_file(&link);
        symlink(places.sys.join("bus/pci/drivers").join(driver), link).unwrap();
    }

    #[test]
    fn what_is_missing_is_said_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        let places = host(folder.path());
        let address: HostAddress = "01:00.0".parse().unwrap();
        let say = || check(&places, address).unwrap_err().to_string();
        assert!(
            check(&places, "02:00.0".parse().unwrap())
                .unwrap_err()
                .to_string()
                .contains("has no PCI function 0000:02:00.0")
        );
        bind(&places, "0000:01:00.0", "e1000e");
        let text = say();
        assert!(
            text.contains("belongs to driver 'e1000e'")
                && text.contains("echo 0000:01:00.0 > /sys/bus/pci/drivers_probe"),
            "{text}"
        );
        assert!(!text.contains('\n'));
        fs::remove_file(places.sys.join("bus/pci/devices/0000:01:00.0/driver")).unwrap();
        assert!(say().contains("belongs to no driver"));
        bind(&places, "0000:01:00.0", "vfio-pci");
        bind(&places, "0000:01:00.1", "e1000e");
        assert!(say().contains("0000:01:00.1 belongs to driver 'e1000e'"), "its neighbour");
        bind(&places, "0000:01:00.1", "pcieport");
        assert!(say().contains("modprobe vfio-pci"), "{}", say());
        fs::create_dir_all(places.dev.join("vfio")).unwrap();
        fs::write(places.dev.join("vfio/vfio"), "").unwrap();
        assert!(say().contains("vfio/7 is not there"));
        fs::write(places.dev.join("vfio/7"), "").unwrap();
        assert!(check(&places, address).unwrap().ends_with("bus/pci/devices/0000:01:00.0"));
        fs::remove_file(places.sys.join("bus/pci/devices/0000:01:00.0/iommu_group")).unwrap();
        assert!(say().contains("no IOMMU"));
    }

    #[test]
    fn this_host_gives_an_answer() {
        assert!(check(&Places::default(), "ffff:ff:1f.7".parse().unwrap()).is_err());
    }
}
