//! Collects all errors of one expansion, so that they are reported together.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;

/// All errors so far, each at its token.
#[derive(Default)]
pub(crate) struct Errors(Vec<syn::Error>);

impl Errors {
    /// Adds an error at `tokens`.
    pub(crate) fn at(&mut self, tokens: impl ToTokens, message: impl std::fmt::Display) {
        self.0.push(syn::Error::new_spanned(tokens, message));
    }

    /// Adds an error at `span`.
    pub(crate) fn at_span(&mut self, span: Span, message: impl std::fmt::Display) {
        self.0.push(syn::Error::new(span, message));
    }

    /// Adds an error of the parser.
    pub(crate) fn push(&mut self, error: syn::Error) {
        self.0.push(error);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns a `compile_error!` for each error.
    pub(crate) fn into_tokens(self) -> TokenStream {
        self.0.iter().map(syn::Error::to_compile_error).collect()
    }
}

/// Returns ``; did you mean `ttl`?`` if one of the known words is close enough.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut best: Option<(usize, &str)> = None;
    for candidate in known {
        let distance = edits(word, candidate);
        if best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    // Accept edits of up to a third of the word. Beyond that it is a different word.
    match best {
        Some((distance, candidate)) if distance <= (word.len() / 3).max(1) && distance < candidate.len() => {
            format!("; did you mean `{candidate}`?")
        }
        _ => String::new(),
    }
}

/// Returns the edit distance: the least number of letters to insert, delete, replace or swap with
/// the next one (optimal string alignment).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    let mut previous: Option<char> = None;
    for (i, a) in from.chars().enumerate() {
        let mut row = vec![i.saturating_add(1)];
        for (j, b) in to.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX);
            let replaced = at(&last, j).saturating_add(usize::from(a != *b));
            let deleted = at(&last, j.saturating_add(1)).saturating_add(1);
            let inserted = at(&row, j).saturating_add(1);
            let mut least = replaced.min(deleted).min(inserted);
            if let Some(left) = j.checked_sub(1)
                && previous == Some(*b)
                && to.get(left) == Some(&a)
            {
                least = least.min(at(&before, left).saturating_add(1));
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
        previous = Some(a);
    }
    last.last().copied().unwrap_or(0)
}

/// Returns the error text for a trait's method, with the alternatives.
pub(crate) fn of_a_trait(ident: &syn::Ident) -> String {
    format!(
        "`{ident}` is a method of a trait, and an `impl Trait for` has no room for the companions of a cached function; cache a \
         method of the type's own `impl`, `async fn cached_{ident}(..)`, or a free function, and call it here: \
         `self.cached_{ident}(..).await` (an associated function without `self` there needs `#[cached(method)]`)"
    )
}

#[cfg(test)]
mod tests {
    use super::did_you_mean;

    #[test]
    fn close_words_are_proposed_and_far_ones_are_not() {
        let known = ["ttl", "name", "negative_ttl", "cache_if"];
        assert_eq!(did_you_mean("tll", known), "; did you mean `ttl`?");
        assert_eq!(did_you_mean("nmae", known), "; did you mean `name`?");
        assert_eq!(did_you_mean("negativ_tl", known), "; did you mean `negative_ttl`?");
        assert_eq!(did_you_mean("tags", known), "");
        assert_eq!(did_you_mean("x", known), "");
    }
}
