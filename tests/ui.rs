//! The error messages of the macros: one file for each mistake in `ui`, with the expected compiler
//! output next to it. `TRYBUILD=overwrite` accepts new output.

#[test]
fn mistakes_are_reported_where_they_are_with_the_fix() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("ui/*.rs");
    cases.pass("ui/pass/*.rs");
}
