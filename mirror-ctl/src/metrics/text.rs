//! From OpenMetrics, which the crate writes, to Prometheus' own text format: everything that scrapes reads
//! that one, and `promtool check metrics` reads nothing else.

/// The format's name for HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The same samples in Prometheus' text format. A counter's family has the name of its samples there, and
/// the end is not marked.
pub(super) fn plain(open: &str) -> String {
    let mut plain = String::with_capacity(open.len());
    let mut help: Option<(&str, &str)> = None;
    for line in open.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        if let Some((name, text)) = rest(line, "# HELP ") {
            // The type, which says what the family is called, comes after it.
            help = Some((name, text));
            continue;
        }
        if let Some((name, kind)) = rest(line, "# TYPE ") {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, text)) = help.take().filter(|(of, _)| *of == name) {
                plain.push_str(&format!("# HELP {name}{suffix} {text}\n"));
            }
            plain.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
            continue;
        }
        plain.push_str(line);
        plain.push('\n');
    }
    plain
}

fn rest<'a>(line: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix(prefix)?.split_once(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counters_family_has_its_samples_name() {
        let open = "# HELP a_b Bees.\n# TYPE a_b counter\n# UNIT a_b b\na_b_total{x=\"y z\"} 1\n\
                    # HELP c Seas.\n# TYPE c gauge\nc 2.5\n# EOF\n";
        assert_eq!(
            plain(open),
            "# HELP a_b_total Bees.\n# TYPE a_b_total counter\na_b_total{x=\"y z\"} 1\n\
             # HELP c Seas.\n# TYPE c gauge\nc 2.5\n"
        );
    }
}
