//! The agent's page, looked at with a real browser.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use testbed::topology::Family;

use crate::browser::Browser;
use crate::support::{LIMIT, Site, check_whole, wait_replies};

/// The namespace is the test's own.
const PAGE: &str = "127.0.0.1:9478";
/// A browser takes a while to start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(40);
/// A phone that is held upright, and a desk.
const SCREENS: [(&str, u32, u32, bool); 2] =
    [("phone", 390, 844, true), ("desk", 1280, 900, false)];

/// What a request without a browser gets.
fn ask(site: &Site, path: &str, host: &str) -> String {
    let connect = || TcpStream::connect(PAGE);
    let mut stream = site.topology.host.run(connect).unwrap().unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_browser_shows_flows_that_move() {
    let site = Site::new(3);
    let mut config = site.config();
    config.agent.page = Some(PAGE.to_owned());
    let mut agent = site.agent(&config);
    let mut client = site.client(Family::V4, 30);
    agent.wait_warm(30, LIMIT).unwrap();

    let mut browser = Browser::start(&site.topology.host, site.topology.dir()).unwrap();
    browser.open(&format!("http://{PAGE}/")).unwrap();
    browser
        .wait(
            "document.getElementById('link').className === 'live'",
            START_LIMIT,
        )
        .unwrap();
    let flows = "[...document.querySelectorAll('#instances .card')].map(card => card.innerText)";
    let all_there =
        format!("{flows}.length === 3 && {flows}.every(text => /up\\n.*0 %/.test(text))");
    browser.wait(&all_there, LIMIT).unwrap();
    browser
        .wait(
            "document.getElementById('vnis').innerText.includes('30 flows')",
            LIMIT,
        )
        .unwrap();

    agent.act("evacuate", "a").unwrap();
    wait_replies(&mut client, 300);
    let moved = "/a → [bc]\\s+\\d+ flows?\\s+\\(evacuated\\)/.test(document.getElementById('moves').innerText)";
    browser.wait(moved, LIMIT).unwrap();
    let ordered = "document.getElementById('events').innerText.includes('evacuate')";
    browser.wait(ordered, LIMIT).unwrap();
    let left =
        format!("{flows}.some(text => /^a\\s+evacuating/.test(text) && /\\b0 flows/.test(text))");
    browser.wait(&left, LIMIT).unwrap();

    for (screen, width, height, mobile) in SCREENS {
        browser.resize(width, height, mobile).unwrap();
        let fits = "document.documentElement.scrollWidth <= window.innerWidth";
        browser.wait(fits, LIMIT).unwrap();
        let barred =
            "[...document.querySelectorAll('.bar i')].every(piece => piece.offsetHeight > 5)";
        browser.wait(barred, LIMIT).unwrap();
        let drawn = "document.querySelector('.risk-line').getAttribute('d').includes('L')";
        browser.wait(drawn, LIMIT).unwrap();
        let picture = browser.screenshot().unwrap();
        // Of a blank page it would be some hundred bytes.
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 10_000);
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{screen}.png"));
        fs::write(&file, picture).unwrap();
        println!("{screen}: {}", file.display());
    }
    assert_eq!(browser.complaints(), [""; 0]);

    // A new reader is told the past.
    browser.open(&format!("http://{PAGE}/")).unwrap();
    browser.wait(moved, LIMIT).unwrap();

    agent.kill();
    let lost = "document.getElementById('link').className === 'lost'";
    browser.wait(lost, LIMIT).unwrap();
    check_whole(&client.finish().unwrap(), 30);
}

#[test]
fn the_page_is_for_this_host_and_takes_no_orders() {
    let site = Site::new(2);
    let mut config = site.config();
    config.agent.page = Some(PAGE.to_owned());
    let agent = site.agent(&config);
    let page = ask(&site, "/", "localhost:9478");
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    for rule in [
        "content-security-policy: default-src 'none'",
        "x-content-type-options: nosniff",
    ] {
        assert!(page.contains(rule), "{rule}: {page}");
    }
    let rebound = ask(&site, "/ticks", "evil.example:9478");
    assert!(rebound.starts_with("HTTP/1.1 421 "), "{rebound}");
    assert!(rebound.contains("this host only"), "{rebound}");
    for path in [
        "/v1/status",
        "/v1/instances",
        "/metrics",
        "/v1/instances/a/evacuate",
    ] {
        let answer = ask(&site, path, PAGE);
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    let states: Vec<_> = agent
        .instances()
        .unwrap()
        .into_iter()
        .map(|i| i.state)
        .collect();
    assert_eq!(states, ["up", "up"]);
}
