//! Which suites may have rust-src of rustc's version, and which of the packages they offer it is. Pure.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::Precondition;

const DEBIAN_MIRROR: &str = "http://deb.debian.org/debian";
/// Debian's suites that follow rustc's releases, the one with the smallest list first.
const DEBIAN_SUITES: [&[&str]; 2] = [&["trixie-backports"], &["forky", "sid"]];
const KERNEL_SUITES: [&str; 4] = [
    "bookworm",
    "bookworm-backports",
    "trixie",
    "trixie-backports",
];
const KEYRINGS: &str = "/usr/share/keyrings";

/// The families whose packages we can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Distribution {
    Debian,
    Ubuntu,
}

/// One suite's component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    uri: String,
    suite: String,
    component: String,
}

/// Sources that are asked together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stage {
    /// For messages.
    pub(super) what: String,
    signed_by: Distribution,
    sources: Vec<Source>,
}

/// A version of a package that can be downloaded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Offered {
    name: String,
    pub(super) version: String,
}

impl Distribution {
    pub(super) fn detect() -> Result<Self> {
        let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
        Self::parse(&text).ok_or_else(|| {
            Precondition("this is neither Debian nor Ubuntu (/etc/os-release)".into()).into()
        })
    }

    /// From `ID` and `ID_LIKE`; a derivative of Ubuntu names both.
    fn parse(os_release: &str) -> Option<Self> {
        let words = os_release
            .lines()
            .filter_map(|line| {
                line.strip_prefix("ID=")
                    .or_else(|| line.strip_prefix("ID_LIKE="))
            })
            .flat_map(|value| value.trim_matches('"').split_whitespace())
            .collect::<Vec<_>>();
        if words.contains(&"ubuntu") {
            return Some(Self::Ubuntu);
        }
        words.contains(&"debian").then_some(Self::Debian)
    }
}

impl Stage {
    /// The keys its lists must be signed with, if they are on this machine.
    pub(super) fn keyring(&self) -> Option<PathBuf> {
        let dir = Path::new(KEYRINGS);
        match self.signed_by {
            Distribution::Debian => debian_keyring_in(dir),
            Distribution::Ubuntu => {
                Some(dir.join("ubuntu-archive-keyring.gpg")).filter(|path| path.is_file())
            }
        }
    }

    /// As a sources.list.
    pub(super) fn render(&self, keyring: &Path) -> String {
        self.sources.iter().fold(
            String::new(),
            |text,
             Source {
                 uri,
                 suite,
                 component,
             }| {
                text + &format!(
                    "deb [signed-by={}] {uri} {suite} {component}\n",
                    keyring.display()
                )
            },
        )
    }
}

pub(super) fn debian_keyring_in(dir: &Path) -> Option<PathBuf> {
    ["debian-archive-keyring.gpg", "debian-archive-keyring.pgp"]
        .iter()
        .map(|name| dir.join(name))
        .find(|path| path.is_file())
}

/// From lines of `'URI/dists/SUITE/COMPONENT/binary-ARCH/Packages.xz' FILE SIZE`. Other vendors' repositories
/// and security suites do not have it.
pub(super) fn parse_configured(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for source in text.lines().filter_map(parse_list_uri) {
        // One line for each architecture.
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    sources
}

fn parse_list_uri(line: &str) -> Option<Source> {
    let (uri, path) = line
        .strip_prefix('\'')?
        .split_once('\'')?
        .0
        .split_once("/dists/")?;
    let archive = ["/debian", "/ubuntu", "/ubuntu-ports"]
        .iter()
        .any(|end| uri.ends_with(end));
    let (suite, rest) = path.split_once('/')?;
    let (component, list) = rest.split_once('/')?;
    let wanted = archive && !suite.ends_with("-security") && list.starts_with("binary-");
    wanted.then(|| Source {
        uri: uri.to_owned(),
        suite: suite.to_owned(),
        component: component.to_owned(),
    })
}

/// What to ask, in this order. The configured mirror is preferred to the general one, because it is
/// the one that the network certainly lets through.
pub(super) fn stages(distribution: Distribution, configured: &[Source]) -> Vec<Stage> {
    let is_debian = distribution == Distribution::Debian;
    let mirror = configured
        .iter()
        .map(|source| source.uri.as_str())
        .find(|uri| is_debian && uri.ends_with("/debian"));
    let mut mirrors = vec![mirror.unwrap_or(DEBIAN_MIRROR)];
    if mirrors[0] != DEBIAN_MIRROR {
        mirrors.push(DEBIAN_MIRROR);
    }
    let debian = DEBIAN_SUITES.iter().flat_map(|suites| {
        mirrors.iter().map(|mirror| Stage {
            what: format!("{mirror} {}", suites.join(" ")),
            signed_by: Distribution::Debian,
            sources: suites
                .iter()
                .map(|suite| Source {
                    uri: (*mirror).to_owned(),
                    suite: (*suite).to_owned(),
                    component: "main".to_owned(),
                })
                .collect(),
        })
    });
    let own = own_stage(distribution, configured);
    let mut stages = debian.collect::<Vec<_>>();
    // A Debian release has one rustc for life, so its own suites come late; Ubuntu's own come first, also
    // because Debian's keys are fetched from them.
    let at = if is_debian { mirrors.len() } else { 0 };
    stages.splice(at..at, own);
    stages
}

/// Debian's suites that have kernels, old to new.
pub(super) fn kernel_stage(configured: &[Source]) -> Stage {
    let mirror = configured
        .iter()
        .find(|source| source.uri.ends_with("/debian"))
        .map_or(DEBIAN_MIRROR, |source| &source.uri);
    let source = |suite: &&str| Source {
        uri: mirror.to_owned(),
        suite: (*suite).to_owned(),
        component: "main".to_owned(),
    };
    Stage {
        what: format!("{mirror} {}", KERNEL_SUITES.join(" ")),
        signed_by: Distribution::Debian,
        sources: KERNEL_SUITES.iter().map(source).collect(),
    }
}

/// The suites that the system itself uses.
pub(super) fn own_stage(distribution: Distribution, configured: &[Source]) -> Option<Stage> {
    (!configured.is_empty()).then(|| Stage {
        what: "the configured suites".to_owned(),
        signed_by: distribution,
        sources: configured.to_vec(),
    })
}

/// `rust-src` of Debian, `rust-1.95-src` of Ubuntu.
pub(super) fn package_names(release: &str) -> Vec<String> {
    let minor = release.split('.').take(2).collect::<Vec<_>>().join(".");
    vec!["rust-src".to_owned(), format!("rust-{minor}-src")]
}

/// `rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://... Packages`
pub(super) fn parse_madison(text: &str) -> Vec<Offered> {
    text.lines()
        .filter_map(|line| {
            let mut columns = line.split('|').map(|column| column.trim().to_owned());
            Some(Offered {
                name: columns.next()?,
                version: columns.next()?,
            })
        })
        .collect()
}

/// Name and version of the package whose upstream version is exactly `release`.
pub(super) fn pick(offered: &[Offered], release: &str) -> Option<(String, String)> {
    offered
        .iter()
        .find(|row| upstream(&row.version) == release)
        .map(|row| (row.name.clone(), row.version.clone()))
}

/// `1.95.0` out of `1:1.95.0+dfsg1-2~bpo13+1`.
fn upstream(version: &str) -> &str {
    let version = version
        .split_once(':')
        .map_or(version, |(_epoch, rest)| rest);
    version.split(['+', '-', '~']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distribution() {
        use Distribution::{Debian, Ubuntu};
        assert_eq!(
            Distribution::parse("NAME=\"Debian GNU/Linux\"\nID=debian\n"),
            Some(Debian)
        );
        assert_eq!(
            Distribution::parse("ID=ubuntu\nID_LIKE=debian\n"),
            Some(Ubuntu)
        );
        assert_eq!(
            Distribution::parse("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"),
            Some(Ubuntu)
        );
        assert_eq!(
            Distribution::parse("ID=raspbian\nID_LIKE=debian\n"),
            Some(Debian)
        );
        assert_eq!(Distribution::parse("ID=fedora\n"), None);
        assert_eq!(Distribution::parse(""), None);
    }

    #[test]
    fn debian_asks_backports_of_its_own_mirror_first() {
        let configured = parse_configured(
            "'http://mirror.local/debian/dists/bookworm/InRelease' x 0 \n\
             'http://mirror.local/debian/dists/bookworm/main/binary-amd64/Packages.xz' x 0 \n\
             'http://mirror.local/debian/dists/bookworm/main/binary-all/Packages.xz' x 0 \n\
             'http://mirror.local/debian/dists/bookworm/main/dep11/Components-amd64.yml.xz' x 0 \n\
             'http://d.org/debian-security/dists/bookworm-security/main/binary-all/Packages.xz' x 0\n\
             'https://packages.cloud.google.com/apt/dists/sdk/main/binary-all/Packages' x 0 \n\
             Reading package lists...\n",
        );
        assert_eq!(configured.len(), 1);
        let stages = stages(Distribution::Debian, &configured);
        let what = stages
            .iter()
            .map(|stage| stage.what.as_str())
            .collect::<Vec<_>>();
        assert_eq!(
            what,
            [
                "http://mirror.local/debian trixie-backports",
                "http://deb.debian.org/debian trixie-backports",
                "the configured suites",
                "http://mirror.local/debian forky sid",
                "http://deb.debian.org/debian forky sid",
            ]
        );
        assert_eq!(
            stages[3].render(Path::new("/k.gpg")),
            "deb [signed-by=/k.gpg] http://mirror.local/debian forky main\n\
             deb [signed-by=/k.gpg] http://mirror.local/debian sid main\n"
        );
    }

    #[test]
    fn ubuntu_asks_its_own_suites_first() {
        let configured = parse_configured(
            "'http://archive.ubuntu.com/ubuntu/dists/noble-updates/universe/binary-all/Packages.xz' x 0\n\
             'http://security.ubuntu.com/ubuntu/dists/noble-security/main/binary-all/Packages.xz' x 0\n",
        );
        let stages = stages(Distribution::Ubuntu, &configured);
        assert_eq!(stages[0].signed_by, Distribution::Ubuntu);
        assert_eq!(
            stages[0].render(Path::new("/k.gpg")),
            "deb [signed-by=/k.gpg] http://archive.ubuntu.com/ubuntu noble-updates universe\n"
        );
        assert_eq!(
            stages[1].what,
            "http://deb.debian.org/debian trixie-backports"
        );
        assert_eq!(stages[1].signed_by, Distribution::Debian);
    }

    #[test]
    fn nothing_configured() {
        assert_eq!(stages(Distribution::Debian, &[]).len(), 2);
    }

    #[test]
    fn the_package_of_exactly_this_version() {
        #[track_caller]
        fn check(release: &str, expected: Option<(&str, &str)>) {
            let offered = parse_madison(
                "  rust-src | 1.96.1+dfsg1-2~bpo13+1 | http://deb.debian.org/debian Packages\n\
                 \x20 rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://deb.debian.org/debian Packages\n\
                 rust-1.85-src | 1.85.1+dfsg0ubuntu1-0ubuntu1 | http://archive.ubuntu.com Packages\n",
            );
            let expected = expected.map(|(name, version)| (name.to_owned(), version.to_owned()));
            assert_eq!(pick(&offered, release), expected);
        }
        check("1.95.0", Some(("rust-src", "1.95.0+dfsg1-2~bpo13+1")));
        check(
            "1.85.1",
            Some(("rust-1.85-src", "1.85.1+dfsg0ubuntu1-0ubuntu1")),
        );
        check("1.96.0", None);
        check("1.97.0-nightly", None);
        assert_eq!(upstream("1:1.95.0-1"), "1.95.0");
        assert_eq!(package_names("1.95.0"), ["rust-src", "rust-1.95-src"]);
    }
}
