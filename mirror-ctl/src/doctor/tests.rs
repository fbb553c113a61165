//! Each fact about a machine that is not as it should be, and what is said of it. Interfaces have a file of their own.

use super::{
    Facts, Finding, Repair, Report, Severity,
    facts::{FarEnd, Instance, Link, Port},
    judge,
    repair::sysctl_path,
};
use crate::{
    config::{Mac, Mode, Role},
    dataplane::ethtool::Offload,
    netlink::XdpFeatures,
};

pub(super) const ALL: XdpFeatures = XdpFeatures {
    native: true,
    redirect: true,
    target: true,
};

/// A veth whose other end is here and as it must be.
fn veth(far: &str) -> Link {
    Link {
        up: true,
        mtu: 1500,
        driver: Some("veth".to_owned()),
        features: Some(ALL),
        far: Some(FarEnd {
            name: far.to_owned(),
            tx_checksum: false,
            gro: true,
        }),
        ..Link::default()
    }
}

fn port(name: &str, role: Role, link: Link) -> Port {
    Port {
        name: name.to_owned(),
        role,
        mode: Mode::Auto,
        mirrored: true,
        announces: role == Role::VniInterface,
        link: Some(link),
    }
}

/// A machine with nothing to complain of: `c0` for clients, `ia` to instance `a`.
pub(super) fn well() -> Facts {
    Facts {
        requirements: vec![("capabilities", None), ("kernel", None), ("btf", None)],
        release: "6.18.0".to_owned(),
        pin_dir: "/sys/fs/bpf/mirror".into(),
        on_bpffs: true,
        agent: true,
        lockdown: Some("[none] integrity confidentiality".to_owned()),
        unprivileged_bpf_disabled: Some(2),
        jit: Some(1),
        clock: Some("tsc".to_owned()),
        files_max: 1 << 20,
        ip_forward: Some(1),
        configured: true,
        ports: vec![
            port("c0", Role::VniInterface, veth("c1")),
            port("ia", Role::InstanceLink, veth("ea")),
        ],
        instances: vec![Instance {
            name: "a".to_owned(),
            link: "ia".to_owned(),
            ifindex: Some(7),
            address: "10.66.1.2".parse().unwrap(),
            mac: None,
            neighbour: Some(Mac([2, 0, 0, 0, 1, 2])),
        }],
        ..Facts::default()
    }
}

pub(super) fn link(facts: &mut Facts) -> &mut Link {
    facts.ports[1].link.as_mut().unwrap()
}

pub(super) fn far(facts: &mut Facts) -> &mut FarEnd {
    link(facts).far.as_mut().unwrap()
}

/// Changes one thing on a machine that was well, and compares everything that is then found to be other than fine.
#[track_caller]
pub(super) fn check(change: impl FnOnce(&mut Facts), expected: &[(Severity, &str, &str, &str)]) {
    let mut facts = well();
    change(&mut facts);
    let findings = judge(&facts);
    let found: Vec<_> = findings
        .iter()
        .filter(|finding| finding.severity != Severity::Fine)
        .collect();
    let told: Vec<_> = found
        .iter()
        .map(|finding| {
            let on = finding.subject.as_deref().unwrap_or("-");
            let advice = finding.advice.as_deref().unwrap_or("");
            (finding.severity, finding.check, on, advice)
        })
        .collect();
    assert_eq!(told, expected, "{found:#?}");
    for Finding { repair, advice, .. } in found {
        if let Some(repair) = repair {
            assert_eq!(advice.as_ref(), Some(&repair.command()));
        }
    }
}

use Severity::{Error, Note, Warning};

#[test]
fn a_machine_that_is_well_has_no_findings() {
    check(|_| {}, &[]);
    let report = Report::new(judge(&well()), Vec::new());
    assert!(report.is_well());
    // Every check says something when all is well, too.
    let mut checks: Vec<_> = report.findings.iter().map(|row| row.check).collect();
    checks.sort_unstable();
    checks.dedup();
    assert_eq!(
        checks,
        [
            "agent",
            "bpffs",
            "btf",
            "capabilities",
            "checksum",
            "clock",
            "forwarding",
            "interface",
            "jit",
            "kernel",
            "limits",
            "lockdown",
            "mtu",
            "neighbour",
            "pins",
            "redirect",
            "unprivileged-bpf",
            "xdp"
        ]
    );
}

#[test]
fn what_the_machine_lacks() {
    check(
        |facts| facts.requirements[2].1 = Some("no BTF".to_owned()),
        &[(Error, "btf", "-", "")],
    );
    check(
        |facts| facts.on_bpffs = false,
        &[(Warning, "bpffs", "-", "mount -t bpf bpf /sys/fs/bpf")],
    );
    check(
        |facts| {
            facts.on_bpffs = false;
            facts.pin_dir = "/srv/pins".into();
        },
        &[(
            Error,
            "bpffs",
            "-",
            "name a pin_dir under /sys/fs/bpf in [agent]",
        )],
    );
    check(
        |facts| facts.unprivileged_bpf_disabled = Some(0),
        &[(
            Warning,
            "unprivileged-bpf",
            "-",
            "sysctl -w kernel.unprivileged_bpf_disabled=2",
        )],
    );
    check(
        |facts| facts.jit = Some(0),
        &[(Warning, "jit", "-", "sysctl -w net.core.bpf_jit_enable=1")],
    );
    check(
        |facts| facts.files_max = 256,
        &[(
            Warning,
            "limits",
            "-",
            "LimitNOFILE= of the service, or `ulimit -Hn`",
        )],
    );
    let lockdown = "XDP is not touched by it; tracing of the programs is";
    check(
        |facts| facts.lockdown = Some("none integrity [confidentiality]".to_owned()),
        &[(Note, "lockdown", "-", lockdown)],
    );
    for clock in ["hpet", "acpi_pm", "jiffies"] {
        let mut facts = well();
        facts.clock = Some(clock.to_owned());
        let findings = judge(&facts);
        let found = findings
            .iter()
            .find(|finding| finding.check == "clock")
            .unwrap();
        assert_eq!(found.severity, Warning, "{clock}");
        assert!(
            found.what.starts_with(clock) && found.repair.is_none(),
            "{found:?}"
        );
    }
    // What the kernel does not tell is not judged.
    check(
        |facts| {
            facts.jit = None;
            facts.lockdown = None;
            facts.clock = None;
            facts.unprivileged_bpf_disabled = None;
            facts.ip_forward = None;
        },
        &[],
    );
}

#[test]
fn what_is_pinned() {
    check(
        |facts| facts.pinned.gone = vec!["/sys/fs/bpf/mirror/links/9".into()],
        &[(
            Warning,
            "pins",
            "/sys/fs/bpf/mirror/links/9",
            "rm /sys/fs/bpf/mirror/links/9",
        )],
    );
    let other = "take it off with the version that made it, or with \
                 `mirror-ctl unload --pin-dir /sys/fs/bpf/mirror` (established connections lose their state)";
    check(
        |facts| facts.pinned.complaint = Some("layout version 3".to_owned()),
        &[(Error, "pins", "-", other)],
    );
    let unattended = "start the agent, which adopts it, or take it off with `mirror-ctl unload`";
    check(
        |facts| {
            facts.pinned.adoptable = true;
            facts.agent = false;
        },
        &[
            (Warning, "pins", "-", unattended),
            (Note, "agent", "-", "mirror-ctl agent --config FILE"),
        ],
    );
}

#[test]
fn the_other_end_of_a_veth() {
    check(
        |facts| far(facts).tx_checksum = true,
        &[(Error, "checksum", "ia", "ethtool -K ea tx off")],
    );
    check(
        |facts| {
            far(facts).gro = false;
            link(facts).features = Some(XdpFeatures {
                target: false,
                ..ALL
            });
        },
        &[(Error, "redirect", "ia", "ethtool -K ea gro on")],
    );
    // Without GRO, and with a program there.
    check(|facts| far(facts).gro = false, &[]);
    let again = "ethtool -K ea gro off; ethtool -K ea gro on (while both ends are up)";
    check(
        |facts| {
            link(facts).features = Some(XdpFeatures {
                target: false,
                ..ALL
            })
        },
        &[(Error, "redirect", "ia", again)],
    );
    let there = "`ethtool -K DEV tx off` there; the event `partial-checksum` tells if it is on";
    check(
        |facts| link(facts).far = None,
        &[(Note, "checksum", "ia", there)],
    );
    let gro =
        "`ethtool -K DEV gro on` at the other end, in its own namespace, while both ends are up";
    check(
        |facts| {
            link(facts).far = None;
            link(facts).features = Some(XdpFeatures {
                target: false,
                ..ALL
            });
        },
        &[
            (Error, "redirect", "ia", gro),
            (Note, "checksum", "ia", there),
        ],
    );
}

#[test]
fn the_worst_comes_first_and_notes_are_well() {
    let mut facts = well();
    facts.ip_forward = Some(0);
    let report = Report::new(judge(&facts), Vec::new());
    assert!(report.is_well());
    far(&mut facts).tx_checksum = true;
    let report = Report::new(judge(&facts), Vec::new());
    assert!(!report.is_well());
    assert_eq!(report.findings[0].check, "checksum");
    assert!(report.findings[0].fixable);
    assert_eq!(report.findings[1].check, "forwarding");
}

#[test]
fn repairs_are_told_as_commands() {
    let off = Repair::offload("ea", Offload::TransmitChecksum, false);
    assert_eq!(off.command(), "ethtool -K ea tx off");
    for (key, path) in [
        ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
        (
            "net.ipv4.conf.all.arp_ignore",
            "/proc/sys/net/ipv4/conf/all/arp_ignore",
        ),
        (
            "net.ipv4.conf.eth0.7.rp_filter",
            "/proc/sys/net/ipv4/conf/eth0.7/rp_filter",
        ),
    ] {
        assert_eq!(sysctl_path(key).to_str(), Some(path));
    }
}
