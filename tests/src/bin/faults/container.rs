//! A container of an instance: limits of processor time, memory and disk, and pressure figures, as control groups of
//! version 2 or, a folder for each controller, of version 1. And the group of a neighbour that shares nothing but the
//! processor time.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use testbed::cleanup::{self, Leftover};

const ROOT: &str = "/sys/fs/cgroup";
/// One period of the limit of processor time: short, so that who is out of it does not wait for long.
const PERIOD_US: u64 = 20_000;
/// Of each period. A tenth of a processor.
const QUOTA_US: u64 = 2_000;
/// Memory.
pub(crate) const MEMORY_BYTES: u64 = 40 << 20;
/// Weight against others on the machine: what else runs is not to be measured.
const SHARES: u64 = 20_480;

/// Groups that exist for as long as this value.
#[derive(Debug)]
pub(crate) struct Container {
    folders: Vec<PathBuf>,
    /// Where a process is to be that shares the processor time and nothing else.
    beside: PathBuf,
    version: u8,
}

impl Container {
    /// Makes the groups.
    pub(crate) fn create(name: &str) -> Result<Self> {
        let root = Path::new(ROOT);
        let is_v2 = root.join("cgroup.controllers").exists();
        let mut container = Self {
            folders: Vec::new(),
            beside: PathBuf::new(),
            version: if is_v2 { 2 } else { 1 },
        };
        if is_v2 {
            container.version_2(root, name)?;
        } else {
            container.version_1(root, name)?;
        }
        Ok(container)
    }

    /// The limits are those of a group around two: one of the instance, one of its neighbour.
    fn version_2(&mut self, root: &Path, name: &str) -> Result<()> {
        write(&root.join("cgroup.subtree_control"), "+cpu +memory +io")?;
        let outer = self.make(&root.join(name))?;
        write(&outer.join("cpu.max"), &format!("{QUOTA_US} {PERIOD_US}"))?;
        write(&outer.join("cgroup.subtree_control"), "+cpu +memory +io")?;
        let inner = self.make(&outer.join("instance"))?;
        // The instance's own limit is what its source tells its processors by.
        write(&inner.join("cpu.max"), &format!("{QUOTA_US} {PERIOD_US}"))?;
        write(&inner.join("memory.max"), &MEMORY_BYTES.to_string())?;
        self.beside = self.make(&outer.join("neighbour"))?;
        Ok(())
    }

    fn version_1(&mut self, root: &Path, name: &str) -> Result<()> {
        for controller in ["unified", "cpu", "cpuacct", "memory", "blkio"] {
            let folder = root.join(controller);
            if !folder.exists() {
                bail!("no controller {controller} in {ROOT}");
            }
            let folder = self.make(&folder.join(name))?;
            match controller {
                "cpu" => {
                    write(&folder.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
                    write(&folder.join("cpu.cfs_quota_us"), &QUOTA_US.to_string())?;
                    write(&folder.join("cpu.shares"), &SHARES.to_string())?;
                    self.beside = folder;
                }
                "memory" => {
                    let limit = folder.join("memory.limit_in_bytes");
                    write(&limit, &MEMORY_BYTES.to_string())?;
                    // Absent where swap is not counted.
                    let _ = write(
                        &folder.join("memory.memsw.limit_in_bytes"),
                        &MEMORY_BYTES.to_string(),
                    );
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn make(&mut self, folder: &Path) -> Result<PathBuf> {
        cleanup::register(Leftover::Cgroup(folder.into()));
        fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        self.folders.push(folder.into());
        Ok(folder.into())
    }

    /// Where its signals are, as `metrics` of an instance.
    pub(crate) fn place(&self) -> String {
        let folders = match self.version {
            2 => &self.folders[1..2],
            _ => &self.folders[..],
        };
        let folders = folders.iter().map(|folder| folder.display().to_string());
        folders.collect::<Vec<_>>().join(":")
    }

    /// Puts a process into it.
    pub(crate) fn take_in(&self, pid: u32) -> Result<()> {
        let folders = match self.version {
            2 => &self.folders[1..2],
            _ => &self.folders[..],
        };
        let pid = pid.to_string();
        folders
            .iter()
            .try_for_each(|folder| write(&folder.join("cgroup.procs"), &pid))
    }

    /// Puts a process beside it.
    pub(crate) fn put_beside(&self, pid: u32) -> Result<()> {
        write(&self.beside.join("cgroup.procs"), &pid.to_string())
    }

    /// Has its writes to the file system of a path take so long that so many bytes a second are written; none: no limit.
    pub(crate) fn throttle(&self, path: &Path, bytes_s: Option<u64>) -> Result<()> {
        let device = fs::metadata(path)?.dev();
        let (major, minor) = (libc::major(device), libc::minor(device));
        match self.version {
            2 => {
                let limit = bytes_s.map_or("max".to_owned(), |bytes| bytes.to_string());
                write(
                    &self.folders[1].join("io.max"),
                    &format!("{major}:{minor} wbps={limit}"),
                )
            }
            _ => {
                let file = self.folders[4].join("blkio.throttle.write_bps_device");
                write(&file, &format!("{major}:{minor} {}", bytes_s.unwrap_or(0)))
            }
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        for folder in self.folders.iter().rev() {
            cleanup::remove(&Leftover::Cgroup(folder.clone()));
        }
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {text} to {}", path.display()))
}
