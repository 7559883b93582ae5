//! Tests that any SVG viewer can read the example's picture, and that the picture shows what happened.

mod common;

use common::delayserver::{Server, run, stderr, stdout};
use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Output;

#[test]
fn the_main_job_is_drawn() {
    let (output, picture) = drawn("main", &["--svg", FILE]);
    assert!(output.status.success(), "{}", stderr(&output));
    let story = stdout(&output);
    let waits = story.lines().filter(|line| line.starts_with("Waiting!"));
    assert_eq!(picture.check(10), waits.count(), "{story}");
    let heading = picture.heading();
    let claim = "Ten requests, one waiting thread: ";
    assert!(heading.starts_with(claim) && heading.ends_with(" s instead of 5.5 s"));
    // The longest delay is part of the sum, and no longer than the whole run; both bars have the same scale.
    let delays = picture.widths("delay");
    assert_eq!(delays.len(), 10);
    assert!(delays.is_sorted_by(|a, b| a > b), "{delays:?}");
    let ends = |line: &Element| ["x1", "x2"].map(|end| line.number(end).unwrap());
    let ends: Vec<f64> = picture.all("delay").flat_map(ends).collect();
    assert!(ends.is_sorted(), "{ends:?}");
    let total = picture.widths("total")[0];
    assert!(delays[0] <= total && total < delays.iter().sum());
    for (at, lane) in picture.groups("request").into_iter().enumerate() {
        let delay = 1000 - 100 * at;
        let path = format!("/{delay}/after-{delay}-ms");
        assert_eq!(picture.texts(lane, "path"), [path]);
        // First it connects, then it is registered.
        let connected = picture.places(lane, "connecting", "x2");
        assert!(connected[0] <= picture.places(lane, "register", "x1")[0]);
        assert_eq!(connected.len(), 1);
        // Since the start: it was sent a moment before it was registered.
        let start = picture.all("tick").next().unwrap().number("x1").unwrap();
        let event = picture.places(lane, "event", "cx")[0];
        let time = (event - start) / picture.width_of_a_ms();
        assert!(time > delay as f64 - 1.0, "{time} instead of {delay}");
    }
}

#[test]
fn forty_requests_are_drawn() {
    let server = Server::start();
    let addr = server.addr.to_string();
    let queries: Vec<_> = (0..40)
        .flat_map(|at| [format!("{}", at * 7 % 40 * 10), format!("text-{at}")])
        .collect();
    let mut args = vec!["get", "--svg", FILE, &addr];
    args.extend(queries.iter().map(String::as_str));
    let (output, picture) = drawn("forty", &args);
    assert!(output.status.success());
    picture.check(40);
    assert!(
        picture
            .heading()
            .starts_with("40 requests, one waiting thread: ")
    );
}

#[test]
fn it_says_what_ended_a_wait() {
    let server = Server::start();
    let addr = server.addr.to_string();
    let (_, picture) = drawn("waits", &["get", "--svg", FILE, &addr, "1000", "x"]);
    picture.check(1);
    let reactor = picture.groups("reactor")[0];
    let timeouts = picture.places(reactor, "wait timeout", "x2");
    assert!(!timeouts.is_empty());
    assert_eq!(picture.titles("its timeout expired"), timeouts.len());
    assert!(picture.titles(": events: 1") >= 1);
    assert_eq!(picture.titles("the loop was closed"), 1);
    // One request gains nothing.
    let heading = picture.heading();
    assert!(heading.starts_with("One request, one waiting thread: "));
    assert!(!heading.contains("instead"), "{heading}");
}

#[test]
fn the_texts_may_be_any() {
    let long = "x".repeat(4000);
    let texts = [
        ("<&>\"'", "<&>\"'"),
        ("</text><script>", "</text><script>"),
        ("&#0;", "&#0;"),
        ("]]>", "]]>"),
        ("\u{1}\t\r\n\u{1b}\u{7f}\u{85}", "???????"),
        ("\u{202e}\u{fffe}\u{ffff}", "???"),
        ("héß", "héß"),
        ("漢字漢字漢字漢字漢字漢字", "漢字漢字漢字漢字漢字漢字"),
        ("", ""),
        (&long, "xxxxxxxxxxxxxxxx…"),
    ];
    let server = Server::start();
    let addr = server.addr.to_string();
    let mut args = vec!["get", "--svg", FILE, &addr];
    args.extend(texts.iter().flat_map(|(text, _)| ["0", text]));
    let (output, picture) = drawn("texts", &args);
    assert!(output.status.success(), "{}", stdout(&output));
    picture.check(texts.len());
    for (lane, (text, shown)) in picture.groups("request").into_iter().zip(texts) {
        let path = format!("/0/{shown}");
        assert_eq!(picture.texts(lane, "path"), [path], "{text:?}");
    }
}

#[test]
fn a_request_that_failed_is_drawn_too() {
    let server = Server::start();
    let addr = server.addr.to_string();
    let args = ["get", "--svg", FILE, &addr, "60001", "late", "1", "fine"];
    let (output, picture) = drawn("failed", &args);
    assert_eq!(output.status.code(), Some(1));
    picture.check(2);
    let failed: Vec<_> = picture.all("figure failed").map(|at| at.parent).collect();
    assert_eq!(failed, [Some(picture.groups("request")[0])]);
    // The delay of the request that failed is not counted.
    let heading = picture.heading();
    assert!(heading.starts_with("Two requests (1 failed), one waiting thread: "));
    assert!(!heading.contains("instead"), "{heading}");
    assert_eq!(picture.titles("400 Bad Request"), 1);
}

#[test]
fn a_request_that_was_given_up_is_drawn_too() {
    let (_silent, addr) = common::listen();
    let addr = addr.to_string();
    let args = ["get", "--svg", FILE, "--timeout", "150", &addr, "10", "x"];
    let (output, picture) = drawn("given-up", &args);
    assert_eq!(output.status.code(), Some(1));
    picture.stands_alone();
    picture.is_inside();
    let lane = picture.groups("request")[0];
    let registered = picture.places(lane, "register", "x1");
    assert_eq!(registered.len(), 1);
    assert_eq!(picture.all("arrow").count(), 0);
    assert!(picture.is_explained("until the loop is closed"));
    assert_eq!(picture.places(lane, "event", "cx"), []);
    // For as long as we waited.
    assert_eq!(picture.places(lane, "kernel", "x1"), registered);
    let start = picture.all("tick").next().unwrap().number("x1").unwrap();
    let end = picture.places(lane, "kernel", "x2")[0];
    assert!((end - start) / picture.width_of_a_ms() > 159.0);
    assert_eq!(picture.texts(lane, "figure failed"), ["failed"]);
    assert_eq!(picture.titles("no complete answer came within 160 ms"), 1);
}

/// The program checks the file before it sends any request.
#[test]
fn where_no_file_can_be_one_line_says_so() {
    let (listener, addr) = common::listen();
    let addr = addr.to_string();
    let folder = std::env::temp_dir().join("minimio-no-such-folder/x.svg");
    for path in ["", folder.to_str().expect("a path that is text")] {
        for args in [
            &["get", "--svg", path, &addr, "1", "x"][..],
            &["--svg", path],
        ] {
            let output = run(args);
            assert_eq!(output.status.code(), Some(1), "{args:?}");
            assert!(!stdout(&output).contains("token"), "{args:?}");
            let complaint = stderr(&output);
            let begin = format!("delayserver: cannot write {path}: ");
            assert!(complaint.starts_with(&begin), "{complaint}");
            assert_eq!(complaint.lines().count(), 1, "{complaint}");
        }
    }
    listener.set_nonblocking(true).unwrap();
    let error = listener.accept().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_picture_that_is_there_stays_until_there_is_another() {
    let file = std::env::temp_dir().join(format!("minimio-{}-kept.svg", std::process::id()));
    fs::write(&file, "an earlier one").unwrap();
    let (_taken, nobody) = common::nobody();
    let path = file.to_str().expect("a path that is text");
    let output = run(&["get", "--svg", path, &nobody.to_string(), "1", "x"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read_to_string(&file).unwrap(), "an earlier one");
    fs::remove_file(&file).unwrap();
    // Nor is there an empty one where there was none.
    let output = run(&["get", "--svg", path, &nobody.to_string(), "1", "x"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!file.exists());
}

/// Linux has `/dev/full`, which behaves like a full disk.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told() {
    let server = Server::start();
    let addr = server.addr.to_string();
    let output = run(&["get", "--svg", "/dev/full", &addr, "1", "x"]);
    assert_eq!(output.status.code(), Some(1));
    let complaint = stderr(&output);
    assert!(
        complaint.starts_with("delayserver: cannot write /dev/full: "),
        "{complaint}"
    );
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
}

/// Stands for the path of the picture.
const FILE: &str = "FILE";

fn drawn(name: &str, args: &[&str]) -> (Output, Picture) {
    let name = format!("minimio-{}-{name}.svg", std::process::id());
    let path: PathBuf = std::env::temp_dir().join(name);
    let text = path.to_str().expect("a path that is text");
    let word = |&arg| if arg == FILE { text } else { arg };
    let args: Vec<&str> = args.iter().map(word).collect();
    // The picture must replace the earlier file completely, even if that one is longer.
    fs::write(&path, "</svg>".repeat(10_000)).unwrap();
    let output = run(&args);
    let svg = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    (output, Picture(parse(&svg)))
}

struct Picture(Vec<Element>);

struct Element {
    name: String,
    attributes: HashMap<String, String>,
    text: String,
    parent: Option<usize>,
}

impl Element {
    fn class(&self) -> &str {
        self.attributes.get("class").map_or("", String::as_str)
    }

    fn number(&self, attribute: &str) -> Option<f64> {
        Some(self.attributes.get(attribute)?.parse().expect("a number"))
    }
}

impl Picture {
    /// Checks what every picture has in common. Returns the number of waits.
    fn check(&self, requests: usize) -> usize {
        self.stands_alone();
        self.is_inside();
        let waits = self.check_reactor();
        let lanes = self.groups("request");
        assert_eq!(lanes.len(), requests);
        let rounds = lanes.iter().map(|&lane| self.check_request(lane)).sum();
        let main = self.groups("main")[0];
        assert_eq!(self.places(main, "register", "x1").len(), rounds);
        assert_eq!(self.places(main, "read", "cx").len(), rounds);
        self.check_way();
        waits
    }

    fn stands_alone(&self) {
        let root = &self.0[0].attributes;
        assert_eq!(self.0[0].name, "svg");
        assert_eq!(root["xmlns"], "http://www.w3.org/2000/svg");
        let known = [
            "svg", "style", "rect", "text", "line", "circle", "g", "title",
        ];
        for element in &self.0 {
            assert!(known.contains(&element.name.as_str()), "{}", element.name);
            let references = ["href", "style", "url", "src"];
            for (name, value) in &element.attributes {
                assert!(!references.contains(&name.as_str()), "{name}");
                assert!(!name.starts_with("on") && !value.contains("url("));
            }
            if element.name == "style" {
                assert!(element.text.contains("@media (prefers-color-scheme: dark)"));
                assert!(!element.text.contains("url") && !element.text.contains("@import"));
            }
        }
    }

    fn is_inside(&self) {
        let (width, height) = (self.0[0].number("width"), self.0[0].number("height"));
        let (width, height) = (width.unwrap(), height.unwrap());
        let view = format!("0 0 {width} {height}");
        assert_eq!(self.0[0].attributes["viewBox"], view);
        for element in &self.0 {
            let r = element.number("r").unwrap_or(0.0);
            for (names, end) in [
                (["x", "x1", "x2", "cx"], width),
                (["y", "y1", "y2", "cy"], height),
            ] {
                for at in names.iter().filter_map(|name| element.number(name)) {
                    assert!(
                        at - r >= 0.0 && at + r <= end,
                        "{} at {at}",
                        element.class()
                    );
                }
            }
        }
    }

    fn check_reactor(&self) -> usize {
        let reactor = self.groups("reactor")[0];
        let waits: Vec<_> = self
            .children(reactor)
            .filter(|bar| bar.class().starts_with("wait "))
            .collect();
        let mut time = 0.0;
        for wait in &waits {
            let (from, to) = (wait.number("x1").unwrap(), wait.number("x2").unwrap());
            assert!(time <= from && from <= to, "{time} {from} {to}");
            // A wait can be told from the one before it.
            assert!(
                time == 0.0 || from == to || from - time > 5.0,
                "{time} {from}"
            );
            time = to;
        }
        let (last, others) = waits.split_last().expect("a wait");
        assert_eq!(last.class(), "wait closed");
        assert!(others.iter().all(|wait| wait.class() != "wait closed"));
        // What does not occur is not explained.
        let timeouts = self.places(reactor, "wait timeout", "x2");
        assert_eq!(
            self.is_explained("until its 200 ms are over"),
            !timeouts.is_empty()
        );
        let ends = self.places(reactor, "wait events", "x2");
        assert_eq!(self.places(reactor, "event", "cx"), ends);
        waits.len()
    }

    /// The way of the last token leads from its last event, in the lane of its request, to the thread that reads.
    fn check_way(&self) {
        let mut labels = self.all("soft");
        let token = labels.find_map(|text| text.text.strip_prefix("poll returns token "));
        let lane = self.groups("request")[token.expect("a token").parse::<usize>().unwrap()];
        let last = |class| *self.places(lane, class, "cx").last().unwrap();
        let (event, read) = (last("event"), last("read"));
        let all = self.groups("request").into_iter();
        let mut events = all.flat_map(|lane| self.places(lane, "event", "cx"));
        assert!(events.all(|other| other <= event));
        let middle = |group| {
            self.children(group)
                .find_map(|text| text.number("y"))
                .unwrap()
        };
        let [reactor, main] = ["reactor", "main"].map(|name| middle(self.groups(name)[0]));
        // Of the three lines of an arrow, the first is its shaft.
        let arrows: Vec<_> = self.all("arrow").step_by(3).collect();
        let ends = |name| {
            arrows
                .iter()
                .map(|line| line.number(name).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (ends("x1"), ends("x2")),
            (vec![event; 2], vec![event, read])
        );
        for (y, lane) in ends("y1").into_iter().zip([middle(lane), reactor]) {
            assert!((lane - 10.0..lane).contains(&y));
        }
        for (y, lane) in ends("y2").into_iter().zip([reactor, main]) {
            assert!((lane..lane + 10.0).contains(&y));
        }
    }

    /// Returns how often the request was registered.
    fn check_request(&self, lane: usize) -> usize {
        let registered = self.places(lane, "register", "x1");
        let events = self.places(lane, "event", "cx");
        let read = self.places(lane, "read", "cx");
        let rounds = registered.len();
        assert!(rounds > 0);
        assert_eq!((events.len(), read.len()), (rounds, rounds));
        assert_eq!(self.places(lane, "kernel", "x1"), registered);
        assert_eq!(self.places(lane, "kernel", "x2"), events);
        let rounds = registered.iter().zip(&events).zip(&read);
        let times: Vec<f64> = rounds.flat_map(|((&a, &b), &c)| [a, b, c]).collect();
        assert!(times.is_sorted(), "{times:?}");
        let told = self.places(self.groups("reactor")[0], "event", "cx");
        assert!(events.iter().all(|event| told.contains(event)));
        registered.len()
    }

    fn width_of_a_ms(&self) -> f64 {
        let tick = self.all("time").nth(1).expect("a second tick");
        let time: f64 = tick.text.strip_suffix(" ms").unwrap().parse().unwrap();
        let lines: Vec<_> = self.all("tick").map(|line| line.number("x1")).collect();
        (lines[1].unwrap() - lines[0].unwrap()) / time
    }

    fn groups(&self, class: &str) -> Vec<usize> {
        let is_wanted = |at: &usize| self.0[*at].name == "g" && self.0[*at].class() == class;
        (0..self.0.len()).filter(is_wanted).collect()
    }

    fn all<'a>(&'a self, class: &'a str) -> impl Iterator<Item = &'a Element> {
        self.0
            .iter()
            .filter(move |element| element.class() == class)
    }

    /// Those of a window in it, too.
    fn children(&self, group: usize) -> impl Iterator<Item = &Element> {
        let parent = move |element: &Element| {
            element
                .parent
                .map(|at| self.0[at].parent == Some(group) || at == group)
        };
        self.0
            .iter()
            .filter(move |element| parent(element) == Some(true))
    }

    fn places(&self, group: usize, class: &str, attribute: &str) -> Vec<f64> {
        let children = self.children(group).filter(|child| child.class() == class);
        children
            .filter_map(|child| child.number(attribute))
            .collect()
    }

    fn texts(&self, group: usize, class: &str) -> Vec<&str> {
        let children = self.children(group).filter(|child| child.class() == class);
        children.map(|child| child.text.as_str()).collect()
    }

    fn heading(&self) -> &str {
        let heading = &self.all("heading").next().expect("a heading").text;
        assert_eq!(self.0[0].attributes["aria-label"], *heading);
        heading
    }

    fn widths(&self, class: &str) -> Vec<f64> {
        let ends = |line: &Element| line.number("x2").unwrap() - line.number("x1").unwrap();
        self.all(class).map(ends).collect()
    }

    fn is_explained(&self, part: &str) -> bool {
        self.all("soft").any(|text| text.text.contains(part))
    }

    /// How many titles contain `part`.
    fn titles(&self, part: &str) -> usize {
        let titles = self.0.iter().filter(|element| element.name == "title");
        titles.filter(|title| title.text.contains(part)).count()
    }
}

/// Parses the part of XML that the picture uses, and fails on anything else.
fn parse(xml: &str) -> Vec<Element> {
    let is_xml = |char: char| {
        char == '\n' || !(char.is_control() || matches!(char, '\u{fffe}' | '\u{ffff}'))
    };
    assert!(xml.chars().all(is_xml));
    let mut elements: Vec<Element> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut rest = xml;
    while let Some((text, tag)) = rest.split_once('<') {
        match open.last() {
            Some(&at) => elements[at].text += &unescape(text),
            None => assert_eq!(text, ""),
        }
        let (tag, after) = tag.split_once('>').expect("the end of a tag");
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            let at = open.pop().expect("an open element");
            assert_eq!(elements[at].name, name);
            continue;
        }
        assert_eq!(elements.is_empty(), open.is_empty(), "one root");
        let parent = open.last().copied();
        if !tag.ends_with('/') {
            open.push(elements.len());
        }
        elements.push(parse_tag(tag.trim_end_matches('/'), parent));
    }
    assert!(open.is_empty());
    assert_eq!(rest, "\n");
    elements
}

fn parse_tag(tag: &str, parent: Option<usize>) -> Element {
    let (name, mut rest) = tag.split_once(' ').unwrap_or((tag, ""));
    assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase()));
    let mut attributes = HashMap::new();
    while !rest.is_empty() {
        let (name, value) = rest.trim_start().split_once("=\"").expect("a value");
        let (value, after) = value.split_once('"').expect("the end of a value");
        let before = attributes.insert(name.to_string(), unescape(value));
        assert!(before.is_none() && !name.contains(' '), "{tag}");
        rest = after;
    }
    Element {
        name: name.into(),
        attributes,
        text: String::new(),
        parent,
    }
}

fn unescape(text: &str) -> String {
    assert!(!text.contains(['<', '>']), "{text}");
    let known = [
        ("lt;", '<'),
        ("gt;", '>'),
        ("amp;", '&'),
        ("quot;", '"'),
        ("apos;", '\''),
    ];
    let mut parts = text.split('&');
    let mut unescaped = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let found = known
            .iter()
            .find_map(|(name, char)| Some((char, part.strip_prefix(name)?)));
        let (char, after) = found.unwrap_or_else(|| panic!("a bare & before {part:?}"));
        unescaped.push(*char);
        unescaped += after;
    }
    unescaped
}
