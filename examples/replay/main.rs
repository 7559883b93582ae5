//! A page to step through a recorded run: what each call did, what was in the queue then, and who had which memory.
//!
//! `model.rs` knows what follows from the calls, `page.html` is what is shown, and this file puts the two together.

mod model;

use model::{Step, backend, replay};
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
    let args: Vec<String> = env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into())
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (trace, page) = match args[..] {
        [] => ("-", "-"),
        [trace] if !["-h", "--help"].contains(&trace) => (trace, "-"),
        [trace, page] => (trace, page),
        _ => {
            print!("{HELP}");
            return ExitCode::from(if args.len() > 1 { 2 } else { 0 });
        }
    };
    match run(trace, page) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(io::stderr(), "replay: {why}");
            ExitCode::FAILURE
        }
    }
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

/// `backend` and `marks`, and `steps`: time, duration, thread, words, what it does, marks, and the changes.
fn json(steps: &[Step]) -> String {
    let backend = backend(steps);
    let mut json = format!("{{\"backend\":{},\"marks\":{{", quote(backend));
    let rows = GUIDE.lines().filter_map(|line| line.strip_prefix("| `["));
    for (at, (mark, rest)) in rows.filter_map(|row| row.split_once("]` | ")).enumerate() {
        let says = rest.split(" | ").next().unwrap_or("");
        let [file, line] = place(mark, backend).map(quote);
        let comma = if at > 0 { "," } else { "" };
        let _ = write!(
            json,
            "{comma}{}:[{},{file},{line}]",
            quote(mark),
            quote(says)
        );
    }
    json += "},\"steps\":[";
    for (at, step) in steps.iter().enumerate() {
        json += if at > 0 { ",\n[" } else { "\n[" };
        let texts = [&step.thread, &step.words, &step.says].map(|text| quote(text));
        let _ = write!(json, "{:.3},{:.3},{},", step.at, step.took, texts.join(","));
        let _ = write!(json, "{},[", quote(step.marks));
        for (at, (key, item)) in step.changes.iter().enumerate() {
            let _ = write!(json, "{}[{}", if at > 0 { "," } else { "" }, quote(key));
            if let Some(item) = item {
                let (state, note) = (quote(&item.state), quote(&item.note));
                let _ = write!(json, ",{state},{:.3},{note}", item.since);
            }
            json += "]";
        }
        json += "]]";
    }
    json + "]}"
}

/// The file in which a mark stands, and its line there.
fn place(mark: &str, backend: &str) -> [&'static str; 2] {
    let folder = format!("sys/{}/", backend.to_lowercase());
    let is_ours = |path: &str| {
        path.starts_with(&folder)
            || path == "poll.rs"
            || (path.contains("unix") && backend != "IOCP")
    };
    let sources = SOURCES.iter().filter(|(path, _)| is_ours(path));
    let mut lines =
        sources.flat_map(|&(path, text)| text.lines().map(move |line| [path, line.trim()]));
    lines
        .find(|[_, line]| line.contains(&format!("// [{mark}]")))
        .unwrap_or_default()
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
