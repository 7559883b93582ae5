//! The part of HTTP/1.1 that this example needs. It parses and produces bytes, and uses no sockets.

use std::str::from_utf8;
use std::time::Duration;

/// The maximum length of a request's line and header fields together.
pub const MAX_HEAD: usize = 8 * 1024;
pub const MAX_DELAY_MS: u32 = 60_000;

/// `GET /{delay_ms}/{text} HTTP/1.1`
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub delay: Duration,
    pub text: Vec<u8>,
}

/// A status, and one line with the reason.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: &'static str,
    pub reason: String,
}

/// Returns the delay and the response for what was received so far, or `None` if the request is not complete yet. If
/// the text is shorter than `size`, dots follow it in the response.
pub fn reply(received: &[u8], size: usize) -> Option<(Duration, Response)> {
    match parse(received) {
        Ok(None) => None,
        Ok(Some(Request { delay, text })) => {
            let dots = size.saturating_sub(text.len());
            Some((delay, response(received, "200 OK", &text, dots)))
        }
        Err(Refusal { status, reason }) => {
            let body = format!("{reason}\n");
            let response = response(received, status, body.as_bytes(), 0);
            Some((Duration::ZERO, response))
        }
    }
}

/// Returns `Ok(None)` if the request is valid so far, but not complete. A request that cannot become valid is refused
/// as soon as that is known, because its sender may wait for an answer before it sends the rest. The reason is always
/// the first fault, so that the answer does not depend on the pieces in which the bytes arrive.
pub fn parse(received: &[u8]) -> Result<Option<Request>, Refusal> {
    let received = without_empty_line(received);
    let received = &received[..received.len().min(MAX_HEAD + 1)];
    let end_of_line = received.iter().position(|&byte| byte == b'\n');
    let line = &received[..end_of_line.map_or(received.len(), |at| at + 1)];
    // Such a beginning (for example of TLS) cannot become HTTP, whatever follows.
    if line
        .iter()
        .any(|byte| byte.is_ascii_control() && !b"\r\n".contains(byte))
        || has_bare_cr(line)
    {
        return Err(not_http());
    }
    let whole_line = line.strip_suffix(b"\r\n").or(line.strip_suffix(b"\n"));
    let request = whole_line.map(parse_line).transpose()?;
    let end_of_head = end_of_head(received);
    if has_bare_cr(&received[..end_of_head.unwrap_or(received.len())]) {
        return Err(not_http());
    }
    match end_of_head {
        Some(len) if len <= MAX_HEAD => Ok(request),
        _ if received.len() <= MAX_HEAD => Ok(None),
        _ => Err(Refusal {
            status: "431 Request Header Fields Too Large",
            reason: format!("the request's head is longer than {MAX_HEAD} bytes"),
        }),
    }
}

/// RFC 9112, 2.2: a server should ignore an empty line before the request, which some clients send.
fn without_empty_line(received: &[u8]) -> &[u8] {
    let rest = received.strip_prefix(b"\r\n");
    rest.or(received.strip_prefix(b"\n")).unwrap_or(received)
}

/// The head ends with an empty line. If a request is typed by hand, its lines may lack the `\r`.
fn end_of_head(received: &[u8]) -> Option<usize> {
    (0..received.len()).find_map(|at| match &received[at..] {
        [b'\n', b'\r', b'\n', ..] => Some(at + 3),
        [b'\n', b'\n', ..] => Some(at + 2),
        _ => None,
    })
}

/// A `\r` without `\n` ends a line for some programs and not for others, so it is refused.
fn has_bare_cr(head: &[u8]) -> bool {
    head.windows(2)
        .any(|pair| pair[0] == b'\r' && pair[1] != b'\n')
}

fn parse_line(line: &[u8]) -> Result<Request, Refusal> {
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let [method, target, b"HTTP/1.1" | b"HTTP/1.0"] = words[..] else {
        return Err(not_http());
    };
    if method.is_empty() || !method.iter().all(u8::is_ascii_alphabetic) {
        return Err(not_http());
    }
    if ![&b"GET"[..], b"HEAD"].contains(&method) {
        let reason = "this server only knows GET and HEAD".into();
        return Err(Refusal {
            status: "405 Method Not Allowed",
            reason,
        });
    }
    let path = path(target).ok_or_else(not_http)?;
    let mut parts = path.splitn(3, |&byte| byte == b'/');
    let (Some(b""), Some(delay), Some(text)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Refusal {
            status: "404 Not Found",
            reason: "unknown path: ask for /DELAY_MS/TEXT".into(),
        });
    };
    let delay_ms = parse_delay(delay).ok_or_else(|| {
        bad_request(format!(
            "the delay must be a whole number of milliseconds, {MAX_DELAY_MS} at most"
        ))
    })?;
    let text = percent_decode(text).ok_or_else(|| {
        bad_request("in the text, % must come with two hexadecimal digits".into())
    })?;
    Ok(Request {
        delay: Duration::from_millis(delay_ms.into()),
        text,
    })
}

/// A client may send its target in the form for proxies: `http://host/path` (RFC 9112, 3.2.2).
fn path(target: &[u8]) -> Option<&[u8]> {
    let scheme = b"http://";
    let path = match target.split_at_checked(scheme.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(scheme) => {
            let host = rest.iter().position(|&byte| byte == b'/');
            host.map_or(&b"/"[..], |end| &rest[end..])
        }
        _ => target,
    };
    path.starts_with(b"/").then_some(path)
}

fn parse_delay(digits: &[u8]) -> Option<u32> {
    let ms = parse_digits(digits)?.try_into().ok()?;
    (ms <= MAX_DELAY_MS).then_some(ms)
}

/// Unlike `str::parse`, accepts no plus sign.
fn parse_digits(digits: &[u8]) -> Option<usize> {
    let digits = from_utf8(digits).ok()?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok())?
}

fn not_http() -> Refusal {
    bad_request("this is not an HTTP/1.1 request".into())
}

fn bad_request(reason: String) -> Refusal {
    Refusal {
        status: "400 Bad Request",
        reason,
    }
}

/// The version is HTTP/1.0, because an HTTP/1.1 client must also understand an answer in chunks.
pub fn request(addr: &str, delay_ms: u32, text: &str) -> Vec<u8> {
    let text = percent_encode(text);
    format!("GET /{delay_ms}/{text} HTTP/1.0\r\nHost: {addr}\r\n\r\n").into()
}

/// The part of a response that is still to be sent. The dots are only counted, to save memory.
#[derive(Debug)]
pub struct Response {
    bytes: Vec<u8>,
    dots: usize,
}

impl Response {
    /// Returns the next bytes to send, or an empty slice when everything is sent.
    pub fn rest(&self) -> &[u8] {
        const DOTS: &[u8] = &[b'.'; 16 * 1024];
        match self.bytes.is_empty() {
            true => &DOTS[..self.dots.min(DOTS.len())],
            false => &self.bytes,
        }
    }

    /// Removes the first `n` bytes of `rest`, which were sent.
    pub fn advance(&mut self, n: usize) {
        match self.bytes.is_empty() {
            true => self.dots -= n,
            false => drop(self.bytes.drain(..n)),
        }
    }
}

/// The response to HEAD, even a refusal, has no body. Its `Content-Length` is that of the body for GET.
pub fn response(request: &[u8], status: &str, text: &[u8], mut dots: usize) -> Response {
    let allow = if status.starts_with("405") {
        "Allow: GET, HEAD\r\n"
    } else {
        ""
    };
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n{allow}\
         Connection: close\r\n\r\n",
        text.len() + dots
    )
    .into_bytes();
    match without_empty_line(request).starts_with(b"HEAD ") {
        true => dots = 0,
        false => bytes.extend_from_slice(text),
    }
    Response { bytes, dots }
}

/// A status ("200 OK") and a body.
pub type Answer<'a> = (String, &'a [u8]);

/// Returns `Ok(None)` if the answer is not complete yet, and `Err` if it cannot become one that we understand. `is_end`
/// says that the server has closed the connection: a body without a `Content-Length` is complete only then.
pub fn parse_response(
    mut received: &[u8],
    is_end: bool,
) -> Result<Option<Answer<'_>>, &'static str> {
    loop {
        if received.iter().zip(b"HTTP/1.").any(|(a, b)| a != b) {
            return Err(NOT_HTTP);
        }
        let Some(end) = end_of_head(received) else {
            return Ok(None);
        };
        let (head, body) = received.split_at(end);
        let head = String::from_utf8_lossy(head);
        let (line, fields) = head.split_once('\n').unwrap_or_default();
        let status = parse_status(line).ok_or(NOT_HTTP)?;
        // Interim answers (100 Continue, 103 Early Hints) come before the final one.
        if status.starts_with('1') {
            received = body;
            continue;
        }
        let body = match body_length(status, fields)? {
            Some(length) => body.get(..length),
            None => is_end.then_some(body),
        };
        return Ok(body.map(|body| (status.into(), body)));
    }
}

/// The body of an answer with status 200, or why there is none.
pub fn text((status, body): Answer<'_>) -> Result<String, String> {
    let body = String::from_utf8_lossy(body);
    match status.starts_with("200") {
        true => Ok(body.into()),
        false => Err(format!("{status}: {}", body.trim_end())),
    }
}

const NOT_HTTP: &str = "this is not an HTTP/1.1 answer";

/// The status has three digits. Any phrase may follow, or none.
fn parse_status(line: &str) -> Option<&str> {
    let (_version, status) = line.split_once(' ')?;
    let digits = status.split_ascii_whitespace().next()?;
    let is_status = digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_status.then_some(status.trim_end())
}

/// Returns `Ok(None)` if the body ends with the connection.
fn body_length(status: &str, fields: &str) -> Result<Option<usize>, &'static str> {
    let values = |wanted| {
        let fields = fields.lines().filter_map(|field| field.split_once(':'));
        let wanted = fields.filter(move |(name, _)| name.eq_ignore_ascii_case(wanted));
        wanted.map(|(_, value)| value.trim())
    };
    if status.starts_with("204") || status.starts_with("304") {
        return Ok(Some(0)); // these have no body, even if they have a `Content-Length`
    }
    if values("Transfer-Encoding").next().is_some() {
        return Err("the answer has a Transfer-Encoding, which we did not ask for");
    }
    let mut lengths: Vec<&str> = values("Content-Length").collect();
    lengths.dedup();
    let length = match lengths[..] {
        [] => Some(None),
        [length] => parse_digits(length.as_bytes()).map(Some),
        _ => None,
    };
    length.ok_or("the answer's Content-Length is wrong")
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into())
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = after;
        decoded.push(match (byte, after) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                (digit(*high)? * 16 + digit(*low)?) as u8
            }
            (b'%', _) => return None,
            _ => *byte,
        });
    }
    Some(decoded)
}
