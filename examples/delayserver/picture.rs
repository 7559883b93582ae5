//! Who waited when, as a picture: an SVG that needs no other file, readable in light and in dark mode.
//!
//! At the top, two bars compare the sum of the delays with the time that the run took. Below them, time runs from left
//! to right: there is a lane for each thread, and one for each request, for which the kernel waits. Pointing at an
//! element shows its exact times.

use crate::record::{End, Outcome, Query, Record, Wait};
use crate::timeline::{in_one_line, ms};
use std::collections::HashSet;
use std::time::Duration;

const WIDTH: f64 = 960.0;
/// Where time begins and ends. The names of the lanes are on the left; the figures are on the right, where no grid line
/// crosses them.
const LEFT: f64 = 204.0;
const RIGHT: f64 = 786.0;
/// The middles of the bars and lanes, from top to bottom.
const DELAYS: f64 = 64.0;
const TOTAL: f64 = 86.0;
const MAIN: f64 = 152.0;
const REACTOR: f64 = 196.0;
const FIRST_REQUEST: f64 = 252.0;
const LANE: f64 = 22.0;
/// The longest path that is shown whole, in characters.
const COLUMNS: usize = 19;

pub fn draw(queries: &[Query], record: &Record) -> String {
    let (outcomes, total) = (&record.outcomes, record.total());
    let delays: Vec<Duration> = queries.iter().zip(outcomes).map(delay).collect();
    let mut picture = Picture {
        svg: String::new(),
        drawn: HashSet::new(),
        end: record.waits.last().map_or(total, |wait| wait.ended),
        bottom: lane(queries.len()),
    };
    picture.heading(&claim(outcomes, total, delays.iter().sum()));
    picture.comparison(&delays, total);
    picture.axis();
    picture.main_lane(outcomes);
    picture.reactor_lane(&record.waits);
    picture.text("thread", 16.0, FIRST_REQUEST - LANE, "kernel");
    for (token, query) in queries.iter().enumerate() {
        picture.request_lane(token, query, record);
    }
    picture.way(record);
    picture.legend();
    picture.svg + "</svg>\n"
}

/// The delay of a request, or zero if the request failed, because it may not have waited.
fn delay((query, outcome): (&Query, &Outcome)) -> Duration {
    let delay = Duration::from_millis(query.delay_ms.into());
    delay * u32::from(outcome.answer.is_ok())
}

/// What the picture shows, in one line.
fn claim(outcomes: &[Outcome], total: Duration, delays: Duration) -> String {
    let words = "No One Two Three Four Five Six Seven Eight Nine Ten";
    let count = outcomes.len().to_string();
    let number = words.split(' ').nth(outcomes.len()).unwrap_or(&count);
    let plural = if outcomes.len() == 1 { "" } else { "s" };
    let failures = outcomes.iter().filter(|outcome| outcome.answer.is_err());
    let failed = match failures.count() {
        0 => String::new(),
        count => format!(" ({count} failed)"),
    };
    let (total_text, sum) = (short(total), short(delays));
    let claim = format!("{number} request{plural}{failed}, one waiting thread: {total_text}");
    match delays > total && sum != total_text {
        true => format!("{claim} instead of {sum}"),
        false => claim,
    }
}

struct Picture {
    svg: String,
    /// The classes of the visible elements: the legend explains no others.
    drawn: HashSet<&'static str>,
    /// When the loop was closed. Nothing happened later.
    end: Duration,
    /// Where the lanes end, and the legend begins.
    bottom: f64,
}

impl Picture {
    fn heading(&mut self, heading: &str) {
        let height = self.bottom + 56.0;
        self.svg += &format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{heading}\">\n\
             <style>{STYLE}</style>\n\
             <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>\n"
        );
        self.text("heading", 16.0, 32.0, heading);
    }

    /// Draws the delays end to end, and below them, to the same scale, the time that all took together.
    fn comparison(&mut self, delays: &[Duration], total: Duration) {
        let sum = delays.iter().sum();
        let full = self.end.max(sum);
        let x = |time: Duration| LEFT + (RIGHT - LEFT) * time.div_duration_f64(full);
        self.text("soft", 16.0, DELAYS, "one after the other");
        let mut ended = Duration::ZERO;
        for (token, &delay) in delays.iter().enumerate() {
            let [from, to] = [ended, ended + delay].map(x);
            let gap = 2f64.min((to - from) / 4.0);
            let title = format!("{token}: {}", whole_ms(delay));
            self.line("delay", [from, to - gap], [DELAYS; 2], &title);
            ended += delay;
        }
        self.text("soft", x(sum) + 8.0, DELAYS, &short(sum));
        self.text("soft", 16.0, TOTAL, "all at once");
        self.line("total", [LEFT, x(total)], [TOTAL; 2], &ms(total));
        self.text("soft", x(total) + 8.0, TOTAL, &short(total));
    }

    fn axis(&mut self) {
        let (step, end) = (step(self.end), self.end);
        let times = (0..).map(|at| step * at);
        for time in times.take_while(|&time| time <= end) {
            let (x, bottom) = (self.x(time), self.bottom - LANE / 2.0);
            self.line("tick", [x, x], [130.0, bottom], "");
            let name = match step.subsec_millis() {
                0 => format!("{} s", time.as_secs()),
                _ => format!("{} ms", time.as_millis()),
            };
            self.text("time", x, 118.0, &name);
        }
    }

    fn main_lane(&mut self, outcomes: &[Outcome]) {
        self.begin("main");
        self.text("thread", 16.0, MAIN, "main thread");
        for (token, outcome) in outcomes.iter().enumerate() {
            self.main_thread(token, outcome, MAIN);
        }
        self.end();
    }

    /// What the main thread did for a request.
    fn main_thread(&mut self, token: usize, outcome: &Outcome, y: f64) {
        for &time in &outcome.registered_at {
            let title = format!("{token}: registered, {}", ms(time));
            self.line("register", [self.x(time); 2], [y - 7.0, y + 7.0], &title);
        }
        for &time in &outcome.read_at {
            let title = format!("{token}: read, {}", ms(time));
            self.circle("read", self.x(time), y, &title);
        }
    }

    fn reactor_lane(&mut self, waits: &[Wait]) {
        self.begin("reactor");
        self.text("thread", 16.0, REACTOR, "reactor thread");
        for (at, wait) in waits.iter().enumerate() {
            let (class, why) = match &wait.end {
                End::Events(tokens) => ("wait events", format!("events: {}", tokens.len())),
                End::Timeout => ("wait timeout", "its timeout expired".into()),
                End::Closed => ("wait closed", "the loop was closed".into()),
            };
            let (from, to) = (ms(wait.began), ms(wait.ended));
            let title = format!("poll {}, {from} to {to}: {why}", at + 1);
            // The time between two waits is too short to be seen to scale. The gap begins below the earlier event.
            let gap = if at == 0 { 0.0 } else { 9.0 };
            let (from, to) = (self.x(wait.began) + gap, self.x(wait.ended));
            self.line(class, [from.min(to), to], [REACTOR; 2], &title);
            if let End::Events(tokens) = &wait.end {
                let title = format!("{}: {tokens:?}", ms(wait.ended));
                self.circle("event", to, REACTOR, &title);
            }
        }
        self.end();
    }

    fn request_lane(&mut self, token: usize, query: &Query, record: &Record) {
        let (outcome, y) = (&record.outcomes[token], lane(token));
        let events: Vec<Duration> = record.events(token).collect();
        let path = format!("/{}/{}", query.delay_ms, in_one_line(&query.text));
        self.begin("request");
        self.text("token", 40.0, y, &token.to_string());
        // An `svg` of its own is a window: wide characters are cut off at its edge.
        self.svg += &format!("<svg width=\"{}\">\n", LEFT - 8.0);
        let shown = match path.char_indices().nth(COLUMNS) {
            Some((end, _)) => format!("{}…", &path[..end]),
            None => path.clone(),
        };
        self.text("path", 48.0, y, &shown);
        self.svg += "</svg>\n";
        if let Some(from) = outcome.connecting_at {
            let to = outcome.connected_at.unwrap_or(outcome.ended_at);
            let title = format!("{token}: {path}, connecting, {} to {}", ms(from), ms(to));
            // Connecting to the same machine is too fast to be seen to scale.
            let (from, to) = (self.x(from), self.x(to));
            self.line("connecting", [from.min(to - 5.0), to], [y, y], &title);
        }
        for (at, &registered) in outcome.registered_at.iter().enumerate() {
            // Without an event the kernel waited until the request failed.
            let to = events.get(at).copied().unwrap_or(outcome.ended_at);
            let title = format!("{token}: {path}, {} to {}", ms(registered), ms(to));
            self.line("kernel", [self.x(registered), self.x(to)], [y, y], &title);
        }
        for &time in &events {
            let title = format!("{token}: event, {}", ms(time));
            self.circle("event", self.x(time), y, &title);
        }
        self.main_thread(token, outcome, y);
        self.figure(outcome, &events, y);
        self.end();
    }

    /// Writes when the event came. Pointing at the figure shows the answer.
    fn figure(&mut self, outcome: &Outcome, events: &[Duration], y: f64) {
        let event = events.first().copied().unwrap_or_default();
        let (class, figure, answer) = match &outcome.answer {
            Ok(answer) => ("figure", whole_ms(event), answer),
            Err(why) => ("figure failed", "failed".into(), why),
        };
        let (x, answer) = (RIGHT + 70.0, escape(&in_one_line(answer)));
        self.svg += &format!(
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" dy=\".35em\">{figure}<title>{answer}</title></text>\n"
        );
    }

    /// Shows the way of the last token from the kernel to the reactor thread, and from there to the main thread.
    fn way(&mut self, record: &Record) {
        let tokens = (0..record.outcomes.len()).rev();
        let last = tokens.filter_map(|token| Some((record.events(token).last()?, token)));
        let Some((event, token)) = last.max_by_key(|&(event, _)| event) else {
            return;
        };
        let read = record.outcomes[token].read_at.last().copied();
        let [event, read] = [event, read.unwrap_or(event)].map(|time| self.x(time));
        self.arrow([event, event], [lane(token) - 7.0, REACTOR + 8.0]);
        self.arrow([event, read], [REACTOR - 7.0, MAIN + 5.0]);
        let (x, returns) = (RIGHT + 12.0, format!("poll returns token {token}"));
        self.text("soft", x, FIRST_REQUEST - 28.0, &returns);
        self.text("soft", x, REACTOR - 22.0, "a channel carries it");
        self.text("soft", x, MAIN, "the main thread reads");
    }

    fn arrow(&mut self, [from, to]: [f64; 2], [y, tip]: [f64; 2]) {
        for (x, y) in [(from, y), (to - 4.0, tip + 6.0), (to + 4.0, tip + 6.0)] {
            self.line("arrow", [x, to], [y, tip], "");
        }
    }

    fn legend(&mut self) {
        let drawn = self.drawn.clone();
        let samples = LEGEND.iter().filter(|(class, _)| drawn.contains(class));
        for (at, (class, meaning)) in samples.enumerate() {
            let x = 16.0 + 236.0 * (at % 4) as f64;
            let y = self.bottom + 12.0 + LANE * (at / 4) as f64;
            match *class {
                "event" | "read" => self.circle(class, x + 12.0, y, ""),
                "register" => self.line(class, [x + 12.0; 2], [y - 7.0, y + 7.0], ""),
                _ => self.line(class, [x, x + 24.0], [y, y], ""),
            }
            self.text("soft", x + 32.0, y, meaning);
        }
    }

    fn x(&self, time: Duration) -> f64 {
        LEFT + (RIGHT - LEFT) * time.as_secs_f64() / self.end.as_secs_f64()
    }

    fn line(&mut self, class: &'static str, [x1, x2]: [f64; 2], [y1, y2]: [f64; 2], title: &str) {
        let title = escape(title);
        if x1 != x2 || y1 != y2 {
            self.drawn.insert(class);
        }
        self.svg += &format!(
            "<line class=\"{class}\" x1=\"{x1:.2}\" x2=\"{x2:.2}\" y1=\"{y1}\" y2=\"{y2}\">\
             <title>{title}</title></line>\n"
        );
    }

    fn circle(&mut self, class: &'static str, x: f64, y: f64, title: &str) {
        let title = escape(title);
        self.drawn.insert(class);
        // An attribute, because not every viewer knows the style property `r`.
        let r = if class == "event" { 5.5 } else { 2.75 };
        self.svg += &format!(
            "<circle class=\"{class}\" cx=\"{x:.2}\" cy=\"{y}\" r=\"{r}\"><title>{title}</title></circle>\n"
        );
    }

    /// Draws a text whose lower-case letters have their middle at `y`.
    fn text(&mut self, class: &str, x: f64, y: f64, text: &str) {
        let text = escape(text);
        self.svg +=
            &format!("<text class=\"{class}\" x=\"{x:.2}\" y=\"{y}\" dy=\".35em\">{text}</text>\n");
    }

    fn begin(&mut self, group: &str) {
        self.svg += &format!("<g class=\"{group}\">\n");
    }

    fn end(&mut self) {
        self.svg += "</g>\n";
    }
}

fn lane(token: usize) -> f64 {
    FIRST_REQUEST + LANE * token as f64
}

fn whole_ms(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}

fn short(time: Duration) -> String {
    match time.as_secs() {
        0 => whole_ms(time),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// The time between two ticks: 1, 2 or 5 ms, times a power of ten, so that there are at most eleven ticks and their
/// names do not overlap.
fn step(end: Duration) -> Duration {
    let steps = (0..).flat_map(|zeros| [1, 2, 5].map(|digit| digit * 10u64.pow(zeros)));
    let mut steps = steps.map(Duration::from_millis);
    steps.find(|step| *step * 11 > end).unwrap_or(end)
}

/// `in_one_line` has replaced control characters; XML forbids two others.
fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let text = text.replace('>', "&gt;").replace('"', "&quot;");
    text.replace(['\u{FFFE}', '\u{FFFF}'], "?")
}

const LEGEND: [(&str, &str); 8] = [
    ("connecting", "connecting"),
    ("register", "the main thread registers"),
    ("kernel", "the kernel waits for bytes"),
    ("event", "an event"),
    ("read", "the main thread reads"),
    ("wait events", "poll, until there are events"),
    ("wait timeout", "poll, until its 200 ms are over"),
    ("wait closed", "poll, until the loop is closed"),
];

const STYLE: &str = "
text { font: 12px ui-sans-serif, system-ui, sans-serif; fill: #1f2328 }
.heading, .thread { font-weight: 600 }
.heading { font-size: 18px }
.soft, .time, .token { fill: #59636e }
.time { text-anchor: middle }
.token, .figure { text-anchor: end }
.token, .path, .figure, .time { font: 12px ui-monospace, monospace }
.failed { fill: #cf222e }
.paper { fill: #ffffff }
.tick { stroke: #8c959f; stroke-opacity: 0.4 }
.wait, .delay, .total { stroke-width: 16 }
.events, .total { stroke: #9a83e6 }
.timeout { stroke: #e2dbfa }
.closed, .delay { stroke: #98a2ad }
.kernel, .connecting { stroke-width: 10 }
.kernel { stroke: #63a4e8 }
.connecting { stroke: #b8790a }
.arrow, .register { stroke: #1f2328; stroke-width: 2 }
.event { fill: #ffffff; stroke: #238c43; stroke-width: 2 }
.read { fill: #e0560f }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.soft, .time, .token { fill: #9198a1 }
.failed { fill: #ff7b72 }
.paper, .event { fill: #0d1117 }
.timeout { stroke: #3a3160 }
.arrow, .register { stroke: #e6edf3 }
}
";
