//! What a container on this host uses: the files of its cgroup, PSI among them, one folder a controller where cgroups are
//! of version 1; and the TCP counters of its network, if that is its own. Read as they are; a file that is not there is a
//! quantity that is missing (`Documentation/admin-guide/cgroup-v2.rst`, `cgroup-v1/memory.rst`,
//! `Documentation/accounting/psi.rst`).

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::Usage;

/// Most files are a page at most; `memory.stat` has a line for everything that is counted.
const FILE_BYTES_MAX: usize = 16_384;
/// What a limit in version 1 is above when there is none: a page less than the greatest number.
const NO_LIMIT_BYTES: f64 = 9e18;

/// Reads a cgroup's folders. A cgroup without a process says nothing of an instance.
#[must_use]
pub fn read(folders: &[PathBuf]) -> Usage {
    let file = |name: &str| folders.iter().find_map(|folder| text(&folder.join(name)));
    let usage = parse(&file);
    match usage == Usage::default() {
        true => usage,
        false => with_network(usage, &file),
    }
}

fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    (text.len() <= FILE_BYTES_MAX).then_some(text)
}

/// Adds what the network of the cgroup's first process counts. One that is the host's counts for others, too.
fn with_network(usage: Usage, file: &dyn Fn(&str) -> Option<String>) -> Usage {
    let counted = || {
        let processes = file("cgroup.procs")?;
        let process = Path::new("/proc").join(processes.lines().next()?);
        if network(&process)? == network(Path::new("/proc/self"))? {
            return None;
        }
        let [snmp, netstat] = ["net/snmp", "net/netstat"].map(|name| text(&process.join(name)));
        let (snmp, netstat) = (snmp?, netstat?);
        Some(Usage {
            established: counter(&snmp, "Tcp:", "CurrEstab"),
            listen_overflows: counter(&netstat, "TcpExt:", "ListenOverflows"),
            segments_sent: counter(&snmp, "Tcp:", "OutSegs"),
            segments_repeated: counter(&snmp, "Tcp:", "RetransSegs"),
            ..usage
        })
    };
    counted().unwrap_or(usage)
}

/// What tells a process's network from others: each has a file of counters of its own. Whoever may not trace a process may
/// not read its `ns/net`, and the agent may not.
fn network(process: &Path) -> Option<u64> {
    let counters = fs::metadata(process.join("net/snmp"));
    counters.ok().map(|counters| counters.ino())
}

/// A counter of `/proc/net`: a line of names is followed by one of numbers, both beginning with their group's name.
fn counter(text: &str, group: &str, name: &str) -> Option<f64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let place = names.split_whitespace().position(|other| other == name)?;
    numbers.split_whitespace().nth(place)?.parse().ok()
}

fn parse(file: &dyn Fn(&str) -> Option<String>) -> Usage {
    if is_empty(file) {
        return Usage::default();
    }
    let number = |name: &str| file(name)?.trim().parse::<f64>().ok();
    let waited = |name: &str| Some(field(&some_line(&file(name)?)?, "total=")? / 1e6);
    let used_ns = || Some(number("cpuacct.usage")? / 1e9);
    // Without a quota it is -1.
    let quota_v1 = || {
        let quota = number("cpu.cfs_quota_us").filter(|quota| *quota > 0.0)?;
        Some(quota / number("cpu.cfs_period_us")?)
    };
    Usage {
        cpu_busy_s: file("cpu.stat")
            .and_then(|text| Some(field(&text, "usage_usec ")? / 1e6))
            .or_else(used_ns),
        cpus: file("cpu.max")
            .and_then(|text| quota(&text))
            .or_else(quota_v1),
        memory_share: memory_share(file),
        waited_cpu_s: waited("cpu.pressure"),
        waited_memory_s: waited("memory.pressure"),
        waited_io_s: waited("io.pressure"),
        ..Usage::default()
    }
}

/// Whether nobody is in it: what was in it has died, or never came.
fn is_empty(file: &dyn Fn(&str) -> Option<String>) -> bool {
    match file("cgroup.events") {
        Some(events) => field(&events, "populated ") == Some(0.0),
        // Version 1 does not tell of those in cgroups below.
        None => file("cgroup.procs").is_some_and(|processes| processes.trim().is_empty()),
    }
}

/// The part of its limit that is in use. Pages of files that nobody has used lately are not: they go when room is needed.
fn memory_share(file: &dyn Fn(&str) -> Option<String>) -> Option<f64> {
    let number = |name: &str| file(name)?.trim().parse::<f64>().ok();
    let (used, limit, idle) = match number("memory.current") {
        // "max" is no number: without a limit there is no share of it.
        Some(used) => (used, number("memory.max")?, "\ninactive_file "),
        None => {
            let used = number("memory.usage_in_bytes")?;
            let limit = number("memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT_BYTES)?;
            (used, limit, "\ntotal_inactive_file ")
        }
    };
    let idle = file("memory.stat").and_then(|text| field(&text, idle));
    (limit > 0.0).then(|| (used - idle.unwrap_or(0.0)).max(0.0) / limit)
}

/// The line of a pressure file that counts time in which some task waited.
fn some_line(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("some "));
    line.map(str::to_owned)
}

/// The number after `name`, which begins a line or a word.
fn field(text: &str, name: &str) -> Option<f64> {
    let (_, rest) = text.split_once(name)?;
    rest.split_whitespace().next()?.parse().ok()
}

/// `QUOTA PERIOD` in processors.
fn quota(text: &str) -> Option<f64> {
    let mut parts = text.split_whitespace().map(str::parse::<f64>);
    let (quota, period) = (parts.next()?.ok()?, parts.next()?.ok()?);
    (period > 0.0).then_some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there() {
        let file = |name: &str| {
            let text = match name {
                "cpu.stat" => "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n",
                "cpu.max" => "150000 100000\n",
                "memory.current" => "268435456\n",
                "memory.max" => "1073741824\n",
                "cpu.pressure" => {
                    "some avg10=1.00 avg60=0.50 avg300=0.10 total=3000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n"
                }
                "io.pressure" => "nonsense",
                _ => return None,
            };
            Some(text.to_owned())
        };
        let expected = Usage {
            cpu_busy_s: Some(2.5),
            cpus: Some(1.5),
            memory_share: Some(0.25),
            waited_cpu_s: Some(3.0),
            ..Usage::default()
        };
        assert_eq!(parse(&file), expected);
    }

    #[track_caller]
    fn check_memory(files: &[(&str, &str)], expected: Option<f64>) {
        let file = |name: &str| {
            let found = files.iter().find(|(other, _)| *other == name);
            found.map(|(_, text)| (*text).to_owned())
        };
        assert_eq!(parse(&file).memory_share, expected);
    }

    #[test]
    fn memory_by_either_version() {
        let v2 = [
            ("cgroup.events", "populated 1\nfrozen 0\n"),
            ("memory.current", "700\n"),
            ("memory.max", "1000\n"),
            (
                "memory.stat",
                "anon 1\ninactive_anon 5\ninactive_file 200\n",
            ),
        ];
        check_memory(&v2, Some(0.5));
        let v1 = [
            ("cgroup.procs", "77\n"),
            ("memory.usage_in_bytes", "700\n"),
            ("memory.limit_in_bytes", "1000\n"),
            (
                "memory.stat",
                "cache 9\ninactive_file 1\ntotal_inactive_file 200\n",
            ),
        ];
        check_memory(&v1, Some(0.5));
        check_memory(
            &[
                ("memory.usage_in_bytes", "700\n"),
                ("memory.limit_in_bytes", "9223372036854771712\n"),
            ],
            None,
        );
    }

    #[test]
    fn an_empty_one_says_nothing() {
        let memory = [("memory.current", "7\n"), ("memory.max", "1000\n")];
        check_memory(
            &[&[("cgroup.events", "populated 0\n")], &memory[..]].concat(),
            None,
        );
        check_memory(&[&[("cgroup.procs", "\n")], &memory[..]].concat(), None);
    }

    #[test]
    fn no_folder_is_nothing() {
        assert_eq!(read(&["/nowhere/at/all".into()]), Usage::default());
    }

    #[test]
    fn processors_by_controllers_of_version_1() {
        let file = |name: &str| {
            let text = match name {
                "cpuacct.usage" => "2500000000\n",
                "cpu.stat" => "nr_periods 9\nnr_throttled 1\n",
                "cpu.cfs_quota_us" => "20000\n",
                "cpu.cfs_period_us" => "100000\n",
                _ => return None,
            };
            Some(text.to_owned())
        };
        let usage = parse(&file);
        assert_eq!((usage.cpu_busy_s, usage.cpus), (Some(2.5), Some(0.2)));
    }

    #[test]
    fn counters_by_name() {
        let snmp = "Ip: Forwarding OutSegs\nIp: 1 7\nTcp: ActiveOpens CurrEstab OutSegs RetransSegs\nTcp: 5 9 600 3\n";
        assert_eq!(counter(snmp, "Tcp:", "CurrEstab"), Some(9.0));
        assert_eq!(counter(snmp, "Tcp:", "OutSegs"), Some(600.0));
        assert_eq!(counter(snmp, "Tcp:", "RetransSegs"), Some(3.0));
        assert_eq!(counter(snmp, "Tcp:", "Missing"), None);
        assert_eq!(counter("Tcp: OutSegs\n", "Tcp:", "OutSegs"), None);
    }

    #[test]
    fn a_process_in_the_hosts_network_adds_no_counters() {
        let own = std::process::id().to_string();
        let file = |name: &str| (name == "cgroup.procs").then(|| own.clone());
        let usage = Usage {
            cpus: Some(1.0),
            ..Usage::default()
        };
        assert_eq!(with_network(usage, &file), usage);
    }

    #[test]
    fn no_limit_is_no_share() {
        let file = |name: &str| {
            let text = match name {
                "memory.current" => "1\n",
                "memory.max" => "max\n",
                "cpu.max" => "max 100000\n",
                _ => return None,
            };
            Some(text.to_owned())
        };
        assert_eq!(parse(&file), Usage::default());
    }
}
