//! Resolves the placeholders of keys, tags and templates: parameters, fields and expressions.

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::quote_spanned;
use syn::ext::IdentExt as _;
use syn::{Ident, Member};

use crate::args::Template;
use crate::errors::{Errors, did_you_mean};
use crate::plan::KeyStep;
use crate::signature::Param;
use crate::template::{Piece, Placeholder};

pub(crate) fn placeholders(key: &Template) -> impl Iterator<Item = &Placeholder> {
    key.pieces.iter().filter_map(|piece| match piece {
        Piece::Literal(_) => None,
        Piece::Placeholder(placeholder) => Some(placeholder),
    })
}

/// Returns the key step of a placeholder.
pub(crate) fn step(placeholder: &Placeholder, params: &[Param], span: Span) -> KeyStep {
    let expression = expression(placeholder, params, span);
    if placeholder.display { KeyStep::Displayed(expression, span) } else { KeyStep::Placeholder(expression, span) }
}

pub(crate) fn names_no_parameter(placeholder: &Placeholder, params: &[Param], has_self: bool) -> String {
    match &placeholder.computed {
        Some(computed) => {
            let own = has_self.then(|| "self".to_owned());
            let known: Vec<String> =
                own.into_iter().chain(params.iter().flat_map(|param| &param.names).map(Ident::to_string)).collect();
            format!("`{{{computed}}}` depends on no parameter; there is `{}`", known.join("`, `"))
        }
        None => no_such_parameter(&placeholder.root, params, has_self),
    }
}

/// Returns the expression of a placeholder, with the template's span.
pub(crate) fn expression(placeholder: &Placeholder, params: &[Param], span: Span) -> TokenStream {
    if let Some(tokens) = placeholder.tokens() {
        return computed(tokens, params, span);
    }
    let known = params.iter().flat_map(|param| &param.names).find(|name| name.unraw() == bare(&placeholder.root));
    let root = match known {
        Some(name) => {
            let mut name = name.clone();
            name.set_span(name.span().located_at(span));
            name
        }
        // The closure in generated code uses this name.
        None if placeholder.root == "value" => Ident::new("value", Span::mixed_site().located_at(span)),
        None => Ident::new("self", span),
    };
    path(&root, &placeholder.fields, span)
}

/// Respans an expression of a template, so that each name resolves at its definition.
fn computed(tokens: TokenStream, params: &[Param], span: Span) -> TokenStream {
    let mut after_dot = false;
    let respanned = tokens.into_iter().map(|token| {
        let is_field =
            std::mem::replace(&mut after_dot, matches!(&token, TokenTree::Punct(dot) if dot.as_char() == '.'));
        match token {
            TokenTree::Ident(ident) if !is_field => {
                let known = params.iter().flat_map(|param| &param.names).find(|name| **name == ident);
                let at = match known {
                    Some(name) => name.span().located_at(span),
                    // The closure in generated code uses this name.
                    None if ident == "value" => Span::mixed_site().located_at(span),
                    None => span,
                };
                let mut ident = ident;
                ident.set_span(at);
                TokenTree::Ident(ident)
            }
            TokenTree::Group(group) => {
                let mut inner = Group::new(group.delimiter(), computed(group.stream(), params, span));
                inner.set_span(span);
                TokenTree::Group(inner)
            }
            mut other => {
                other.set_span(span);
                other
            }
        }
    });
    respanned.collect()
}

/// Returns `root.field.path`.
pub(crate) fn path(root: &Ident, fields: &[String], span: Span) -> TokenStream {
    let fields = fields.iter().map(|field| match field.parse::<u32>() {
        Ok(index) => Member::Unnamed(syn::Index { index, span }),
        Err(_) => match field.strip_prefix("r#") {
            Some(raw) => Member::Named(Ident::new_raw(raw, span)),
            None => Member::Named(Ident::new(field, span)),
        },
    });
    quote_spanned!(span=> #root #(.#fields)*)
}

/// Refuses elements of a list. They are allowed only in tags of the value.
pub(crate) fn refuse_lists(template: &Template, errors: &mut Errors) {
    for place in placeholders(template).filter(|place| place.list.is_some()) {
        errors.at(
            &template.literal,
            format!(
                "`{{{place}}}`: only tags of the value can use the elements of a list, as in \
                `tags(\"post:{{value[].id}}\")`"
            ),
        );
    }
}

pub(crate) fn bare(name: &str) -> &str {
    name.strip_prefix("r#").unwrap_or(name)
}

pub(crate) fn no_such_parameter(word: &str, params: &[Param], has_self: bool) -> String {
    let own = has_self.then(|| "self".to_owned());
    let known: Vec<String> =
        own.into_iter().chain(params.iter().flat_map(|param| &param.names).map(Ident::to_string)).collect();
    let hint = did_you_mean(word, known.iter().map(String::as_str));
    if !hint.is_empty() || known.is_empty() {
        return format!("no parameter is called `{word}`{hint}");
    }
    format!("no parameter is called `{word}`; there is `{}`", known.join("`, `"))
}
