//! What a Prometheus node exporter says, in the text exposition format.

use super::Usage;

/// A line with more is not read: the exporter's own are below 200 bytes.
const LINE_BYTES_MAX: usize = 4_096;

/// Reads what is of use; lines that make no sense are passed over.
#[must_use]
pub fn parse(text: &str) -> Usage {
    let mut usage = Usage::default();
    let (mut available, mut total) = (None, None);
    let mut cpus = std::collections::BTreeSet::new();
    for line in text.lines().filter(|line| line.len() <= LINE_BYTES_MAX) {
        let Some((name, labels, value)) = sample(line) else {
            continue;
        };
        let add = |to: &mut Option<f64>| *to = Some(to.unwrap_or(0.0) + value);
        match name {
            "node_cpu_seconds_total" => {
                match label(labels, "mode") {
                    Some("idle" | "iowait") => {}
                    Some("steal") => add(&mut usage.cpu_stolen_s),
                    // Guests' time is in that of users already.
                    Some("guest" | "guest_nice") | None => continue,
                    Some(_) => add(&mut usage.cpu_busy_s),
                }
                add(&mut usage.cpu_all_s);
                cpus.extend(label(labels, "cpu"));
            }
            "node_memory_MemAvailable_bytes" => available = Some(value),
            "node_memory_MemTotal_bytes" => total = Some(value),
            "node_pressure_cpu_waiting_seconds_total" => usage.waited_cpu_s = Some(value),
            "node_pressure_memory_waiting_seconds_total" => usage.waited_memory_s = Some(value),
            "node_pressure_io_waiting_seconds_total" => usage.waited_io_s = Some(value),
            "node_procs_running" => usage.runnable = Some(value),
            "node_netstat_Tcp_CurrEstab" => usage.established = Some(value),
            "node_netstat_TcpExt_ListenOverflows" => usage.listen_overflows = Some(value),
            "node_netstat_Tcp_OutSegs" => usage.segments_sent = Some(value),
            "node_netstat_Tcp_RetransSegs" => usage.segments_repeated = Some(value),
            "node_disk_read_time_seconds_total" | "node_disk_write_time_seconds_total" => {
                add(&mut usage.disk_time_s);
            }
            "node_disk_reads_completed_total" | "node_disk_writes_completed_total" => {
                add(&mut usage.disk_requests);
            }
            _ => {}
        }
    }
    usage.cpus = (!cpus.is_empty()).then_some(cpus.len() as f64);
    usage.memory_share = available
        .zip(total.filter(|total| *total > 0.0))
        .map(|(available, total)| 1.0 - available / total);
    usage
}

/// `name{labels} value [timestamp]`.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let (name, labels, rest) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, rest) = rest.rsplit_once('}')?;
            (name, labels, rest)
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            (name, "", rest)
        }
    };
    let value: f64 = rest.split_whitespace().next()?.parse().ok()?;
    value.is_finite().then_some((name.trim(), labels, value))
}

/// The value of a label. Labels that matter here hold no quotes.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key.trim() == name).then(|| value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP node_cpu_seconds_total Seconds the CPUs spent in each mode.
# TYPE node_cpu_seconds_total counter
node_cpu_seconds_total{cpu="0",mode="idle"} 80
node_cpu_seconds_total{cpu="0",mode="user"} 10.5
node_cpu_seconds_total{cpu="0",mode="steal"} 0.5
node_cpu_seconds_total{cpu="1",mode="idle"} 85
node_cpu_seconds_total{cpu="1",mode="system"} 4
node_disk_read_time_seconds_total{device="vda"} 1.5
node_disk_write_time_seconds_total{device="vda"} 2
node_disk_reads_completed_total{device="vda"} 100
node_disk_writes_completed_total{device="vda"} 50
node_memory_MemAvailable_bytes 2.5e+09
node_memory_MemTotal_bytes 1e+10
node_netstat_TcpExt_ListenOverflows 3
node_netstat_Tcp_CurrEstab 21
node_pressure_cpu_waiting_seconds_total 12.25
node_procs_running 2
"#;

    #[test]
    fn reads_a_real_form() {
        let expected = Usage {
            cpu_busy_s: Some(14.5),
            cpu_all_s: Some(180.0),
            cpu_stolen_s: Some(0.5),
            cpus: Some(2.0),
            memory_share: Some(0.75),
            waited_cpu_s: Some(12.25),
            runnable: Some(2.0),
            established: Some(21.0),
            listen_overflows: Some(3.0),
            disk_time_s: Some(3.5),
            disk_requests: Some(150.0),
            ..Usage::default()
        };
        assert_eq!(parse(TEXT), expected);
    }

    #[test]
    fn garbage_is_nothing() {
        let long = "x".repeat(10_000);
        for garbage in [
            "",
            "\u{0}\u{1}\u{2}",
            "<html><body>404</body></html>",
            "node_procs_running",
            "node_procs_running abc",
            "node_procs_running NaN",
            "node_cpu_seconds_total{cpu=\"0\",mode=\"user\" 7",
            long.as_str(),
        ] {
            assert_eq!(parse(garbage), Usage::default(), "{garbage}");
        }
    }
}
