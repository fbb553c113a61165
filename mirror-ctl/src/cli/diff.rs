//! `diff`: where a VNI's mirrors answer otherwise than the active instances.

use anyhow::Result;
use mirror_common::limits::TRACE_FRAME_MAX;

use super::{
    args,
    ask::Asker,
    look::{Look, Rows, percent},
    trace::{Reader, follow},
};
use crate::{
    api::client::escape,
    clock,
    trace::{
        Begun, PacketRow,
        diff::{DiffReport, Differ},
    },
};

pub(super) fn run(asker: &Asker<'_>, diff: &args::Diff) -> Result<()> {
    let path = format!(
        "/v1/trace?answers_of={}&one_in={}&duration_s={}&frames=true&frame_bytes={TRACE_FRAME_MAX}",
        escape(&diff.vni),
        diff.one_in,
        diff.duration
    );
    let mut answers = Answers::default();
    let followed = follow(asker, &path, None, &mut answers)?;
    let began_ns = answers.began_ns.unwrap_or_default();
    let duration_s = clock::now_ns().saturating_sub(began_ns) as f64 / 1e9;
    let vni = diff.vni.clone();
    let report = answers.differ.report(vni, duration_s, followed.lost);
    asker.print(&report, text)
}

/// What is heard of the replicas.
#[derive(Default)]
struct Answers {
    differ: Differ,
    began_ns: Option<u64>,
}

impl Reader for Answers {
    fn begin(&mut self, begun: Begun) -> Result<()> {
        self.began_ns = Some(begun.time_ns);
        eprintln!("mirror-ctl: compared for {} s", begun.duration_s);
        Ok(())
    }

    fn packet(&mut self, row: PacketRow, _room: usize) -> Result<usize> {
        self.differ.add(&row);
        Ok(1)
    }
}

fn text(report: &DiffReport, look: Look) -> String {
    let mut table = Rows::new(look, &["mirror", "flows", "diverged", "rate", "bytes"]);
    for mirror in &report.mirrors {
        table.add([
            mirror.instance.clone(),
            mirror.flows.to_string(),
            mirror.diverged.to_string(),
            percent(mirror.rate),
            mirror.bytes.to_string(),
        ]);
    }
    let mut text = table.text();
    for mirror in &report.mirrors {
        for sample in &mirror.samples {
            text.push_str(&format!(
                "\n{} from {}, {}: byte {} of the answers\n",
                sample.client, sample.address, mirror.instance, sample.offset
            ));
            for (who, status, bytes) in [
                (&sample.active, &sample.active_status, &sample.active_bytes),
                (
                    &mirror.instance,
                    &sample.mirror_status,
                    &sample.mirror_bytes,
                ),
            ] {
                let status = status.as_deref().map(|status| format!("{status}  ... "));
                text.push_str(&format!("  {who}: {}{bytes}\n", status.unwrap_or_default()));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::diff::{Difference, MirrorDiff};

    #[test]
    fn a_difference_is_shown_with_both_sides() {
        let sample = Difference {
            client: "10.0.0.9:4000".to_owned(),
            address: "10.77.0.100:80".to_owned(),
            active: "a".to_owned(),
            offset: 9,
            active_status: Some("HTTP/1.1 200 OK".to_owned()),
            mirror_status: None,
            active_bytes: "200 OK".to_owned(),
            mirror_bytes: "500".to_owned(),
        };
        let report = DiffReport {
            mirrors: vec![MirrorDiff {
                instance: "b".to_owned(),
                flows: 4,
                diverged: 1,
                rate: 0.25,
                bytes: 100,
                samples: vec![sample],
            }],
            ..DiffReport::default()
        };
        let look = Look {
            colour: false,
            now_ns: 0,
        };
        let text = text(&report, look);
        assert!(
            text.ends_with(
                "\n10.0.0.9:4000 from 10.77.0.100:80, b: byte 9 of the answers\n  \
                 a: HTTP/1.1 200 OK  ... 200 OK\n  b: 500\n"
            ),
            "{text}"
        );
    }
}
