//! Runs the tests of `examples/express-store`, which are written in its own language.

use std::time::Duration;

use support::{node, root};
use tokio::time::timeout;

#[tokio::test]
async fn the_store_for_express_passes_its_tests() {
    let folder = root().join("examples/express-store/test");
    let mut command = node();
    // Not in the format for terminals: the output must contain the message of a failed test.
    command
        .args(["--test", "--test-reporter=tap"])
        .args(["store.test.js", "races.test.js"].map(|file| folder.join(file)));
    let output =
        timeout(Duration::from_secs(120), command.kill_on_drop(true).output()).await.expect("they end").unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let passed = text.lines().find_map(|line| line.strip_prefix("# pass ")).and_then(|count| count.parse().ok());
    assert!(passed.is_some_and(|passed: u32| passed >= 46), "how many tests ran? {text}");
}
