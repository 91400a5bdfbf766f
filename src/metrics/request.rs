//! What an HTTP client asked for.

use super::Format;

/// Where the metrics are.
const PATH: &str = "/metrics";

/// The answer's status, and what is wrong where it is no 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no HTTP request.
    Bad,
    /// There is nothing else here.
    NotFound,
    /// Nothing can be changed here.
    Method,
    /// The header is too long.
    TooLong,
    /// The backend does not tell.
    Unavailable,
}

impl Refusal {
    /// The status line's rest.
    pub fn status(self) -> &'static str {
        match self {
            Refusal::Bad => "400 Bad Request",
            Refusal::NotFound => "404 Not Found",
            Refusal::Method => "405 Method Not Allowed",
            Refusal::TooLong => "431 Request Header Fields Too Large",
            Refusal::Unavailable => "503 Service Unavailable",
        }
    }
}

/// A request's whole header, without the empty line.
pub fn read(header: &[u8]) -> Result<Format, Refusal> {
    let text = std::str::from_utf8(header).map_err(|_| Refusal::Bad)?;
    let mut lines = text.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::Bad);
    };
    if !version.starts_with("HTTP/1.") {
        return Err(Refusal::Bad);
    }
    if method != "GET" {
        return Err(Refusal::Method);
    }
    if target.split('?').next() != Some(PATH) {
        return Err(Refusal::NotFound);
    }
    let open = |line: &str| {
        line.split_once(':').is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("accept") && value.contains("application/openmetrics-text")
        })
    };
    Ok(if lines.any(open) { Format::OpenMetrics } else { Format::Text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_gives_the_format_that_the_client_takes() {
        assert_eq!(read(b"GET /metrics HTTP/1.1\r\nHost: x"), Ok(Format::Text));
        let open =
            b"GET /metrics?x=1 HTTP/1.0\r\naccept: application/openmetrics-text;version=1.0.0";
        assert_eq!(read(open), Ok(Format::OpenMetrics));
        assert_eq!(read(b"GET /metrics HTTP/1.1\r\nAccept: text/html"), Ok(Format::Text));
    }

    #[test]
    fn read_refuses_what_is_not_there() {
        let cases: [(&[u8], Refusal); 7] = [
            (b"GET / HTTP/1.1", Refusal::NotFound),
            (b"GET /metrics/ HTTP/1.1", Refusal::NotFound),
            (b"POST /metrics HTTP/1.1", Refusal::Method),
            (b"GET /metrics", Refusal::Bad),
            (b"GET /metrics SPDY/3", Refusal::Bad),
            (b"", Refusal::Bad),
            (b"\xff\xfe / HTTP/1.1", Refusal::Bad),
        ];
        for (header, refusal) in cases {
            assert_eq!(read(header), Err(refusal), "{header:?}");
        }
    }
}
