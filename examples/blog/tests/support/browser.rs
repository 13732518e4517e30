//! A minimal browser.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

/// A response.
pub(crate) struct Page {
    pub(crate) status: u16,
    /// In lower case, one per line.
    pub(crate) headers: String,
    /// As received.
    head: String,
    pub(crate) body: String,
}

impl Page {
    /// Returns the target of a redirect.
    pub(crate) fn location(&self) -> Option<&str> {
        self.all("location").first().copied()
    }

    /// Returns all values of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.head.lines().filter_map(|line| line.split_once(": "));
        named.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }
}

/// A browser that reads from the blog at this address.
#[derive(Clone, Copy)]
pub(crate) struct Browser(pub(crate) SocketAddr);

impl Browser {
    pub(crate) fn get(self, path: &str) -> Page {
        self.request("GET", path, None, "")
    }

    pub(crate) fn post(self, path: &str, fields: &[(&str, &str)]) -> Page {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.request("POST", path, Some("application/x-www-form-urlencoded"), &body)
    }

    pub(crate) fn request(self, method: &str, path: &str, content_type: Option<&str>, body: &str) -> Page {
        self.request_with(method, path, &[], content_type, body)
    }

    pub(crate) fn request_with(
        self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        content_type: Option<&str>,
        body: &str,
    ) -> Page {
        exchange(TcpStream::connect(self.0).unwrap(), method, path, headers, content_type, body)
    }
}

/// Sends one request on this connection, which ends with the response.
pub(crate) fn exchange(
    mut stream: TcpStream,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    content_type: Option<&str>,
    body: &str,
) -> Page {
    let content_type = content_type.map(|value| format!("content-type: {value}\r\n")).unwrap_or_default();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: blog\r\nconnection: close\r\n{headers}{content_type}content-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The server may answer and close before it has read a body that is too large.
    let sent = stream.write_all(body.as_bytes());
    page(stream).unwrap_or_else(|read| panic!("no answer: {sent:?} {read:?}"))
}

/// Reads until the connection ends. Returns an error if that is not a response.
pub(crate) fn page(mut stream: TcpStream) -> Result<Page, std::io::Result<usize>> {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return Err(read) };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Ok(Page { status, headers: head.to_lowercase(), head: head.to_owned(), body: body.to_owned() })
}
