//! Who waited when, as a picture: an SVG that stands alone, legible by day and by night.
//!
//! It has lanes: what each thread did, and for each request what the kernel had to wait for. From left to right goes the
//! time; whoever points at something is told the figures.

use crate::client::Query;
use crate::record::{End, Outcome, Record, Wait};
use crate::timeline::{in_one_line, ms, total_delay_ms};
use std::fmt::{Arguments, Write};
use std::time::Duration;

const WIDTH: f64 = 960.0;
/// Where the time begins and ends. Left of it stand the names of the lanes; right of it is room for the last figure.
const LEFT: f64 = 204.0;
const RIGHT: f64 = 872.0;
/// The middles of the lanes, from top to bottom.
const MAIN: f64 = 122.0;
const REACTOR: f64 = 152.0;
const FIRST_REQUEST: f64 = 196.0;
const LANE: f64 = 22.0;
/// A lane's name may have so many characters.
const COLUMNS: usize = 21;

pub fn draw(queries: &[Query], record: &Record) -> String {
    let mut picture = Picture {
        svg: String::new(),
        end: end(record),
        bottom: FIRST_REQUEST + LANE * queries.len() as f64,
    };
    picture.heading(queries.len(), total_delay_ms(queries), record.total());
    picture.axis();
    picture.main_lane(&record.outcomes);
    picture.reactor_lane(&record.waits);
    for (token, (query, outcome)) in queries.iter().zip(&record.outcomes).enumerate() {
        let events: Vec<Duration> = record.events(token).collect();
        picture.request_lane(token, query, outcome, &events);
    }
    picture.legend();
    picture.svg + "</svg>\n"
}

/// Of the last that happened. It is later than the beginning, so that one can divide by it.
fn end(record: &Record) -> Duration {
    let waits = record.waits.iter().map(|wait| wait.ended);
    let reads = record.outcomes.iter().flat_map(|outcome| &outcome.read_at);
    let end = waits.chain(reads.copied()).max();
    end.unwrap_or_default().max(Duration::from_micros(1))
}

struct Picture {
    svg: String,
    end: Duration,
    /// Where the lanes end, and the legend begins.
    bottom: f64,
}

impl Picture {
    fn heading(&mut self, requests: usize, delays: u64, total: Duration) {
        let height = self.bottom + 56.0;
        let total = ms(total);
        self.add(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
             aria-label=\"Requests: {requests}. One thread waited for all of them: {total}.\">\n\
             <style>{STYLE}</style>\n\
             <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>"
        ));
        let plural = if requests == 1 { "" } else { "s" };
        let heading = format!("{requests} request{plural} at once, one thread that waits: {total}");
        self.text("heading", 16.0, 32.0, &heading);
        let instead = format!("One after the other, their delays alone would take {delays} ms.");
        self.text("soft", 16.0, 54.0, &instead);
    }

    fn axis(&mut self) {
        let step = step(self.end);
        let ticks = (0..).map(|at| step * at);
        let ticks: Vec<_> = ticks.take_while(|&time| time <= self.end).collect();
        for &time in &ticks {
            let (x, bottom) = (self.x(time), self.bottom - LANE / 2.0);
            self.line("tick", [x, x], [100.0, bottom], "");
        }
        for &time in &ticks {
            let name = match time.subsec_nanos() == 0 && step.subsec_nanos() == 0 {
                true => format!("{} s", time.as_secs()),
                false => format!("{} ms", time.as_micros() as f64 / 1000.0),
            };
            self.text("time", self.x(time), 88.0, &name);
        }
    }

    fn main_lane(&mut self, outcomes: &[Outcome]) {
        self.begin("main");
        self.text("thread", 16.0, MAIN, "main thread");
        for (token, outcome) in outcomes.iter().enumerate() {
            for &time in &outcome.registered_at {
                self.register(time, MAIN, token);
            }
        }
        for (token, outcome) in outcomes.iter().enumerate() {
            for &time in &outcome.read_at {
                self.read(time, MAIN, token);
            }
        }
        self.end();
    }

    fn reactor_lane(&mut self, waits: &[Wait]) {
        self.begin("reactor");
        self.text("thread", 16.0, REACTOR, "reactor thread");
        for (at, wait) in waits.iter().enumerate() {
            let (class, why) = match &wait.end {
                End::Events(tokens) => ("wait events", format!("events: {}", tokens.len())),
                End::Timeout => ("wait timeout", "its time was over".into()),
                End::Closed => ("wait closed", "the loop was closed".into()),
            };
            let (from, to) = (ms(wait.began), ms(wait.ended));
            let title = format!("poll {}, {from} to {to}: {why}", at + 1);
            self.bar(class, wait.began, wait.ended, REACTOR, &title);
        }
        // On top of all bars: an end is not hidden by the beginning of the next one.
        for wait in waits {
            let (x, ended) = (self.x(wait.ended), ms(wait.ended));
            match &wait.end {
                End::Events(tokens) => {
                    self.circle("event", x, REACTOR, &format!("{ended}: {tokens:?}"));
                }
                End::Timeout => self.line("over", [x, x], [REACTOR - 8.0, REACTOR + 8.0], &ended),
                End::Closed => (),
            }
        }
        self.end();
    }

    fn request_lane(
        &mut self,
        token: usize,
        query: &Query,
        outcome: &Outcome,
        events: &[Duration],
    ) {
        let y = FIRST_REQUEST + LANE * token as f64;
        let path = format!("/{}/{}", query.delay_ms, in_one_line(&query.text));
        self.begin("request");
        self.text("token", 40.0, y, &token.to_string());
        // An `svg` of its own is a window: should a character be wider than we think, it is cut off there.
        self.add(format_args!("<svg width=\"{}\">", LEFT - 6.0));
        self.text("path", 48.0, y, &fit(&path, COLUMNS));
        self.add(format_args!("</svg>"));
        if let Some(from) = outcome.connecting_at {
            let to = outcome.connected_at.unwrap_or(outcome.ended_at);
            let title = format!("{token}: {path}, connecting, {} to {}", ms(from), ms(to));
            // On one machine it takes too little time to be seen to scale.
            let (from, to) = (self.x(from), self.x(to));
            self.line("connecting", [from.min(to - 5.0), to], [y, y], &title);
        }
        for (at, &registered) in outcome.registered_at.iter().enumerate() {
            // Without an event the kernel waited until the request failed.
            let to = events.get(at).copied().unwrap_or(outcome.ended_at);
            let title = format!("{token}: {path}, {} to {}", ms(registered), ms(to));
            self.bar("kernel", registered, to, y, &title);
        }
        for &time in &outcome.registered_at {
            self.register(time, y, token);
        }
        for &time in events {
            let title = format!("{token}: event, {}", ms(time));
            self.circle("event", self.x(time), y, &title);
        }
        for &time in &outcome.read_at {
            self.read(time, y, token);
        }
        self.figure(outcome, events, y);
        self.end();
    }

    /// When the event came, right of all that is drawn in that lane; the rest is for whoever points at it.
    fn figure(&mut self, outcome: &Outcome, events: &[Duration], y: f64) {
        let last = events.iter().copied().chain([outcome.ended_at]).max();
        let x = self.x(last.unwrap_or_default()) + 11.0;
        let (class, figure, answer) = match &outcome.answer {
            Ok(answer) => (
                "figure",
                ms(events.first().copied().unwrap_or_default()),
                answer,
            ),
            Err(why) => ("figure failed", "failed".into(), why),
        };
        let answer = escape(&in_one_line(answer));
        let y = baseline(y);
        self.add(format_args!(
            "<text class=\"{class}\" x=\"{x:.2}\" y=\"{y}\">{figure}<title>{answer}</title></text>"
        ));
    }

    fn legend(&mut self) {
        self.begin("legend");
        let y = self.bottom + 12.0;
        self.text("soft", 16.0, y, "for each request");
        self.sample_bar("connecting", LEFT, y, "connecting");
        self.line("register", [320.0, 320.0], [y - 7.0, y + 7.0], "");
        self.text("soft", 330.0, y, "registered");
        self.sample_bar("kernel", 410.0, y, "the kernel waits for bytes");
        self.circle("event", 618.0, y, "");
        self.text("soft", 630.0, y, "event");
        self.circle("read", 684.0, y, "");
        self.text("soft", 694.0, y, "the main thread reads");
        let y = y + LANE;
        self.text("soft", 16.0, y, "each call of poll");
        self.sample_bar("wait events", LEFT, y, "until there are events");
        self.sample_bar("wait timeout", 402.0, y, "until its 200 ms are over");
        self.line("over", [426.0, 426.0], [y - 8.0, y + 8.0], "");
        self.sample_bar("wait closed", 618.0, y, "until the loop is closed");
        self.end();
    }

    fn sample_bar(&mut self, class: &str, x: f64, y: f64, meaning: &str) {
        self.line(class, [x, x + 24.0], [y, y], "");
        self.text("soft", x + 32.0, y, meaning);
    }

    fn x(&self, time: Duration) -> f64 {
        LEFT + (RIGHT - LEFT) * time.as_secs_f64() / self.end.as_secs_f64()
    }

    fn register(&mut self, time: Duration, y: f64, token: usize) {
        let (x, title) = (self.x(time), format!("{token}: registered, {}", ms(time)));
        self.line("register", [x, x], [y - 7.0, y + 7.0], &title);
    }

    fn read(&mut self, time: Duration, y: f64, token: usize) {
        let title = format!("{token}: read, {}", ms(time));
        self.circle("read", self.x(time), y, &title);
    }

    fn bar(&mut self, class: &str, from: Duration, to: Duration, y: f64, title: &str) {
        self.line(class, [self.x(from), self.x(to)], [y, y], title);
    }

    fn line(&mut self, class: &str, [x1, x2]: [f64; 2], [y1, y2]: [f64; 2], title: &str) {
        let title = titled(title);
        self.add(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.2}\" x2=\"{x2:.2}\" y1=\"{y1}\" y2=\"{y2}\">{title}</line>"
        ));
    }

    fn circle(&mut self, class: &str, x: f64, y: f64, title: &str) {
        let title = titled(title);
        // Not in the style: to set a size there is new, and not every program that shows pictures knows it.
        let r = if class == "event" { 5.5 } else { 2.75 };
        self.add(format_args!(
            "<circle class=\"{class}\" cx=\"{x:.2}\" cy=\"{y}\" r=\"{r}\">{title}</circle>"
        ));
    }

    fn text(&mut self, class: &str, x: f64, y: f64, text: &str) {
        let (text, y) = (escape(text), baseline(y));
        self.add(format_args!(
            "<text class=\"{class}\" x=\"{x:.2}\" y=\"{y}\">{text}</text>"
        ));
    }

    fn begin(&mut self, group: &str) {
        self.add(format_args!("<g class=\"{group}\">"));
    }

    fn end(&mut self) {
        self.add(format_args!("</g>"));
    }

    fn add(&mut self, line: Arguments) {
        let _ = writeln!(self.svg, "{line}");
    }
}

/// Between two ticks: 1, 2 or 5 with as many zeros as it takes for eleven ticks at most. Their names have room then.
fn step(end: Duration) -> Duration {
    let steps = (0..).flat_map(|zeros| [1, 2, 5].map(|digit| digit * 10u64.pow(zeros)));
    let mut steps = steps.map(Duration::from_micros);
    let fits = |step: &Duration| end.as_nanos() / step.as_nanos() <= 10;
    steps.find(fits).unwrap_or(end)
}

/// As much as there is room for. ASCII takes a column for each character; of any other we assume two.
fn fit(text: &str, columns: usize) -> String {
    let width = |char: char| if char.is_ascii() { 1 } else { 2 };
    if text.chars().map(width).sum::<usize>() <= columns {
        return text.into();
    }
    let mut taken = width('…');
    let fitting = text.chars().take_while(|&char| {
        taken += width(char);
        taken <= columns
    });
    fitting.chain(['…']).collect()
}

/// Of a text that stands beside what has its middle at `y`.
fn baseline(y: f64) -> f64 {
    y + 4.0
}

fn titled(title: &str) -> String {
    match title {
        "" => String::new(),
        _ => format!("<title>{}</title>", escape(title)),
    }
}

/// No control character comes here (see `in_one_line`); there are two others that no XML may have.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for char in text.chars() {
        match char {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\u{FFFE}' | '\u{FFFF}' => escaped.push('?'),
            _ => escaped.push(char),
        }
    }
    escaped
}

const STYLE: &str = "
text { font: 12px ui-sans-serif, system-ui, sans-serif; fill: #1f2328 }
.heading { font-size: 18px; font-weight: 600 }
.thread { font-weight: 600 }
.soft, .time, .token { fill: #59636e }
.time { text-anchor: middle }
.token { text-anchor: end }
.token, .path, .figure, .time { font: 12px ui-monospace, monospace }
.figure, .time { font-size: 11px }
.paper { fill: #ffffff }
.tick { stroke: #d1d9e0 }
.kernel { stroke: #a8cdf5; stroke-width: 10 }
.connecting { stroke: #b8790a; stroke-width: 10 }
.wait { stroke-width: 16 }
.events { stroke: #b4a1ee }
.timeout { stroke: #e2dbfa }
.closed { stroke: #8c959f }
.over { stroke: #6639ba; stroke-width: 2 }
.register { stroke: #1f2328; stroke-width: 2 }
.event { fill: #ffffff; stroke: #1a7f37; stroke-width: 2 }
.read { fill: #d4480b }
.failed { fill: #cf222e }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.soft, .time, .token { fill: #9198a1 }
.paper, .event { fill: #0d1117 }
.tick { stroke: #2b323b }
.kernel { stroke: #23538f }
.connecting { stroke: #7a5c12 }
.events { stroke: #6a54b8 }
.timeout { stroke: #3a3160 }
.closed { stroke: #59636e }
.over { stroke: #a98bf2 }
.register { stroke: #e6edf3 }
.event { stroke: #3fb950 }
.read { fill: #ff9b5e }
.failed { fill: #ff7b72 }
}
";
