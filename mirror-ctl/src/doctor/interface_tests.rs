//! What is said of interfaces and instances that are not as they should be.

use super::{
    Facts,
    Severity::{Error, Note, Warning},
    facts::{Program, Sysctls},
    judge,
    tests::{ALL, check, link, well},
};
use crate::{
    config::{Mac, Mode},
    dataplane::XdpMode,
    netlink::XdpFeatures,
};

#[test]
fn generic_copies_that_share_a_packet() {
    let advice =
        "boot 6.12.97, 6.18.44, 7.2 or later, use an interface with native XDP, or set mirrors = 0";
    let generic = |facts: &mut Facts, release: &str| {
        facts.release = release.to_owned();
        facts.ports[0].mode = Mode::Generic;
    };
    check(
        |facts| generic(facts, "6.18.15"),
        &[(Error, "xdp", "c0", advice)],
    );
    check(|facts| generic(facts, "6.18.44"), &[]);
    check(
        |facts| {
            generic(facts, "6.18.15");
            facts.ports[0].mirrored = false;
        },
        &[],
    );
}

#[test]
fn xdp_on_an_interface() {
    let foreign = "end what attached it (`bpftool link show`), or `ip link set dev ia xdp off`";
    let program = |mode| {
        Some(Program {
            id: 42,
            name: Some("xdp_other".to_owned()),
            mode,
        })
    };
    check(
        |facts| link(facts).program = program(XdpMode::Native),
        &[(Error, "xdp", "ia", foreign)],
    );
    check(
        |facts| {
            link(facts).program = program(XdpMode::Native);
            facts.pinned.programs = vec![42];
        },
        &[],
    );
    let slower = "generic XDP is slower; the agent's log says why the driver refused the program";
    check(
        |facts| {
            link(facts).program = program(XdpMode::Generic);
            facts.pinned.programs = vec![42];
        },
        &[(Warning, "xdp", "ia", slower)],
    );
    let queues = "give it at least as many receive queues as its other end has transmit queues (`ethtool -L`)";
    let none = Some(XdpFeatures::default());
    check(
        |facts| link(facts).features = none,
        &[(Warning, "xdp", "ia", queues)],
    );
    check(
        |facts| {
            link(facts).features = none;
            facts.ports[1].mode = Mode::Native;
        },
        &[(Error, "xdp", "ia", queues)],
    );
    check(
        |facts| {
            link(facts).features = none;
            facts.ports[1].mode = Mode::Generic;
        },
        &[],
    );
    check(
        |facts| link(facts).features = None,
        &[(Note, "xdp", "ia", "")],
    );
    // A network card sets its rings up with the first program.
    let card = |facts: &mut Facts| {
        link(facts).driver = Some("ixgbe".to_owned());
        link(facts).far = None;
        link(facts).features = Some(XdpFeatures {
            target: false,
            ..ALL
        });
    };
    check(card, &[]);
    check(
        |facts| {
            card(facts);
            link(facts).program = program(XdpMode::Native);
            facts.pinned.programs = vec![42];
        },
        &[(Error, "redirect", "ia", "mode = \"generic\" for it")],
    );
}

#[test]
fn interfaces_and_their_settings() {
    check(
        |facts| facts.ports[1].link = None,
        &[(Error, "interface", "ia", "")],
    );
    check(
        |facts| link(facts).up = false,
        &[(Warning, "interface", "ia", "`ip link set up` at both ends")],
    );
    check(
        |facts| link(facts).mtu = 1400,
        &[(
            Warning,
            "mtu",
            "ia",
            "ip link set dev ia mtu 1500, at both ends",
        )],
    );
    check(
        |facts| {
            link(facts).mtu = 9000;
            facts.ports[1].mirrored = false;
        },
        &[],
    );
    let mut facts = well();
    link(&mut facts).mtu = 9000;
    let findings = judge(&facts);
    assert_eq!(
        findings
            .iter()
            .filter(|finding| finding.severity == Warning)
            .count(),
        1
    );
    let strict = "sysctl -w net.ipv4.conf.ia.rp_filter=2, if that is not meant";
    check(
        |facts| link(facts).sysctls.rp_filter = 1,
        &[(Note, "rp-filter", "ia", strict)],
    );
    // Loose wins over strict.
    check(
        |facts| {
            link(facts).sysctls.rp_filter = 1;
            facts.all.rp_filter = 2;
        },
        &[],
    );
    check(
        |facts| {
            facts.all = Sysctls {
                arp_ignore: 2,
                rp_filter: 0,
            }
        },
        &[(
            Error,
            "arp",
            "c0",
            "sysctl -w net.ipv4.conf.all.arp_ignore=1",
        )],
    );
    check(
        |facts| facts.ports[0].link.as_mut().unwrap().sysctls.arp_ignore = 8,
        &[(
            Error,
            "arp",
            "c0",
            "sysctl -w net.ipv4.conf.c0.arp_ignore=1",
        )],
    );
    check(
        |facts| facts.ip_forward = Some(0),
        &[(
            Note,
            "forwarding",
            "-",
            "sysctl -w net.ipv4.ip_forward=1, if instances are to reach others by this host",
        )],
    );
}

#[test]
fn hardware_addresses_of_instances() {
    check(
        |facts| facts.instances[0].neighbour = None,
        &[(Error, "neighbour", "a", "ping -c 1 -I ia 10.66.1.2")],
    );
    check(
        |facts| {
            facts.instances[0].neighbour = None;
            facts.instances[0].mac = Some(Mac([2, 0, 0, 0, 1, 2]));
        },
        &[],
    );
    check(
        |facts| facts.instances[0].mac = Some(Mac([2, 0, 0, 0, 1, 9])),
        &[(
            Error,
            "neighbour",
            "a",
            "correct `mac` in the configuration, or leave it out",
        )],
    );
}
