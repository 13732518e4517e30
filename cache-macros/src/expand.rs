//! Turns the plan into tokens: key, options, one call. Policy lives in the library.
//!
//! Hygiene: variables of generated code have `mixed_site` spans, so they cannot clash with names of
//! the user. All items are named by full paths.

mod companions;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Attribute, GenericParam, Ident, Meta, Receiver, Signature};

use crate::generics::{self, Kept};
use crate::plan::{Home, KeyStep, Plan, Run};
use crate::signature::{self, Function};

/// Keys of up to this many arguments are compared in the local tier by their parts.
const MOST_PARTS: usize = 6;

/// Generates the function and its companions.
pub(crate) fn expand(plan: &Plan, function: &Function) -> TokenStream {
    let context = Context::new(plan, function);
    let cached = context.cached_function();
    let companions = companions::all(&context);
    quote!(#cached #companions)
}

/// Data shared by all generated functions.
pub(crate) struct Context<'a> {
    pub(crate) plan: &'a Plan,
    function: &'a Function,
    /// The span of names that belong to generated code.
    pub(crate) mixed: Span,
    names: Names,
    /// The generic parameters that distinguish instances. Each instance has its own entries.
    instance: Vec<&'a GenericParam>,
    /// The declaration of these parameters, with their bounds.
    of_instance: Kept,
}

/// The names of the companions and the paths to them.
struct Names {
    cached: Ident,
    rules: Ident,
    entry: Ident,
    uncached: Ident,
    /// `uncached`, declared to be `Send`.
    body: Ident,
    refresh: Ident,
    invalidate_all: Ident,
    /// The module that defines the companion type of a free function.
    module: Ident,
    /// `__companion_user::user` or `Self`.
    home: TokenStream,
}

impl Names {
    fn new(plan: &Plan, ident: &Ident, mixed: Span) -> Self {
        let at = ident.span();
        // The type is defined in a module where no other item can have its name, and generated code
        // refers to it there. If the name is taken, this gives one error instead of one for each
        // use.
        let module = match &plan.home {
            Home::Companion(companion) => format_ident!("__companion_{}", companion, span = mixed),
            Home::Impl => Ident::new("__companion", mixed),
        };
        match &plan.home {
            Home::Companion(companion) => Self {
                cached: Ident::new("__cached", mixed),
                rules: Ident::new("__rules", mixed),
                entry: Ident::new("entry", at),
                uncached: Ident::new("uncached", at),
                body: Ident::new("__body", mixed),
                refresh: Ident::new("refresh", at),
                invalidate_all: Ident::new("invalidate_all", at),
                home: quote_spanned!(mixed=> #module::#companion),
                module,
            },
            Home::Impl => Self {
                cached: format_ident!("__{}_cached", ident),
                rules: format_ident!("__{}_rules", ident),
                entry: format_ident!("{}_entry", ident),
                uncached: format_ident!("{}_uncached", ident),
                body: format_ident!("__{}_body", ident),
                refresh: format_ident!("{}_refresh", ident),
                invalidate_all: format_ident!("{}_invalidate_all", ident),
                home: quote_spanned!(mixed=> Self),
                module,
            },
        }
    }
}

impl<'a> Context<'a> {
    fn new(plan: &'a Plan, function: &'a Function) -> Self {
        let mixed = Span::mixed_site();
        let instance = instance(plan, function);
        let idents = instance.iter().map(|param| generics::ident(param).to_token_stream()).collect();
        Self {
            of_instance: generics::keep(&function.sig.generics, &idents),
            instance,
            names: Names::new(plan, &function.sig.ident, mixed),
            plan,
            function,
            mixed,
        }
    }

    /// Generates the user's function, with its name, attributes and signature.
    fn cached_function(&self) -> TokenStream {
        let Self { plan, function, mixed, .. } = self;
        let attrs = function.attrs.iter().map(expectation_as_allowance);
        let (vis, default) = (&function.vis, &function.default);
        let signature = self.signature(&function.sig.ident, receiver_without_mut(function.receiver()).as_ref());
        let body = self.call_body();
        let bypass = plan.bypass.as_ref().map(|expression| {
            let expression = self.with_bindings(expression.to_token_stream());
            quote_spanned! {*mixed=>
                let __bypass: bool = #expression;
                if __bypass {
                    // Boxed, because otherwise every call's future would have room for the body's
                    // future.
                    return ::std::boxed::Box::pin(#body).await;
                }
            }
        });
        let krate = &plan.krate;
        let cache = self.cache();
        let (cached_path, rules) = (self.cached_path(), self.call_rules());
        let (look_up, key) = self.look_up();
        let arguments = self.arguments_of_block();
        let run = Ident::new(
            match plan.run {
                _ if plan.plain => "run",
                Run::Shared => "run_shared",
                Run::Here => "run_here",
            },
            // Report a body that is not `Send` at the function's name.
            mixed.located_at(function.sig.ident.span()),
        );
        let call = match &plan.batch {
            Some(batch) => {
                // The closures of the call hold references to the arguments until the run ends.
                let run = self.batch_run(batch);
                quote_spanned! {*mixed=>
                    let __cache: &#krate::Cache = #cache;
                    let __run = #run;
                }
            }
            None => quote_spanned! {*mixed=>
                let __run = {
                    #arguments
                    let __cache: &#krate::Cache = #cache;
                    match #krate::__private::#look_up(#cached_path, __cache, #key) {
                        ::core::result::Result::Ok(__hit) => return __hit,
                        ::core::result::Result::Err(__miss) => __miss.#run(#rules, #body),
                    }
                };
            },
        };
        quote_spanned! {*mixed=>
            #(#attrs)*
            #vis #default #signature {
                #bypass
                #call
                // Nothing else is alive at this await, so the call's future is small, however large
                // the body's is.
                __run.await
            }
        }
    }

    /// Moves the arguments into the block. What is dropped before the await needs no room in the
    /// call's future, and a hit does not pay for writing it there.
    fn arguments_of_block(&self) -> Option<TokenStream> {
        let idents: Vec<_> = self.plan.params.iter().map(|param| &param.ident).collect();
        (!idents.is_empty()).then(|| {
            quote_spanned! {self.mixed=>
                #[allow(clippy::shadow_reuse, non_snake_case, reason = "arguments under their own names")]
                let (#(#idents,)*) = (#(#idents,)*);
            }
        })
    }

    /// Returns the user's signature under another name, with names in place of patterns.
    fn signature(&self, ident: &Ident, receiver: Option<&Receiver>) -> Signature {
        let mut signature = self.function.sig.clone();
        signature.ident = ident.clone();
        signature.inputs = signature::inputs(receiver, &self.plan.params);
        signature
    }

    /// Generates a call of the user's body with all arguments.
    fn call_body(&self) -> TokenStream {
        let Names { home, body, .. } = &self.names;
        let turbofish = generics::turbofish(&self.function.sig.generics);
        let receiver = self.function.receiver().map(|receiver| receiver.self_token.to_token_stream());
        let params = self.plan.params.iter().map(|param| param.ident.to_token_stream());
        let arguments = receiver.into_iter().chain(params);
        // Report a body that is not `Send` at the function's name.
        let at = self.mixed.located_at(self.function.sig.ident.span());
        quote_spanned!(at=> #home::#body #turbofish(#(#arguments),*))
    }

    /// Returns the path of the user's body.
    pub(crate) fn body_path(&self) -> (&TokenStream, &Ident) {
        (&self.names.home, &self.names.body)
    }

    pub(crate) fn function(&self) -> &Function {
        self.function
    }

    /// Returns the function's return type; for a batch, the return type of a function of one id.
    fn one(&self) -> TokenStream {
        let Plan { krate, returned, batch, .. } = self.plan;
        match batch {
            Some(_) => quote_spanned!(self.at_returned()=> <#returned as #krate::__private::BatchReturn>::One),
            None => returned.to_token_stream(),
        }
    }

    pub(crate) fn call_cached(&self) -> TokenStream {
        let path = self.cached_path();
        quote_spanned!(self.mixed=> #path())
    }

    /// Returns the path of the function that describes the cached one.
    fn cached_path(&self) -> TokenStream {
        let Names { home, cached, .. } = &self.names;
        let turbofish = self.of_instance.turbofish();
        quote_spanned!(self.mixed=> #home::#cached #turbofish)
    }

    pub(crate) fn call_rules(&self) -> TokenStream {
        let Names { home, rules, .. } = &self.names;
        let turbofish = self.of_instance.turbofish();
        let tags = self.known_tags();
        quote_spanned!(self.mixed=> #home::#rules #turbofish()#tags)
    }

    /// Returns the expression of the cache: the user's, or the installed one.
    fn cache(&self) -> TokenStream {
        let krate = &self.plan.krate;
        match &self.plan.cache {
            Some(expression) => self.with_bindings(expression.to_token_stream()),
            None => quote_spanned!(self.mixed=> #krate::__private::installed()),
        }
    }

    /// Returns the look-up method and its key argument: a single argument unchanged, or the closure
    /// that writes the key's arguments.
    fn look_up(&self) -> (Ident, TokenStream) {
        if let [KeyStep::Member(expression, span)] = &self.plan.key[..]
            // A name bound by a pattern exists in the closure only.
            && self.bindings(expression).is_empty()
        {
            let mixed = self.mixed.located_at(*span);
            return (Ident::new("look_up_part", self.mixed), quote_spanned!(mixed=> &#expression));
        }
        if let Some(parts) = self.parts() {
            return (Ident::new("look_up_parts", self.mixed), parts);
        }
        (Ident::new(if self.plan.plain { "look_up_plain" } else { "look_up" }, self.mixed), self.key())
    }

    /// Generates the parts of a key that consists of a few arguments.
    fn parts(&self) -> Option<TokenStream> {
        let krate = &self.plan.krate;
        let steps = &self.plan.key;
        if !(2..=MOST_PARTS).contains(&steps.len()) || self.plan.plain {
            return None;
        }
        let parts: Option<Vec<TokenStream>> = steps
            .iter()
            .map(|step| match step {
                KeyStep::Member(expression, span) if self.bindings(expression).is_empty() => {
                    Some(quote_spanned!(self.mixed.located_at(*span)=> #krate::__private::part(&#expression)))
                }
                _ => None,
            })
            .collect();
        let parts = parts?;
        Some(quote_spanned!(self.mixed=> [#(#parts),*]))
    }

    /// Generates the closure that writes the key's arguments.
    fn key(&self) -> TokenStream {
        if self.plan.plain {
            return self.plain_key();
        }
        if self.plan.key.is_empty() {
            return quote_spanned!(self.mixed=> |_| {});
        }
        // As in the look-up, so that an argument that cannot be a part is reported once.
        if let Some(parts) = self.parts() {
            return quote_spanned!(self.mixed=> |__key| __key.parts(&#parts));
        }
        let steps = self.key_steps();
        quote_spanned!(self.mixed=> |__key| { #steps })
    }

    /// Generates the statements that write the key's arguments.
    pub(crate) fn key_steps(&self) -> TokenStream {
        let mixed = self.mixed;
        let krate = &self.plan.krate;
        let bindings = self.bindings(&self.plan.key.iter().filter_map(KeyStep::expression).cloned().collect());
        let steps = self.plan.key.iter().map(|step| match step {
            KeyStep::Member(expression, span) => {
                quote_spanned!(mixed.located_at(*span)=> __key.member(&#expression);)
            }
            // The type's name is written too, as for type parameters. This type cannot be named
            // otherwise.
            KeyStep::Unnamed(expression, span) => quote_spanned! {mixed.located_at(*span)=>
                __key.member(::core::any::type_name_of_val(&#expression));
                __key.member(&#expression);
            },
            KeyStep::Placeholder(expression, span) => {
                quote_spanned!(mixed.located_at(*span)=> __key.placeholder(&#expression);)
            }
            KeyStep::Displayed(expression, span) => {
                quote_spanned!(mixed.located_at(*span)=> __key.placeholder(&#krate::__private::Displayed(&#expression));)
            }
            KeyStep::Literal(text) => quote_spanned!(mixed=> __key.literal(#text);),
        });
        quote_spanned!(mixed=> #bindings #(#steps)*)
    }

    /// Wraps the expression in a block that binds the names of patterns, if it uses any.
    fn with_bindings(&self, expression: TokenStream) -> TokenStream {
        let bindings = self.bindings(&expression);
        if bindings.is_empty() { expression } else { quote_spanned!(self.mixed=> { #bindings #expression }) }
    }

    /// Generates `let (a, b) = &__arg0;` for each pattern of which `used` names a part.
    pub(crate) fn bindings(&self, used: &TokenStream) -> TokenStream {
        let patterns = self.plan.params.iter().filter_map(|param| {
            let pattern = param.pattern.as_ref().filter(|_| signature::mentions(used, &param.names))?;
            let ident = &param.ident;
            Some(quote_spanned! {self.mixed=>
                #[allow(unused_variables, reason = "a pattern may bind more than the key needs")]
                let #pattern = &#ident;
            })
        });
        patterns.collect()
    }

    /// Returns the span of the return type, for errors about it.
    pub(crate) fn at_returned(&self) -> Span {
        self.mixed.located_at(self.plan.returned.span())
    }

    /// Returns the function's name without `r#`.
    fn plain_name(&self) -> String {
        self.function.sig.ident.unraw().to_string()
    }
}

/// Returns the generic parameters that distinguish the entries of a function. The result can depend
/// on every parameter that occurs in no argument, and on the types in the key: `7` may be written
/// for a `PostId` and for a `UserId`. Parameters that occur only in skipped arguments are left out.
fn instance<'a>(plan: &Plan, function: &'a Function) -> Vec<&'a GenericParam> {
    let types = |param: &signature::Param| param.ty.to_token_stream();
    let arguments: TokenStream = plan.params.iter().map(types).collect();
    let in_entry = plan.params.iter().enumerate().filter(|(at, _)| plan.entry.takes.contains(at));
    let mut tells = plan.returned.to_token_stream();
    tells.extend(in_entry.map(|(_, param)| types(param)));
    let parameters = function.sig.generics.params.iter().filter(|param| !matches!(param, GenericParam::Lifetime(_)));
    parameters.filter(|param| generics::mentions(&tells, param) || !generics::mentions(&arguments, param)).collect()
}

fn receiver_without_mut(receiver: Option<&Receiver>) -> Option<Receiver> {
    let mut receiver = receiver?.clone();
    // `mut self` matters to the body only. `&mut self` is refused earlier.
    receiver.mutability = None;
    Some(receiver)
}

/// Turns an `expect` of the user into an `allow` for generated functions, where the lint may not
/// trigger.
fn expectation_as_allowance(attr: &Attribute) -> Attribute {
    let mut attr = attr.clone();
    if attr.path().is_ident("expect")
        && let Meta::List(list) = &mut attr.meta
    {
        list.path = syn::parse_quote!(allow);
    }
    attr
}

/// Returns whether an attribute is copied to all generated items.
fn goes_everywhere(attr: &Attribute) -> bool {
    ["cfg", "allow", "expect", "warn", "deny", "forbid"].iter().any(|name| attr.path().is_ident(name))
}
