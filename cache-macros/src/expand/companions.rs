//! Generates the companions: `user::entry`, `user::uncached` and `user::refresh` of a free
//! function, or `user_entry` and so on of a method.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::{Attribute, FnArg, GenericParam, Ident, Receiver, Signature};

use super::{Context, Names, expectation_as_allowance, goes_everywhere};
use crate::args::{Codec, Deadline, Flight, Lifetime, Local};
use crate::generics;
use crate::plan::{Freshness, Home, Plan};
use crate::signature::{self, Param};

/// Generates the companion type with its functions, or a method's companion functions.
pub(super) fn all(context: &Context<'_>) -> TokenStream {
    let Context { plan, function, mixed, .. } = context;
    let cfg: Vec<&Attribute> = function.attrs.iter().filter(|attr| attr.path().is_ident("cfg")).collect();
    let functions: [TokenStream; 7] = [
        context.cached(),
        context.rules(),
        context.entry(),
        context.uncached(),
        context.body(),
        context.refresh(),
        context.invalidate_all(),
    ];
    let allowance = quote_spanned! {*mixed=>
        #[allow(dead_code, unreachable_pub, clippy::missing_errors_doc, clippy::missing_panics_doc, reason = "generated")]
    };
    match &plan.home {
        Home::Companion(companion) => {
            let vis = &function.vis;
            let docs = format!(
                " The cache entries of [`{name}()`]: `{companion}::entry(..)` is the entry of the arguments in its key.",
                name = context.plain_name(),
            );
            let Names { module, home, .. } = &context.names;
            let taken = taken(companion);
            quote_spanned! {*mixed=>
                #(#cfg)*
                #[doc(hidden)]
                #[allow(
                    non_camel_case_types, non_snake_case, dead_code, missing_docs, unreachable_pub, missing_debug_implementations,
                    missing_copy_implementations, reason = "a companion is only a place for functions",
                )]
                mod #module {
                    pub struct #companion {}
                }
                #(#cfg)*
                #[doc = #docs]
                #[allow(non_camel_case_types, dead_code, unreachable_pub, reason = "generated")]
                #vis type #companion = #home;
                // The constant's name shows the fix if `companion` is not the type above.
                #(#cfg)*
                const _: () = #companion::#taken;
                #(#cfg)*
                #allowance
                impl #home {
                    #[doc(hidden)]
                    #[allow(non_upper_case_globals, reason = "a sentence")]
                    #vis const #taken: () = ();
                    #(#functions)*
                }
            }
        }
        Home::Impl => functions.iter().map(|function| quote!(#(#cfg)* #allowance #function)).collect(),
    }
}

impl Context<'_> {
    /// Generates the function that describes the cached function and its types.
    fn cached(&self) -> TokenStream {
        let Self { plan, mixed, names, of_instance, .. } = self;
        let krate = &plan.krate;
        let returned = self.one();
        let ident = &names.cached;
        let (generics, where_clause) = (of_instance.declare(), of_instance.where_clause());
        let plain = self.plain_name();
        let named = plan.function.name.as_ref().map(|name| quote_spanned!(*mixed=> .named(#name)));
        let version = plan.function.version.map(proc_macro2::Literal::u64_unsuffixed);
        let version = version.map(|version| quote_spanned!(*mixed=> .version(#version)));
        let codec = match &plan.codec {
            None if plan.plain => quote_spanned!(*mixed=> #krate::codec::Json),
            None => quote_spanned!(*mixed=> #krate::__private::DefaultCodec),
            Some(Codec::BuiltIn(name)) => {
                let name = Ident::new(name, *mixed);
                quote_spanned!(*mixed=> #krate::codec::#name)
            }
            Some(Codec::Own(own)) => own.to_token_stream(),
        };
        let at = self.at_returned();
        let returns = if plan.flight == Flight::None {
            quote_spanned!(at=> __returns.unshared::<#codec, _>((&&__returns.payload()).seen()))
        } else {
            quote_spanned!(at=> __returns.with::<#codec, _, _>((&&__returns.payload()).seen(), (&&&&&__returns.error()).sharing()))
        };
        let told = match &plan.freshness.deadline {
            Some(Deadline::After(_)) => "overdue_told",
            _ => "overdue",
        };
        let told = Ident::new(told, at);
        let returns = quote_spanned!(at=> #returns.overdue((&&__returns.error()).#told()));
        let may_be_cached = quote_spanned!(at=> (&__returns.payload()).may_be_cached(););
        let (constructor, owner) = match &plan.home {
            Home::Companion(_) => ("function", names.home.clone()),
            Home::Impl => ("method", names.home.clone()),
        };
        let constructor = Ident::new(constructor, *mixed);
        let local = match &plan.local {
            None => None,
            Some(Local::Off) => Some(quote_spanned!(*mixed=> Off)),
            Some(Local::For(longest)) => {
                longest.to_expression(*mixed).map(|longest| quote_spanned!(*mixed=> For(#longest)))
            }
        };
        let local = local.map(|tier| quote_spanned!(*mixed=> .local(#krate::options::LocalTier::#tier)));
        let (instance, constants) = (self.instance(), self.constant_types());
        let (form, vis) = (self.form(), &self.function.vis);
        let cached = quote_spanned! {*mixed=>
            #krate::__private::Cached::#constructor(&FUNCTION, ::core::any::type_name::<#owner>(), #returns) #instance #local
        };
        let (of, cached) = if plan.plain {
            let of = quote_spanned!(*mixed=> #krate::__private::PlainCached);
            (of.clone(), quote_spanned!(*mixed=> #of::new(#cached)))
        } else {
            (quote_spanned!(*mixed=> #krate::__private::Cached), cached)
        };
        // `#[invalidates(all(..))]` names this function too.
        quote_spanned! {*mixed=>
            #[doc(hidden)]
            #vis fn #ident #generics() -> #of<#returned> #where_clause {
                use #krate::__private::via::*;
                static FUNCTION: #krate::__private::Function = #krate::__private::Function::new(#plain) #named #version;
                #constants
                let __returns = #form;
                #may_be_cached
                #cached
            }
        }
    }

    /// Generates the types of this instance of a generic function.
    fn instance(&self) -> Option<TokenStream> {
        let mixed = self.mixed;
        let types = self.instance.iter().map(|param| match param {
            GenericParam::Const(param) if param.ty.to_token_stream().to_string() == "usize" => {
                let ident = &param.ident;
                quote_spanned!(mixed=> [(); #ident])
            }
            GenericParam::Const(param) => {
                let (of, ident) = (constant_type(&param.ident, mixed), &param.ident);
                quote_spanned!(mixed=> #of<#ident>)
            }
            other => generics::ident(other).to_token_stream(),
        });
        let types: Vec<TokenStream> = types.collect();
        let of = match types.as_slice() {
            [] => return None,
            [alone] => alone.clone(),
            // A function's parameters may be unsized, the members of a tuple may not.
            several => quote_spanned!(mixed=> fn(#(#several),*)),
        };
        Some(quote_spanned!(mixed=> .instance(::core::any::type_name::<#of>())))
    }

    /// Declares types that distinguish constant parameters that cannot be array lengths.
    fn constant_types(&self) -> TokenStream {
        let types = self.instance.iter().filter_map(|param| match param {
            GenericParam::Const(param) if param.ty.to_token_stream().to_string() != "usize" => {
                let (of, ty) = (constant_type(&param.ident, self.mixed), &param.ty);
                Some(quote_spanned!(self.mixed=> struct #of<const VALUE: #ty>;))
            }
            _ => None,
        });
        types.collect()
    }

    /// Asks for the form of the return type at its span, so that errors about it appear there.
    fn form(&self) -> TokenStream {
        let Plan { krate, returned, batch, .. } = self.plan;
        if batch.is_some() {
            let probe = quote_spanned!(self.at_returned()=> #krate::__private::BatchProbe::<_, _>::of::<#returned>());
            return quote_spanned!(self.at_returned()=> (&#probe).returns());
        }
        quote_spanned!(self.at_returned()=> (&&&#krate::__private::Probe::<#returned>::new()).returns())
    }

    /// Generates the function that returns the options.
    fn rules(&self) -> TokenStream {
        let Self { plan, mixed, names, of_instance, .. } = self;
        let krate = &plan.krate;
        let ident = &names.rules;
        let (generics, where_clause) = (of_instance.declare(), of_instance.where_clause());
        let duration = |lifetime: &Option<Lifetime>| lifetime.as_ref().and_then(|ttl| ttl.to_expression(*mixed));
        let ttl = duration(&plan.ttl).map(|ttl| quote_spanned!(*mixed=> .ttl(#ttl)));
        let negative_ttl = duration(&plan.negative_ttl).map(|ttl| quote_spanned!(*mixed=> .negative_ttl(#ttl)));
        let flight = match plan.flight {
            Flight::Cluster => None,
            Flight::Process => Some(Ident::new("Process", *mixed)),
            Flight::None => Some(Ident::new("None", *mixed)),
        };
        let flight =
            flight.map(|scope| quote_spanned!(*mixed=> .single_flight(#krate::options::SingleFlightScope::#scope)));
        let freshness = self.freshness();
        let ttl_of = match &plan.ttl {
            Some(Lifetime::OfValue(closure)) => Some(quote_spanned!(*mixed=> .ttl_of(#closure))),
            _ => None,
        };
        let cache_if = plan.cache_if.as_ref().map(|closure| quote_spanned!(*mixed=> .cache_if(#closure)));
        let tags_of = self.tags_of_value();
        let (hidden, form) = (self.hidden(), self.form());
        let may_be_absent = plan.negative_ttl_at.map(|at| quote_spanned!(mixed.located_at(at)=> .may_be_absent()));
        quote_spanned! {*mixed=>
            #hidden
            // Called on a miss only. Kept out of line so that a hit stays short.
            #[cold]
            #[inline(never)]
            fn #ident #generics() -> #krate::__private::Rules #where_clause {
                use #krate::__private::via::*;
                let __options = #krate::EntryOptions::new() #ttl #negative_ttl #freshness #flight;
                #form #may_be_absent.rules(__options) #ttl_of #cache_if #tags_of .erase()
            }
        }
    }

    /// Generates the options for expiry, refresh and stale values.
    fn freshness(&self) -> TokenStream {
        let mixed = self.mixed;
        let krate = &self.plan.krate;
        let Freshness { jitter, refresh_in_caller, deadline, early, .. } = &self.plan.freshness;
        let Freshness { stale_while_revalidate, stale_if_error, soft_timeout, .. } = &self.plan.freshness;
        let durations = [
            ("stale_while_revalidate", stale_while_revalidate),
            ("stale_if_error", stale_if_error),
            ("soft_timeout", soft_timeout),
        ];
        let durations = durations.into_iter().filter_map(|(option, lifetime)| {
            let duration = lifetime.as_ref()?.to_expression(mixed)?;
            let option = Ident::new(option, mixed);
            Some(quote_spanned!(mixed=> .#option(#duration)))
        });
        let jitter = jitter.as_ref().map(|fraction| quote_spanned!(mixed=> .jitter(#fraction)));
        let early = early.as_ref().map(|beta| quote_spanned!(mixed=> .early(#beta)));
        let refresh = refresh_in_caller.then(|| quote_spanned!(mixed=> .refresh(#krate::options::RefreshBy::Caller)));
        let deadline = deadline.as_ref().map(|deadline| match deadline {
            Deadline::Off => quote_spanned!(mixed=> .deadline(#krate::options::Deadline::Off)),
            Deadline::After(after) => {
                let after = after.to_expression(mixed);
                quote_spanned!(mixed=> .deadline(#krate::options::Deadline::After(#after)))
            }
        });
        quote_spanned!(mixed=> #jitter #(#durations)* #refresh #deadline #early)
    }

    /// Generates `entry`, which returns the entry of the arguments in the key.
    fn entry(&self) -> TokenStream {
        let Self { plan, function, mixed, names, .. } = self;
        let krate = &plan.krate;
        let returned = self.one();
        let (ident, vis) = (&names.entry, &function.vis);
        let receiver: Option<Receiver> =
            plan.entry.takes_self.then(|| syn::parse_quote_spanned!(self.self_span()=> &self));
        let takes = |at: &usize| plan.entry.takes.contains(at);
        let mut params: Vec<(usize, Param)> =
            plan.params.iter().cloned().enumerate().filter(|(at, _)| takes(at)).collect();
        if let Some(batch) = &plan.batch {
            params.iter_mut().filter(|(at, _)| *at == batch.at).for_each(|(_, param)| param.ty = batch.element.clone());
        }
        let inputs = signature::inputs(receiver.as_ref(), params.iter().map(|(_, param)| param));
        let instance = self.instance.iter().map(|param| generics::ident(param));
        let kept = generics::keep(&function.sig.generics, &quote!(#inputs #returned #(#instance)*));
        let (generics, where_clause) = (kept.declare(), kept.where_clause());
        let (cached, rules, key) = (self.call_cached(), self.call_rules(), self.key());
        let attrs = self.companion_attrs();
        let (bound, unbound) = if plan.plain {
            (quote_spanned!(*mixed=> plain::PlainEntry), quote_spanned!(*mixed=> plain::UnboundPlainEntry))
        } else {
            (quote_spanned!(*mixed=> CachedEntry), quote_spanned!(*mixed=> entry::UnboundEntry))
        };
        if plan.entry.bound {
            let cache = self.cache();
            return quote_spanned! {*mixed=>
                /// Returns the entry of these arguments.
                #(#attrs)*
                #vis fn #ident #generics(#inputs) -> #krate::#bound<#returned> #where_clause {
                    let __cache: &#krate::Cache = #cache;
                    #cached.entry(__cache, #rules, #key)
                }
            };
        }
        quote_spanned! {*mixed=>
            /// Returns the entry of these arguments. Select its cache with `.on(&cache)`.
            #(#attrs)*
            #vis fn #ident #generics(#inputs) -> #krate::#unbound<#returned> #where_clause {
                #cached.unbound_entry(#rules, #key)
            }
        }
    }

    /// Generates the user's body under the user's signature, so that errors in it stay on their
    /// lines.
    fn uncached(&self) -> TokenStream {
        let Self { function, mixed, names, .. } = self;
        let vis = &function.vis;
        let mut signature = function.sig.clone();
        signature.ident = names.uncached.clone();
        self.allow_unused_in_body(&mut signature);
        let body = &function.body;
        let attrs = function.attrs.iter().filter(|attr| goes_everywhere(attr) && !attr.path().is_ident("cfg"));
        quote_spanned! {*mixed=>
            /// Runs the function without the cache.
            #(#attrs)*
            #vis #signature #body
        }
    }

    /// Generates the same function, declared to be `Send`. Otherwise a body that calls its function
    /// would be `Send` only if it is `Send`, a cycle that the compiler does not resolve.
    fn body(&self) -> TokenStream {
        let Self { plan, function, mixed, names, .. } = self;
        let (home, uncached, vis) = (&names.home, &names.uncached, &function.vis);
        let receiver = super::receiver_without_mut(function.receiver());
        let mut signature = self.signature(&names.body, receiver.as_ref());
        signature.asyncness = None;
        signature::name_hidden_lifetimes(&mut signature);
        let at = mixed.located_at(function.sig.ident.span());
        let returned = &plan.returned;
        signature.output = syn::parse_quote_spanned! {at=>
            -> impl ::core::future::Future<Output = #returned> + ::core::marker::Send
        };
        let turbofish = generics::turbofish(&function.sig.generics);
        let receiver = receiver.map(|receiver| receiver.self_token.to_token_stream());
        let params = plan.params.iter().map(|param| param.ident.to_token_stream());
        let arguments = receiver.into_iter().chain(params);
        let attrs = self.companion_attrs();
        quote_spanned! {at=>
            #[doc(hidden)]
            #(#attrs)*
            #vis #signature {
                #home::#uncached #turbofish(#(#arguments),*)
            }
        }
    }

    /// Allows parameters that only the options mention: they are used, but the body does not see
    /// it.
    fn allow_unused_in_body(&self, signature: &mut Signature) {
        let options = [&self.plan.cache, &self.plan.bypass];
        let mentioned: TokenStream = options.into_iter().flatten().map(ToTokens::to_token_stream).collect();
        let typed = signature.inputs.iter_mut().filter_map(|input| match input {
            FnArg::Receiver(_) => None,
            FnArg::Typed(typed) => Some(typed),
        });
        for (typed, param) in typed.zip(&self.plan.params) {
            if signature::mentions(&mentioned, &param.names) {
                typed.attrs.push(syn::parse_quote_spanned!(self.mixed=> #[allow(unused_variables, reason = "an option mentions it")]));
            }
        }
    }

    /// Generates `refresh`, which runs the function and stores the result.
    fn refresh(&self) -> TokenStream {
        let Self { plan, function, mixed, names, .. } = self;
        let krate = &plan.krate;
        let vis = &function.vis;
        let signature = self.signature(&names.refresh, super::receiver_without_mut(function.receiver()).as_ref());
        let (cache, attrs) = (self.cache(), self.companion_attrs());
        let refresh = match &plan.batch {
            Some(batch) => self.batch_refresh(batch),
            None => {
                let (cached, rules, key) = (self.call_cached(), self.call_rules(), self.key());
                let body = self.call_body();
                quote_spanned!(*mixed=> #cached.entry(__cache, #rules, #key).__refresh(#body).await)
            }
        };
        quote_spanned! {*mixed=>
            /// Runs the function now and stores what it returns.
            #(#attrs)*
            #vis #signature {
                let __cache: &#krate::Cache = #cache;
                #refresh
            }
        }
    }

    /// Generates `invalidate_all`.
    fn invalidate_all(&self) -> TokenStream {
        let Self { plan, function, mixed, names, of_instance, .. } = self;
        if plan.plain {
            // The entries of a plain key have no common version.
            return TokenStream::new();
        }
        let krate = &plan.krate;
        let (ident, vis) = (&names.invalidate_all, &function.vis);
        let (generics, where_clause) = (of_instance.declare(), of_instance.where_clause());
        let (cached, attrs) = (self.call_cached(), self.companion_attrs());
        let expression = plan.cache.as_ref().map(ToTokens::to_token_stream).unwrap_or_default();
        let (input, cache) = if signature::mentions(&expression, plan.params.iter().flat_map(|param| &param.names)) {
            // The cache depends on an argument.
            (quote_spanned!(*mixed=> __cache: &#krate::Cache), quote_spanned!(*mixed=> __cache))
        } else if signature::mentions(&expression, [&Ident::new("self", *mixed)]) {
            (quote_spanned!(self.self_span()=> &self), self.cache())
        } else {
            (TokenStream::new(), self.cache())
        };
        quote_spanned! {*mixed=>
            /// Makes every entry of the function a miss, in every process and build.
            ///
            /// One round trip, however many entries there are.
            #(#attrs)*
            #vis async fn #ident #generics(#input) -> #krate::Result<()> #where_clause {
                let __cache: &#krate::Cache = #cache;
                #cached.invalidate_all(__cache).await
            }
        }
    }

    /// Returns the user's lint levels, for functions generated from the user's signature.
    fn companion_attrs(&self) -> Vec<Attribute> {
        let attrs = self.function.attrs.iter();
        attrs
            .filter(|attr| goes_everywhere(attr) && !attr.path().is_ident("cfg"))
            .map(expectation_as_allowance)
            .collect()
    }

    /// Hides the companions of a method, which are defined among the user's own methods.
    fn hidden(&self) -> Option<TokenStream> {
        matches!(self.plan.home, Home::Impl).then(|| quote_spanned!(self.mixed=> #[doc(hidden)]))
    }

    fn self_span(&self) -> Span {
        self.function.receiver().map_or(self.mixed, |receiver| receiver.self_token.span)
    }
}

/// Returns the name of a constant of the companion. Another item of the same name lacks the
/// constant, so the compiler reports it as missing, and its name shows the fix.
fn taken(companion: &Ident) -> Ident {
    let words = companion.unraw().to_string();
    let words = words.split('_').map(|word| {
        let mut letters = word.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase().to_string()).unwrap_or_default();
        first + letters.as_str()
    });
    let other: String = words.collect();
    format_ident!("__the_name_is_taken__write_companion_eq_{other}Cache", span = companion.span())
}

fn constant_type(ident: &Ident, mixed: Span) -> Ident {
    format_ident!("__Const{ident}", span = mixed)
}
