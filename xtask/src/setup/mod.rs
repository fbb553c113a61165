//! `cargo xtask setup`: the tools that are not on a newcomer's machine, made once and kept in a cache.
//!
//! Nothing is installed system-wide. A tool is made in a folder aside and renamed into place, so that
//! it is there whole or not at all; a lock keeps two runs from making the same one.

mod apt;
mod bpf_linker;
pub(crate) mod cargo_tool;
pub(crate) mod kernels;
pub(crate) mod peers;
pub(crate) mod prometheus;
mod rust_src;
mod sources;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};

use crate::progress::Progress;
use crate::toolchain::Toolchain;
use crate::{Precondition, project};

pub(crate) use rust_src::{Origin, RustSrc};

/// Get the tools that building needs: rust-src of rustc's version, and bpf-linker
///
/// Every other verb does this by itself. Tools are kept in ~/.cache/predictive-mirroring (or under
/// XDG_CACHE_HOME), by the version of rustc; delete that folder to begin anew.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask setup                        make what is missing
  cargo xtask setup --check                say what is missing (exit code 1), change nothing
  cargo xtask setup --rust-src package     do not ask rustup, take the distribution's package

Environment:
  MIRROR_RUST_SRC=DIR     use this copy of rust's `library` directory (of rustc's own version)")]
pub(crate) struct Args {
    /// Only say what is missing; exit code 1 when something is
    #[arg(long)]
    check: bool,
    /// Where rust-src may come from when it is not there yet
    #[arg(long, value_enum, default_value = "auto", value_name = "FROM")]
    rust_src: Origin,
}

/// What a build uses.
pub(crate) struct Tools {
    pub(crate) rust_src: RustSrc,
    pub(crate) bpf_linker: PathBuf,
}

/// What there is; each `None` has to be made.
struct Found {
    rust_src: Option<RustSrc>,
    bpf_linker: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let toolchain = Toolchain::detect()?;
    let cache = Cache::new(&toolchain)?;
    let found = Found::look(&toolchain, &cache)?;
    if args.check {
        return report(&toolchain, &cache, &found);
    }
    let tools = complete(&toolchain, &cache, found, args.rust_src)?;
    println!("rust-src     {}", tools.rust_src);
    println!("bpf-linker   {}", tools.bpf_linker.display());
    println!("set-up is complete");
    Ok(())
}

/// The tools, made if they are missing; says nothing when they are there.
pub(crate) fn ensure() -> Result<Tools> {
    let toolchain = Toolchain::detect()?;
    let cache = Cache::new(&toolchain)?;
    let found = Found::look(&toolchain, &cache)?;
    complete(&toolchain, &cache, found, Origin::Auto)
}

fn complete(toolchain: &Toolchain, cache: &Cache, found: Found, origin: Origin) -> Result<Tools> {
    let found = match found.into_tools() {
        Ok(tools) => return Ok(tools),
        Err(found) => found,
    };
    let _lock = cache.lock()?;
    // Another run may have made it while we waited.
    let found = if found.rust_src.is_none() || found.bpf_linker.is_none() {
        Found::look(toolchain, cache)?
    } else {
        found
    };
    let missing = usize::from(found.rust_src.is_none()) + usize::from(found.bpf_linker.is_none());
    let mut progress = Progress::new(missing);
    if missing > 0 {
        progress.note(&format!(
            "set-up for rustc {}: {missing} of 2 tools missing, kept in {} when made",
            toolchain.version.release,
            cache.dir.display()
        ));
    }
    let made = make(toolchain, cache, found, origin, &mut progress);
    progress.clear();
    let tools = made?;
    if missing > 0 {
        progress.note(&format!(
            "set-up took {:.1} s",
            progress.elapsed().as_secs_f32()
        ));
    }
    Ok(tools)
}

fn make(
    toolchain: &Toolchain,
    cache: &Cache,
    found: Found,
    origin: Origin,
    progress: &mut Progress,
) -> Result<Tools> {
    let rust_src = match found.rust_src {
        Some(rust_src) => rust_src,
        None => rust_src::make(toolchain, cache, origin, progress)?,
    };
    let bpf_linker = match found.bpf_linker {
        Some(bpf_linker) => bpf_linker,
        None => bpf_linker::make(toolchain, cache, progress)?,
    };
    Ok(Tools {
        rust_src,
        bpf_linker,
    })
}

/// `--check`: one line for each thing, with how to get what is missing.
fn report(toolchain: &Toolchain, cache: &Cache, found: &Found) -> Result<()> {
    let version = &toolchain.version;
    println!(
        "ok       rustc        {} with LLVM {}",
        version.release, version.llvm
    );
    let rust_src = found.rust_src.as_ref().map(ToString::to_string);
    let bpf_linker = found
        .bpf_linker
        .as_ref()
        .map(|path| path.display().to_string());
    let mut missing = 0;
    for (name, found) in [("rust-src", rust_src), ("bpf-linker", bpf_linker)] {
        match found {
            Some(path) => println!("ok       {name:<12} {path}"),
            None => {
                missing += 1;
                println!("missing  {name:<12} `cargo xtask setup` makes it");
            }
        }
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        missing += 1;
        println!("missing  kernel BTF   run a kernel built with CONFIG_DEBUG_INFO_BTF=y");
    }
    println!("cache    {}", cache.dir.display());
    if missing > 0 {
        return Err(anyhow!("{missing} missing"));
    }
    Ok(())
}

impl Found {
    fn look(toolchain: &Toolchain, cache: &Cache) -> Result<Self> {
        Ok(Self {
            rust_src: rust_src::find(toolchain, cache)?,
            bpf_linker: bpf_linker::find(cache),
        })
    }

    fn into_tools(self) -> Result<Tools, Self> {
        match self {
            Self {
                rust_src: Some(rust_src),
                bpf_linker: Some(bpf_linker),
            } => Ok(Tools {
                rust_src,
                bpf_linker,
            }),
            found => Err(found),
        }
    }
}

/// The folder for one compiler's tools.
pub(crate) struct Cache {
    dir: PathBuf,
}

impl Cache {
    fn new(toolchain: &Toolchain) -> Result<Self> {
        Ok(Self {
            dir: project::cache_dir()?.join(toolchain.cache_key()),
        })
    }

    /// Where a finished tool is.
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// One at a time. The kernel lets go when the process ends, however it ends.
    fn lock(&self) -> Result<File> {
        let dir = self.dir.display();
        fs::create_dir_all(&self.dir).map_err(|error| {
            Precondition(format!(
                "the cache folder {dir} cannot be made ({error}): \
                 set XDG_CACHE_HOME to a folder you may write to"
            ))
        })?;
        let lock =
            File::create(self.path("lock")).with_context(|| format!("lock file in {dir}"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!("another set-up is running; waiting for it ({dir}/lock)");
                lock.lock().with_context(|| format!("lock {dir}/lock"))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock {dir}/lock"));
            }
        }
        Ok(lock)
    }

    /// An empty folder to make a tool in, on the same file system. Its name is this process's: a program that
    /// an interrupted run started may still be writing to that run's.
    fn staging(&self, name: &str) -> Result<PathBuf> {
        self.sweep();
        let dir = self.path(&format!("{name}.{}.part", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        Ok(dir)
    }

    /// Removes what interrupted runs left; the lock is held, so no other run is there. What cannot be
    /// removed now is left to the next one.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "part")
            {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Puts what was made in place.
    fn publish(&self, made: &Path, name: &str) -> Result<PathBuf> {
        let place = self.path(name);
        if place.exists() {
            // Incomplete, or it would have been used.
            fs::remove_dir_all(&place).with_context(|| format!("remove {}", place.display()))?;
        }
        fs::rename(made, &place)
            .with_context(|| format!("rename {} to {}", made.display(), place.display()))?;
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_appears_whole_and_replaces_what_an_interrupted_run_left() {
        let dir = std::env::temp_dir().join(format!("xtask-cache-{}", std::process::id()));
        let cache = Cache { dir: dir.clone() };
        let lock = cache.lock().unwrap();
        fs::create_dir_all(cache.path("tool.1.part/left-over")).unwrap();
        fs::create_dir_all(cache.path("tool/incomplete")).unwrap();

        let staging = cache.staging("tool").unwrap();
        assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
        assert!(!cache.path("tool.1.part").exists());
        fs::write(staging.join("file"), "x").unwrap();
        let place = cache.publish(&staging, "tool").unwrap();

        assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "x");
        assert!(!place.join("incomplete").exists() && !staging.exists());
        let second = File::create(cache.path("lock")).unwrap();
        assert!(matches!(second.try_lock(), Err(TryLockError::WouldBlock)));
        drop(lock);
        second.try_lock().unwrap();
        fs::remove_dir_all(dir).unwrap();
    }
}
