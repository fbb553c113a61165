//! Facts about interfaces and instances become findings.

use super::{
    Facts, Finding, Repair,
    Severity::{Error, Fine, Note, Warning},
    facts::{Instance, Link, Port},
};
use crate::{
    config::{Mode, Role},
    dataplane::{XdpMode, ethtool::Offload, has_private_copies, survey::CLONE_FRAME_MAX},
};

const ETHERNET_HEADER: u32 = 14;
/// From this value on, `arp_ignore` leaves requests for an address that is alone in its subnet unanswered.
const ARP_IGNORE_SUBNET: u32 = 2;
const RP_FILTER_STRICT: u32 = 1;

/// Judges an interface that is to carry a program.
pub(super) fn judge(facts: &Facts, port: &Port) -> Vec<Finding> {
    let Some(link) = &port.link else {
        let what = "there is no such interface in this network namespace";
        return vec![Finding::new(Error, "interface", what).on(&port.name)];
    };
    let mut findings = Vec::new();
    findings.push(up(link));
    findings.push(program(facts, port, link));
    findings.extend(copies(facts, port, link));
    findings.extend(redirect(port, link));
    findings.extend(checksum(link));
    findings.extend(mtu(facts, port, link));
    findings.extend(sysctls(facts, port, link));
    let named = findings.into_iter().map(|finding| finding.on(&port.name));
    named.collect()
}

fn up(link: &Link) -> Finding {
    match link.up {
        true => Finding::new(Fine, "interface", "up"),
        // Not repaired: it may be down on purpose.
        false => Finding::new(Warning, "interface", "it, or its other end, is down")
            .advise("`ip link set up` at both ends"),
    }
}

/// Which program is on it, and how ours is, or would be, attached.
fn program(facts: &Facts, port: &Port, link: &Link) -> Finding {
    let driver = link.driver.as_deref().unwrap_or("unknown driver");
    if let Some(program) = &link.program {
        if !facts.pinned.programs.contains(&program.id) {
            let name = program.name.as_deref().unwrap_or("without a name");
            let what = format!("another XDP program is attached: {name}, id {}", program.id);
            // Not repaired: whose it is may need it.
            return Finding::new(Error, "xdp", what).advise(format!(
                "end what attached it (`bpftool link show`), or `ip link set dev {} xdp off`",
                port.name
            ));
        }
        let what = format!("attached, {}, {driver}", program.mode.name());
        return match (program.mode, port.mode) {
            (XdpMode::Generic, Mode::Auto) => Finding::new(Warning, "xdp", what).advise(
                "generic XDP is slower; the agent's log says why the driver refused the program",
            ),
            _ => Finding::new(Fine, "xdp", what),
        };
    }
    match (link.features.map(|features| features.native), port.mode) {
        (_, Mode::Generic) => Finding::new(Fine, "xdp", format!("generic as configured, {driver}")),
        (Some(true), _) => Finding::new(Fine, "xdp", format!("native, {driver}")),
        (None, _) => {
            let what =
                format!("{driver}: the kernel does not tell what its XDP can do (Linux 6.3 does)");
            Finding::new(Note, "xdp", what)
        }
        (Some(false), Mode::Native) => {
            let what = format!("{driver} has no native XDP, and the configuration asks for it");
            Finding::new(Error, "xdp", what).advise(native_advice(port, link))
        }
        (Some(false), Mode::Auto) => {
            let what = format!("{driver} has no native XDP: the programs run generically, slower");
            Finding::new(Warning, "xdp", what).advise(native_advice(port, link))
        }
    }
}

fn native_advice(port: &Port, link: &Link) -> String {
    match link.is_veth() {
        // drivers/net/veth.c, veth_set_xdp_features.
        true => "give it at least as many receive queues as its other end has transmit queues (`ethtool -L`)"
            .to_owned(),
        false => format!("mode = \"generic\" for {} silences this", port.name),
    }
}

/// Whether what arrives there generically can be cloned.
fn copies(facts: &Facts, port: &Port, link: &Link) -> Option<Finding> {
    let generic = match (&link.program, port.mode) {
        (Some(program), Mode::Auto) => program.mode == XdpMode::Generic,
        (None, Mode::Auto) => link.features.is_some_and(|features| !features.native),
        (_, mode) => mode == Mode::Generic,
    };
    let is_cloned = port.role == Role::VniInterface && port.mirrored && generic;
    (is_cloned && !has_private_copies(&facts.release)).then(|| {
        let what = format!(
            "its VNI has mirrors, and Linux {} cannot clone in generic mode",
            facts.release
        );
        Finding::new(Error, "xdp", what).advise(
            "boot 6.12.97, 6.18.44, 7.2 or later, use an interface with native XDP, or set mirrors = 0",
        )
    })
}

/// Whether what is redirected to it arrives.
fn redirect(port: &Port, link: &Link) -> Option<Finding> {
    let attached = link.program.as_ref().map(|program| program.mode);
    let generic = port.mode == Mode::Generic || attached == Some(XdpMode::Generic);
    let features = link.features?;
    if generic || !features.native {
        return None;
    }
    if features.target {
        return Some(Finding::new(Fine, "redirect", "takes redirected frames"));
    }
    if !link.is_veth() {
        // Network cards set their rings for it up with the first program.
        return attached.map(|_| {
            Finding::new(Error, "redirect", "its driver takes no redirected frames")
                .advise("mode = \"generic\" for it")
        });
    }
    let what = "takes no redirected frames: GRO is off at the veth's other end, and no XDP program is there";
    let finding = Finding::new(Error, "redirect", what);
    Some(match &link.far {
        // On and not counted: it came on while that end was down (6.18).
        Some(far) if far.gro => finding.advise(format!(
            "ethtool -K {0} gro off; ethtool -K {0} gro on (while both ends are up)",
            far.name
        )),
        Some(far) => finding.repair(Repair::offload(&far.name, Offload::GenericReceive, true)),
        None => finding.advise("`ethtool -K DEV gro on` at the other end, in its own namespace, while both ends are up"),
    })
}

/// Whether what comes from a veth's other end has whole checksums.
fn checksum(link: &Link) -> Option<Finding> {
    if !link.is_veth() {
        return None;
    }
    let check = "checksum";
    Some(match &link.far {
        Some(far) if far.tx_checksum => {
            let what = format!(
                "transmit checksum offload is on at {}: its packets are dropped, their checksums are only \
                 partly computed",
                far.name
            );
            let repair = Repair::offload(&far.name, Offload::TransmitChecksum, false);
            Finding::new(Error, check, what).repair(repair)
        }
        Some(far) => Finding::new(Fine, check, format!("whole from {}", far.name)),
        None => Finding::new(Note, check, "the veth's other end cannot be seen from here").advise(
            "`ethtool -K DEV tx off` there; the event `partial-checksum` tells if it is on",
        ),
    })
}

fn mtu(facts: &Facts, port: &Port, link: &Link) -> Vec<Finding> {
    let mut findings = Vec::new();
    let frame = link.mtu + ETHERNET_HEADER;
    if port.mirrored && frame as usize > CLONE_FRAME_MAX {
        let most = CLONE_FRAME_MAX as u32 - ETHERNET_HEADER;
        let what = format!(
            "MTU {}: packets of more than {most} bytes are not cloned",
            link.mtu
        );
        let advice = format!("ip link set dev {} mtu {most}, at both ends", port.name);
        findings.push(Finding::new(Warning, "mtu", what).advise(advice));
    }
    if port.role == Role::InstanceLink {
        let vnis = facts
            .ports
            .iter()
            .filter(|other| other.role == Role::VniInterface);
        let larger = vnis.filter_map(|other| Some((&other.name, other.link.as_ref()?.mtu)));
        for (name, theirs) in larger.filter(|(_, theirs)| *theirs > link.mtu) {
            let what = format!(
                "MTU {} is less than the {theirs} of {name}: clients are told to send less, and what is to be fragmented is lost",
                link.mtu
            );
            let advice = format!("ip link set dev {} mtu {theirs}, at both ends", port.name);
            findings.push(Finding::new(Warning, "mtu", what).advise(advice));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::new(Fine, "mtu", link.mtu.to_string()));
    }
    findings
}

/// The kernel uses the greater of an interface's value and that of `all`.
fn sysctls(facts: &Facts, port: &Port, link: &Link) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (own, all) = (link.sysctls, facts.all);
    if port.announces && own.arp_ignore.max(all.arp_ignore) >= ARP_IGNORE_SUBNET {
        let name = match all.arp_ignore >= ARP_IGNORE_SUBNET {
            true => "all",
            false => &port.name,
        };
        let value = own.arp_ignore.max(all.arp_ignore);
        let what = format!(
            "arp_ignore is {value}: ARP for the VNI's addresses, which are alone in their subnets, is not answered"
        );
        let key = format!("net.ipv4.conf.{name}.arp_ignore");
        findings.push(Finding::new(Error, "arp", what).repair(Repair::sysctl(&key, 1)));
    }
    if own.rp_filter.max(all.rp_filter) == RP_FILTER_STRICT {
        let what = "rp_filter is strict: VNIs are not touched by it; of what else arrives here, packets whose way back leads elsewhere are dropped";
        let advice = format!(
            "sysctl -w net.ipv4.conf.{}.rp_filter=2, if that is not meant",
            port.name
        );
        findings.push(Finding::new(Note, "rp-filter", what).advise(advice));
    }
    findings
}

/// Judges what is known of an instance's hardware address.
pub(super) fn neighbour(instance: &Instance) -> Finding {
    let check = "neighbour";
    let address = instance.address;
    let finding = match (instance.mac, instance.neighbour) {
        (Some(mac), Some(found)) if mac != found => Finding::new(
            Error,
            check,
            format!("{address} is at {found}, and the configuration says {mac}"),
        )
        .advise("correct `mac` in the configuration, or leave it out"),
        (_, Some(found)) => Finding::new(Fine, check, format!("{address} is at {found}")),
        (Some(_), None) => Finding::new(Fine, check, "its hardware address is configured"),
        (None, None) => {
            let what = format!("the hardware address of {address} is not known");
            let finding = Finding::new(Error, check, what);
            match instance.ifindex {
                Some(ifindex) => finding.repair(Repair::Resolve {
                    ifindex,
                    interface: instance.link.clone(),
                    address,
                }),
                None => finding.advise(format!("there must be an interface {}", instance.link)),
            }
        }
    };
    finding.on(&instance.name)
}
