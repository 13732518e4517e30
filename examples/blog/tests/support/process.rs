//! The blog as a process.

use std::io::{BufRead as _, BufReader};
use std::process::Child;

use crate::browser::Browser;

/// A process of the blog, with its output piped. Dropping it ends the process.
pub(crate) struct Process {
    child: Child,
    pub(crate) browser: Browser,
}

impl Process {
    pub(crate) fn new(mut child: Child) -> Self {
        let output = child.stdout.take().unwrap();
        let mut first = String::new();
        BufReader::new(output).read_line(&mut first).unwrap();
        let address = first.trim().strip_prefix("listening on http://").and_then(|rest| rest.strip_suffix('/'));
        let Some(address) = address else { panic!("the blog does not start: {first:?}") };
        Self { browser: Browser(address.parse().unwrap()), child }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
