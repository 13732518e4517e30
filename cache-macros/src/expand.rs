//! The plan as tokens: key, options, one call. Policy lives in the library.
//!
//! Hygiene: variables of generated code are at `mixed_site`, where no name of the user's can be mistaken for them; all
//! items are named by full paths.

mod companions;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Attribute, GenericParam, Ident, Meta, Receiver, Signature};

use crate::generics::{self, Kept};
use crate::plan::{Home, KeyStep, Plan, Run};
use crate::signature::{self, Function};

/// The function and its companions.
pub(crate) fn expand(plan: &Plan, function: &Function) -> TokenStream {
    let context = Context::new(plan, function);
    let cached = context.cached_function();
    let companions = companions::all(&context);
    quote!(#cached #companions)
}

/// What all generated functions share.
pub(crate) struct Context<'a> {
    pub(crate) plan: &'a Plan,
    function: &'a Function,
    /// Generated code's own names.
    pub(crate) mixed: Span,
    names: Names,
    /// The parameters of which each combination is a function of its own, with its own entries.
    instance: Vec<&'a GenericParam>,
    /// Their declaration, with what bounds them.
    of_instance: Kept,
}

/// What the companions are called, and how they are reached.
struct Names {
    cached: Ident,
    rules: Ident,
    entry: Ident,
    uncached: Ident,
    /// `uncached`, declared to be `Send`.
    body: Ident,
    refresh: Ident,
    invalidate_all: Ident,
    /// Where the companion type of a free function is defined.
    module: Ident,
    /// `__companion_user::user` or `Self`.
    home: TokenStream,
}

impl Names {
    fn new(plan: &Plan, ident: &Ident, mixed: Span) -> Self {
        let at = ident.span();
        // The type is defined where no other item can have its name, and what is generated goes by
        // it there: if the name is taken, that is one error, and not one for each use.
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

    /// The user's function, with its name, attributes and signature.
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
                    // Boxed, or every call's future would have room for the body's.
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
            // A body that is not `Send` is reported where the function is named.
            mixed.located_at(function.sig.ident.span()),
        );
        let call = match &plan.batch {
            Some(batch) => {
                // Its closures have the arguments by reference until the run has ended.
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
                // Nothing else is alive here: a call's future is small, whatever the body's is.
                __run.await
            }
        }
    }

    /// Moves the arguments into the block: what is gone before the await needs no room in the call's future, and a hit does not wait for it to be
    /// written there.
    fn arguments_of_block(&self) -> Option<TokenStream> {
        let idents: Vec<_> = self.plan.params.iter().map(|param| &param.ident).collect();
        (!idents.is_empty()).then(|| {
            quote_spanned! {self.mixed=>
                #[allow(clippy::shadow_reuse, non_snake_case, reason = "arguments under their own names")]
                let (#(#idents,)*) = (#(#idents,)*);
            }
        })
    }

    /// The user's signature under another name, with names in place of patterns.
    fn signature(&self, ident: &Ident, receiver: Option<&Receiver>) -> Signature {
        let mut signature = self.function.sig.clone();
        signature.ident = ident.clone();
        signature.inputs = signature::inputs(receiver, &self.plan.params);
        signature
    }

    /// A call of the user's body, with all arguments.
    fn call_body(&self) -> TokenStream {
        let Names { home, body, .. } = &self.names;
        let turbofish = generics::turbofish(&self.function.sig.generics);
        let receiver = self.function.receiver().map(|receiver| receiver.self_token.to_token_stream());
        let params = self.plan.params.iter().map(|param| param.ident.to_token_stream());
        let arguments = receiver.into_iter().chain(params);
        // A body that is not `Send` is reported where the function is named.
        let at = self.mixed.located_at(self.function.sig.ident.span());
        quote_spanned!(at=> #home::#body #turbofish(#(#arguments),*))
    }

    /// Where the user's body is.
    pub(crate) fn body_path(&self) -> (&TokenStream, &Ident) {
        (&self.names.home, &self.names.body)
    }

    pub(crate) fn function(&self) -> &Function {
        self.function
    }

    /// What the function returns; of a batch, what a function of one id would.
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

    /// The function that tells what is fixed about the cached one.
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

    /// The expression of the cache: the user's, or the installed one.
    fn cache(&self) -> TokenStream {
        let krate = &self.plan.krate;
        match &self.plan.cache {
            Some(expression) => self.with_bindings(expression.to_token_stream()),
            None => quote_spanned!(self.mixed=> #krate::__private::installed()),
        }
    }

    /// How the function looks for its value, and by what: a single argument as it is, or what writes the key's arguments.
    fn look_up(&self) -> (Ident, TokenStream) {
        if let [KeyStep::Member(expression, span)] = &self.plan.key[..]
            // A name that a pattern binds lives in the closure only.
            && self.bindings(expression).is_empty()
        {
            let mixed = self.mixed.located_at(*span);
            return (Ident::new("look_up_part", self.mixed), quote_spanned!(mixed=> &#expression));
        }
        (Ident::new(if self.plan.plain { "look_up_plain" } else { "look_up" }, self.mixed), self.key())
    }

    /// The closure that writes the key's arguments.
    fn key(&self) -> TokenStream {
        if self.plan.plain {
            return self.plain_key();
        }
        if self.plan.key.is_empty() {
            return quote_spanned!(self.mixed=> |_| {});
        }
        let steps = self.key_steps();
        quote_spanned!(self.mixed=> |__key| { #steps })
    }

    /// What writes the key's arguments.
    pub(crate) fn key_steps(&self) -> TokenStream {
        let mixed = self.mixed;
        let krate = &self.plan.krate;
        let bindings = self.bindings(&self.plan.key.iter().filter_map(KeyStep::expression).cloned().collect());
        let steps = self.plan.key.iter().map(|step| match step {
            KeyStep::Member(expression, span) => {
                quote_spanned!(mixed.located_at(*span)=> __key.member(&#expression);)
            }
            // As with type parameters, but this type has no name.
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

    /// A block in which the names that patterns bind are known, or the expression as it is if it needs none.
    fn with_bindings(&self, expression: TokenStream) -> TokenStream {
        let bindings = self.bindings(&expression);
        if bindings.is_empty() { expression } else { quote_spanned!(self.mixed=> { #bindings #expression }) }
    }

    /// `let (a, b) = &__arg0;` for each pattern of which `used` names something.
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

    /// The return type's place, for what fails there.
    pub(crate) fn at_returned(&self) -> Span {
        self.mixed.located_at(self.plan.returned.span())
    }

    /// The function's plain name.
    fn plain_name(&self) -> String {
        self.function.sig.ident.unraw().to_string()
    }
}

/// What the function returns can depend on every parameter that it has no argument of, and on the types of what is in
/// the key: `7` may be written for a `PostId` and for a `UserId`. What is out of the key by `skip` is left out here too.
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
    // `mut self` is the body's affair; in `&mut self` it never comes here.
    receiver.mutability = None;
    Some(receiver)
}

/// The user's attribute for a generated function: what is expected of the body is only allowed there.
fn expectation_as_allowance(attr: &Attribute) -> Attribute {
    let mut attr = attr.clone();
    if attr.path().is_ident("expect")
        && let Meta::List(list) = &mut attr.meta
    {
        list.path = syn::parse_quote!(allow);
    }
    attr
}

/// Whether an attribute belongs on everything that is generated from the function.
fn goes_everywhere(attr: &Attribute) -> bool {
    ["cfg", "allow", "expect", "warn", "deny", "forbid"].iter().any(|name| attr.path().is_ident(name))
}
