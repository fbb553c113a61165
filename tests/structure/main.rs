//! Rules about the source itself (docs/architecture.md, "Rules that hold everywhere"): who may
//! import what, and where bounds and shared types may be written down.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file's text less comments.
fn code(text: &str) -> String {
    let lines = text.lines();
    let lines = lines.filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Every Rust file under a folder, or the one file, with its text less comments.
fn sources(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<(String, String)>) {
        let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.display().to_string(), code(&text)));
            }
        }
    }
    let mut found = Vec::new();
    let path = root().join(folder);
    if path.is_file() {
        let text = fs::read_to_string(&path).unwrap();
        return vec![(folder.to_owned(), code(&text))];
    }
    walk(&path, &mut found);
    assert!(!found.is_empty(), "no sources under {folder}");
    found
}

/// Fails with every file of `folder`, except those under `but`, that contains one of `words`.
#[track_caller]
fn check_absent(folder: &str, but: &str, words: &[&str]) {
    let offenders: Vec<_> = sources(folder)
        .iter()
        .filter(|(path, _)| but.is_empty() || !path.contains(but))
        .flat_map(|(path, code)| {
            let hits = words.iter().filter(|word| code.contains(**word));
            hits.map(move |word| format!("{path}: {word}"))
        })
        .collect();
    assert!(offenders.is_empty(), "{offenders:#?}");
}

#[test]
fn only_the_dataplane_module_imports_aya() {
    check_absent(
        "mirror-ctl/src",
        "/dataplane/",
        &["aya::", "aya_obj::", "use aya"],
    );
    check_absent("xtask/src", "", &["aya::", "use aya"]);
}

#[test]
fn decisions_are_pure() {
    const IMPURE: &[&str] = &[
        "std::fs",
        "std::net",
        "std::time",
        "tokio::",
        "rtnetlink",
        "Instant::now",
        "clock::now",
        "async fn",
        "unsafe ",
    ];
    check_absent("mirror-ctl/src/routing", "", IMPURE);
    check_absent("mirror-ctl/src/mirroring", "", IMPURE);
    check_absent("mirror-ctl/src/health/predict", "", IMPURE);
    check_absent("mirror-ctl/src/health/sim", "", IMPURE);
    for (path, code) in sources("mirror-ctl/src/health/learning") {
        if !path.ends_with("/journal.rs") && !path.ends_with("/seats.rs") {
            let found: Vec<_> = IMPURE.iter().filter(|word| code.contains(**word)).collect();
            assert!(found.is_empty(), "{path}: {found:?}");
        }
    }
    for file in [
        "agent/bearings.rs",
        "agent/decide.rs",
        "agent/foresee.rs",
        "agent/orders.rs",
        "agent/sets.rs",
        "agent/state.rs",
        "health/evidence.rs",
        "health/recovery.rs",
        "health/silence.rs",
    ] {
        check_absent(&format!("mirror-ctl/src/{file}"), "", IMPURE);
    }
    for (path, code) in sources("mirror-ctl/src/doctor") {
        if path.ends_with("/judge.rs") || path.ends_with("/interfaces.rs") {
            let found: Vec<_> = IMPURE.iter().filter(|word| code.contains(**word)).collect();
            assert!(found.is_empty(), "{path}: {found:?}");
        }
    }
}

#[test]
fn every_queue_has_an_end() {
    const UNBOUNDED: &[&str] = &[
        "unbounded_channel",
        "UnboundedSender",
        "UnboundedReceiver",
        "mpsc::channel()",
        " channel();",
        "{Sender, channel}",
    ];
    check_absent("mirror-ctl/src", "", UNBOUNDED);
}

#[test]
fn the_protocol_knows_no_kernel_clock_or_memory() {
    const IMPURE: &[&str] = &["std::", "alloc::", "aya", "unsafe ", "bpf_", "Instant"];
    check_absent("mirror-common/src/tcp", "/tests", IMPURE);
}

#[test]
fn shared_types_exist_once_with_their_sizes_asserted() {
    let common = sources("mirror-common/src");
    let (_, layout) = sources("mirror-common/src/layout.rs").remove(0);
    for (path, code) in &common {
        if path.contains("/tests") {
            continue;
        }
        for declaration in code.split("#[repr(C)]").skip(1) {
            let name = declaration
                .split_once("pub struct ")
                .and_then(|(_, rest)| rest.split([' ', '{', '<']).next())
                .unwrap_or_else(|| panic!("{path}: a repr(C) without a struct"));
            // What the protocol is told of the world never leaves the program that made it.
            if name == "Conditions" {
                continue;
            }
            assert!(
                code.contains(&format!("assert_size!({name},")),
                "{path}: the size of {name} is not asserted"
            );
            assert!(
                layout.contains(&format!("assert_offsets!({name} {{")),
                "layout.rs: the offsets of {name}'s fields are not asserted"
            );
        }
    }
    // User space takes its map types from there: it declares none of its own.
    check_absent("mirror-ctl/src", "/dataplane/", &["repr(C)"]);
}

#[test]
fn only_packet_access_maps_and_the_dataplane_are_unsafe() {
    check_absent(
        "mirror-ctl/src",
        "/dataplane/",
        &["unsafe {", "unsafe fn", "unsafe impl"],
    );
}
