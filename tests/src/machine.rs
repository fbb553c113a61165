//! A machine to type commands on as they are written: the root, the network, the processes, the BPF file system and the names
//! of network namespaces are its own, over what this one has, and gone with it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::cleanup::{self, Leftover};
use crate::process::Process;
use crate::run::Run;

const LIMIT: Duration = Duration::from_secs(180);
/// Ends what a command has said; what it says itself has another mark before each line.
const DONE: &str = "=done ";
const SAID: char = '|';

/// Everything is mounted in a namespace that nothing else sees, so nothing has to be taken off.
const BEGIN: &str = r#"
mount -t tmpfs none "$PLACE"
cd "$PLACE"
mkdir upper work root
mount -t overlay overlay -o "lowerdir=/,upperdir=$PLACE/upper,workdir=$PLACE/work" root
mount -t proc proc root/proc
mount --rbind /dev root/dev
mount -t sysfs sysfs root/sys
mount -t bpf bpf root/sys/fs/bpf
mount -t tmpfs none root/run
mkdir -p root/usr/local/sbin root/etc root/run/netns
for program in "$PROGRAMS"/*; do
    touch "root/usr/local/sbin/${program##*/}"
    mount --bind "$(readlink -f "$program")" "root/usr/local/sbin/${program##*/}"
done
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
exec chroot root /bin/sh -c 'mkdir -p /root/desk; cd /root/desk; exec /bin/sh'
"#;

/// A shell on such a machine.
#[derive(Debug)]
pub struct Machine {
    shell: Process,
    _dir: TempDir,
}

/// What a command said, on both ways, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The exit code.
    pub code: i32,
    /// The lines.
    pub text: String,
}

impl Machine {
    /// Starts one on which these programs are, under their names.
    pub fn start(programs: &[(&str, &Path)]) -> Result<Self> {
        cleanup::install()?;
        let prefix = Run::begin().temp_prefix();
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        cleanup::register(Leftover::TempDir(dir.path().into()));
        let (place, links) = (dir.path().join("place"), dir.path().join("programs"));
        fs::create_dir(&place)?;
        fs::create_dir(&links)?;
        for (name, program) in programs {
            std::os::unix::fs::symlink(program, links.join(name))?;
        }
        let mut unshare = Command::new("unshare");
        unshare
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child"])
            .args(["--propagation", "private", "sh", "-e", "-c", BEGIN])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("PLACE", &place)
            .env("PROGRAMS", &links);
        let shell = Process::start("the machine", unshare)?;
        Ok(Self { shell, _dir: dir })
    }

    /// Types a command, and waits for its end. What it leaves running goes on.
    pub fn run(&mut self, command: &str) -> Result<Said> {
        self.shell.send(&format!(
            "( {command}\n) > /tmp/said 2>&1 < /dev/null; code=$?; sed 's/^/{SAID}/' /tmp/said; echo; echo '{DONE}'$code"
        ))?;
        let mut text = String::new();
        let code = self.shell.line(command, LIMIT, |line| {
            if let Some(said) = line.strip_prefix(SAID) {
                text.push_str(said);
                text.push('\n');
            }
            let code = line.strip_prefix(DONE).map(str::parse);
            code.transpose().context("an exit code")
        })?;
        Ok(Said { code, text })
    }

    /// The same with a command that must succeed.
    pub fn succeed(&mut self, command: &str) -> Result<String> {
        let said = self.run(command)?;
        anyhow::ensure!(said.code == 0, "{command}: {said:?}");
        Ok(said.text)
    }
}

/// Writes a program's stand-in that runs it in its own environment.
pub fn wrapper(path: &Path, command: &Command) -> Result<()> {
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}='{}' ", name.display(), value?.display())));
    let variables: String = variables.collect();
    let program = command.get_program().display();
    fs::write(
        path,
        format!("#!/bin/sh\n{variables}exec '{program}' \"$@\"\n"),
    )?;
    fs::set_permissions(path, Permissions::from_mode(0o755)).context("make it a program")
}
