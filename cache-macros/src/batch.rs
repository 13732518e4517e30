//! Batch functions: which parameter holds the ids, which options are refused, and the generated
//! calls.

use proc_macro2::TokenStream;
use quote::{ToTokens as _, quote_spanned};
use syn::ext::IdentExt as _;
use syn::{GenericArgument, Ident, PathArguments, Type};

use crate::args::Args;
use crate::errors::Errors;
use crate::expand::Context;
use crate::generics;
use crate::placeholders::{no_such_parameter, placeholders};
use crate::plan::{Batch, KeyStep, Tag};
use crate::signature::{self, Param};

/// Options for serving stale values. A batch never does that.
const ONE_KEY_ONLY: [&str; 4] = ["stale_while_revalidate", "refresh", "soft_timeout", "early"];

/// Finds the parameter of the ids.
pub(crate) fn find(args: &Args, params: &[Param], errors: &mut Errors) -> Option<Batch> {
    let (token, named) = args.batch.as_ref()?;
    for option in args.written.iter().filter(|option| ONE_KEY_ONLY.iter().any(|one| option == one)) {
        errors.at(
            option,
            format!(
                "a batch refreshes nothing in the background, so it has no `{option}`; remove it, or write it on a function of one id \
                 with the same `name`"
            ),
        );
    }
    if let Some(name) = named {
        let called = |param: &Param| param.names.iter().any(|known| known.unraw() == name.unraw());
        let Some((at, param)) = params.iter().enumerate().find(|(_, param)| called(param)) else {
            errors.at(name, no_such_parameter(&name.to_string(), params, false));
            return None;
        };
        let found = list(at, param);
        if found.is_none() {
            errors.at(&param.ty, format!("`{name}` must hold the ids of the batch; make it `&[Id]` or `Vec<Id>`"));
        } else if param.kept.is_empty() {
            errors.at(
                name,
                format!("`{name}` holds the ids of the batch, so it cannot be skipped; remove it from `skip`"),
            );
        }
        return found;
    }
    let lists = || params.iter().enumerate().filter(|(_, param)| !param.kept.is_empty());
    let found: Vec<(Batch, &Param)> = lists().filter_map(|(at, param)| Some((list(at, param)?, param))).collect();
    if found.len() > 1 {
        let names: Vec<String> = found.iter().map(|(_, param)| format!("`{}`", param.ident)).collect();
        let first = found.first().map(|(_, param)| param.ident.to_string()).unwrap_or_default();
        errors.at(token, format!("{} are lists; say which one holds the ids: `batch({first})`", names.join(" and ")));
        return None;
    }
    let found = found.into_iter().next().map(|(batch, _)| batch);
    if found.is_none() {
        errors.at(
            token,
            "a batch takes a list of ids; add a parameter `ids: &[Id]` or `ids: Vec<Id>`, and do not skip it",
        );
    }
    found
}

/// Checks that the key template names the ids, because each id is an entry of its own.
pub(crate) fn check_key(args: &Args, batch: &Batch, errors: &mut Errors) {
    let Some(key) = &args.key else { return };
    let ident = &batch.ident;
    if !placeholders(key).any(|place| place.mentions(ident)) {
        errors.at(
            &key.literal,
            format!(
                "the key does not name `{ident}`, so all ids would share one entry; add `{{{ident}}}`, which is one id"
            ),
        );
    }
}

/// Returns the batch if the parameter is a `&[T]` or `Vec<T>` with a plain name.
fn list(at: usize, param: &Param) -> Option<Batch> {
    if param.pattern.is_some() {
        return None;
    }
    let (element, owned) = match &param.ty {
        Type::Reference(reference) => match &*reference.elem {
            Type::Slice(slice) => ((*slice.elem).clone(), false),
            _ => return None,
        },
        Type::Path(path) => {
            let last = path.path.segments.last().filter(|last| last.ident == "Vec")?;
            let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
            let Some(GenericArgument::Type(element)) = arguments.args.first() else { return None };
            (element.clone(), true)
        }
        _ => return None,
    };
    Some(Batch { at, ident: param.ident.clone(), element, owned })
}

impl Context<'_> {
    /// Generates the batch call: looks up the ids and runs the function for the missing ones.
    pub(crate) fn batch_run(&self, batch: &Batch) -> TokenStream {
        let mixed = self.mixed;
        let asked = self.asked_of_batch(batch, "look_up_all");
        let how = self.how_batch_runs(batch);
        quote_spanned! {mixed=>
            match #asked {
                ::core::result::Result::Ok(__hits) => return __hits,
                ::core::result::Result::Err(__misses) => __misses.run(#how),
            }
        }
    }

    /// Generates the call that recomputes all ids.
    pub(crate) fn batch_refresh(&self, batch: &Batch) -> TokenStream {
        let asked = self.asked_of_batch(batch, "refresh_all");
        let how = self.how_batch_runs(batch);
        quote_spanned!(self.mixed=> #asked.run(#how).await)
    }

    /// Generates the look-up of the ids by their keys.
    fn asked_of_batch(&self, batch: &Batch, method: &str) -> TokenStream {
        let Batch { ident, element, .. } = batch;
        let (cached, key, krate) = (self.call_cached(), self.key_steps(), &self.plan.krate);
        let method = Ident::new(method, self.at_returned());
        quote_spanned! {self.mixed=>
            #cached.#method(
                __cache,
                &#ident,
                |#ident: &#element, __key: &mut #krate::key::KeyWriter<'_>| { #key },
            )
        }
    }

    /// Generates the arguments of the call: whether all ids have the same rules, the rules of one
    /// id, and the function.
    fn how_batch_runs(&self, batch: &Batch) -> TokenStream {
        let Batch { ident, element, .. } = batch;
        let (rules, function) = (self.call_rules(), self.batch_function(batch));
        let alike = !self.tags_depend_on(ident);
        // A named but unused parameter would cause a warning.
        let of_rules = if alike { quote_spanned!(self.mixed=> _) } else { ident.to_token_stream() };
        quote_spanned!(self.mixed=> #alike, |#of_rules: &#element| #rules, #function)
    }

    /// Generates the closure that calls the body with some of the ids. The closure may be called
    /// several times, so it clones the other arguments for each call.
    fn batch_function(&self, batch: &Batch) -> TokenStream {
        let mixed = self.mixed;
        let (home, body) = self.body_path();
        let element = &batch.element;
        let turbofish = generics::turbofish(&self.function().sig.generics);
        let this = Ident::new("__this", mixed);
        let receiver = self.function().receiver().map(|receiver| receiver.self_token.to_token_stream());
        let others = self.plan.params.iter().enumerate().filter(|(at, _)| *at != batch.at);
        let clones = others.map(|(_, param)| {
            let ident = &param.ident;
            quote_spanned!(mixed.located_at(ident.span())=> let #ident = ::core::clone::Clone::clone(&#ident);)
        });
        let clone_of_self =
            receiver.as_ref().map(|own| quote_spanned!(mixed=> let #this = ::core::clone::Clone::clone(&#own);));
        let params = self.plan.params.iter().enumerate().map(|(at, param)| match (at == batch.at, batch.owned) {
            (true, true) => quote_spanned!(mixed=> __ids),
            (true, false) => quote_spanned!(mixed=> &__ids),
            (false, _) => param.ident.to_token_stream(),
        });
        let arguments = receiver.iter().map(|_| this.to_token_stream()).chain(params);
        // Report a body that is not `Send` at the function's name.
        let at = mixed.located_at(self.function().sig.ident.span());
        let call =
            quote_spanned!(at=> ::std::boxed::Box::pin(async move { #home::#body #turbofish(#(#arguments),*).await }));
        quote_spanned! {mixed=>
            |__ids: ::std::vec::Vec<#element>| {
                #clone_of_self
                #(#clones)*
                #call
            }
        }
    }

    /// Returns whether the tags known before the run differ between ids.
    fn tags_depend_on(&self, ident: &Ident) -> bool {
        let mentions =
            |step: &KeyStep| step.expression().is_some_and(|expression| signature::mentions(expression, [ident]));
        self.plan.tags.iter().any(|tag| match tag {
            Tag::Known(steps) => steps.iter().any(mentions),
            Tag::OfValue(..) => false,
        })
    }
}
