//! The generic parameters that a companion needs: those that its signature mentions, and those that
//! their bounds mention.

use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{GenericParam, Generics, Ident, WherePredicate};

/// The subset of a function's generics that a part of its signature needs.
pub(crate) struct Kept {
    generics: Generics,
}

/// Returns the generic parameters that `signature` needs.
pub(crate) fn keep(generics: &Generics, signature: &TokenStream) -> Kept {
    let all: Vec<String> = generics.params.iter().map(name).collect();
    let predicates = || generics.where_clause.iter().flat_map(|clause| &clause.predicates);
    let mut kept: Vec<String> = Vec::new();
    let mut mentioned = names_in(signature, &all);
    // The bounds of a kept parameter may mention others, so repeat until nothing is new.
    while mentioned.iter().any(|name| !kept.contains(name)) {
        kept.append(&mut mentioned);
        for param in generics.params.iter().filter(|param| kept.contains(&name(param))) {
            mentioned.extend(names_in(&param.to_token_stream(), &all));
        }
        for predicate in predicates().filter(|predicate| bounds_only(predicate, &kept, &all)) {
            mentioned.extend(names_in(&predicate.to_token_stream(), &all));
        }
    }
    let mut remaining = generics.clone();
    remaining.params = generics.params.iter().filter(|param| kept.contains(&name(param))).cloned().collect();
    if let Some(clause) = &mut remaining.where_clause {
        clause.predicates = predicates().filter(|predicate| bounds_only(predicate, &kept, &all)).cloned().collect();
        if clause.predicates.is_empty() {
            remaining.where_clause = None;
        }
    }
    Kept { generics: remaining }
}

/// Returns whether a predicate bounds kept parameters and no others: `T: From<D>` is about `T`.
fn bounds_only(predicate: &WherePredicate, kept: &[String], all: &[String]) -> bool {
    let bounded = match predicate {
        WherePredicate::Type(predicate) => predicate.bounded_ty.to_token_stream(),
        WherePredicate::Lifetime(predicate) => predicate.lifetime.to_token_stream(),
        other => other.to_token_stream(),
    };
    let mut about = names_in(&bounded, all);
    if about.is_empty() {
        about = names_in(&predicate.to_token_stream(), all);
    }
    about.iter().all(|name| kept.contains(name))
}

impl Kept {
    /// Returns `<T: Bound>`.
    pub(crate) fn declare(&self) -> TokenStream {
        let params = &self.generics.params;
        if params.is_empty() { TokenStream::new() } else { quote!(<#params>) }
    }

    /// Returns `where ..`.
    pub(crate) fn where_clause(&self) -> TokenStream {
        self.generics.where_clause.to_token_stream()
    }

    /// Returns `::<T>`. Lifetimes are inferred.
    pub(crate) fn turbofish(&self) -> TokenStream {
        turbofish(&self.generics)
    }
}

/// Returns `::<T, N>` with all type and constant parameters.
pub(crate) fn turbofish(generics: &Generics) -> TokenStream {
    let values = generics.params.iter().filter(|param| !matches!(param, GenericParam::Lifetime(_)));
    let idents: Vec<&Ident> = values.map(ident).collect();
    if idents.is_empty() { TokenStream::new() } else { quote!(::<#(#idents),*>) }
}

/// Returns whether `tokens` mention a parameter.
pub(crate) fn mentions(tokens: &TokenStream, param: &GenericParam) -> bool {
    !names_in(tokens, &[name(param)]).is_empty()
}

/// Returns the name of a parameter; for a lifetime, without its quote.
pub(crate) fn ident(param: &GenericParam) -> &Ident {
    match param {
        GenericParam::Lifetime(param) => &param.lifetime.ident,
        GenericParam::Type(param) => &param.ident,
        GenericParam::Const(param) => &param.ident,
    }
}

fn name(param: &GenericParam) -> String {
    match param {
        GenericParam::Lifetime(param) => param.lifetime.to_string(),
        other => ident(other).to_string(),
    }
}

/// Returns the names among `all` that occur in `tokens`. A lifetime is a quote and an identifier.
fn names_in(tokens: &TokenStream, all: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let mut quote = false;
    for token in tokens.clone() {
        match &token {
            TokenTree::Ident(ident) => {
                let name = if quote { format!("'{ident}") } else { ident.to_string() };
                if all.contains(&name) {
                    found.push(name);
                }
            }
            TokenTree::Group(group) => found.extend(names_in(&group.stream(), all)),
            _ => {}
        }
        quote = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '\'');
    }
    found
}
