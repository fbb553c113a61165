//! From text to a valid configuration: every section read, every name looked up.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use mirror_common::{counts, limits};
use toml::de::DeTable;

use super::{
    Agent, Apply, Config, Detect, Finding, Health, Instance, Interface, Listen, Mac, Mode,
    NAME_BYTES_MAX, OnLoss, Probe, Vni,
    mirrors::Mirrors,
    reader::{At, Report, Section},
    zones,
};

/// Longest interface name (`IFNAMSIZ` without the terminator).
const INTERFACE_BYTES_MAX: usize = 15;
/// Addresses of one VNI: its number in a flow key is a byte.
const ADDRESSES_MAX: usize = 256;
const DAY_MS: u32 = 86_400_000;
/// Seconds are what a model's horizons are in.
const MODEL_INTERVAL_MS: u32 = 1_000;

pub(super) fn config(text: &str) -> Result<Config, Vec<Finding>> {
    let report = Report::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = report.line(error.span().map_or(0, |span| span.start));
        report.add(line, error.message());
    }
    if !errors.is_empty() {
        // What was recovered of a broken text would only be called wrong a second time.
        return Err(report.into_findings());
    }
    let config = {
        let root = Section::new(&report, "", 1, Some(document.get_ref()));
        let agent = agent(&root.section("agent"));
        let detect = detect(&root.section("detect"));
        let health = health(&root.section("health"));
        let interfaces = interfaces(&root);
        let steering = zones::steering(&root.section("steering"));
        let zones = zones::zones(&root);
        let instances = instances(&root, &zones);
        let vnis = vnis(&root, &instances);
        root.finish();
        Config {
            agent,
            detect,
            health,
            steering,
            interfaces,
            zones,
            instances,
            vnis,
        }
    };
    let findings = report.into_findings();
    if findings.is_empty() {
        Ok(config)
    } else {
        Err(findings)
    }
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    match PathBuf::from(text) {
        path if path.is_absolute() => Ok(path),
        _ => Err(format!("{text:?} is not an absolute path")),
    }
}

fn health(section: &Section<'_>) -> Health {
    let model = section.parsed("model", absolute).map(|at| at.value);
    let interval = section.integer("interval_ms", 250..=10_000, MODEL_INTERVAL_MS);
    if model.is_some() && interval.value != MODEL_INTERVAL_MS {
        section.wrong(
            interval.line,
            format!("a model was trained on readings every {MODEL_INTERVAL_MS} ms: with one, interval_ms must be that"),
        );
    }
    let applies = [
        ("nothing", Apply::Nothing),
        ("new-flows", Apply::NewFlows),
        ("all-flows", Apply::AllFlows),
    ];
    let challenger = section.parsed("challenger", absolute);
    if let (Some(at), None) = (&challenger, &model) {
        section.wrong(
            at.line,
            "a challenger needs a model that it is compared with",
        );
    }
    let health = Health {
        model,
        challenger: challenger.map(|at| at.value),
        record: section.parsed("record", absolute).map(|at| at.value),
        record_mib: section.integer("record_mib", 1..=1 << 20, 256).value,
        interval_ms: interval.value,
        apply: section.choice("apply", &applies, Apply::AllFlows),
        evacuate_risk: section.fraction("evacuate_risk", 0.5),
        shed_max: section.fraction("shed_max", 0.5),
    };
    section.finish();
    health
}

fn agent(section: &Section<'_>) -> Agent {
    let path = |key, default: &str| {
        section
            .parsed(key, absolute)
            .map_or_else(|| PathBuf::from(default), |at| at.value)
    };
    let agent = Agent {
        socket: path("socket", super::super::DEFAULT_SOCKET),
        pin_dir: path("pin_dir", super::super::DEFAULT_PIN_DIR),
        metrics: section.parsed("metrics", loopback).map(|at| at.value),
        page: section.parsed("page", loopback).map(|at| at.value),
        group: section.parsed("group", group).map(|at| at.value),
        listen: section
            .has("listen")
            .then(|| listen(&section.section("listen")))
            .flatten(),
    };
    section.finish();
    agent
}

fn listen(section: &Section<'_>) -> Option<Listen> {
    let file = |key| {
        section
            .required(key)
            .and_then(|_| section.parsed(key, absolute))
    };
    let address = section
        .required("address")
        .and_then(|_| section.parsed("address", socket));
    let (certificate, key, token) = (file("certificate"), file("key"), file("token"));
    section.finish();
    Some(Listen {
        address: address?.value,
        certificate: certificate?.value,
        key: key?.value,
        token: token?.value,
    })
}

fn socket(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        _ => Err(format!(
            "{text:?} is not an address with a port such as \"10.66.1.2:7000\""
        )),
    }
}

fn group(text: &str) -> Result<String, String> {
    match nix::unistd::Group::from_name(text) {
        Ok(Some(group)) => Ok(group.name),
        _ => Err(format!("there is no group {text:?}")),
    }
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        // Whoever can connect can read: there is no access control on it.
        Ok(address) if address.ip().is_loopback() && address.port() != 0 => Ok(address),
        _ => Err(format!(
            "{text:?} is not a loopback address with a port such as \"127.0.0.1:9477\""
        )),
    }
}

fn detect(section: &Section<'_>) -> Detect {
    let poll = section.integer("poll_ms", 1..=1_000, 5);
    let silent = section.integer("silent_ms", 10..=60_000, 60);
    if silent.value < 4 * poll.value {
        section.wrong(
            silent.line,
            format!(
                "silent_ms ({}) must be at least four times poll_ms ({})",
                silent.value, poll.value
            ),
        );
    }
    section.finish();
    Detect {
        poll_ms: poll.value,
        silent_ms: silent.value,
    }
}

fn interfaces(root: &Section<'_>) -> Vec<Interface> {
    let mut seen = Names::default();
    let mut interfaces = Vec::new();
    for mut section in root.sections("interface") {
        let name = section.required("name");
        if let Some(at) = &name {
            section.name = format!("interface {:?}", at.value);
            check_interface(&section, at);
            seen.add(&section, at);
        }
        let modes = [
            ("auto", Mode::Auto),
            ("native", Mode::Native),
            ("generic", Mode::Generic),
        ];
        interfaces.push(Interface {
            name: name.map(|at| at.value).unwrap_or_default(),
            mode: section.choice("mode", &modes, Mode::Auto),
        });
        section.finish();
    }
    interfaces
}

fn instances(root: &Section<'_>, zones: &[zones::Zone]) -> Vec<Instance> {
    let mut names = Names::default();
    let mut links: HashMap<String, String> = HashMap::new();
    let mut macs: HashMap<Mac, String> = HashMap::new();
    let mut instances = Vec::new();
    let sections = root.sections("instance");
    if sections.len() > limits::INSTANCES as usize {
        let most = limits::INSTANCES;
        root.report
            .add(root.line, format!("more than {most} instances"));
    }
    for mut section in sections {
        let name = section.required("name");
        if let Some(at) = &name {
            section.name = format!("instance {:?}", at.value);
            check_name(&section, at);
            names.add(&section, at);
        }
        let name = name.map(|at| at.value).unwrap_or_default();
        let link = section.required("link");
        if let Some(at) = &link {
            check_interface(&section, at);
            if let Some(other) = links.insert(at.value.clone(), name.clone()) {
                let link = &at.value;
                section.wrong(
                    at.line,
                    format!("link {link:?} is used by instance {other:?} too"),
                );
            }
        }
        let mac = section.parsed("mac", str::parse::<Mac>);
        if let Some(at) = &mac
            && let Some(other) = macs.insert(at.value, name.clone())
        {
            section.wrong(at.line, format!("mac is that of instance {other:?} too"));
        }
        let address = section.parsed("address", ip);
        if !section.has("mac") && !section.has("address") {
            section.wrong(section.line, "neither mac nor address is given");
        }
        let instance = Instance {
            name,
            link: link.map(|at| at.value).unwrap_or_default(),
            mac: mac.map(|at| at.value),
            address: address.map(|at| at.value),
            weight: section.integer("weight", 0..=1_000, 100).value,
            score: section.fraction("score", 1.0),
            metrics: section.parsed("metrics", str::parse).map(|at| at.value),
            domain: section.string("domain").map(|at| {
                check_name(&section, &at);
                at.value
            }),
            zone: zones::zone_of_instance(&section, zones),
            probe: section
                .has("probe")
                .then(|| probe(&section.section("probe")))
                .flatten(),
        };
        section.finish();
        instances.push(instance);
    }
    instances
}

fn probe(section: &Section<'_>) -> Option<Probe> {
    let tcp = section
        .required("tcp")
        .and_then(|_| section.parsed("tcp", socket));
    let interval_ms = section.integer("interval_ms", 10..=DAY_MS, 200).value;
    let timeout_ms = section.integer("timeout_ms", 10..=60_000, 200).value;
    let fall = section.integer("fall", 1..=100, 2).value;
    let rise = section.integer("rise", 1..=100, 3).value;
    section.finish();
    Some(Probe {
        tcp: tcp?.value,
        interval_ms,
        timeout_ms,
        fall,
        rise,
    })
}

fn vnis(root: &Section<'_>, instances: &[Instance]) -> Vec<Vni> {
    let mut names = Names::default();
    let mut owners: HashMap<IpAddr, String> = HashMap::new();
    let mut vnis = Vec::new();
    let sections = root.sections("vni");
    if sections.len() > counts::VNIS_MAX as usize {
        let most = counts::VNIS_MAX;
        root.report.add(root.line, format!("more than {most} VNIs"));
    }
    for mut section in sections {
        let name = section.required("name");
        if let Some(at) = &name {
            section.name = format!("vni {:?}", at.value);
            check_name(&section, at);
            names.add(&section, at);
        }
        let name = name.map(|at| at.value).unwrap_or_default();
        let addresses = addresses(&section, &name, &mut owners);
        let interfaces = vni_interfaces(&section, instances);
        let members = members(&section, instances);
        vnis.push(settings(&section, name, addresses, interfaces, members));
        section.finish();
    }
    if owners.len() > limits::VNI_ADDRESSES as usize {
        let most = limits::VNI_ADDRESSES;
        root.report.add(
            root.line,
            format!("more than {most} addresses over all VNIs"),
        );
    }
    vnis
}

fn settings(
    section: &Section<'_>,
    name: String,
    addresses: Vec<IpAddr>,
    interfaces: Vec<String>,
    instances: Vec<String>,
) -> Vni {
    let mirrors = Mirrors::parse(section, instances);
    let losses = [("reset", OnLoss::Reset), ("leave", OnLoss::Leave)];
    Vni {
        name,
        addresses,
        interfaces,
        instances: mirrors.instances,
        mode: mirrors.mode,
        canaries: mirrors.canaries,
        mirrors: mirrors.count,
        mirrored_per_s: mirrors.per_s,
        ack: mirrors.ack,
        delivery: mirrors.delivery,
        close: mirrors.close,
        on_loss: section.choice("on_loss", &losses, OnLoss::Reset),
        lag_bytes_max: section.integer("lag_bytes_max", 1..=1 << 30, 1 << 20).value,
        lag_ms_max: section.integer("lag_ms_max", 1..=DAY_MS, 1_000).value,
        handshake_ms: section.integer("handshake_ms", 0..=3_000, 5).value,
        idle_s: section.integer("idle_s", 1..=31_536_000, 7_200).value,
        quic_ports: section.ports("quic_ports", limits::QUIC_PORTS),
        announce: section.boolean("announce", true),
    }
}

fn addresses(
    section: &Section<'_>,
    vni: &str,
    owners: &mut HashMap<IpAddr, String>,
) -> Vec<IpAddr> {
    let Some(texts) = required_strings(section, "addresses") else {
        return Vec::new();
    };
    if texts.len() > ADDRESSES_MAX {
        section.wrong(section.line, format!("more than {ADDRESSES_MAX} addresses"));
    }
    let mut addresses = Vec::new();
    for At { value: text, line } in texts {
        match ip(&text) {
            Ok(address) => {
                if let Some(owner) = owners.insert(address, vni.to_owned()) {
                    let owner = match owner == vni {
                        true => "named twice".to_owned(),
                        false => format!("an address of vni {owner:?} too"),
                    };
                    section.wrong(line, format!("address {address} is {owner}"));
                }
                addresses.push(address);
            }
            Err(reason) => section.wrong(line, format!("addresses: {reason}")),
        }
    }
    addresses
}

fn vni_interfaces(section: &Section<'_>, instances: &[Instance]) -> Vec<String> {
    let names = required_strings(section, "interfaces").unwrap_or_default();
    for at in &names {
        check_interface(section, at);
        if let Some(user) = instances.iter().find(|i| i.link == at.value) {
            section.wrong(
                at.line,
                format!(
                    "interface {:?} is the link of instance {:?}: one interface cannot be both",
                    at.value, user.name
                ),
            );
        }
    }
    names.into_iter().map(|at| at.value).collect()
}

/// The named instances; all of them when none are named.
fn members(section: &Section<'_>, instances: &[Instance]) -> Vec<String> {
    let Some(names) = section.strings("instances") else {
        if instances.is_empty() {
            section.wrong(section.line, "there is no [[instance]] to serve it");
        }
        return instances.iter().map(|i| i.name.clone()).collect();
    };
    for at in &names {
        if !instances.iter().any(|i| i.name == at.value) {
            section.wrong(at.line, format!("there is no instance {:?}", at.value));
        }
    }
    names.into_iter().map(|at| at.value).collect()
}

fn required_strings(section: &Section<'_>, key: &'static str) -> Option<Vec<At<String>>> {
    let strings = section.strings(key);
    if strings.is_none() {
        section.wrong(section.line, format!("{key} is missing"));
    }
    strings
}

fn ip(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text
        .parse()
        .map_err(|_| format!("{text:?} is not an IP address"))?;
    // A mapped address would be a second spelling of an IPv4 one.
    let address = address.to_canonical();
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        return Err(format!("{text:?} is not the address of one host on a link"));
    }
    Ok(address)
}

pub(super) fn check_name(section: &Section<'_>, at: &At<String>) {
    let name = &at.value;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(plain) {
        section.wrong(
            at.line,
            format!(
                "{name:?} is not a name: 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.'"
            ),
        );
    }
}

fn check_interface(section: &Section<'_>, at: &At<String>) {
    let name = &at.value;
    let plain = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
    let reserved = name == "." || name == "..";
    if name.is_empty() || name.len() > INTERFACE_BYTES_MAX || reserved || !name.chars().all(plain) {
        section.wrong(at.line, format!("{name:?} is not an interface's name"));
    }
}

/// Names that must differ.
#[derive(Default)]
pub(super) struct Names(HashMap<String, usize>);

impl Names {
    pub(super) fn add(&mut self, section: &Section<'_>, at: &At<String>) {
        if let Some(first) = self.0.insert(at.value.clone(), at.line) {
            section.wrong(at.line, format!("the name is used in line {first} too"));
        }
    }
}
