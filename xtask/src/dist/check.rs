//! Whether what was made works where nothing else of this project is.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{command, manual, project, root};

/// How exposed `systemd-analyze security` may find the service, of 10; without sandboxing it is 9.6.
const EXPOSURE_MAX: f32 = 4.0;

/// The program asks for no interpreter and no libraries.
pub(super) fn is_static(program: &Path) -> Result<()> {
    let bytes = fs::read(program).with_context(|| format!("read {}", program.display()))?;
    ensure!(
        !needs_interpreter(&bytes)?,
        "{} is linked dynamically: is glibc's static library (libc6-dev) there?",
        program.display()
    );
    let size = bytes.len() as f64 / (1 << 20) as f64;
    eprintln!("ok: a static program of {size:.1} MiB");
    Ok(())
}

/// Whether an ELF file of this machine's kind (64 bits, little endian) has a PT_INTERP header.
fn needs_interpreter(elf: &[u8]) -> Result<bool> {
    const PT_INTERP: u32 = 3;
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let offset = elf.get(32..40).and_then(|bytes| bytes.try_into().ok());
    let offset = offset.map(u64::from_le_bytes).context("not an ELF file")? as usize;
    let (size, count) = (half(54), half(56));
    let (size, count) = size.zip(count).context("not an ELF file")?;
    let mut kinds = (0..usize::from(count)).map(|header| {
        let at = offset + header * usize::from(size);
        Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?))
    });
    Ok(kinds.any(|kind| kind == Some(PT_INTERP)))
}

/// systemd understands the unit and finds it confined, as far as its tools are here.
pub(super) fn unit(unit: &Path, program: &Path) -> Result<()> {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!(
            "not checked: there is no systemd-analyze to read {}",
            unit.display()
        );
        return Ok(());
    }
    // The program is not installed: the unit that is verified names where it was built.
    let text =
        fs::read_to_string(unit)?.replace("/usr/bin/mirror-ctl", &program.display().to_string());
    let dir = project::target_dir().join("dist-files");
    let copy = dir.join("mirror.service");
    fs::write(&copy, text)?;
    let checked = verify(&copy);
    fs::remove_file(&copy)?;
    checked
}

fn verify(unit: &Path) -> Result<()> {
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(unit);
    let output = verify.output().context("systemd-analyze verify")?;
    let said = String::from_utf8_lossy(&output.stderr);
    // It also complains of other units of this machine.
    let own: Vec<_> = said
        .lines()
        .filter(|line| line.contains("mirror.service"))
        .collect();
    ensure!(own.is_empty(), "systemd-analyze verify: {}", own.join("\n"));
    let mut security = Command::new("systemd-analyze");
    security
        .args(["security", "--offline=true", "--no-pager"])
        .arg(unit);
    let said = command::output(&mut security)?;
    let exposure = exposure(&said).with_context(|| format!("systemd-analyze security: {said}"))?;
    ensure!(
        exposure <= EXPOSURE_MAX,
        "the service is exposed by {exposure} of 10, and {EXPOSURE_MAX} are allowed:\n{said}"
    );
    eprintln!("ok: systemd reads the unit, exposure {exposure} of 10");
    Ok(())
}

/// The number in `Overall exposure level for mirror.service: 2.1 OK`.
fn exposure(said: &str) -> Option<f32> {
    let line = said
        .lines()
        .find(|line| line.contains("Overall exposure level"))?;
    line.rsplit(": ")
        .next()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Runs the program where there is nothing but itself.
pub(super) fn in_an_empty_root(program: &Path) -> Result<()> {
    let said = in_own_mounts(
        "mount -t tmpfs none \"$PLACE\"; cp \"$1\" \"$PLACE/mirror-ctl\"; \
         chroot \"$PLACE\" /mirror-ctl --version",
        &[program],
    )?;
    ensure!(
        said.starts_with("mirror-ctl "),
        "in an empty root it said {said:?}"
    );
    eprintln!("ok: it runs in an empty root: {}", said.trim());
    Ok(())
}

/// Installs the package in a copy of this machine's root that is thrown away, in the way in which the manual says it, runs what
/// it brings, and purges it.
pub(super) fn package(package: &Path, tarball: &Path) -> Result<()> {
    let said = in_own_mounts(&script()?, &[package, tarball])?;
    ensure!(said.trim_end().ends_with("purged"), "{said}");
    eprint!("{said}");
    eprintln!("ok: {} was installed, run and purged", package.display());
    Ok(())
}

/// What is run, with the manual's commands in it.
fn script() -> Result<String> {
    let manual = project::root_dir().join("docs/operations.md");
    let manual = fs::read_to_string(&manual).with_context(|| manual.display().to_string())?;
    let commands = manual::commands(&manual);
    let of = |section: &str| -> Vec<String> {
        let here = commands.iter().filter(|c| c.section == section);
        // What these verbs make is there already; the agent of an upgrade is shown elsewhere.
        let wanted = here.filter(|c| {
            !c.name().starts_with("cargo ") && !c.name().starts_with("mirror-ctl upgrade")
        });
        wanted.map(|command| command.name().to_owned()).collect()
    };
    let (install, upgrade) = (of("Install"), of("Upgrading"));
    ensure!(
        install.len() >= 5 && upgrade.len() == 1,
        "docs/operations.md has other commands: {install:?} {upgrade:?}"
    );
    let install = install.into_iter().map(|command| match command {
        // Its exit code says that it has found something, as it has here: the links of the example.
        doctor if doctor.starts_with("mirror-ctl doctor") => format!("{doctor} || test $? = 1"),
        // No systemd runs here that could start it at once. (With the unit's rights it runs in tests/net/service.rs.)
        other => other.replace("systemctl enable --now", "systemctl enable"),
    });
    let install: Vec<String> = install.map(|command| format!("{command} >&2")).collect();
    Ok(INSTALL
        .replace("MANUAL_INSTALL", &install.join("\n"))
        .replace("MANUAL_UPGRADE", &format!("{} >&2", upgrade[0])))
}

/// An overlay over the root, and a bpffs of its own, from which a package that is removed takes the dataplane:
/// nothing that is done there reaches this machine.
const INSTALL: &str = r#"
mount -t tmpfs none "$PLACE"
mkdir "$PLACE/upper" "$PLACE/work" "$PLACE/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$PLACE/upper,workdir=$PLACE/work" "$PLACE/root"
mkdir -p "$PLACE/root/desk/target/dist-files"
cp "$1" "$2" "$PLACE/root/desk/target/dist-files/"
cp "$1" "$PLACE/root/desk/mirror-ctl_NEW.deb"
mount --rbind /proc "$PLACE/root/proc"
mount --rbind /sys "$PLACE/root/sys"
mount -t bpf bpf "$PLACE/root/sys/fs/bpf"
mount -t tmpfs none "$PLACE/root/run"
chroot "$PLACE/root" /bin/sh -e <<'END'
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive
cd /desk
lib=$(stat --format=%F,%N /lib)
MANUAL_INSTALL
test "$(stat --format=%F,%N /lib)" = "$lib"
test -L /etc/systemd/system/multi-user.target.wants/mirror.service
MANUAL_UPGRADE
test "$(command -v mirror-ctl)" = /usr/bin/mirror-ctl
mirror-ctl --version
mirror-ctl doctor --json > /doctor.json || test $? = 1
grep -q '"check": "kernel"' /doctor.json
mirror-ctl config check /usr/share/doc/mirror-ctl/examples/mirror.toml
test -s /usr/share/man/man8/mirror-ctl-doctor.8.gz
test -s /usr/lib/systemd/system/mirror.service
bash -n /usr/share/bash-completion/completions/mirror-ctl
dpkg --remove mirror-ctl >&2
test ! -e /usr/bin/mirror-ctl
test -e /etc/mirror/mirror.toml
dpkg --purge mirror-ctl >&2
for path in /etc/mirror /usr/share/doc/mirror-ctl /usr/lib/systemd/system/mirror.service; do
    test ! -e "$path"
done
echo purged
END
"#;

/// Runs a script in a mount namespace of its own, with a folder to mount at in `PLACE`.
fn in_own_mounts(script: &str, arguments: &[&Path]) -> Result<String> {
    let place = project::target_dir().join("dist-files/root");
    fs::create_dir_all(&place)?;
    let mut unshare = match root::is_root() {
        true => Command::new("unshare"),
        false => {
            let mut sudo = Command::new("sudo");
            sudo.args(["--preserve-env=PLACE", "unshare"]);
            sudo
        }
    };
    unshare
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-e",
            "-c",
            script,
            "sh",
        ])
        .args(arguments)
        .env("PLACE", &place);
    let output = unshare.output().context("unshare (util-linux)")?;
    fs::remove_dir(&place)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("in a root of its own ({}): {said}{errors}", output.status);
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposure_is_read() {
        let said = "x\n\n→ Overall exposure level for mirror.service: 2.1 OK 🙂\n";
        assert_eq!(exposure(said), Some(2.1));
        assert_eq!(exposure("nothing"), None);
    }

    #[test]
    fn this_test_has_an_interpreter_and_garbage_is_no_program() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(needs_interpreter(&own).unwrap());
        assert!(needs_interpreter(b"x").is_err());
    }
}
