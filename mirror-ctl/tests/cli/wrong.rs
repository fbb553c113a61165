//! What is said of wrong uses: each with its exact message and exit code.

use std::fs;

use super::run_in;

/// Arguments, exit code, and what is said, less the usage that clap adds, a line less its indentation.
#[rustfmt::skip]
const WRONG: &[(&str, i32, &str)] = &[
    ("frobnicate", 2,
     "error: unrecognized subcommand 'frobnicate'"),
    ("evacuat a", 2,
     "error: unrecognized subcommand 'evacuat'\n\
      tip: a similar subcommand exists: 'evacuate'"),
    ("evacuate", 2,
     "error: the following required arguments were not provided:\n\
      <INSTANCE>"),
    ("evacuate a b", 2,
     "error: unexpected argument 'b' found"),
    ("evacuate --forc a", 2,
     "error: unexpected argument '--forc' found\n\
      tip: a similar argument exists: '--force'"),
    ("restore", 2,
     "error: the following required arguments were not provided:\n\
      <INSTANCE>"),
    ("drain", 2,
     "error: the following required arguments were not provided:\n\
      <INSTANCE>"),
    ("takeover", 2,
     "error: the following required arguments were not provided:\n\
      <INSTANCE>"),
    ("agent", 2,
     "error: the following required arguments were not provided:\n\
      --config <FILE>"),
    ("agent mirror.toml", 2,
     "error: unexpected argument 'mirror.toml' found"),
    ("agent --config", 2,
     "error: a value is required for '--config <FILE>' but none was supplied"),
    ("agent --config x --log-programs loud", 2,
     "error: invalid value 'loud' for '--log-programs <LEVEL>'\n\
      [possible values: off, error, warn, info, debug, trace]"),
    ("load", 2,
     "error: the following required arguments were not provided:\n\
      --config <FILE>"),
    ("unload --config a --pin-dir b", 2,
     "error: the argument '--config <FILE>' cannot be used with '--pin-dir <DIR>'"),
    ("unload now", 2,
     "error: unexpected argument 'now' found"),
    ("status --pin-dir", 2,
     "error: a value is required for '--pin-dir <DIR>' but none was supplied"),
    ("flows --limit x", 2,
     "error: invalid value 'x' for '--limit <N>': must be a whole number, 0 or more"),
    ("flows --limit -1", 2,
     "error: invalid value '-1' for '--limit <N>': must be a whole number, 0 or more"),
    ("flows --client x", 2,
     "error: invalid value 'x' for '--client <CLIENT>': \"x\" is not an address, nor one with a port"),
    ("flows --watch 0", 2,
     "error: invalid value '0' for '--watch [<SECONDS>]': must be 0.1 to 3600 seconds"),
    ("flows --watch soon", 2,
     "error: invalid value 'soon' for '--watch [<SECONDS>]': must be 0.1 to 3600 seconds"),
    ("flows --colt", 2,
     "error: unexpected argument '--colt' found\n\
      tip: a similar argument exists: '--cold'"),
    ("flows a", 2,
     "error: unexpected argument 'a' found"),
    ("events --since yesterday", 2,
     "error: invalid value 'yesterday' for '--since <SEQ>': must be a whole number, 0 or more"),
    ("events --kind birthday", 2,
     "error: invalid value 'birthday' for '--kind <KIND>'\n\
      [possible values: flow-opened, flow-warm, flow-cold, takeover, flow-closed, partial-checksum, instance-state, interface, configuration, order, prediction, zone, predecessor]"),
    ("events --follow --limit 3", 2,
     "error: the argument '--follow' cannot be used with '--limit <N>'"),
    ("events --limit", 2,
     "error: a value is required for '--limit <N>' but none was supplied"),
    ("config chck", 2,
     "error: unrecognized subcommand 'chck'\n\
      tip: a similar subcommand exists: 'check'"),
    ("config check", 2,
     "error: the following required arguments were not provided:\n\
      <FILE>"),
    ("config init a b", 2,
     "error: unexpected argument 'b' found"),
    ("completions", 2,
     "error: the following required arguments were not provided:\n\
      <SHELL>"),
    ("completions tcsh", 2,
     "error: invalid value 'tcsh' for '<SHELL>'\n\
      [possible values: bash, elvish, fish, powershell, zsh]\n\
      tip: a similar value exists: 'zsh'"),
    ("man --dir", 2,
     "error: a value is required for '--dir <DIR>' but none was supplied"),
    ("reload now", 2,
     "error: unexpected argument 'now' found"),
    ("instances a", 2,
     "error: unexpected argument 'a' found"),
    ("--socket", 2,
     "error: a value is required for '--socket <PATH>' but none was supplied"),
    ("vni --json=yes", 2,
     "error: unexpected value 'yes' for '--json' found; no more were expected"),
    ("select web", 2,
     "error: the following required arguments were not provided:\n\
      --source <ADDRESS>"),
    ("select web --source here", 2,
     "error: invalid value 'here' for '--source <ADDRESS>': invalid IP address syntax"),
    ("select web --source 10.0.0.1 --source-port 5", 2,
     "error: the following required arguments were not provided:\n\
      --port <PORT>"),
    ("select web --source 10.0.0.1 --protocol sctp", 2,
     "error: invalid value 'sctp' for '--protocol <PROTOCOL>'\n\
      [possible values: tcp, udp]\n\
      tip: a similar value exists: 'tcp'"),
    ("mirrors x", 2,
     "error: unexpected argument 'x' found"),
    ("metrics x", 2,
     "error: unexpected argument 'x' found"),
    ("top x", 2,
     "error: unexpected argument 'x' found"),
    ("apply", 2,
     "error: the following required arguments were not provided:\n\
      --file <FILE>"),
    ("apply -f", 2,
     "error: a value is required for '--file <FILE>' but none was supplied"),
    ("apply new.toml", 2,
     "error: unexpected argument 'new.toml' found"),
    ("schema", 2,
     "error: the following required arguments were not provided:\n\
      <OF>"),
    ("schema xml", 2,
     "error: invalid value 'xml' for '<OF>'\n\
      [possible values: openapi, json]"),
    ("upgrade now", 2,
     "error: unexpected argument 'now' found"),
    ("upgrade --dryrun", 2,
     "error: unexpected argument '--dryrun' found\n\
      tip: a similar argument exists: '--dry-run'"),
    ("upgrade --drain-for 1h", 2,
     "error: the following required arguments were not provided:\n\
      --drain"),
    ("upgrade --drain --drain-for soon", 2,
     "error: invalid value 'soon' for '--drain-for <TIME>': must be a whole number with s, m or h: 90s, 30m, 2h"),
    ("upgrade --drain --drain-for -1", 2,
     "error: invalid value '-1' for '--drain-for <TIME>': must be a whole number with s, m or h: 90s, 30m, 2h"),
    ("keeper", 2,
     "error: the following required arguments were not provided:\n\
      <FOLDER>"),
    ("keeper missing", 1,
     "mirror-ctl: missing: No such file or directory (os error 2)"),
    ("doctor eth0", 2,
     "error: unexpected argument 'eth0' found"),
    ("doctor --config", 2,
     "error: a value is required for '--config <FILE>' but none was supplied"),
    ("doctor --config a --pin-dir b", 2,
     "error: the argument '--config <FILE>' cannot be used with '--pin-dir <DIR>'"),
    ("doctor --fixx", 2,
     "error: unexpected argument '--fixx' found\n\
      tip: a similar argument exists: '--fix'"),
    ("doctor --config missing.toml", 2,
     "missing.toml: No such file or directory (os error 2)"),
    ("--colour vni", 2,
     "error: unexpected argument '--colour' found"),
    ("config check missing.toml", 2,
     "missing.toml: No such file or directory (os error 2)"),
    ("config show missing.toml", 2,
     "missing.toml: No such file or directory (os error 2)"),
    ("config check broken.toml", 2,
     "broken.toml:2: agent: unknown key \"sokcet\" (known: group, metrics, page, pin_dir, socket)\n\
      broken.toml:3: vni: addresses is missing\n\
      broken.toml:3: vni: interfaces is missing\n\
      broken.toml:3: vni: name is missing\n\
      broken.toml:3: vni: there is no [[instance]] to serve it"),
    ("config init plain", 1,
     "mirror-ctl: plain: there is a file already"),
    ("config init no/dir/m.toml", 1,
     "mirror-ctl: write no/dir/m.toml: No such file or directory (os error 2)"),
    ("man --dir plain", 1,
     "mirror-ctl: make plain: File exists (os error 17)"),
    ("agent --config missing.toml", 2,
     "missing.toml: No such file or directory (os error 2)"),
    ("load --config missing.toml", 2,
     "missing.toml: No such file or directory (os error 2)"),
    ("apply -f missing.toml", 2,
     "missing.toml: No such file or directory (os error 2)"),
    ("unload --pin-dir empty", 1,
     "mirror-ctl: nothing is loaded: no pinned dataplane in empty"),
    ("vni --socket nobody.sock", 3,
     "mirror-ctl: no agent answers on nobody.sock: No such file or directory (os error 2) (start one with `mirror-ctl agent --config FILE`, or name its socket with --socket)"),
    ("evacuate a --socket plain", 3,
     "mirror-ctl: no agent answers on plain: Connection refused (os error 111) (start one with `mirror-ctl agent --config FILE`, or name its socket with --socket)"),
    ("top --socket nobody.sock", 1,
     "mirror-ctl: top needs a terminal; `mirror-ctl status --json` and `mirror-ctl events --follow` do not"),
];

/// What was said without what clap adds to every message.
fn essence(said: &str) -> String {
    let lines = said
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.trim().is_empty())
        .map(str::trim);
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn wrong_uses_are_told_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("plain"), "x\n").unwrap();
    fs::write(
        dir.path().join("broken.toml"),
        "[agent]\nsokcet = \"/x\"\n[[vni]]\n",
    )
    .unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    assert!(WRONG.len() >= 40);
    let mut failures = Vec::new();
    for (arguments, code, expected) in WRONG {
        let words: Vec<_> = arguments.split(' ').collect();
        let (is, out, said) = run_in(dir.path(), &words);
        let essence = essence(&said);
        if (is, essence.as_str()) != (*code, *expected) {
            failures.push(format!(
                "mirror-ctl {arguments}: {is}\n{essence}\nexpected {code}\n{expected}\n"
            ));
        }
        assert_eq!(out, "", "{arguments}: what is wrong is not output");
        // Usage and how to get help are never far.
        let by_clap = said.starts_with("error: ");
        assert_eq!(by_clap, said.contains("--help"), "{said}");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn nothing_at_all_is_answered_with_help() {
    let (code, out, said) = run_in(std::path::Path::new("."), &[]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(
        said.contains("Commands:") && said.contains("Exit codes:"),
        "{said}"
    );
}
