//! Who waited when, as text.

use crate::client::Query;
use crate::record::Record;
use std::fmt::Write;
use std::time::Duration;

const COLUMNS: usize = 32;

/// A line for each request, and what they come to. In colour, if the terminal has any.
pub fn draw(queries: &[Query], record: &Record, is_colored: bool) -> String {
    let total = record.total();
    let end = format!("{} ms", total.as_millis());
    let mut out = format!(
        "{:>5} {:>8}{:>11}{:>11}{:>11} |0 ms{end:>width$}| answer\n",
        "token",
        "delay",
        "registered",
        "waited",
        "event",
        width = COLUMNS - 4
    );
    for (token, (query, outcome)) in queries.iter().zip(&record.outcomes).enumerate() {
        let registered = outcome.registered_at.first().copied();
        let event = record.events(token).next();
        let waited = registered
            .zip(event)
            .map(|(from, to)| to.saturating_sub(from));
        let figure = |time: Option<Duration>| time.map_or("-".into(), ms);
        let (Ok(answer) | Err(answer)) = &outcome.answer;
        let _ = writeln!(
            out,
            "{token:>5} {:>8}{:>11}{:>11}{:>11} |{}| {}",
            format!("{} ms", query.delay_ms),
            figure(registered),
            figure(waited),
            figure(event),
            bar(
                registered,
                event,
                record.waited_until(token),
                total,
                is_colored
            ),
            in_one_line(answer),
        );
    }
    let asked = total_delay_ms(queries);
    let _ = writeln!(
        out,
        "\nRequests: {}. Their delays: {asked} ms in total. The one thread that waited for all of them: {}.",
        queries.len(),
        ms(total),
    );
    out
}

pub fn total_delay_ms(queries: &[Query]) -> u64 {
    queries.iter().map(|query| u64::from(query.delay_ms)).sum()
}

/// Blank before it was registered, a bar while it waited, a mark where its event came.
fn bar(
    registered: Option<Duration>,
    event: Option<Duration>,
    end: Duration,
    total: Duration,
    is_colored: bool,
) -> String {
    let column = |time: Duration| {
        (time.as_nanos() * (COLUMNS as u128 - 1))
            .checked_div(total.as_nanos())
            .unwrap_or(0) as usize
    };
    let (from, to) = (column(registered.unwrap_or(end)), column(end));
    let (before, during) = (" ".repeat(from.min(to)), to.saturating_sub(from));
    let after = " ".repeat(COLUMNS - 1 - to);
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
    text.chars()
        .map(|char| match char {
            // These turn the direction of the text around.
            '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => '?',
            _ if char.is_control() => '?',
            _ => char,
        })
        .take(60)
        .collect()
}
