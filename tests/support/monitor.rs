//! Records which commands a Redis receives, as reported by the server itself.

use std::net::Ipv4Addr;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::{RedisServer, soon};

/// A connection in `MONITOR` mode, and a connection that sends marks to separate groups of
/// commands.
pub struct Monitor {
    commands: BufReader<TcpStream>,
    marks: BufReader<TcpStream>,
    marked: u64,
}

impl Monitor {
    /// Starts to record all commands.
    ///
    /// # Panics
    ///
    /// If the server is not running.
    pub async fn start(server: &RedisServer) -> Self {
        let connect = async || {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).await;
            BufReader::new(stream.expect("the server is up"))
        };
        let mut monitor = Self { commands: connect().await, marks: connect().await, marked: 0 };
        send(&mut monitor.commands, "MONITOR").await;
        monitor
    }

    /// Returns the commands since the last call or the start, each as its words. Commands run by
    /// scripts are left out.
    ///
    /// # Panics
    ///
    /// If the server is gone.
    pub async fn commands(&mut self) -> Vec<Vec<String>> {
        self.marked = self.marked.saturating_add(1);
        let mark = vec!["ECHO".to_owned(), format!("mark {}", self.marked)];
        send(&mut self.marks, &format!("ECHO \"mark {}\"", self.marked)).await;
        // The second line of the bulk string, which MONITOR does not print.
        read(&mut self.marks).await;
        let mut commands = Vec::new();
        loop {
            let line = read(&mut self.commands).await;
            // 1339518083.107412 [0 127.0.0.1:60866] "get" "key"
            let Some((source, words)) = line.split_once(']') else { continue };
            let words = words_of(words);
            if words == mark {
                return commands;
            }
            if !source.ends_with(" lua") {
                commands.push(words);
            }
        }
    }
}

/// Sends an inline command and waits for the first line of its reply.
async fn send(stream: &mut BufReader<TcpStream>, command: &str) {
    stream.write_all(format!("{command}\r\n").as_bytes()).await.expect("the server is up");
    read(stream).await;
}

async fn read(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    let length = soon("a line of the server", stream.read_line(&mut line)).await.expect("the server is up");
    assert!(length > 0, "the server has closed the connection");
    line.trim_end().to_owned()
}

/// Parses `"a" "b\"c\x00"`: each word in quotes, with escapes.
fn words_of(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start().bytes().peekable();
    while rest.next() == Some(b'"') {
        let mut word = Vec::new();
        loop {
            match rest.next() {
                None | Some(b'"') => break,
                Some(b'\\') => match rest.next() {
                    Some(b'n') => word.push(b'\n'),
                    Some(b'r') => word.push(b'\r'),
                    Some(b't') => word.push(b'\t'),
                    Some(b'x') => {
                        let digits = [rest.next(), rest.next()].map(|digit| char::from(digit.unwrap_or(b'0')));
                        let byte = u8::from_str_radix(&String::from_iter(digits), 16).expect("two digits");
                        word.push(byte);
                    }
                    other => word.extend(other),
                },
                Some(byte) => word.push(byte),
            }
        }
        words.push(String::from_utf8_lossy(&word).into_owned());
        while rest.next_if_eq(&b' ').is_some() {}
    }
    words
}

#[test]
fn the_words_of_a_command_are_taken_apart() {
    let line = r#" "SET" "a key" "{\"a\":\"\xc3\xa9\\n\"}" "" "\r\n""#;
    assert_eq!(words_of(line), ["SET", "a key", r#"{"a":"é\n"}"#, "", "\r\n"]);
}
