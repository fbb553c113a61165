//! Every command that docs/operations.md shows is typed on a machine of its own, as it stands there and in its order: a command
//! that is not known here fails the test, and so does one that is known and not there any more.

use std::collections::BTreeSet;
use std::time::Instant;

use testbed::agent::{BINARY_VARIABLE, sibling};
use testbed::machine::{Machine, wrapper};
use testbed::manual::{Command, commands, without_remark};
use testbed::packaged::Packages;
use testbed::turns;

mod rows;

use rows::{How, OUTPUT, ROWS, TABLE};

const MANUAL: &str = include_str!("../../docs/operations.md");
const RECORDING: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/recordings/held-out/service-01"
);
const TOOLS: Packages = Packages {
    variable: "MIRROR_TEST_TOOLS",
    verb: "test",
};
const BRIDGE: &str = "On a host with a bridge";
const NIC: &str = "On a host with a NIC";

/// Both hosts: two instances, and a host of clients behind `eth0`.
const LINKS: &str = "
set -e
ip link set lo up
for name in client a b; do ip netns add $name; ip -n $name link set lo up; done
ip link add eth0 type veth peer name eth0 netns client
ip link add veth-a type veth peer name eth0 address 02:00:00:00:01:0a netns a
ip link add veth-b type veth peer name eth0 address 02:00:00:00:01:0b netns b
for link in eth0 veth-a veth-b; do ip link set $link up; done
for name in client a b; do ip -n $name link set eth0 up; done
# What a card of a real machine has.
ip netns exec client ethtool -K eth0 tx off gro on
";

const ON_BRIDGE: &str = "
set -e
ip link add br0 type bridge
for link in eth0 veth-a veth-b; do ip link set $link master br0; done
ip address add 10.77.0.1/24 dev br0
ip link set br0 up
ip -n client address add 10.77.0.2/24 dev eth0
ip -n a address add 10.77.0.11/24 dev eth0
ip -n b address add 10.77.0.12/24 dev eth0
";

const ON_NIC: &str = "
set -e
ip address add 10.0.0.1/24 dev eth0
ip -n client address add 10.0.0.9/24 dev eth0
ip -n client route add default via 10.0.0.1
for n in 1 2; do
    name=$(printf 'a\\nb' | sed -n ${n}p)
    ip address add 10.66.$n.1/24 dev veth-$name
    ip -n $name address add 10.66.$n.2/24 dev eth0
    ip -n $name route add default via 10.66.$n.1
done
";

/// Connections of which every byte is checked, one of each kind.
const CLIENT: &str =
    "ip netns exec client traffic client 10.77.0.100:80 --connections 8 --think 10 --duration 1";

fn machine(site: &str) -> Machine {
    let binary = sibling("mirror-ctl", Some(BINARY_VARIABLE)).unwrap();
    let traffic = sibling("traffic", None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ethtool = dir.path().join("ethtool");
    let found = TOOLS.find(&["ethtool"]).unwrap();
    wrapper(&ethtool, &found.here(&[]).unwrap()).unwrap();
    let programs = [
        ("mirror-ctl", binary.as_path()),
        ("traffic", &traffic),
        ("ethtool", &ethtool),
    ];
    let mut machine = Machine::start(&programs).unwrap();
    machine.succeed(LINKS).unwrap();
    machine.succeed(site).unwrap();
    machine.succeed(&format!("cp {RECORDING}.* /tmp/")).unwrap();
    machine
}

/// Types a command as it stands in the manual; what is not as it must be.
fn complaint(machine: &mut Machine, text: &str, how: &How) -> Option<String> {
    let begun = Instant::now();
    let (said, codes, says) = match how {
        How::Typed {
            before,
            codes,
            says,
        } => {
            if !before.is_empty() {
                machine.succeed(before).unwrap();
            }
            (machine.run(text), *codes, says)
        }
        // Some say themselves that they were ended: 130 are those that do not.
        How::Endless { until } => (machine.run(&ended(text, until)), &[0, 130][..], &""),
        How::Smaller { more } => (
            machine.run(&format!("{} {more}", without_remark(text))),
            &[0][..],
            &"",
        ),
        How::Instead { command, says } => (machine.run(command), &[0][..], says),
        How::Agent => {
            serve(machine, text);
            return None;
        }
        How::Xtask | How::Installed => return None,
    };
    let said = said.unwrap();
    println!("{:.1} s: {text}", begun.elapsed().as_secs_f64());
    let well = codes.contains(&said.code) && said.text.contains(says);
    let begin = &said.text[..said.text.floor_char_boundary(1_000)];
    (!well).then(|| format!("{text}: {} and not {says:?}: {begin}", said.code))
}

/// Types what goes on until somebody ends it, and ends it once a condition holds; 99 when it never did.
fn ended(text: &str, until: &str) -> String {
    format!(
        "( timeout 100 sh -c '{until_it}'; kill -INT $(cat /tmp/endless.pid) ) &
         timeout 120 sh -c 'echo $$ > /tmp/endless.pid; exec {text}' > {OUTPUT} 2>&1
         code=$?; cat {OUTPUT}; {until} || exit 99; exit $code",
        until_it = format_args!("until {until}; do sleep .05; done"),
    )
}

#[track_caller]
fn check<'a>(machine: &mut Machine, commands: impl Iterator<Item = (&'a str, &'a How)>) {
    let complaints: Vec<String> = commands
        .filter_map(|(text, how)| complaint(machine, text, how))
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// An agent, and servers on the instances for it; then every byte of a client's connections comes.
#[track_caller]
fn serve(machine: &mut Machine, text: &str) {
    machine
        .succeed(
            "for i in a b; do ip netns exec $i traffic server --listen 10.77.0.100:80 > /tmp/$i.out 2>&1 & done
             for i in a b; do timeout 60 sh -c \"until grep -q ready /tmp/$i.out; do :; done\"; done",
        )
        .unwrap();
    machine
        .succeed(&format!("( {text}\n) > /tmp/agent.out 2>&1"))
        .unwrap();
    let ready = machine
        .run("timeout 60 sh -c 'until grep -qx ready /tmp/agent.out; do sleep .1; done'")
        .unwrap();
    let log = machine.run("cat /tmp/agent.out").unwrap().text;
    assert_eq!(ready.code, 0, "{log}");
    let client = machine.run(CLIENT).unwrap();
    let log = machine.run("cat /tmp/agent.out").unwrap().text;
    assert_eq!(client.code, 0, "{}{log}", client.text);
    // They stay to the end, with mirrors.
    machine
        .succeed("ip netns exec client traffic client 10.77.0.100:80 --connections 4 --duration 3600 > /tmp/client.out 2>&1 &")
        .unwrap();
    machine
        .succeed("timeout 60 sh -c 'until mirror-ctl flows | grep -q warm; do :; done'")
        .unwrap();
}

/// The command lines that a table's cells show, from its heading to the next one: `mirror-ctl` and what follows.
fn in_table(heading: &str) -> Vec<String> {
    let lines = MANUAL.lines().skip_while(|line| *line != heading).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('#'));
    let cells = lines.filter(|line| line.starts_with('|'));
    let pieces = cells.flat_map(|line| line.split('`').skip(1).step_by(2));
    let commands = pieces.filter(|piece| piece.starts_with("mirror-ctl "));
    commands.map(str::to_owned).collect()
}

/// The rows of commands, each with its own; fails where one has no partner.
#[track_caller]
fn pairs() -> Vec<(Command, &'static How)> {
    let mut rows = ROWS.iter();
    let found = commands(MANUAL).into_iter().map(|command| {
        let row = rows.next();
        let (name, how) =
            row.unwrap_or_else(|| panic!("no row for {command:?} (tests/net/manual/rows.rs)"));
        assert_eq!(
            command.name(),
            *name,
            "in tests/net/manual/rows.rs, in the order of docs/operations.md"
        );
        (command, how)
    });
    let found = found.collect();
    assert!(rows.next().is_none(), "rows without a command");
    found
}

#[test]
fn every_command_of_the_manual_has_a_row() {
    pairs();
    let table: BTreeSet<String> = in_table("## Day by day").into_iter().collect();
    let rows: BTreeSet<String> = TABLE.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(table, rows, "tests/net/manual/rows.rs");
}

#[test]
fn a_first_vni_on_a_host_with_a_bridge() {
    let _turn = turns::beside();
    let mut machine = machine(ON_BRIDGE);
    let pairs = pairs();
    let here = pairs
        .iter()
        .filter(|(command, _)| command.section == BRIDGE);
    check(
        &mut machine,
        here.map(|(command, how)| (command.text.as_str(), *how)),
    );
    // The client has found the host, and not an instance.
    let neighbours = machine
        .succeed("ip -n client neigh show 10.77.0.100")
        .unwrap();
    let host = machine.succeed("cat /sys/class/net/br0/address").unwrap();
    assert!(neighbours.contains(host.trim()), "{neighbours} {host}");
}

#[test]
fn a_first_vni_on_a_host_with_a_nic_and_everything_after_it() {
    let _turn = turns::beside();
    let mut machine = machine(ON_NIC);
    let pairs = pairs();
    let after = pairs
        .iter()
        .skip_while(|(command, _)| command.section != NIC);
    let after = after.map(|(command, how)| (command.text.as_str(), *how));
    let table = TABLE.iter().map(|(text, how)| (*text, how));
    check(&mut machine, after.chain(table));
    let said = machine
        .run("cat /tmp/agent.out; cat /tmp/client.out")
        .unwrap();
    assert!(!said.text.contains("panicked"), "{}", said.text);
}

/// The rights that the manual says are enough, and no others.
#[test]
fn the_rights_that_the_manual_names_are_enough() {
    let _turn = turns::beside();
    let mut machine = machine(ON_NIC);
    let pairs = pairs();
    let nic = pairs.iter().filter(|(command, _)| command.section == NIC);
    let fewer: Vec<_> = nic
        .map(|(command, how)| {
            let text = command.text.replace(
                "mirror-ctl agent",
                "setpriv --bounding-set -all,+bpf,+perfmon,+net_admin,+net_raw --no-new-privs mirror-ctl agent",
            );
            (text, *how)
        })
        .collect();
    check(
        &mut machine,
        fewer.iter().map(|(text, how)| (text.as_str(), *how)),
    );
    let effective = machine
        .succeed("grep CapEff /proc/$(pidof mirror-ctl)/status")
        .unwrap();
    // NET_ADMIN, NET_RAW, PERFMON, BPF (capability.h).
    let wanted: u64 = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;
    let bits = effective.split_whitespace().last().unwrap();
    assert_eq!(
        u64::from_str_radix(bits, 16).unwrap(),
        wanted,
        "{effective}"
    );
}
