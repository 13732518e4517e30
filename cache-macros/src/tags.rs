//! The tags of an entry: what they may depend on, and the code generated for them.
//!
//! An entry is made from the arguments in its key alone, and still has its tags. So a tag depends
//! on those arguments or on the value.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;
use syn::Ident;
use syn::ext::IdentExt as _;

use crate::args::{Args, Template};
use crate::errors::Errors;
use crate::expand::Context;
use crate::placeholders::{bare, names_no_parameter, path, placeholders, refuse_lists, step};
use crate::plan::{Entry, KeyStep, OfValue, Tag};
use crate::signature::Param;
use crate::template::{Piece, Placeholder};

/// The most tags that can be written. List elements may add more to an entry, up to `MAX_TAGS` in
/// the library's `versions/snapshot.rs`.
const MAX_TEMPLATES: usize = 16;
/// The name of the value in a template.
const VALUE: &str = "value";
/// The name of a list element in generated code.
const ELEMENT: &str = "__element";

/// Returns the valid tags.
pub(crate) fn plan(args: &Args, params: &[Param], entry: &Entry, errors: &mut Errors) -> Vec<Tag> {
    if let Some(tag) = args.tags.get(MAX_TEMPLATES) {
        errors.at(&tag.literal, format!("a function has at most {MAX_TEMPLATES} tags; remove some"));
    }
    let mut tags = Vec::new();
    for (position, tag) in args.tags.iter().enumerate() {
        if args.tags.iter().take(position).any(|earlier| earlier.literal.value() == tag.literal.value()) {
            errors.at(&tag.literal, "this tag is given twice; remove one of them");
        }
        let of_value = placeholders(tag).filter(|place| place.is_of(VALUE)).count();
        if of_value == 0 {
            refuse_lists(tag, errors);
            placeholders(tag).for_each(|place| check_known(place, tag, args, params, entry, errors));
            tags.push(Tag::Known(steps(tag, params)));
        } else {
            let kind = check_of_value(tag, of_value, params, errors);
            let span = tag.literal.span();
            let at = Span::mixed_site().located_at(span);
            let list = list(tag, errors).map(|fields| {
                let list = path(&named(VALUE, span), fields, span);
                quote_spanned!(at=> #list.iter())
            });
            tags.push(Tag::OfValue(OfValue { kind, steps: steps(tag, &[]), list }));
        }
    }
    tags
}

/// Checks a tag that is known before the run: it may only use arguments that the entry has too.
fn check_known(place: &Placeholder, tag: &Template, args: &Args, params: &[Param], entry: &Entry, errors: &mut Errors) {
    let (root, span) = (bare(&place.root), tag.literal.span());
    if place.is_of("self") {
        if place.fields.is_empty() && place.computed.is_none() {
            errors.at_span(span, "`{self}` is the whole object; name a field that tells it apart: `{self.tenant}`");
        } else if !entry.takes_self {
            let advice = format!("add it there: `key = \"{{{place}}}:..\"`");
            errors.at_span(span, format!("`{{{place}}}` is not in the key, and an entry has only what is; {advice}"));
        }
        return;
    }
    let mut known =
        params.iter().enumerate().filter(|(_, param)| param.names.iter().any(|name| place.mentions(name))).peekable();
    if known.peek().is_none() {
        errors.at_span(span, names_no_parameter(place, params, entry.takes_self));
    }
    for (at, param) in known {
        let is_kept = param.kept.iter().any(|name| place.mentions(name));
        if !(entry.takes.contains(&at) && (args.key.is_some() || is_kept)) {
            let left_out = param.names.iter().find(|name| place.mentions(name)).map(|name| name.unraw().to_string());
            let left_out = left_out.unwrap_or_else(|| root.to_owned());
            errors.at_span(
                span,
                format!(
                    "`{left_out}` is not in the key: calls that differ in it share one entry, and it has one set of tags; use \
                     what is in the key, or take it from the value: `{{value.{left_out}}}`"
                ),
            );
        }
    }
}

/// Checks a tag that depends on the value. Returns its kind, the part before the value, which is
/// known before the run.
fn check_of_value(tag: &Template, of_value: usize, params: &[Param], errors: &mut Errors) -> String {
    let span = tag.literal.span();
    if params.iter().flat_map(|param| &param.names).any(|name| name == VALUE) {
        errors.at_span(span, "`value` is a parameter, and in a tag what the function returns; rename the parameter");
    }
    if of_value < placeholders(tag).count() {
        errors.at_span(span, "a tag depends on arguments or on the value, not on both; write two tags");
    }
    match tag.pieces.first() {
        Some(Piece::Literal(text)) if text.contains(':') => text.split(':').next().unwrap_or_default().to_owned(),
        _ => {
            let fix = tag.literal.value();
            errors.at_span(
                span,
                format!("a tag that depends on the value begins with its kind and a `:`, such as `\"author:{fix}\"`"),
            );
            String::new()
        }
    }
}

/// Returns the list whose elements the tag uses, if any.
fn list<'a>(tag: &'a Template, errors: &mut Errors) -> Option<&'a [String]> {
    let mut lists = placeholders(tag).filter_map(|place| place.list.as_deref());
    let first = lists.next()?;
    if lists.any(|other| other != first) {
        errors.at(&tag.literal, "a tag can use the elements of only one list; write a tag for each");
    }
    Some(first)
}

/// Returns a name of generated code, with the template's span.
fn named(name: &str, span: Span) -> Ident {
    Ident::new(name, Span::mixed_site().located_at(span))
}

fn steps(tag: &Template, params: &[Param]) -> Vec<KeyStep> {
    let span = tag.literal.span();
    let one = |piece: &Piece| match piece {
        Piece::Literal(text) => KeyStep::Literal(text.clone()),
        Piece::Placeholder(place) if place.list.is_some() => {
            let element = path(&named(ELEMENT, span), &place.fields, span);
            if place.display { KeyStep::Displayed(element, span) } else { KeyStep::Placeholder(element, span) }
        }
        Piece::Placeholder(place) => step(place, params, span),
    };
    tag.pieces.iter().map(one).collect()
}

impl Context<'_> {
    /// Generates `.tag(|tag| ..)` for each tag that is known before the run.
    pub(crate) fn known_tags(&self) -> TokenStream {
        let mixed = self.mixed;
        let tags = self.plan.tags.iter().filter_map(|tag| match tag {
            Tag::Known(steps) => Some(steps),
            Tag::OfValue(..) => None,
        });
        tags.map(|steps| {
            let bindings = self.bindings(&steps.iter().filter_map(KeyStep::expression).cloned().collect());
            let steps = self.tag_steps(steps);
            quote_spanned!(mixed=> .tag(|__tag| { #bindings #steps }))
        })
        .collect()
    }

    /// Generates `.tags_of(kinds, |value, tags| ..)` if there are tags that depend on the value.
    pub(crate) fn tags_of_value(&self) -> Option<TokenStream> {
        let mixed = self.mixed;
        let (mut kinds, mut tags) = (Vec::new(), TokenStream::new());
        for tag in &self.plan.tags {
            let Tag::OfValue(OfValue { kind, steps, list }) = tag else { continue };
            if !kinds.contains(kind) {
                kinds.push(kind.clone());
            }
            let steps = self.tag_steps(steps);
            let add = quote_spanned!(mixed=> __tags.add(|__tag| { #steps }););
            let element = Ident::new(ELEMENT, mixed);
            tags.extend(match list {
                Some(list) => quote_spanned!(mixed=> for #element in #list { #add }),
                None => add,
            });
        }
        let value = Ident::new(VALUE, mixed);
        (!kinds.is_empty()).then(|| quote_spanned!(mixed=> .tags_of(&[#(#kinds),*], |#value, __tags| { #tags })))
    }

    fn tag_steps(&self, steps: &[KeyStep]) -> TokenStream {
        let (mixed, krate) = (self.mixed, &self.plan.krate);
        let step = |step: &KeyStep| match step {
            KeyStep::Literal(text) => quote_spanned!(mixed=> __tag.literal(#text);),
            KeyStep::Displayed(expression, span) => {
                quote_spanned!(mixed.located_at(*span)=> __tag.placeholder(&#krate::__private::Displayed(&#expression));)
            }
            KeyStep::Placeholder(expression, span)
            | KeyStep::Member(expression, span)
            | KeyStep::Unnamed(expression, span) => {
                quote_spanned!(mixed.located_at(*span)=> __tag.placeholder(&#expression);)
            }
        };
        steps.iter().map(step).collect()
    }
}
