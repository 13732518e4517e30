//! The examples of the library do what their first lines say.

use std::path::PathBuf;

use tokio::process::Command;

/// The lines that an example prints, on the embedded store.
async fn output_of(example: &str) -> Vec<String> {
    // Built next to the tests.
    let tests: PathBuf = std::env::current_exe().unwrap();
    let path = tests.parent().and_then(|deps| deps.parent()).unwrap().join("examples").join(example);
    let output = Command::new(&path).env_remove("CACHE_URL").output().await;
    let output =
        output.unwrap_or_else(|error| panic!("{}: {error}; `cargo test --workspace` builds it", path.display()));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{example}: {errors}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
// X1
async fn hello_computes_once_for_four_callers_and_again_after_an_invalidation() {
    let asked = "asking the database for Oslo";
    let values = "[400000, 400000, 400000, 400000]";
    let counted = "2 computed, 3 shared, 1 from the cache";
    assert_eq!(output_of("hello").await, [asked, values, "400000", asked, "400000", counted]);
}

#[tokio::test]
// R22
async fn a_transaction_ends_what_it_changes_and_a_failed_one_leaves_it() {
    let lines = output_of("transaction").await;
    let read = |name: &str| format!("read row 7: {name:?}");
    let expected =
        [&read("Ann"), "Ann Ann", &read("Anna"), "Anna", "row 7 needs a name; Anna", &read("Anna!"), "Anna!"];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn an_old_value_is_served_while_the_function_fails_and_not_for_ever() {
    let lines = output_of("stale_if_error").await;
    assert!(lines.iter().any(|line| line == "ten minutes after its end: Ok(700)"), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("StaleServed")), "{lines:?}");
    assert_eq!(lines.last().map(String::as_str), Some("two days later: Err(DatabaseIsDown)"));
}

#[tokio::test]
async fn metrics_count_each_function() {
    let lines = output_of("metrics").await;
    assert!(lines.iter().any(|line| line == "cache_computes_total{function=\"metrics.square\"} 3"), "{lines:?}");
    assert!(lines.iter().any(|line| line == "cache_misses_total 3"), "{lines:?}");
}
