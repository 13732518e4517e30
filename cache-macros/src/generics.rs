//! The generic parameters that a companion needs: those its own signature mentions, and what their bounds mention.

use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{GenericParam, Generics, Ident};

/// What is left of a function's generics for a part of its signature.
pub(crate) struct Kept {
    generics: Generics,
}

/// The generic parameters that `signature` needs.
pub(crate) fn keep(generics: &Generics, signature: &TokenStream) -> Kept {
    let all: Vec<String> = generics.params.iter().map(name).collect();
    let mut kept: Vec<String> = Vec::new();
    let mut mentioned = names_in(signature, &all);
    // A kept parameter's bounds may mention others, so once more until nothing is new.
    while mentioned.iter().any(|name| !kept.contains(name)) {
        kept.extend(mentioned.drain(..));
        for param in generics.params.iter().filter(|param| kept.contains(&name(param))) {
            mentioned.extend(names_in(&param.to_token_stream(), &all));
        }
    }
    let mut generics = generics.clone();
    generics.params = generics.params.into_iter().filter(|param| kept.contains(&name(param))).collect();
    if let Some(clause) = &mut generics.where_clause {
        let predicates = std::mem::take(&mut clause.predicates).into_iter();
        let needs_only_kept = |predicate: &syn::WherePredicate| {
            names_in(&predicate.to_token_stream(), &all).iter().all(|name| kept.contains(name))
        };
        clause.predicates = predicates.filter(needs_only_kept).collect();
        if clause.predicates.is_empty() {
            generics.where_clause = None;
        }
    }
    Kept { generics }
}

impl Kept {
    /// `<T: Bound>`.
    pub(crate) fn declare(&self) -> TokenStream {
        let params = &self.generics.params;
        if params.is_empty() { TokenStream::new() } else { quote!(<#params>) }
    }

    /// `where ..`.
    pub(crate) fn where_clause(&self) -> TokenStream {
        self.generics.where_clause.to_token_stream()
    }

    /// `::<T>`; lifetimes are left to inference.
    pub(crate) fn turbofish(&self) -> TokenStream {
        turbofish(&self.generics)
    }
}

/// `::<T, N>` for all type and constant parameters.
pub(crate) fn turbofish(generics: &Generics) -> TokenStream {
    let idents: Vec<&Ident> = generics
        .params
        .iter()
        .filter_map(|param| match param {
            GenericParam::Lifetime(_) => None,
            GenericParam::Type(param) => Some(&param.ident),
            GenericParam::Const(param) => Some(&param.ident),
        })
        .collect();
    if idents.is_empty() { TokenStream::new() } else { quote!(::<#(#idents),*>) }
}

/// Whether `tokens` mention a type or constant parameter.
pub(crate) fn mentions_parameter(generics: &Generics, tokens: &TokenStream) -> bool {
    let is_value = |param: &&GenericParam| !matches!(param, GenericParam::Lifetime(_));
    let all: Vec<String> = generics.params.iter().filter(is_value).map(name).collect();
    !names_in(tokens, &all).is_empty()
}

fn name(param: &GenericParam) -> String {
    match param {
        GenericParam::Lifetime(param) => param.lifetime.to_string(),
        GenericParam::Type(param) => param.ident.to_string(),
        GenericParam::Const(param) => param.ident.to_string(),
    }
}

/// The names among `all` that occur in `tokens`; a lifetime is a quote and an identifier.
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
