//! What the macros say to mistakes: one file a mistake in `ui`, with the compiler's output beside it.
//! `TRYBUILD=overwrite` accepts new output.

#[test]
fn mistakes_are_reported_where_they_are_with_the_fix() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("ui/*.rs");
    cases.pass("ui/pass/*.rs");
}
