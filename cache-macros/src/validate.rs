//! Checks the options against the signature and makes a [`Plan`], or reports errors.

use proc_macro2::Span;
use quote::ToTokens;
use syn::visit::Visit;
use syn::{Expr, Ident};

use crate::args::{Args, Deadline, Lifetime, Local, Template};
use crate::batch;
use crate::checks;
use crate::enclosing;
use crate::errors::Errors;
use crate::placeholders::{names_no_parameter, no_such_parameter, placeholders, refuse_lists, step};
use crate::plain;
use crate::plan::{Entry, Freshness, FunctionOptions, Home, KeyStep, Plan, Run};
use crate::signature::{self, Function, Param};
use crate::tags;
use crate::template::Piece;

/// Returns the plan if there are no errors.
pub(crate) fn plan(mut args: Args, function: &Function, errors: &mut Errors) -> Option<Plan> {
    let plain = plain::take(&mut args, errors);
    signature::check(function, errors);
    checks::returned(function, errors);
    if let Some(attr) = signature::attribute(function, "invalidates") {
        errors.at(attr, signature::BOTH);
    }
    function.helper_errors.iter().for_each(|error| errors.push(error.clone()));
    let params = signature::params(function, &args.skip);
    check_skip(&args, function, &params, errors);
    checks::transactions(&args, function, &params, errors);
    check_self(&args, function, errors);
    check_expressions(&args, function, &params, errors);
    let owns_everything = signature::owns_everything(function, &params);
    if args.batch.is_none() {
        check_background(&args, owns_everything, errors);
    }
    let batch = batch::find(&args, &params, errors);
    batch.iter().for_each(|batch| batch::check_key(&args, batch, errors));
    let home = home(&args, function, errors);
    let key = match &args.key {
        Some(key) => {
            refuse_lists(key, errors);
            from_template(key, &args, function, &params, batch.as_ref().map(|batch| &batch.ident), errors)
        }
        None => from_params(&params),
    };
    if !errors.is_empty() {
        return None;
    }
    let entry = entry(&args, function, &params);
    let tags = tags::plan(&args, &params, &entry, errors);
    let run = if owns_everything && !args.refresh_in_caller { Run::Shared } else { Run::Here };
    let version = args.version.as_ref().and_then(|version| version.base10_parse().ok());
    Some(Plan {
        krate: args.crate_path.unwrap_or_else(|| syn::parse_quote!(::cache_core)),
        home,
        returned: function.returned()?.clone(),
        key,
        tags,
        entry,
        run,
        batch,
        params,
        plain,
        function: FunctionOptions { name: args.name.map(|name| name.value()), version },
        codec: args.codec,
        flight: args.flight,
        local: args.local,
        ttl: args.ttl,
        negative_ttl: args.negative_ttl,
        negative_ttl_at: args.written.iter().find(|option| *option == "negative_ttl").map(Ident::span),
        freshness: Freshness {
            jitter: args.jitter,
            stale_while_revalidate: args.stale_while_revalidate,
            stale_if_error: args.stale_if_error,
            refresh_in_caller: args.refresh_in_caller,
            soft_timeout: args.soft_timeout,
            deadline: args.deadline,
            early: args.early,
        },
        cache: args.cache,
        cache_if: args.cache_if,
        bypass: args.bypass,
    })
}

/// Refuses options that run in the background if the function borrows from its caller.
fn check_background(args: &Args, owns_everything: bool, errors: &mut Errors) {
    let early_is_on = args.early.as_ref().is_some_and(|early| early.to_token_stream().to_string() != "0.0");
    let by_value = "take the arguments by value (an `Arc`, or a handle that is cheap to clone)";
    for option in &args.written {
        let what = match option.to_string().as_str() {
            "stale_while_revalidate" => "the refresh runs in the background",
            "early" if early_is_on => "the early refresh runs in the background",
            "soft_timeout" if args.refresh_in_caller => {
                errors.at(
                    option,
                    format!(
                        "with `refresh = \"caller\"` a compute ends with its caller, so there is no `soft_timeout`; \
                         remove one of them, or {by_value} and refresh in the background"
                    ),
                );
                continue;
            }
            "soft_timeout" if !owns_everything => {
                errors.at(
                    option,
                    format!("the compute continues in the background and cannot borrow from its caller; {by_value}"),
                );
                continue;
            }
            _ => continue,
        };
        if !owns_everything && !args.refresh_in_caller {
            errors.at(
                option,
                format!(
                    "{what} and cannot borrow from its caller; {by_value}, or write `refresh = \"caller\"`: \
                     then one caller computes, and all others get the value at once"
                ),
            );
        }
    }
}

/// Checks that every name in `skip(..)` is a parameter and is given once.
fn check_skip(args: &Args, function: &Function, params: &[Param], errors: &mut Errors) {
    let has_self = function.receiver().is_some();
    for (position, name) in args.skip.iter().enumerate() {
        if args.skip.iter().take(position).any(|earlier| earlier == name) {
            errors.at(name, format!("`{name}` is skipped twice; remove one of them"));
            continue;
        }
        let is_self = has_self && name == "self";
        if !is_self && !params.iter().any(|param| param.names.contains(name)) {
            errors.at(name, no_such_parameter(&name.to_string(), params, has_self));
        }
    }
    for (position, span) in &function.skipped {
        let input = function.sig.inputs.iter().nth(*position);
        let names: Vec<Ident> = match input {
            Some(syn::FnArg::Receiver(receiver)) => vec![Ident::new("self", receiver.self_token.span)],
            _ => {
                let typed = position.checked_sub(usize::from(has_self)).and_then(|at| params.get(at));
                typed.map(|param| param.names.clone()).unwrap_or_default()
            }
        };
        if let Some(name) = names.iter().find(|name| args.skip.contains(name)) {
            errors.at_span(
                *span,
                format!("`{name}` is skipped twice; remove `#[cached(skip)]`, or the name from `skip(..)`"),
            );
        }
    }
}

/// Checks that a method says how `self` relates to the key.
fn check_self(args: &Args, function: &Function, errors: &mut Errors) {
    let Some(receiver) = function.receiver() else { return };
    let in_template = args.key.as_ref().is_some_and(|key| placeholders(key).any(|place| place.is_of("self")));
    let skipped =
        args.skip.iter().any(|name| name == "self") || function.skipped.iter().any(|(position, _)| *position == 0);
    if !in_template && !skipped {
        errors.at(
            receiver,
            "is `self` part of the key? If all values of this type give the same result, write `skip(self)`; \
             if not, name what tells them apart: `key = \"{self.tenant}:{id}\"`",
        );
    }
    if let Some(token) = &args.method {
        errors.at(token, "`method` is for associated functions without `self`; remove it");
    }
}

/// Checks that durations do not depend on arguments, and that no expression of the arguments is a
/// closure.
fn check_expressions(args: &Args, function: &Function, params: &[Param], errors: &mut Errors) {
    let names: Vec<&Ident> = params.iter().flat_map(|param| &param.names).collect();
    let local = match &args.local {
        Some(Local::For(lifetime)) => Some(lifetime),
        _ => None,
    };
    let deadline = match &args.deadline {
        Some(Deadline::After(after)) => Some(after),
        _ => None,
    };
    for (option, lifetime) in [
        ("ttl", args.ttl.as_ref()),
        ("negative_ttl", args.negative_ttl.as_ref()),
        ("stale_while_revalidate", args.stale_while_revalidate.as_ref()),
        ("stale_if_error", args.stale_if_error.as_ref()),
        ("soft_timeout", args.soft_timeout.as_ref()),
        ("deadline", deadline),
        ("local", local),
    ] {
        let Some(Lifetime::Expression(expression)) = lifetime else { continue };
        let self_ident = Ident::new("self", Span::call_site());
        let mut known = names.clone();
        if function.receiver().is_some() {
            known.push(&self_ident);
        }
        if signature::mentions(&expression.to_token_stream(), known.iter().copied()) {
            errors.at(
                expression,
                format!("`{option}` cannot depend on the arguments; use a constant, or a closure of the value: `ttl = |value| ..`"),
            );
        }
    }
    if let Some(expression @ Expr::Closure(_)) = &args.bypass {
        errors.at(expression, "`bypass` is an expression of the arguments, not a closure: `bypass = fresh`");
    }
    if let Some(expression @ Expr::Lit(_)) = &args.cache_if {
        errors.at(expression, "`cache_if` is a closure of the value: `cache_if = |value| value.is_final()`");
    }
    if let Some(expression @ (Expr::Closure(_) | Expr::Lit(_))) = &args.cache {
        errors.at(expression, "`cache` is an expression that gives a `&Cache`: `cache = &state.cache`");
    }
}

fn home(args: &Args, function: &Function, errors: &mut Errors) -> Home {
    struct MentionsSelf(bool);
    impl<'ast> Visit<'ast> for MentionsSelf {
        fn visit_ident(&mut self, ident: &'ast Ident) {
            self.0 |= ident == "Self";
        }
    }
    let mut mentions_self = MentionsSelf(false);
    mentions_self.visit_signature(&function.sig);
    if function.receiver().is_some() || args.method.is_some() || mentions_self.0 {
        enclosing::refuse_trait_impl(function, errors);
        if let Some(name) = &args.companion {
            errors.at(name, "a method has no companion type: its companions are called after it; remove `companion`");
        }
        return Home::Impl;
    }
    enclosing::refuse_associated_function(function, errors);
    Home::Companion(args.companion.clone().unwrap_or_else(|| function.sig.ident.clone()))
}

/// Returns a key step for each name that the body can see, in order.
fn from_params(params: &[Param]) -> Vec<KeyStep> {
    struct Unnamed(bool);
    impl<'ast> Visit<'ast> for Unnamed {
        fn visit_type_impl_trait(&mut self, _: &'ast syn::TypeImplTrait) {
            self.0 = true;
        }
    }
    let steps = params.iter().flat_map(|param| {
        let mut unnamed = Unnamed(false);
        unnamed.visit_type(&param.ty);
        param.kept.iter().map(move |name| {
            let (expression, span) = (name.to_token_stream(), name.span());
            if unnamed.0 { KeyStep::Unnamed(expression, span) } else { KeyStep::Member(expression, span) }
        })
    });
    steps.collect()
}

fn from_template(
    key: &Template,
    args: &Args,
    function: &Function,
    params: &[Param],
    ids: Option<&Ident>,
    errors: &mut Errors,
) -> Vec<KeyStep> {
    let span = key.literal.span();
    let mut are_known = true;
    let has_self = function.receiver().is_some();
    let mut steps = Vec::new();
    for piece in &key.pieces {
        let placeholder = match piece {
            Piece::Literal(text) => {
                steps.push(KeyStep::Literal(text.clone()));
                continue;
            }
            Piece::Placeholder(placeholder) => placeholder,
        };
        let is_self = has_self && placeholder.is_of("self");
        let mentioned = |name: &&Ident| placeholder.mentions(name);
        let mut named =
            params.iter().flat_map(|param| param.names.iter().filter(mentioned).map(move |name| (param, name)));
        let first = named.next();
        if !is_self && first.is_none() {
            errors.at_span(span, names_no_parameter(placeholder, params, has_self));
            are_known = false;
            continue;
        }
        for (param, root) in first.into_iter().chain(named) {
            if let Some(name) = args.skip.iter().find(|name| *name == root) {
                errors.at(
                    name,
                    format!(
                        "`{root}` is in the key's template, so it cannot be skipped; remove it from one of the two"
                    ),
                );
            } else if param.skipped {
                errors.at_span(
                    span,
                    format!("`{root}` is skipped, so it cannot be in the key; remove it, or `#[cached(skip)]`"),
                );
            }
        }
        if is_self && placeholder.fields.is_empty() && placeholder.computed.is_none() {
            errors.at_span(span, "`{self}` is the whole object; name a field that tells it apart: `{self.tenant}`");
        }
        steps.push(step(placeholder, params, span));
    }
    // Only if all placeholders are known: an unknown one may be a misspelled argument, which would
    // then be reported twice.
    if are_known {
        checks::left_out(key, params, ids, errors);
    }
    steps
}

fn entry(args: &Args, function: &Function, params: &[Param]) -> Entry {
    let in_key = |param: &Param| match &args.key {
        Some(key) => placeholders(key).any(|place| param.names.iter().any(|name| place.mentions(name))),
        None => !param.kept.is_empty(),
    };
    let takes: Vec<usize> = params.iter().enumerate().filter(|(_, param)| in_key(param)).map(|(at, _)| at).collect();
    let cache = args.cache.as_ref().map(Expr::to_token_stream).unwrap_or_default();
    let not_taken = params.iter().enumerate().filter(|(at, _)| !takes.contains(at)).flat_map(|(_, param)| &param.names);
    let bound = !signature::mentions(&cache, not_taken);
    let self_ident = Ident::new("self", Span::call_site());
    let self_in_key = args.key.as_ref().is_some_and(|key| placeholders(key).any(|place| place.is_of("self")));
    let self_in_cache = bound && signature::mentions(&cache, [&self_ident]);
    let takes_self = function.receiver().is_some() && (self_in_key || self_in_cache);
    Entry { takes_self, takes, bound }
}
