//! What is made of the command line's own words: help, completions, manual pages.

use std::{fs, path::Path, process::Command};

use super::run;

/// Every verb, the nested ones too.
const VERBS: &[&[&str]] = &[
    &[],
    &["agent"],
    &["load"],
    &["unload"],
    &["status"],
    &["vni"],
    &["select"],
    &["instances"],
    &["flows"],
    &["mirrors"],
    &["events"],
    &["trace"],
    &["capture"],
    &["diff"],
    &["top"],
    &["metrics"],
    &["evacuate"],
    &["restore"],
    &["drain"],
    &["takeover"],
    &["reload"],
    &["apply"],
    &["upgrade"],
    &["doctor"],
    &["config"],
    &["config", "check"],
    &["config", "show"],
    &["config", "init"],
    &["health"],
    &["health", "train"],
    &["health", "eval"],
    &["health", "record"],
    &["health", "label"],
    &["health", "simulate"],
    &["health", "replay"],
    &["health", "explain"],
    &["health", "bench"],
    &["health", "models"],
    &["health", "promote"],
    &["health", "rollback"],
    &["schema"],
    &["completions"],
    &["man"],
];
/// Set to anything, it makes the fixture what the program says now.
pub(crate) const UPDATE: &str = "MIRROR_UPDATE_FIXTURES";

#[test]
fn help_is_as_it_was() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/help.txt");
    let mut all = String::new();
    for verb in VERBS {
        let (code, help, said) = run(&[verb, &["--help"][..]].concat());
        assert_eq!((code, said.as_str()), (0, ""), "{verb:?}");
        all.push_str(&format!(
            "$ mirror-ctl {}\n{help}\n",
            [verb, &["--help"][..]].concat().join(" ")
        ));
    }
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&fixture, &all).unwrap();
    }
    let expected = fs::read_to_string(&fixture).unwrap_or_default();
    let differs = all
        .lines()
        .zip(expected.lines())
        .find(|(is, was)| is != was);
    assert!(
        all == expected,
        "help is not that of {}; the first line that differs: {differs:?}. If it is meant, set {UPDATE}=1",
        fixture.display()
    );
}

#[test]
fn every_verb_is_in_the_fixture_and_has_an_example() {
    let (_, help, _) = run(&["--help"]);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.is_empty());
    let verbs: Vec<_> = listed
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for verb in verbs.iter().filter(|verb| **verb != "help") {
        assert!(VERBS.contains(&&[*verb][..]), "{verb} is not tested");
    }
    for verb in VERBS.iter().filter(|verb| **verb != ["config"]) {
        let (_, help, _) = run(&[verb, &["--help"][..]].concat());
        assert!(
            help.contains("Examples:\n  mirror-ctl ") || help.contains("Examples:\n  MIRROR"),
            "{help}"
        );
    }
}

#[test]
fn completions_are_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, out, _) = run(&["completions", shell]);
        assert_eq!(code, 0, "{shell}");
        assert!(
            out.contains("mirror-ctl") && out.contains("evacuate"),
            "{shell}"
        );
    }
}

#[test]
fn bash_completes_verbs_and_options() {
    let (_, script, _) = run(&["completions", "bash"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("completions");
    fs::write(&file, script).unwrap();
    let complete = |words: &str, word: &str| {
        let script = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); \
             _mirror__ctl mirror-ctl {word} mirror-ctl; echo ${{COMPREPLY[@]}}",
            file.display()
        );
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("mirror-ctl ev", "ev"), "events evacuate");
    assert_eq!(complete("mirror-ctl flows --wa", "--wa"), "--watch");
    assert_eq!(complete("mirror-ctl health tr", "tr"), "train");
}

#[test]
fn every_verb_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, said) = run(&["man", "--dir", dir.path().to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    for verb in VERBS {
        let name = [&["mirror-ctl"][..], verb].concat().join("-");
        let page = fs::read_to_string(dir.path().join(format!("{name}.8"))).expect(&name);
        assert!(page.contains(".TH "), "{page}");
        let escaped = name.replace('-', "\\-");
        assert!(
            page.contains(&format!(".SH NAME\n{escaped}"))
                || page.contains(&format!(".SH NAME\n{name}")),
            "{page}"
        );
    }
    // It is parsed on its own, and an option that all others have is none of it.
    let page = fs::read_to_string(dir.path().join("mirror-ctl-health-train.8")).unwrap();
    assert!(!page.contains("socket"), "{page}");
    let (code, page, _) = run(&["man"]);
    assert!(code == 0 && page.contains(".SH SYNOPSIS"), "{page}");
}
