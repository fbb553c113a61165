//! How each command of docs/operations.md is run, in the order in which they stand there.

/// How a command is run.
pub(super) enum How {
    /// Typed as it stands there, with what has to be there before.
    Typed {
        before: &'static str,
        codes: &'static [i32],
        says: &'static str,
    },
    /// Typed as it stands there with something behind it, which makes it take seconds and not minutes.
    Smaller { more: &'static str },
    /// What goes on until somebody ends it: typed as it stands there, with what it says in [`OUTPUT`], and ended once a
    /// condition of the shell holds.
    Endless { until: &'static str },
    /// The agent: typed as it stands there, and it serves clients.
    Agent,
    /// Another command stands for it: it cannot be run on such a machine.
    Instead {
        command: &'static str,
        says: &'static str,
    },
    /// A verb of `cargo xtask`: that it is called rightly is a test of xtask's own.
    Xtask,
    /// Typed by `cargo xtask dist --check`, in a root in which the package is installed.
    Installed,
}

const fn typed(says: &'static str) -> How {
    after("", says)
}

const fn after(before: &'static str, says: &'static str) -> How {
    How::Typed {
        before,
        codes: &[0],
        says,
    }
}

/// `doctor`'s exit code tells that it found something, which it may on any machine.
const fn doctor() -> How {
    How::Typed {
        before: "",
        codes: &[0, 1],
        says: "kernel",
    }
}

/// A client whose port is known, and a flow of it.
const KNOWN_PORT: &str = "\
    ip netns exec client sysctl -qw net.ipv4.ip_local_port_range='40312 40312'
    ip netns exec client traffic client 10.77.0.100:80 --connections 1 --think 5 --duration 3600 > /tmp/known.out 2>&1 &
    timeout 60 sh -c 'until mirror-ctl flows | grep -q 10.0.0.9:40312; do :; done'";

/// Certificate, key and place, as the section before says; the host is called so.
const LISTEN: &str = "\
    set -e
    openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=HOST -addext subjectAltName=DNS:HOST -days 2 \
        -keyout /etc/mirror/tls.key -out /etc/mirror/tls.pem
    chmod 600 /etc/mirror/tls.key
    cp /etc/mirror/tls.pem ca.pem
    cp /etc/mirror/token token
    echo '127.0.0.1 HOST' >> /etc/hosts
    printf '%s\\n' '[agent.listen]' 'address = \"127.0.0.1:9480\"' 'certificate = \"/etc/mirror/tls.pem\"' \
        'key = \"/etc/mirror/tls.key\"' 'token = \"/etc/mirror/token\"' | cat - mirror.toml > listen.toml
    kill $(pidof mirror-ctl)
    timeout 60 sh -c 'while pidof mirror-ctl; do :; done'
    mirror-ctl agent --config listen.toml > /tmp/agent.out 2>&1 &
    timeout 60 sh -c 'until grep -qx ready /tmp/agent.out; do sleep .1; done'";

/// An instance whose signals are looked at: then something is predicted.
const PREDICTED: &str = "\
    sed 's|^link = \"veth-a\"|&\\nmetrics = \"http://10.66.1.2:9100/metrics\"|' mirror.toml > predicted.toml
    mirror-ctl apply -f predicted.toml";

/// A recording here, and what clients got in its first second.
const TOLD: &str = r#"
    cp /var/lib/mirror/record/web-000001.rec .
    echo '{"part": "tuning", "seed": 1, "from_ms": 1795921160000, "episodes": [],
           "served": {"a": [{"success": 1, "refused": 0, "latency_ms": 1}]}}' > told.json"#;

/// A small model, and another one of the same, which the agent compares with it.
const CHALLENGER: &str = "\
    set -e
    cp new.model /var/lib/mirror/first.model
    mirror-ctl health train /var/lib/mirror/second.model --recordings /var/lib/mirror/record --with-simulated --runs 1 --trees 3 --seed 2
    printf '%s\\n' '[health]' 'model = \"/var/lib/mirror/first.model\"' 'challenger = \"/var/lib/mirror/second.model\"' \
        | cat - mirror.toml > models.toml
    mirror-ctl apply -f models.toml
    timeout 60 sh -c 'until mirror-ctl health models | grep -q challenger; do :; done'";

/// The commands, without the remarks behind them.
pub(super) const ROWS: &[(&str, How)] = &[
    // Install
    ("cargo xtask dist", How::Xtask),
    ("dpkg -i target/dist-files/mirror-ctl_*.deb", How::Installed),
    (
        "tar -C / -xzf target/dist-files/mirror-ctl-*.tar.gz",
        How::Installed,
    ),
    ("mkdir -p /etc/mirror", How::Installed),
    (
        "mirror-ctl config init /etc/mirror/mirror.toml",
        How::Installed,
    ),
    (
        "mirror-ctl doctor --config /etc/mirror/mirror.toml",
        How::Installed,
    ),
    ("systemctl enable --now mirror", How::Installed),
    // On a host with a bridge
    (
        "for i in a b; do ip netns exec $i sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2; done",
        typed(""),
    ),
    (
        "for i in a b; do ip netns exec $i ip address add 10.77.0.100/32 dev lo; done",
        typed(""),
    ),
    (
        "for i in a b; do ip netns exec $i ethtool -K eth0 tx off gro on; done",
        typed(""),
    ),
    ("cat > bridge.toml <<'END'", typed("")),
    ("mirror-ctl config check bridge.toml", typed("")),
    ("mirror-ctl doctor --config bridge.toml", doctor()),
    ("mirror-ctl agent --config bridge.toml &", How::Agent),
    ("mirror-ctl instances", typed("up")),
    ("mirror-ctl flows", typed("warm")),
    // On a host with a NIC
    (
        "for i in a b; do ip netns exec $i ip address add 10.77.0.100/32 dev lo; done",
        typed(""),
    ),
    (
        "for i in a b; do ip netns exec $i ethtool -K eth0 tx off gro on; done",
        typed(""),
    ),
    ("mirror-ctl config init mirror.toml", typed("")),
    ("cat > mirror.toml <<'END'", typed("")),
    ("mirror-ctl config check mirror.toml", typed("")),
    ("mirror-ctl doctor --config mirror.toml", doctor()),
    ("mirror-ctl agent --config mirror.toml &", How::Agent),
    ("mirror-ctl flows", typed("warm")),
    // Configuration
    ("mirror-ctl select web --source 10.1.2.3", typed("a ")),
    (
        "mirror-ctl select web --source 10.1.2.3 --source-port 40000 --port 443",
        typed("gets "),
    ),
    (
        "mirror-ctl apply -f new.toml --dry-run",
        after(
            "sed 's/^link = \"veth-a\"/&\\nweight = 50/' mirror.toml > new.toml",
            "weight 100 -> 50\nnothing was changed",
        ),
    ),
    (
        "mirror-ctl apply -f new.toml",
        typed("weight 100 -> 50\napplied"),
    ),
    (
        "mirror-ctl apply -f mirror.toml.before",
        typed("weight 50 -> 100\napplied"),
    ),
    // Upgrading
    ("apt-get install ./mirror-ctl_NEW.deb", How::Installed),
    (
        "mirror-ctl upgrade --dry-run",
        typed("nothing was changed (--dry-run)"),
    ),
    (
        "mirror-ctl upgrade",
        typed("3 interfaces run this version's programs"),
    ),
    (
        "mirror-ctl upgrade --drain --drain-for 2h",
        // The version is the same, and so are its maps.
        How::Typed {
            before: "",
            codes: &[1],
            says: "`mirror-ctl upgrade` keeps all connections",
        },
    ),
    ("cargo xtask bench changes --json changes.json", How::Xtask),
    // Doctor
    ("mirror-ctl doctor --config mirror.toml", doctor()),
    ("mirror-ctl doctor --config mirror.toml --fix", doctor()),
    // Day by day
    (
        "mirror-ctl trace 10.0.0.9:40312 --count 3",
        after(KNOWN_PORT, "seq "),
    ),
    ("mirror-ctl diff web", typed("")),
    (
        "ssh -L 9478:127.0.0.1:9478 HOST",
        How::Instead {
            // There is nobody to connect to: ssh says how it has understood it.
            command: "ssh -G -L 9478:127.0.0.1:9478 HOST",
            says: "localforward 9478 [127.0.0.1]:9478",
        },
    ),
    (
        "mirror-ctl events --kind prediction,instance-state",
        typed(""),
    ),
    (
        "mirror-ctl health explain a",
        How::Typed {
            before: PREDICTED,
            // 1: not enough was seen yet.
            codes: &[0, 1],
            says: "a",
        },
    ),
    ("mirror-ctl restore a", typed("")),
    (
        "mirror-ctl health replay /var/lib/mirror/record/web-000001.rec",
        after(
            "mkdir -p /var/lib/mirror/record && zcat /tmp/service-01.rec.gz > /var/lib/mirror/record/web-000001.rec",
            "",
        ),
    ),
    (
        "mirror-ctl health train new.model --recordings /var/lib/mirror/record --with-simulated",
        How::Smaller {
            more: "--runs 1 --trees 2",
        },
    ),
    (
        "mirror-ctl health label web-000001.rec web.rec.gz --truth told.json",
        after(TOLD, ""),
    ),
    (
        "mirror-ctl health eval --recordings DIR --model new.model --json found.json --svg found.svg",
        after("mkdir -p DIR && cp /tmp/service-01.* DIR/", "caught"),
    ),
    ("mirror-ctl health models", after(CHALLENGER, "challenger")),
    ("mirror-ctl health promote", typed("")),
    // Scripts
    (
        "mirror-ctl completions bash > /etc/bash_completion.d/mirror-ctl",
        after("mkdir -p /etc/bash_completion.d", ""),
    ),
    ("mirror-ctl man --dir /usr/local/share/man/man8", typed("")),
    (
        "openssl rand -hex 32 > /etc/mirror/token && chmod 600 /etc/mirror/token",
        after("mkdir -p /etc/mirror", ""),
    ),
    (
        "curl --cacert ca.pem -H \"Authorization: Bearer $(cat token)\" https://HOST:9480/v1/status",
        after(LISTEN, "\"counters\""),
    ),
    // Soak runs, recordings
    ("cargo xtask soak --minutes 60 --json soak.json", How::Xtask),
    (
        "cargo xtask record-faults DIR --minutes 25 -- --services 12 --seed 32 --part held-out",
        How::Xtask,
    ),
];

/// Where what goes on leaves what it says.
pub(super) const OUTPUT: &str = "/tmp/endless.out";

const fn endless(until: &'static str) -> How {
    How::Endless { until }
}

/// The commands of the table of what to do day by day, after all the others.
pub(super) const TABLE: &[(&str, How)] = &[
    (
        "mirror-ctl top",
        How::Instead {
            // It wants a terminal, and `q` ends it.
            command: "touch /tmp/top; (timeout 60 sh -c 'until grep -q web /tmp/top; do sleep .1; done'; printf q) \
                | timeout 90 script -qefc 'stty rows 24 cols 80; mirror-ctl top' /tmp/top; cat /tmp/top",
            says: "web",
        },
    ),
    ("mirror-ctl evacuate a", typed("")),
    ("mirror-ctl restore a", typed("")),
    ("mirror-ctl drain a", typed("")),
    ("mirror-ctl takeover a", after("mirror-ctl restore a", "")),
    ("mirror-ctl flows --cold", after("mirror-ctl restore a", "")),
    ("mirror-ctl flows --json > flows.json", typed("")),
    (
        "mirror-ctl flows --client 10.0.0.9 --watch",
        endless("grep -q 10.0.0.9: /tmp/endless.out"),
    ),
    (
        "mirror-ctl select web --source 10.1.2.3",
        after("grep -q 10.0.0.9 flows.json", "a "),
    ),
    (
        "mirror-ctl events --follow --kind takeover,flow-cold,instance-state",
        endless(
            "grep -q evacuating /tmp/endless.out || { mirror-ctl evacuate a; sleep .2; mirror-ctl restore a; false; }",
        ),
    ),
    (
        "mirror-ctl trace 10.0.0.9:40312",
        endless("grep -q seq /tmp/endless.out"),
    ),
    (
        "mirror-ctl capture --flow 10.0.0.9:40312 -w flow.pcapng",
        endless("test -e flow.pcapng && test $(stat -c %s flow.pcapng) -gt 2000"),
    ),
    ("mirror-ctl diff web", after("test -s flow.pcapng", "")),
    ("mirror-ctl events --kind order", typed("takeover")),
];
