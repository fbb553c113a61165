//! How much of the agent's own recordings is kept: which file is gone on with, and which go. Pure.

/// A file is never larger than this: a recording is read as a whole.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// What is recorded last may be a quarter of everything; the rest is what came before.
const PARTS: u64 = 4;

/// One file of a VNI's recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Whose instances.
    pub vni: String,
    /// Later ones have greater numbers.
    pub number: u64,
    /// How large it is.
    pub bytes: u64,
    /// When it was written last, ms since 1970.
    pub written_ms: u64,
}

/// The file's name.
#[must_use]
pub fn file_name(vni: &str, number: u64) -> String {
    format!("{vni}-{number:06}.rec")
}

/// VNI and number of a file's name; none: it is not one of ours.
#[must_use]
pub fn parse(file_name: &str) -> Option<(&str, u64)> {
    let (vni, number) = file_name.strip_suffix(".rec")?.rsplit_once('-')?;
    let is_number = number.len() >= 6 && number.bytes().all(|b| b.is_ascii_digit());
    (!vni.is_empty() && is_number).then(|| Some((vni, number.parse().ok()?)))?
}

/// A file of this size is full.
#[must_use]
pub fn segment_bytes(bytes_max: u64, vnis: usize) -> u64 {
    (bytes_max / (PARTS * vnis.max(1) as u64)).min(SEGMENT_BYTES_MAX)
}

/// Which segments go, oldest first, so that all together hold at most `bytes_max`. What is being written, the last of each
/// VNI in `vnis`, stays.
#[must_use]
pub fn superfluous<'a>(
    segments: &'a [Segment],
    vnis: &[String],
    bytes_max: u64,
) -> Vec<&'a Segment> {
    let mut excess = segments
        .iter()
        .map(|s| s.bytes)
        .sum::<u64>()
        .saturating_sub(bytes_max);
    let is_last = |segment: &Segment| {
        let of_vni = segments.iter().filter(|s| s.vni == segment.vni);
        of_vni.map(|s| s.number).max() == Some(segment.number)
    };
    let mut old: Vec<&Segment> = segments
        .iter()
        .filter(|s| !(vnis.contains(&s.vni) && is_last(s)))
        .collect();
    old.sort_by_key(|s| (s.written_ms, s.number));
    let mut gone = Vec::new();
    for segment in old {
        if excess == 0 {
            break;
        }
        excess = excess.saturating_sub(segment.bytes);
        gone.push(segment);
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        assert_eq!(file_name("web", 7), "web-000007.rec");
        assert_eq!(parse("web-000007.rec"), Some(("web", 7)));
        assert_eq!(parse("a-b.c-1000000.rec"), Some(("a-b.c", 1_000_000)));
        for other in [
            "web-7.rec",
            "-000007.rec",
            "web.rec",
            "web-000007.new",
            "web-00000x.rec",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_full_file_is_a_quarter_of_a_vnis_part() {
        assert_eq!(segment_bytes(1_000, 1), 250);
        assert_eq!(segment_bytes(1_000, 5), 50);
        assert_eq!(segment_bytes(u64::MAX, 1), SEGMENT_BYTES_MAX);
    }

    #[test]
    fn the_oldest_go_and_what_is_written_stays() {
        let segment = |vni: &str, number, bytes, written_ms| Segment {
            vni: vni.to_owned(),
            number,
            bytes,
            written_ms,
        };
        let segments = [
            segment("a", 1, 40, 10),
            segment("a", 2, 40, 30),
            segment("a", 3, 20, 60),
            segment("b", 4, 50, 5),
            segment("gone", 9, 30, 20),
        ];
        let vnis = ["a".to_owned(), "b".to_owned()];
        let numbers = |bytes_max| -> Vec<u64> {
            let gone = superfluous(&segments, &vnis, bytes_max);
            gone.iter().map(|s| s.number).collect()
        };
        assert_eq!(numbers(180), [0; 0]);
        assert_eq!(numbers(179), [1]);
        // The only segment of b is the oldest and is written; one of a VNI that is gone is not.
        assert_eq!(numbers(130), [1, 9]);
        assert_eq!(numbers(0), [1, 9, 2]);
    }
}
