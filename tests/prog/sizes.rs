//! A guard against programs that grow unnoticed, by what does not depend on the machine's load: instructions that
//! the verifier walked, the programs' sizes after translation and compilation, and the functions that they call. Times are
//! `cargo xtask bench`'s.

use std::collections::BTreeMap;
use std::path::Path;

use aya::programs::ProgramInfo;
use serde::{Deserialize, Serialize};

use crate::bench::{calls, traced, with_bench};

const PROGRAMS: [&str; 3] = ["vni_ingress", "instance_return", "clone"];
/// With it the file is written anew.
const UPDATE_VARIABLE: &str = "MIRROR_UPDATE_SIZES";
/// In percent, either way: a program that shrank is to be kept small.
const TOLERANCE: u64 = 10;

/// One program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sizes {
    /// Instructions that the verifier walked.
    verified: u64,
    /// Bytes of BPF instructions after the verifier's changes.
    translated: u64,
    /// Bytes of machine code.
    compiled: u64,
    /// Calls of functions of its own. Verifiers before Linux 6.2 remember every number of a program with such functions, and walk
    /// all the ways that differ in one: `vni_ingress` would exceed their limit. Besides, the compiler's own, for copies and zeros,
    /// go byte by byte.
    calls: u64,
}

impl Sizes {
    fn of(info: &ProgramInfo, calls: u64) -> Self {
        Self {
            verified: info.verified_instruction_count().unwrap().into(),
            translated: info.size_translated().unwrap().into(),
            compiled: info.size_jitted().into(),
            calls,
        }
    }

    fn each(&self) -> [(&'static str, u64); 4] {
        [
            ("verified", self.verified),
            ("translated", self.translated),
            ("compiled", self.compiled),
            ("calls", self.calls),
        ]
    }
}

#[test]
fn programs_are_as_large_as_they_were() {
    let mut found = BTreeMap::new();
    let (normal, variant) = (calls(false).unwrap(), calls(true).unwrap());
    with_bench(|bench| {
        for name in PROGRAMS {
            found.insert(name.to_owned(), Sizes::of(&bench.info(name), normal[name]));
        }
        for (name, info) in traced().unwrap() {
            found.insert(format!("{name}_traced"), Sizes::of(&info, variant[name]));
        }
    });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("prog/sizes.toml");
    if std::env::var_os(UPDATE_VARIABLE).is_some() {
        std::fs::write(&path, toml::to_string(&found).unwrap()).unwrap();
        return;
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let known: BTreeMap<String, Sizes> = toml::from_str(&text).unwrap();
    let mut differences = Vec::new();
    for (name, sizes) in &found {
        for ((what, now), (_, before)) in sizes.each().into_iter().zip(known[name].each()) {
            // Machine code is another one on other machines.
            let comparable = what != "compiled" || cfg!(target_arch = "x86_64");
            if comparable && !is_near(now, before) {
                differences.push(format!("{name}: {what} {now}, {before} before"));
            }
        }
    }
    assert!(
        differences.is_empty(),
        "{differences:#?}\nmore than {TOLERANCE} % off; if that is meant, run this test with \
         {UPDATE_VARIABLE}=1 and keep {} with the change",
        path.display()
    );
}

fn is_near(now: u64, before: u64) -> bool {
    now.abs_diff(before) * 100 <= before * TOLERANCE
}

#[test]
fn ten_percent_either_way() {
    assert!(is_near(110, 100) && is_near(90, 100));
    assert!(!is_near(111, 100) && !is_near(89, 100));
}
