//! The command line without an agent: help, exit codes, messages. With an agent it is tested by
//! the integration tests.

mod help;
mod schema;
mod wrong;

use std::{fs, path::Path};

use assert_cmd::Command;
use tempfile::TempDir;

const GOOD: &str = r#"
[[instance]]
name = "a"
link = "ia"
mac = "02:00:00:00:01:02"
[[instance]]
name = "b"
link = "ib"
mac = "02:00:00:00:02:02"
[[vni]]
name = "web"
addresses = ["10.77.0.100"]
interfaces = ["c0"]
"#;

/// What came of a command: exit code, stdout, stderr.
fn run(arguments: &[&str]) -> (i32, String, String) {
    run_in(Path::new("."), arguments)
}

/// The same with another working directory.
fn run_in(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::cargo_bin("mirror-ctl")
        .unwrap()
        .env_remove("MIRROR_SOCKET")
        .env_remove("COLUMNS")
        .current_dir(dir)
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

fn file(text: &str) -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mirror.toml");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn every_verb_has_help() {
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for verb in [
        "agent",
        "load",
        "unload",
        "status",
        "vni",
        "instances",
        "flows",
        "mirrors",
        "events",
        "evacuate",
        "restore",
        "drain",
        "takeover",
        "reload",
        "upgrade",
        "doctor",
        "config",
        "completions",
    ] {
        assert!(
            help.contains(&format!("\n  {verb} ")),
            "{verb} is not in\n{help}"
        );
        let (code, help, _) = run(&[verb, "--help"]);
        assert_eq!(code, 0, "{verb}");
        assert!(help.contains("Usage: mirror-ctl"), "{help}");
    }
}

#[test]
fn no_agent_is_3_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let socket = socket.to_str().unwrap();
    for arguments in [
        &["instances"][..],
        &["flows", "--json"],
        &["evacuate", "a"],
        &["events"],
    ] {
        let (code, out, said) = run(&[arguments, &["--socket", socket]].concat());
        assert_eq!(code, 3, "{arguments:?}: {said}");
        assert_eq!(out, "");
        assert!(
            said.contains(socket) && said.contains("mirror-ctl agent --config"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn a_socket_that_nobody_serves_is_no_agent() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let (code, _, said) = run(&["vni", "--socket", socket.to_str().unwrap()]);
    assert_eq!(code, 3, "{said}");
}

#[test]
fn a_good_configuration_is_0() {
    let (_dir, path) = file(GOOD);
    let (code, out, said) = run(&["config", "check", &path]);
    assert_eq!((code, said.as_str()), (0, ""));
    assert_eq!(out, format!("{path}: 1 VNI(s), 2 instance(s), no errors\n"));
    let (code, out, _) = run(&["config", "check", &path, "--json"]);
    assert_eq!(code, 0);
    let config: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(config["vnis"][0]["instances"][1], "b");
    assert_eq!(config["agent"]["socket"], "/run/mirror/agent.sock");
}

#[test]
fn a_bad_configuration_is_2_with_all_its_errors() {
    let (_dir, path) = file(&GOOD.replace("\"ib\"", "\"ia\"").replace("web", "w b"));
    let (code, out, said) = run(&["config", "check", &path]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert_eq!(
        said,
        format!(
            "{path}:8: instance \"b\": link \"ia\" is used by instance \"a\" too\n\
             {path}:11: vni \"w b\": \"w b\" is not a name: 1 to 48 letters, digits, '-', '_' or '.'\n"
        )
    );
    // The agent and unload say the same.
    for verb in ["agent", "load", "unload"] {
        let (code, _, said) = run(&[verb, "--config", &path]);
        assert_eq!(code, 2, "{said}");
        assert!(said.starts_with(&format!("{path}:8: ")), "{said}");
    }
}

#[test]
fn what_a_file_means_is_shown_and_a_new_one_is_written_once() {
    let (_dir, path) = file(GOOD);
    let (code, shown, _) = run(&["config", "show", &path]);
    assert_eq!(code, 0);
    assert!(
        shown.contains("[agent]\nsocket = \"/run/mirror/agent.sock\""),
        "{shown}"
    );
    assert!(
        shown.contains(
            "mirrors = 1\nmirrored_per_s = 10000\nack = \"semi-sync\"\ndelivery = \"active\""
        ),
        "{shown}"
    );
    let (dir, _) = file(&shown);
    let again = run_in(dir.path(), &["config", "show", "mirror.toml"]);
    assert_eq!(again, (0, shown, String::new()));

    let (code, sample, _) = run(&["config", "init"]);
    assert_eq!(code, 0);
    let (code, out, _) = run_in(dir.path(), &["config", "init", "new.toml"]);
    assert_eq!((code, out.lines().count()), (0, 1), "{out}");
    assert_eq!(
        fs::read_to_string(dir.path().join("new.toml")).unwrap(),
        sample
    );
    assert_eq!(run_in(dir.path(), &["config", "check", "new.toml"]).0, 0);
}

#[test]
fn a_missing_configuration_is_2() {
    let (code, _, said) = run(&["agent", "--config", "/nonexistent/mirror.toml"]);
    assert_eq!(code, 2);
    assert!(said.starts_with("/nonexistent/mirror.toml: "), "{said}");
}

#[test]
fn nothing_to_unload_is_1() {
    let dir = tempfile::tempdir().unwrap();
    let pins = dir.path().join("pins");
    let (code, _, said) = run(&["unload", "--pin-dir", pins.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(said.contains("nothing is loaded"), "{said}");
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let binary = assert_cmd::cargo::cargo_bin("mirror-ctl");
    assert!(Path::new(&binary).exists());
    let mut child = std::process::Command::new(binary)
        .args(["completions", "bash"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// What a verb prints on a terminal.
fn on_a_terminal(variables: &[(&str, &str)]) -> String {
    let binary = assert_cmd::cargo::cargo_bin("mirror-ctl");
    let verb = format!("{} doctor", binary.display());
    let output = std::process::Command::new("script")
        .args(["--quiet", "--command", &verb, "/dev/null"])
        .env_remove("NO_COLOR")
        .env("TERM", "xterm")
        .envs(variables.iter().copied())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn there_are_colours_on_a_terminal_and_nowhere_else() {
    let has_colours = |text: &str| {
        assert!(text.contains("SEVERITY"), "{text}");
        text.contains('\x1b')
    };
    assert!(has_colours(&on_a_terminal(&[])));
    assert!(has_colours(&on_a_terminal(&[("NO_COLOR", "")])));
    assert!(!has_colours(&on_a_terminal(&[("NO_COLOR", "1")])));
    assert!(!has_colours(&on_a_terminal(&[("TERM", "dumb")])));
    assert!(!has_colours(&run(&["doctor"]).1));
}
