//! What a container on this host uses: the files of its cgroup (v2), PSI among them. Read as they are; a file that is
//! not there is a quantity that is missing (`Documentation/admin-guide/cgroup-v2.rst`, `Documentation/accounting/psi.rst`).

use std::{fs, path::Path};

use super::Usage;

/// Files of a cgroup are a page at most.
const FILE_BYTES_MAX: usize = 4_096;

/// Reads a cgroup's folder.
#[must_use]
pub fn read(folder: &Path) -> Usage {
    let file = |name: &str| {
        let text = fs::read_to_string(folder.join(name)).ok()?;
        (text.len() <= FILE_BYTES_MAX).then_some(text)
    };
    parse(&file)
}

fn parse(file: &dyn Fn(&str) -> Option<String>) -> Usage {
    let number = |name: &str| file(name)?.trim().parse::<f64>().ok();
    let waited = |name: &str| Some(field(&some_line(&file(name)?)?, "total=")? / 1e6);
    // "max" is no number: without a limit there is no share of it.
    let memory = number("memory.current").zip(number("memory.max").filter(|max| *max > 0.0));
    Usage {
        cpu_busy_s: file("cpu.stat").and_then(|text| Some(field(&text, "usage_usec ")? / 1e6)),
        cpus: file("cpu.max").and_then(|text| quota(&text)),
        memory_share: memory.map(|(current, max)| current / max),
        waited_cpu_s: waited("cpu.pressure"),
        waited_memory_s: waited("memory.pressure"),
        waited_io_s: waited("io.pressure"),
        ..Usage::default()
    }
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

    #[test]
    fn no_folder_is_nothing() {
        assert_eq!(read(Path::new("/nowhere/at/all")), Usage::default());
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
