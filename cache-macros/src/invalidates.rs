//! Implements `#[invalidates(..)]`: fences the named entries and tags before the body runs, and
//! invalidates them after it.
//!
//! The body moves into an `async` block within the function itself. So the function may be in any
//! `impl`, and its names and types stay unchanged.

mod args;

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::visit::Visit;
use syn::{Expr, Path, ReturnType, Type};

use self::args::{Args, Entry};
use crate::args::{Lifetime, Template};
use crate::errors::Errors;
use crate::placeholders::{names_no_parameter, placeholders, step};
use crate::plan::KeyStep;
use crate::signature::{self, Function, Param};
use crate::template::Piece;

pub(crate) fn expand(args: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let args = Args::parse(args, &mut errors);
    let function: Function = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            if item.clone().into_iter().any(|token| token.to_string() == "fn") {
                errors.push(error);
            } else {
                errors.at(&item, "`#[invalidates]` goes on the `async fn` that writes");
            }
            let errors = errors.into_tokens();
            return quote!(#errors #item);
        }
    };
    let params = signature::params(&function, &[]);
    check(&function, &mut errors);
    let has_self = function.receiver().is_some();
    args.tags.iter().for_each(|tag| check_tag(tag, &params, has_self, &mut errors));
    if errors.is_empty() {
        return write(&args, &function, &params);
    }
    let mut tokens = errors.into_tokens();
    function.to_tokens(&mut tokens);
    tokens
}

fn check(function: &Function, errors: &mut Errors) {
    let sig = &function.sig;
    if sig.asyncness.is_none() {
        errors.at(sig.fn_token, "`#[invalidates]` needs an async function; write `async fn`");
    }
    if let TokenTree::Punct(semicolon) = &function.body {
        errors.at(semicolon, "`#[invalidates]` needs a body; put it on the function of the `impl`");
    }
    if let Some(Type::Never(never)) = function.returned() {
        errors.at(never, "the function never returns, so nothing would ever be invalidated");
    }
    if let Some(attr) = signature::attribute(function, "cached") {
        errors.at(attr, signature::BOTH);
    }
    let helpers = function.helper_errors.iter().map(syn::Error::span);
    for span in function.skipped.iter().map(|(_, span)| *span).chain(helpers) {
        errors.at_span(span, "this belongs to `#[cached]`; remove it");
    }
}

/// Checks a tag. It must be known before the body runs.
fn check_tag(tag: &Template, params: &[Param], has_self: bool, errors: &mut Errors) {
    let span = tag.literal.span();
    for place in placeholders(tag) {
        let is_param = params.iter().flat_map(|param| &param.names).any(|name| place.mentions(name));
        if has_self && place.is_of("self") {
            if place.fields.is_empty() && place.computed.is_none() {
                errors.at_span(span, "`{self}` is the whole object; name a field that tells it apart: `{self.tenant}`");
            }
        } else if !is_param && (place.is_of("value") || place.is_of("result")) {
            let message =
                "what the function returns is not known before it runs, when the fence is raised; use its arguments";
            errors.at_span(span, message);
        } else if !is_param {
            errors.at_span(span, names_no_parameter(place, params, has_self));
        }
    }
}

fn write(args: &Args, function: &Function, params: &[Param]) -> TokenStream {
    let mixed = Span::mixed_site();
    let default: Path = syn::parse_quote!(::cache_core);
    let krate = args.crate_path.as_ref().unwrap_or(&default);
    let private = quote_spanned!(mixed=> #krate::__private);
    let (new, on) = match &args.cache {
        None => (quote_spanned!(mixed=> #private::Write::new()), None),
        Some(cache) => {
            let new = quote_spanned! {mixed=>
                let __cache: &#krate::Cache = #cache;
                #private::Write::on(__cache)
            };
            (new, Some(quote_spanned!(mixed=> .on(__cache))))
        }
    };
    let entries = args.entries.iter().map(|entry| {
        let Entry { function, arguments } = entry;
        let arguments = arguments.iter().map(|argument| match argument {
            Expr::Path(_) | Expr::Field(_) => {
                let at = mixed.located_at(syn::spanned::Spanned::span(argument));
                quote_spanned!(at=> #private::argument(&#argument))
            }
            other => other.to_token_stream(),
        });
        quote_spanned!(mixed.located_at(entry.span())=> .entry(#function(#(#arguments),*) #on))
    });
    let tags = args.tags.iter().map(|tag| {
        let steps = tag.pieces.iter().map(|piece| match piece {
            Piece::Literal(text) => quote_spanned!(mixed=> __tag.literal(#text);),
            Piece::Placeholder(place) => {
                let span = tag.literal.span();
                let at = mixed.located_at(span);
                match step(place, params, span) {
                    KeyStep::Displayed(expression, _) => {
                        quote_spanned!(at=> __tag.placeholder(&#private::Displayed(&#expression));)
                    }
                    other => {
                        let expression = other.expression();
                        quote_spanned!(at=> __tag.placeholder(&#expression);)
                    }
                }
            }
        });
        quote_spanned!(mixed=> .tag(|__tag| { #(#steps)* }))
    });
    let all = args.all.iter().map(|cached| quote_spanned!(mixed=> .all(#cached())));
    let limit = args.limit.as_ref().and_then(|limit: &Lifetime| limit.to_expression(mixed));
    let limit = limit.map(|limit| quote_spanned!(mixed=> .limit(#limit)));
    let always = args.always.then(|| quote_spanned!(mixed=> .always()));
    let (edge, body) = (return_edge(function), &function.body);
    let Function { attrs, vis, default, sig, .. } = function;
    quote_spanned! {mixed=>
        #(#attrs)*
        #vis #default #sig {
            let __write = {
                #new #(#entries)* #(#tags)* #(#all)* #limit #always
            };
            let __begun = __write.begin().await;
            let __returned = async move { #edge #body }.await;
            let __happened = {
                use #private::via::*;
                (&#private::Returned(&__returned)).happened()
            };
            __begun.end(__happened).await;
            __returned
        }
    }
}

/// Annotates the block's type, as a function's signature would. `?` then knows the error type, and
/// a type error is reported on its own line.
fn return_edge(function: &Function) -> Option<TokenStream> {
    struct Unnamed(bool);
    impl<'ast> Visit<'ast> for Unnamed {
        fn visit_type_impl_trait(&mut self, _: &'ast syn::TypeImplTrait) {
            self.0 = true;
        }
    }
    let ReturnType::Type(_, returned) = &function.sig.output else { return None };
    let mut unnamed = Unnamed(false);
    unnamed.visit_type(returned);
    (!unnamed.0).then(|| {
        quote_spanned! {Span::mixed_site()=>
            #[allow(
                unknown_lints, unreachable_code, clippy::diverging_sub_expression, clippy::empty_loop,
                clippy::let_unit_value, clippy::needless_return, reason = "never run: it says the type",
            )]
            if false {
                let __returned: #returned = loop {};
                return __returned;
            }
        }
    })
}
