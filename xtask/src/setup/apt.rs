//! apt with a configuration, package lists and a cache of its own: it needs no right and changes nothing
//! outside its folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::sources::{self, Distribution, Offered};
use crate::command;

/// A private apt.
pub(super) struct Apt {
    dir: PathBuf,
    config: PathBuf,
}

impl Apt {
    pub(super) fn new(dir: &Path) -> Result<Self> {
        let apt = Self {
            dir: dir.to_owned(),
            config: dir.join("apt.conf"),
        };
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = dir.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        }
        let dump = command::output(Command::new("apt-config").arg("dump"))
            .context("apt is needed (this is not Debian or Ubuntu?)")?;
        apt.write("apt.conf", &config(dir, &dump))?;
        apt.write("status", "")?;
        apt.write("sources.list", "")?;
        Ok(apt)
    }

    /// A private apt with the lists of the distribution's own suites.
    pub(super) fn of_distribution(dir: &Path) -> Result<Self> {
        let apt = Self::new(dir)?;
        let configured = sources::parse_configured(&apt.configured()?);
        let stage = sources::own_stage(Distribution::detect()?, &configured)
            .context("apt has no sources here")?;
        let keyring = stage
            .keyring()
            .context("the archive's keyring is missing")?;
        apt.update(&stage.render(&keyring))?;
        Ok(apt)
    }

    /// The lists that the system's own configuration names, one URI a line. Not `indextargets`: it knows
    /// only what has been fetched, which on a fresh machine is nothing.
    pub(super) fn configured(&self) -> Result<String> {
        command::output(Command::new("apt-get").args(["update", "--print-uris"]))
    }

    /// Fetches the lists of these sources.
    pub(super) fn update(&self, sources: &str) -> Result<()> {
        self.write("sources.list", sources)?;
        // Any error: without it, apt is content when a suite could not be fetched.
        command::output(self.run("apt-get").args(["update", "--error-on=any"])).map(drop)
    }

    /// The versions of these packages in the lists.
    pub(super) fn madison(&self, names: &[String]) -> Result<Vec<Offered>> {
        let text = command::output(self.run("apt-cache").arg("madison").args(names))?;
        Ok(sources::parse_madison(&text))
    }

    /// The names in the lists that begin so.
    pub(super) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let text = command::output(self.run("apt-cache").args(["pkgnames", prefix]))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Fetches a package, checked against the signed lists.
    pub(super) fn download(
        &self,
        name: &str,
        version: Option<&str>,
        mut on_state: impl FnMut(&str),
    ) -> Result<PathBuf> {
        let dir = self.dir.join("download");
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let package = match version {
            Some(version) => format!("{name}={version}"),
            None => name.to_owned(),
        };
        let mut get = self.run("apt-get");
        get.args(["download", "--option=APT::Status-Fd=2", &package])
            .current_dir(&dir);
        command::quiet(&mut get, None, |piece| {
            on_state(&percent(piece).unwrap_or_default())
        })?;
        fs::read_dir(&dir)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| {
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                file.starts_with(&format!("{name}_")) && file.ends_with(".deb")
            })
            .with_context(|| format!("apt-get download left no {name}_*.deb"))
    }

    /// Fetches packages and what they depend on, as far as the system does not have it already.
    pub(super) fn download_with_dependencies(
        &self,
        names: &[&str],
        mut on_state: impl FnMut(&str),
    ) -> Result<Vec<PathBuf>> {
        let mut get = self.run("apt-get");
        get.args(["install", "--download-only", "--assume-yes"])
            .args(["--no-install-recommends", "--option=APT::Status-Fd=2"])
            // The system's own list of what is installed, which is only read.
            .args(["--option=Dir::State::status=/var/lib/dpkg/status"])
            .args(["--option=Debug::NoLocking=1"])
            .args(names);
        command::quiet(&mut get, None, |piece| {
            on_state(&percent(piece).unwrap_or_default())
        })?;
        let folder = self.dir.join("cache/archives");
        let files = fs::read_dir(&folder)?.flatten().map(|entry| entry.path());
        Ok(files
            .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .collect())
    }

    fn run(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", &self.config)
            .env("LC_ALL", "C.UTF-8");
        command
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.dir.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }
}

/// Unpacks part of a package, since the rest is often ten times as much; without patterns, all of it.
pub(super) fn unpack(deb: &Path, into: &Path, patterns: &[String]) -> Result<()> {
    fs::create_dir_all(into).with_context(|| format!("make {}", into.display()))?;
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.arg("--fsys-tarfile")
        .arg(deb)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut dpkg = dpkg.spawn().context("could not start dpkg-deb")?;
    let pipe = dpkg.stdout.take().context("dpkg-deb's output")?;
    let mut tar = Command::new("tar");
    tar.args(["-x", "--no-same-owner", "--wildcards", "-C"])
        .arg(into)
        .args(patterns)
        .stdin(pipe);
    let unpacked = tar.output().context("could not start tar")?;
    let read = dpkg.wait()?;
    if !unpacked.status.success() || !read.success() {
        let stderr = String::from_utf8_lossy(&unpacked.stderr);
        bail!(
            "unpacking {} failed (disk full?): {}",
            deb.display(),
            stderr.trim_end()
        );
    }
    Ok(())
}

/// Our configuration. Of the system's only what says how to reach the network (proxies, time-outs) is
/// taken over: its hooks, which for instance empty the system's package cache, must not run.
fn config(dir: &Path, dump: &str) -> String {
    let dir = dir.display();
    let network = dump
        .lines()
        .filter(|line| {
            [
                "Acquire::http",
                "Acquire::ftp",
                "Acquire::socks",
                "Acquire::Check-",
                "Acquire::Force",
            ]
            .iter()
            .any(|key| line.starts_with(key))
        })
        .collect::<Vec<_>>()
        .join("\n");
    format!(
        r#"Dir::Etc::parts "/dev/null";
Dir::Etc::main "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::sourcelist "{dir}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State "{dir}";
Dir::State::lists "{dir}/lists";
Dir::State::status "{dir}/status";
Dir::Cache "{dir}/cache";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
APT::Sandbox::User "root";
{network}
"#
    )
}

/// `63 %` out of `dlstatus:1:63.2215:Retrieving file 1 of 1`.
fn percent(piece: &str) -> Option<String> {
    let percent = piece
        .strip_prefix("dlstatus:")?
        .split(':')
        .nth(1)?
        .parse::<f32>()
        .ok()?;
    Some(format!("{percent:.0} %"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_network_settings_are_taken_over() {
        let dump = "APT::Update::Post-Invoke:: \"rm -f /var/cache/apt/archives/*.deb\";\n\
            Acquire::http::Proxy \"http://proxy:3142\";\nAcquire::Languages:: \"de\";\n\
            Acquire::AllowInsecureRepositories \"1\";\n";
        let config = config(Path::new("/c"), dump);
        assert!(
            config.contains("Acquire::http::Proxy \"http://proxy:3142\";"),
            "{config}"
        );
        assert!(
            config.contains("Dir::Etc::sourcelist \"/c/sources.list\";"),
            "{config}"
        );
        for absent in ["rm -f", "\"de\"", "AllowInsecure"] {
            assert!(!config.contains(absent), "{config}");
        }
    }

    #[test]
    fn download_state() {
        assert_eq!(
            percent("dlstatus:1:63.2215:Retrieving file 1 of 1").as_deref(),
            Some("63 %")
        );
        assert_eq!(percent("W: something"), None);
        assert_eq!(percent(""), None);
    }
}
