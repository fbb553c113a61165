//! `cargo xtask dist`: what is handed to users: one program that needs no libraries, what belongs beside it, a
//! tarball and a Debian package of both.

mod check;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::setup::{self, cargo_tool};
use crate::toolchain::Toolchain;
use crate::{build, command, project, root};

/// Cargo.toml says what differs from a release build.
const PROFILE: &str = "dist";

/// Make what is handed to users: a static program, manual pages, completions, a tarball and a Debian package
///
/// They are left in <target>/dist-files.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask dist
  cargo xtask dist --check     and install, run and purge the package in a root of its own (needs root)")]
pub(crate) struct Args {
    /// Try the results out: in an empty root, and installed in a copy of this machine's
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    root: root::Args,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.check {
        args.root
            .check("mounts a root of its own to try the package in")?;
    }
    build::ebpf(&setup::ensure()?)?;
    let host = Toolchain::detect()?.version.host;
    let program = program(&host)?;
    check::is_static(&program)?;
    let out = project::target_dir().join("dist-files");
    // cargo-deb finds it by the name that stands for the profile's folder.
    let tree = program.with_file_name("tree");
    stage(&program, &tree)?;
    fs::create_dir_all(&out).with_context(|| format!("make {}", out.display()))?;
    let tarball = tarball(&tree, &out, &host)?;
    let package = package(&host, &out)?;
    let unit = project::root_dir().join("contrib/systemd/mirror.service");
    check::unit(&unit, &program)?;
    if args.check {
        check::in_an_empty_root(&program)?;
        check::package(&package, &tarball)?;
    }
    println!(
        "{}\n{}\n{}",
        program.display(),
        tarball.display(),
        package.display()
    );
    Ok(())
}

/// Builds the program: glibc is linked in, so that it runs on any distribution of its architecture.
/// (musl would need a target that not every toolchain has; what glibc cannot do statically, look users up in
/// other places than /etc, is needed for the socket's `group` only.)
fn program(host: &str) -> Result<PathBuf> {
    let mut cargo = build::user_space_cargo("build");
    cargo
        .args([
            "--profile",
            PROFILE,
            "--package",
            "mirror-ctl",
            "--target",
            host,
        ])
        // With --target they are for the program and not for build scripts and macros.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    command::foreground(&mut cargo).context("building the program")?;
    Ok(project::target_dir()
        .join(host)
        .join(PROFILE)
        .join("mirror-ctl"))
}

/// Lays everything out as it is installed.
fn stage(program: &Path, tree: &Path) -> Result<()> {
    if tree.exists() {
        fs::remove_dir_all(tree).with_context(|| format!("remove {}", tree.display()))?;
    }
    let root = project::root_dir();
    copy(program, &tree.join("usr/bin/mirror-ctl"))?;
    copy(
        &root.join("contrib/systemd/mirror.service"),
        // Below usr: a tarball with a folder `lib`, unpacked at /, would take the place of the link that /lib is.
        &tree.join("usr/lib/systemd/system/mirror.service"),
    )?;
    let man = tree.join("usr/share/man/man8");
    command::output(Command::new(program).args(["man", "--dir"]).arg(&man))?;
    let mut gzip = Command::new("gzip");
    gzip.args(["-9", "-n", "-r"]).arg(&man);
    command::output(&mut gzip)?;
    for (shell, file) in [
        ("bash", "usr/share/bash-completion/completions/mirror-ctl"),
        ("zsh", "usr/share/zsh/vendor-completions/_mirror-ctl"),
        (
            "fish",
            "usr/share/fish/vendor_completions.d/mirror-ctl.fish",
        ),
    ] {
        let script = command::output(Command::new(program).args(["completions", shell]))?;
        write(&tree.join(file), &script)?;
    }
    let doc = tree.join("usr/share/doc/mirror-ctl");
    let sample = command::output(Command::new(program).args(["config", "init"]))?;
    write(&doc.join("examples/mirror.toml"), &sample)?;
    for file in ["README.md", "CHANGELOG.md", "docs/operations.md"] {
        let from = root.join(file);
        let name = from.file_name().context("a file has a name")?;
        copy(&from, &doc.join(name))?;
    }
    for folder in ["prometheus", "grafana"] {
        for entry in fs::read_dir(root.join("contrib").join(folder))? {
            let from = entry?.path();
            let name = from.file_name().context("a file has a name")?;
            copy(&from, &doc.join("examples").join(name))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
    fs::copy(from, to)
        .with_context(|| format!("copy {} to {}", from.display(), to.display()))
        .map(drop)
}

fn write(to: &Path, text: &str) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
    fs::write(to, text).with_context(|| format!("write {}", to.display()))
}

fn tarball(tree: &Path, out: &Path, host: &str) -> Result<PathBuf> {
    let path = out.join(format!(
        "mirror-ctl-{}-{host}.tar.gz",
        env!("CARGO_PKG_VERSION")
    ));
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "-czf"])
        .arg(&path)
        .arg("-C")
        .arg(tree)
        .arg(".");
    command::output(&mut tar)?;
    Ok(path)
}

fn package(host: &str, out: &Path) -> Result<PathBuf> {
    let mut deb = Command::new(cargo_tool::DEB.ensure()?);
    deb.args([
        "--no-build",
        "--no-strip",
        "--profile",
        PROFILE,
        "--target",
        host,
    ])
    .arg("--manifest-path")
    .arg(project::root_dir().join("mirror-ctl/Cargo.toml"))
    .arg("--output")
    .arg(out);
    let said = command::output(&mut deb)?;
    let path = PathBuf::from(said.trim());
    ensure!(
        path.is_file(),
        "cargo-deb said where the package is: {said:?}"
    );
    Ok(path)
}
