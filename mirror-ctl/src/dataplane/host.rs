//! Whether this machine can run the programs, and what is prepared before they are loaded.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        statfs::{BPF_FS_MAGIC, statfs},
        utsname::uname,
    },
};
use tracing::{info, warn};

use super::{DataplaneError, error::PathContext};

/// The first kernel that runs the programs safely, and what it brought. They load on 6.1
/// (`cargo xtask kernels`); but up to 6.8 a broadcast
/// to a devmap that is freed meanwhile, as a retired replica set's is, crashes the kernel
/// (CVE-2024-36937, `xdp_do_redirect`, net/core/filter.c). Some distributions have mended older
/// ones, which their version does not tell.
const KERNEL_MIN: (u32, u32) = (6, 9);
const KERNEL_FEATURE: &str =
    "a broadcast redirect that survives the removal of its devmap (CVE-2024-36937)";
/// From which version of a series on the kernel runs a devmap's program on data of the copy's own in
/// generic mode ("bpf: Run generic devmap egress prog on private skb"). Before, all copies of a
/// broadcast share one packet (`dev_map_redirect_clone`, kernel/bpf/devmap.c), in which the first
/// copy's address and numbers are found by the others. 6.12 by the changelog of Debian's kernel, 6.18
/// by the oldest that was seen to do it; what comes after the last series has it from its beginning.
const PRIVATE_COPIES: [(u32, u32, u32); 3] = [(6, 12, 97), (6, 18, 44), (7, 2, 0)];
const BTF: &str = "/sys/kernel/btf/vmlinux";
const BPFFS: &str = "/sys/fs/bpf";

/// Checks all that must be so before anything is loaded.
pub(super) fn check() -> Result<(), DataplaneError> {
    checks().into_iter().try_for_each(|(_, result)| result)
}

/// All that must be so before anything is loaded, each by its name.
pub(super) fn checks() -> [(&'static str, Result<(), DataplaneError>); 3] {
    let release = uname().map(|name| name.release().to_string_lossy().into_owned());
    let status = fs::read_to_string("/proc/self/status").path("read", "/proc/self/status");
    [
        (
            "capabilities",
            status.and_then(|status| capabilities(&status)),
        ),
        ("kernel", kernel(&release.unwrap_or_default())),
        ("btf", type_information(BTF)),
    ]
}

fn type_information(path: &'static str) -> Result<(), DataplaneError> {
    match Path::new(path).exists() {
        true => Ok(()),
        false => Err(DataplaneError::NoBtf { path }),
    }
}

/// Says what to type when an operation on the pins is not permitted.
pub(super) fn check_permitted(pin_dir: &Path) -> Result<(), DataplaneError> {
    match fs::metadata(pin_dir.join("maps")) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(DataplaneError::Permission {
                path: pin_dir.to_owned(),
            })
        }
        _ => Ok(()),
    }
}

/// Reads the effective capabilities from the text of `/proc/self/status`.
fn capabilities(status: &str) -> Result<(), DataplaneError> {
    // capability.h; CAP_PERFMON lets the verifier trust pointer arithmetic.
    const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
    const CAP_SYS_ADMIN: u32 = 21;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let has = |bit: u32| effective.unwrap_or(0) >> bit & 1 == 1;
    let missing: Vec<_> = NEEDED
        .into_iter()
        // CAP_SYS_ADMIN includes the two that were split off from it in 5.8.
        .filter(|&(bit, _)| !(has(bit) || bit > CAP_SYS_ADMIN && has(CAP_SYS_ADMIN)))
        .map(|(_, name)| name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(DataplaneError::Capabilities {
        capabilities: missing.join(", "),
    })
}

/// Whether copies that are made in generic mode can be told apart, and why not: the release.
pub(super) fn check_generic_copies() -> Result<(), String> {
    let release = uname().map(|name| name.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    match has_private_copies(&release) {
        true => Ok(()),
        false => Err(release),
    }
}

/// Whether a kernel of this release is known to clone rightly in generic mode.
pub fn has_private_copies(release: &str) -> bool {
    let (major, minor, patch) = version(release);
    let last = PRIVATE_COPIES[PRIVATE_COPIES.len() - 1];
    (major, minor, patch) >= last
        || PRIVATE_COPIES
            .iter()
            .any(|first| (first.0, first.1) == (major, minor) && patch >= first.2)
}

/// The numbers that a release begins with.
fn version(release: &str) -> (u32, u32, u32) {
    let mut numbers = release
        .split(['-', '+', '_', '~'])
        .next()
        .unwrap_or_default()
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next())
}

fn kernel(release: &str) -> Result<(), DataplaneError> {
    let (major, minor, _) = version(release);
    if (major, minor) >= KERNEL_MIN {
        return Ok(());
    }
    Err(DataplaneError::Kernel {
        found: release.to_owned(),
        needed: format!("{}.{}", KERNEL_MIN.0, KERNEL_MIN.1),
        feature: KERNEL_FEATURE,
    })
}

/// Raises the limit of open files: an inner map that is being filled takes a descriptor.
/// (Locked memory needs no limit any more: since 5.11 maps are charged to the control group.)
pub(super) fn raise_limits() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        warn!("RLIMIT_NOFILE cannot be raised: {error}");
    }
}

/// Makes the pin directory, on a bpffs that is mounted if need be.
pub(super) fn prepare_pin_dir(pin_dir: &Path) -> Result<(), DataplaneError> {
    if !on_bpffs(pin_dir) && pin_dir.starts_with(BPFFS) {
        mount_bpffs(pin_dir)?;
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(pin_dir).path("create", pin_dir)?;
    if !on_bpffs(pin_dir) {
        return Err(DataplaneError::Mount {
            path: pin_dir.to_owned(),
            source: io::Error::other("it is on another file system"),
        });
    }
    Ok(())
}

/// Whether the path, or what exists of it, is on a bpffs.
pub(super) fn on_bpffs(path: &Path) -> bool {
    let existing = path.ancestors().find(|path| path.exists());
    existing
        .and_then(|path| statfs(path).ok())
        .is_some_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC)
}

pub(super) fn mount_bpffs(pin_dir: &Path) -> Result<(), DataplaneError> {
    let mounted = fs::create_dir_all(BPFFS).and_then(|()| {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        Ok(mount(
            Some("bpf"),
            BPFFS,
            Some("bpf"),
            flags,
            Some("mode=0700"),
        )?)
    });
    mounted.map_err(|source| DataplaneError::Mount {
        path: pin_dir.to_owned(),
        source,
    })?;
    info!("mounted bpffs at {BPFFS}");
    Ok(())
}

/// Where things are pinned.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    pub(super) dir: PathBuf,
}

impl Pins {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    pub(super) fn maps(&self) -> PathBuf {
        self.dir.join("maps")
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    pub(super) fn programs(&self) -> PathBuf {
        self.dir.join("programs")
    }

    /// Replica sets' ports, inner maps of `SET_PORTS`. Pinned because an inner map is opened by its number otherwise, for which the
    /// kernel asks for CAP_SYS_ADMIN.
    pub(super) fn sets(&self) -> PathBuf {
        self.maps().join("sets")
    }

    pub(super) fn set(&self, number: u32) -> PathBuf {
        self.sets().join(number.to_string())
    }

    /// Steering tables, inner maps of `STEERING`; pinned likewise.
    pub(super) fn tables(&self) -> PathBuf {
        self.maps().join("tables")
    }

    pub(super) fn table(&self, number: u32) -> PathBuf {
        self.tables().join(number.to_string())
    }

    pub(super) fn links(&self) -> PathBuf {
        self.dir.join("links")
    }

    /// By number: a bpffs takes no dots in names, and VLAN interfaces have them.
    pub(super) fn link(&self, ifindex: u32) -> PathBuf {
        self.links().join(ifindex.to_string())
    }

    /// In the order in which they are removed: links first, so that no program runs without its maps' pins.
    fn dirs(&self) -> [PathBuf; 5] {
        [
            self.links(),
            self.programs(),
            self.tables(),
            self.sets(),
            self.maps(),
        ]
    }

    /// Makes the directories.
    pub(super) fn create(&self) -> Result<(), DataplaneError> {
        for dir in self.dirs() {
            fs::create_dir_all(&dir).path("create", &dir)?;
        }
        Ok(())
    }

    /// The interface numbers of all pinned links.
    pub(super) fn linked(&self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir(self.links()) else {
            return Vec::new();
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter_map(|name| name.parse().ok()).collect()
    }

    /// Removes everything.
    pub(super) fn remove(&self) -> Result<(), DataplaneError> {
        for dir in self.dirs() {
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).path("read", &dir),
            };
            for entry in entries.filter_map(Result::ok) {
                fs::remove_file(entry.path()).path("remove", entry.path())?;
            }
            fs::remove_dir(&dir).path("remove", &dir)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        let all = "Name:\tx\nCapEff:\t000001ffffffffff\n";
        assert!(capabilities(all).is_ok());
        // CAP_SYS_ADMIN and CAP_NET_ADMIN only: as before 5.8.
        assert!(capabilities("CapEff:\t0000000000201000\n").is_ok());
        let none = capabilities("CapEff:\t0000000000000000\n").unwrap_err();
        assert_eq!(
            none.to_string(),
            format!(
                "missing CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF: run as root (`{}`), or with these \
                 capabilities (e.g. AmbientCapabilities= of the service)",
                super::super::with_sudo()
            )
        );
    }

    #[test]
    fn old_kernels_are_refused() {
        for release in ["6.9.0", "6.12.0-13-amd64", "6.18", "10.0"] {
            assert!(kernel(release).is_ok(), "{release}");
        }
        for release in ["6.8.12", "5.18.0", "4.19.0", "", "x"] {
            assert!(kernel(release).is_err(), "{release}");
        }
        assert_eq!(
            kernel("6.1.0-13-amd64").unwrap_err().to_string(),
            "Linux 6.1.0-13-amd64 is too old: 6.9 or later is needed, which brought a broadcast \
             redirect that survives the removal of its devmap (CVE-2024-36937); boot a newer kernel"
        );
    }

    #[test]
    fn kernels_whose_generic_copies_share_a_packet() {
        for release in [
            "6.12.97",
            "6.12.117+deb13-cloud-amd64",
            "6.18.44-fc-v595",
            "7.2.0",
            "7.3.4+deb13-amd64",
            "8.0",
        ] {
            assert!(has_private_copies(release), "{release}");
        }
        // What a distribution has mended its version does not tell.
        for release in [
            "6.12.43+deb12-cloud-amd64",
            "6.12.0-124.el10",
            "6.18.15+deb13-cloud-amd64",
            "6.14.0-37-generic",
            "6.19.14",
            "",
        ] {
            assert!(!has_private_copies(release), "{release}");
        }
    }

    #[test]
    fn the_readme_names_the_same_kernel() {
        let (major, minor) = KERNEL_MIN;
        let readme = include_str!("../../../README.md");
        assert!(readme.contains(&format!("Linux {major}.{minor} or later")));
    }

    #[test]
    fn a_kernel_without_type_information_is_refused() {
        assert!(type_information("/proc/self/status").is_ok());
        assert_eq!(
            type_information("/nowhere/vmlinux")
                .unwrap_err()
                .to_string(),
            "/nowhere/vmlinux is missing: the kernel must be built with CONFIG_DEBUG_INFO_BTF=y \
             (all current distributions' are); boot one that is"
        );
    }
}
