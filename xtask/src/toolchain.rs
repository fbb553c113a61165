//! What the compiler in use is: its version, its LLVM and where it keeps its files.

use std::env;
use std::fs;
use std::hash::Hasher as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command;

/// The rustc that cargo runs, and the facts that decide which tools fit it.
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    pub(crate) version: Version,
    pub(crate) sysroot: PathBuf,
}

/// The parts of `rustc -vV` that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    /// `1.95.0`, `1.97.0-nightly`
    pub(crate) release: String,
    /// Target triple of this machine.
    pub(crate) host: String,
    /// `unknown` for a compiler built from a tarball, as distributions do.
    pub(crate) commit: String,
    /// `22.1.2`
    pub(crate) llvm: String,
}

impl Toolchain {
    /// Asks rustc. Two processes, about 40 ms: everything else is derived from the answers.
    pub(crate) fn detect() -> Result<Self> {
        let rustc = rustc();
        let text = command::output(Command::new(&rustc).arg("-vV"))?;
        let version = Version::parse(&text)
            .with_context(|| format!("`{} -vV` printed something unexpected", rustc.display()))?;
        let sysroot = command::output(Command::new(&rustc).args(["--print", "sysroot"]))?;
        Ok(Self {
            version,
            sysroot: PathBuf::from(sysroot.trim()),
        })
    }

    /// Where rustup (or a distribution) puts the library's sources, whether they are there or not.
    pub(crate) fn rust_src_in_place(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust/library")
    }

    /// Whether rustup manages this toolchain.
    pub(crate) fn is_from_rustup(&self) -> bool {
        self.sysroot
            .parent()
            .is_some_and(|dir| dir.ends_with("toolchains"))
    }

    /// Names the cache folder. The sysroot is part of it because bpf-linker remembers where it found
    /// LLVM; two installations of one version must not share it.
    pub(crate) fn cache_key(&self) -> String {
        let Version {
            release,
            host,
            commit,
            ..
        } = &self.version;
        let mut hasher = Fnv::default();
        hasher.write(commit.as_bytes());
        hasher.write(self.sysroot.as_os_str().as_encoded_bytes());
        format!("rustc-{release}-{host}-{:016x}", hasher.finish())
    }

    /// The shared LLVM that this rustc itself runs on.
    pub(crate) fn llvm_library(&self) -> Result<PathBuf> {
        let major = self.version.llvm_major()?;
        let arch = self.version.host.split('-').next().unwrap_or_default();
        let multiarch = format!("/usr/lib/{arch}-linux-gnu");
        // rustup's toolchains bring their own; a distribution's rustc uses the system's.
        let dirs = [
            self.sysroot.join("lib"),
            multiarch.into(),
            "/usr/lib64".into(),
        ];
        for dir in &dirs {
            let names = fs::read_dir(dir)
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok());
            if let Some(name) = pick_llvm(names, major) {
                return Ok(dir.join(name));
            }
        }
        bail!(
            "rustc {} has LLVM {} built in: no shared libLLVM.so.{major}* in {}.\n  \
             Use a toolchain from https://rustup.rs, which brings one",
            self.version.release,
            self.version.llvm,
            dirs.map(|dir| dir.display().to_string()).join(", "),
        )
    }
}

impl Version {
    fn parse(text: &str) -> Result<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .map(|value| value.trim().to_owned())
                .with_context(|| format!("no `{name}:` line in {text:?}"))
        };
        Ok(Self {
            release: field("release")?,
            host: field("host")?,
            commit: field("commit-hash")?,
            llvm: field("LLVM version")?,
        })
    }

    /// LLVM's major version, which decides what can be linked against it.
    pub(crate) fn llvm_major(&self) -> Result<u32> {
        let major = self.llvm.split('.').next().unwrap_or_default();
        major
            .parse()
            .with_context(|| format!("LLVM version {:?} of rustc", self.llvm))
    }
}

/// `libLLVM.so.22.1-rust-1.95.0-stable` of rustup, `libLLVM.so.22.1` of Debian. `libLLVM-22*.so`, which both
/// have beside it, may be a linker script.
fn pick_llvm(names: impl Iterator<Item = String>, major: u32) -> Option<String> {
    let prefix = format!("libLLVM.so.{major}.");
    // The longest: rustup's own name rather than a general link.
    names
        .filter(|name| name.starts_with(&prefix))
        .max_by_key(String::len)
}

/// The rustc that cargo would run. The one beside cargo saves rustup's look-up.
fn rustc() -> PathBuf {
    if let Some(rustc) = env::var_os("RUSTC").filter(|rustc| !rustc.is_empty()) {
        return rustc.into();
    }
    let beside = env::var_os("CARGO")
        .and_then(|cargo| Some(Path::new(&cargo).parent()?.join("rustc")))
        .filter(|path| path.is_file());
    beside.unwrap_or_else(|| "rustc".into())
}

/// FNV-1a. std's hasher may change between compilers, and these names stay on disk.
#[derive(Default)]
struct Fnv(Option<u64>);

impl std::hash::Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        let start = self.0.unwrap_or(0xcbf2_9ce4_8422_2325);
        let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        self.0 = Some(bytes.iter().fold(start, fold));
    }

    fn finish(&self) -> u64 {
        self.0.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STABLE: &str = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\n\
        commit-hash: 59807616e1fa2540724bfbac14d7976d7e4a3860\ncommit-date: 2026-04-14\n\
        host: x86_64-unknown-linux-gnu\nrelease: 1.95.0\nLLVM version: 22.1.2\n";
    const DEBIAN: &str = "rustc 1.95.0 (59807616e 2026-04-14) (built from a source tarball)\n\
        binary: rustc\ncommit-hash: unknown\ncommit-date: unknown\n\
        host: aarch64-unknown-linux-gnu\nrelease: 1.95.0\nLLVM version: 21.1.8\n";

    fn toolchain(text: &str, sysroot: &str) -> Toolchain {
        Toolchain {
            version: Version::parse(text).unwrap(),
            sysroot: sysroot.into(),
        }
    }

    #[test]
    fn verbose_version() {
        let version = Version::parse(STABLE).unwrap();
        assert_eq!(version.release, "1.95.0");
        assert_eq!(version.host, "x86_64-unknown-linux-gnu");
        assert_eq!(version.llvm_major().unwrap(), 22);
        assert_eq!(Version::parse(DEBIAN).unwrap().llvm_major().unwrap(), 21);
        let error = Version::parse("rustc 1.95.0").unwrap_err().to_string();
        assert!(error.contains("release"), "{error}");
    }

    #[test]
    fn cache_key_tells_toolchains_apart_and_stays_the_same() {
        let key = toolchain(STABLE, "/home/u/.rustup/toolchains/stable").cache_key();
        assert_eq!(
            key,
            "rustc-1.95.0-x86_64-unknown-linux-gnu-9a073a0a915e034d"
        );
        assert_ne!(key, toolchain(STABLE, "/opt/rust").cache_key());
        assert_ne!(
            key,
            toolchain(DEBIAN, "/home/u/.rustup/toolchains/stable").cache_key()
        );
        assert!(!key.contains('/') && !key.contains(' '), "{key}");
    }

    #[test]
    fn rustup_is_recognised_by_the_sysroot() {
        assert!(toolchain(STABLE, "/home/u/.rustup/toolchains/stable-x86_64").is_from_rustup());
        assert!(!toolchain(DEBIAN, "/usr").is_from_rustup());
    }

    #[test]
    fn llvm_library_name() {
        #[track_caller]
        fn check(names: &[&str], major: u32, expected: Option<&str>) {
            let got = pick_llvm(names.iter().map(|name| (*name).to_owned()), major);
            assert_eq!(got.as_deref(), expected);
        }
        let rustup = [
            "libLLVM-22-rust-1.95.0-stable.so",
            "libLLVM.so.22.1-rust-1.95.0-stable",
        ];
        check(&rustup, 22, Some("libLLVM.so.22.1-rust-1.95.0-stable"));
        check(&rustup, 2, None);
        check(
            &["libLLVM.so.19.1", "libLLVM.so.22.1"],
            22,
            Some("libLLVM.so.22.1"),
        );
        check(&["librustc_driver-6108105cd7e839cf.so"], 22, None);
    }
}
