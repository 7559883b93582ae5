//! Who waited when, as text.

use crate::record::{Query, Record};
use std::fmt::Write;
use std::time::Duration;

/// So that the rows of the ten requests fit 80 columns.
const BAR: usize = 16;

/// A line for each request, and what they come to. In colour, if the terminal has any.
pub fn draw(queries: &[Query], record: &Record, is_colored: bool) -> String {
    let total = record.total();
    let axis = format!("0 ms{:>width$}", ms(total), width = BAR - 4);
    let heading = ["token", "delay", "registered", "waited", "event"];
    let mut out = row(heading.map(String::from), &axis, "answer");
    for (token, (query, outcome)) in queries.iter().zip(&record.outcomes).enumerate() {
        let registered = outcome.registered_at.first().copied();
        let event = record.events(token).next();
        let waited = registered.zip(event);
        let waited = waited.map(|(from, to)| to.saturating_sub(from));
        let figure = |time: Option<Duration>| time.map_or("-".into(), ms);
        let delay = format!("{} ms", query.delay_ms);
        let times = [registered, waited, event].map(figure);
        let [registered_ms, waited_ms, event_ms] = times;
        let figures = [token.to_string(), delay, registered_ms, waited_ms, event_ms];
        let end = record.waited_until(token);
        let connecting = outcome.connecting_at;
        let bar = bar([connecting, registered, event], end, total, is_colored);
        let (Ok(answer) | Err(answer)) = &outcome.answer;
        out += &row(figures, &bar, &in_one_line(answer));
    }
    let delays: u64 = queries.iter().map(|query| u64::from(query.delay_ms)).sum();
    let requests = queries.len();
    let total = ms(total);
    let _ = writeln!(
        out,
        "\nRequests: {requests}. Their delays: {delays} ms in total.\n\
         The one thread that waited for all of them: {total}."
    );
    out
}

/// Each figure has room for `60000.0 ms`.
fn row([token, delay, registered, waited, event]: [String; 5], bar: &str, answer: &str) -> String {
    format!("{token:>5}{delay:>9}{registered:>11}{waited:>11}{event:>11} |{bar}| {answer}\n")
}

/// Blank at first, dots while it connected, a bar while it waited, a mark where its event came.
fn bar(
    [connecting, registered, event]: [Option<Duration>; 3],
    end: Duration,
    total: Duration,
    is_colored: bool,
) -> String {
    let column = |time: Duration| {
        (time.as_nanos() * (BAR as u128 - 1))
            .checked_div(total.as_nanos())
            .unwrap_or(0) as usize
    };
    let to = column(end);
    let from = column(registered.unwrap_or(end)).min(to);
    let began = column(connecting.unwrap_or(end)).min(from);
    let before = " ".repeat(began) + &".".repeat(from - began);
    let during = to - from;
    let after = " ".repeat(BAR - 1 - to);
    let mark = match (event, is_colored) {
        (None, _) => " ",
        (Some(_), false) => "*",
        (Some(_), true) => "\x1b[32m●",
    };
    match is_colored {
        true => format!("{before}\x1b[36m{}{mark}\x1b[0m{after}", "━".repeat(during)),
        false => format!("{before}{}{mark}{after}", "-".repeat(during)),
    }
}

pub fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// What a server sent goes to a terminal: no control characters, and no more than fits.
pub fn in_one_line(text: &str) -> String {
    let is_harmful = |char: char| match char {
        '\u{2028}' | '\u{2029}' => true, // the ends of a line and of a paragraph
        // These turn the direction of the text around.
        '\u{61C}' | '\u{200E}' | '\u{200F}' => true,
        '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => true,
        _ => char.is_control(),
    };
    let shown = |char| if is_harmful(char) { '?' } else { char };
    text.chars().map(shown).take(60).collect()
}
