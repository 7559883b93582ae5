//! A page to step through a recorded run: what each call did, what was in the queue then, and who had which memory.
//!
//! `model.rs` knows what follows from the calls, `page.html` is what is shown, and this file puts the two together.

mod model;

use model::{Item, Step, backend, replay};
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::{env, fs};

const HELP: &str = "\
replay [TRACE [PAGE]]: makes a page of what a program with the feature trace has said on standard error

Without a file, or with `-`, it reads the standard input and writes to the standard output.
";

const GUIDE: &str = include_str!("../../src/guide/ch4_life.md");
const PAGE: &str = include_str!("page.html");

macro_rules! sources {
    ($($path:literal)*) => {
        [$(($path, include_str!(concat!("../../src/", $path)))),*]
    };
}

/// Where the marks stand.
const SOURCES: [(&str, &str); 7] = sources!(
    "sys/epoll/mod.rs" "sys/kqueue/mod.rs" "sys/unix/mod.rs"
    "sys/iocp/mod.rs" "sys/iocp/operation.rs" "sys/iocp/tcp.rs" "poll.rs"
);

fn main() -> ExitCode {
    let args = env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned());
    let args: Vec<String> = args.collect();
    let paths: Vec<&str> = args.iter().map(String::as_str).chain(["-", "-"]).collect();
    if args.len() > 2 || paths[0].starts_with("-h") || paths[0].starts_with("--") {
        print!("{HELP}");
        return ExitCode::from(if args.len() == 1 { 0 } else { 2 });
    }
    if let Err(why) = run(paths[0], paths[1]) {
        let _ = writeln!(io::stderr(), "replay: {why}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run(trace: &str, page: &str) -> Result<(), String> {
    let mut bytes = Vec::new();
    let read = match trace {
        "-" => io::stdin().read_to_end(&mut bytes).map(drop),
        path => fs::read(path).map(|read| bytes = read),
    };
    read.map_err(|error| format!("cannot read {trace}: {error}"))?;
    let steps = replay(&String::from_utf8_lossy(&bytes));
    let steps = steps.ok_or_else(|| format!("{trace} has no line of the feature trace"))?;
    let page_text = PAGE.replace("/*RUN*/", &json(&steps));
    let written = match page {
        "-" => io::stdout().write_all(page_text.as_bytes()),
        path => fs::write(path, page_text),
    };
    written.map_err(|error| format!("cannot write {page}: {error}"))
}

fn json(steps: &[Step]) -> String {
    let backend = backend(steps);
    // The table of marks in the guide.
    let rows = GUIDE.lines().filter_map(|line| line.strip_prefix("| `["));
    let rows = rows.filter_map(|row| row.split_once("]` | "));
    let marks = rows.map(|(mark, rest)| {
        let says = rest.split(" | ").next().unwrap_or("");
        let [file, line] = place(mark, backend);
        format!("{}:{}", quote(mark), list([says, file, line].map(quote)))
    });
    let marks = marks.collect::<Vec<_>>().join(",");
    let (backend, steps) = (quote(backend), list(steps.iter().map(one)));
    format!("{{\"backend\":{backend},\"marks\":{{{marks}}},\"steps\":{steps}}}")
}

fn one(step: &Step) -> String {
    let changes = step.changes.iter().map(|(key, item)| match item {
        Some(Item { state, since, note }) => {
            list([quote(key), quote(state), time(*since), quote(note)])
        }
        None => list([quote(key)]),
    });
    let times = [step.at, step.took].map(time);
    let texts = [&step.thread, &step.words, &step.says, step.marks].map(quote);
    list(times.into_iter().chain(texts).chain([list(changes)]))
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(","))
}

fn time(ms: f64) -> String {
    format!("{ms:.3}")
}

/// The file in which a mark stands, and its line there.
fn place(mark: &str, backend: &str) -> [&'static str; 2] {
    let folders: &[&str] = match backend {
        "epoll" => &["sys/epoll/", "sys/unix/", "poll.rs"],
        "kqueue" => &["sys/kqueue/", "sys/unix/", "poll.rs"],
        _ => &["sys/iocp/", "poll.rs"],
    };
    let is_ours = |path: &str| folders.iter().any(|folder| path.starts_with(folder));
    let sources = SOURCES.iter().filter(|(path, _)| is_ours(path));
    let lines = sources.flat_map(|&(path, text)| text.lines().map(move |line| [path, line.trim()]));
    let mark = format!("// [{mark}]");
    let mut lines = lines.filter(|[_, line]| line.contains(&mark));
    lines.next().unwrap_or_default()
}

/// As JSON, in which no text can end the script.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            '<' | '\u{0}'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(char));
            }
            _ => quoted.push(char),
        }
    }
    quoted + "\""
}
