//! The function under `#[cached]`, split into its parts. The body is kept as unparsed tokens.

use proc_macro2::{Spacing, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::visit::Visit;
use syn::visit_mut::VisitMut;
use syn::{Attribute, FnArg, Ident, Pat, PatType, Receiver, ReturnType, Signature, Token, Type, Visibility};

use crate::errors::Errors;

/// The function as written, with the helper attributes removed from its parameters.
pub(crate) struct Function {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) default: Option<Token![default]>,
    pub(crate) sig: Signature,
    pub(crate) body: TokenTree,
    /// The parameters with `#[cached(skip)]`, by position, with the attribute's span.
    pub(crate) skipped: Vec<(usize, Span)>,
    /// Errors in helper attributes.
    pub(crate) helper_errors: Vec<syn::Error>,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attrs = input.call(Attribute::parse_outer)?;
        let vis = input.parse()?;
        let default = input.parse()?;
        let sig = input.parse()?;
        let body = input.parse()?;
        let mut function = Self { attrs, vis, default, sig, body, skipped: Vec::new(), helper_errors: Vec::new() };
        function.take_helpers();
        Ok(function)
    }
}

impl ToTokens for Function {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        self.attrs.iter().for_each(|attr| attr.to_tokens(tokens));
        self.vis.to_tokens(tokens);
        self.default.to_tokens(tokens);
        self.sig.to_tokens(tokens);
        self.body.to_tokens(tokens);
    }
}

impl Function {
    /// Removes `#[cached(skip)]` from the parameters, where the compiler does not know such an
    /// attribute.
    fn take_helpers(&mut self) {
        for (position, input) in self.sig.inputs.iter_mut().enumerate() {
            let attrs = match input {
                FnArg::Receiver(receiver) => &mut receiver.attrs,
                FnArg::Typed(typed) => &mut typed.attrs,
            };
            attrs.retain(|attr| {
                if attr.path().segments.last().is_none_or(|segment| segment.ident != "cached") {
                    return true;
                }
                match attr.parse_args::<Ident>() {
                    Ok(word) if word == "skip" => self.skipped.push((position, attr.path().span())),
                    _ => self.helper_errors.push(syn::Error::new_spanned(
                        attr,
                        "on a parameter there is only `#[cached(skip)]`; other options go on the function",
                    )),
                }
                false
            });
        }
    }

    /// Returns the return type, if there is one.
    pub(crate) fn returned(&self) -> Option<&Type> {
        match &self.sig.output {
            ReturnType::Default => None,
            ReturnType::Type(_, ty) => Some(ty),
        }
    }

    pub(crate) fn receiver(&self) -> Option<&Receiver> {
        match self.sig.inputs.first() {
            Some(FnArg::Receiver(receiver)) => Some(receiver),
            _ => None,
        }
    }
}

/// One parameter other than `self`.
#[derive(Clone)]
pub(crate) struct Param {
    /// Its name in generated functions.
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    /// The pattern, if there is one, without `mut` and `ref`, so that it also matches a reference.
    pub(crate) pattern: Option<Pat>,
    /// The names that the body sees.
    pub(crate) names: Vec<Ident>,
    /// The names that are not skipped.
    pub(crate) kept: Vec<Ident>,
    pub(crate) attrs: Vec<Attribute>,
    /// Whether it has `#[cached(skip)]`.
    pub(crate) skipped: bool,
}

impl Param {
    /// Returns the parameter of a generated function.
    pub(crate) fn declare(&self) -> PatType {
        PatType {
            attrs: self.attrs.clone(),
            pat: Box::new(Pat::Ident(syn::PatIdent {
                attrs: Vec::new(),
                by_ref: None,
                mutability: None,
                ident: self.ident.clone(),
                subpat: None,
            })),
            colon_token: Token![:](self.ty.span()),
            ty: Box::new(self.ty.clone()),
        }
    }
}

/// Returns the parameters in order, without `self`.
pub(crate) fn params(function: &Function, skip: &[Ident]) -> Vec<Param> {
    let typed = function.sig.inputs.iter().enumerate().filter_map(|(position, input)| match input {
        FnArg::Receiver(_) => None,
        FnArg::Typed(typed) => Some((position, typed)),
    });
    typed
        .map(|(position, typed)| {
            let mut bindings = Bindings::default();
            let mut pattern = (*typed.pat).clone();
            bindings.visit_pat_mut(&mut pattern);
            let simple = match &pattern {
                Pat::Ident(name) if name.subpat.is_none() => Some(name.ident.clone()),
                _ => None,
            };
            let skipped = function.skipped.iter().any(|(skipped, _)| *skipped == position);
            Param {
                pattern: simple.is_none().then_some(pattern),
                ident: simple.unwrap_or_else(|| format_ident!("__arg{position}", span = Span::mixed_site())),
                ty: (*typed.ty).clone(),
                kept: bindings.names.iter().filter(|name| !skipped && !skip.contains(name)).cloned().collect(),
                names: bindings.names,
                attrs: typed.attrs.clone(),
                skipped,
            }
        })
        .collect()
}

/// Collects the names that a pattern binds, and removes their `mut` and `ref`.
#[derive(Default)]
struct Bindings {
    names: Vec<Ident>,
}

impl VisitMut for Bindings {
    fn visit_pat_ident_mut(&mut self, pat: &mut syn::PatIdent) {
        pat.mutability = None;
        pat.by_ref = None;
        // An upper case name without a subpattern is a constant or a unit struct, not a binding.
        if pat.subpat.is_some() || !pat.ident.to_string().starts_with(char::is_uppercase) {
            self.names.push(pat.ident.clone());
        }
        syn::visit_mut::visit_pat_ident_mut(self, pat);
    }
}

/// Names each `'_` within an `impl Trait` argument. An `async fn` may omit the name, other
/// functions may not.
pub(crate) fn name_hidden_lifetimes(signature: &mut Signature) {
    struct Naming {
        within: bool,
        names: Vec<syn::Lifetime>,
    }
    impl VisitMut for Naming {
        fn visit_type_impl_trait_mut(&mut self, ty: &mut syn::TypeImplTrait) {
            let outside = std::mem::replace(&mut self.within, true);
            syn::visit_mut::visit_type_impl_trait_mut(self, ty);
            self.within = outside;
        }
        fn visit_lifetime_mut(&mut self, lifetime: &mut syn::Lifetime) {
            if self.within && lifetime.ident == "_" {
                let name = format!("'__hidden{}", self.names.len());
                *lifetime = syn::Lifetime::new(&name, Span::mixed_site().located_at(lifetime.span()));
                self.names.push(lifetime.clone());
            }
        }
        // In function types, `'_` means any lifetime.
        fn visit_parenthesized_generic_arguments_mut(&mut self, _: &mut syn::ParenthesizedGenericArguments) {}
        fn visit_type_bare_fn_mut(&mut self, _: &mut syn::TypeBareFn) {}
    }
    let mut naming = Naming { within: false, names: Vec::new() };
    signature.inputs.iter_mut().for_each(|input| naming.visit_fn_arg_mut(input));
    for lifetime in naming.names.into_iter().rev() {
        signature.generics.params.insert(0, syn::GenericParam::Lifetime(syn::LifetimeParam::new(lifetime)));
    }
}

/// Returns the inputs of a generated function.
pub(crate) fn inputs<'a>(
    receiver: Option<&Receiver>,
    params: impl IntoIterator<Item = &'a Param>,
) -> Punctuated<FnArg, Token![,]> {
    let receiver = receiver.map(|receiver| FnArg::Receiver(receiver.clone()));
    receiver.into_iter().chain(params.into_iter().map(|param| FnArg::Typed(param.declare()))).collect()
}

/// Returns whether a future that holds these parameters borrows nothing, as far as tokens can show.
pub(crate) fn owns_everything(function: &Function, params: &[Param]) -> bool {
    let generics = &function.sig.generics;
    if generics.lifetimes().next().is_some() {
        return false;
    }
    let bound_by_static = |ident: &Ident| {
        let is_static = |bounds: &Punctuated<syn::TypeParamBound, Token![+]>| {
            bounds.iter().any(|bound| matches!(bound, syn::TypeParamBound::Lifetime(l) if l.ident == "static"))
        };
        let inline = generics.type_params().any(|param| param.ident == *ident && is_static(&param.bounds));
        let predicates = generics.where_clause.iter().flat_map(|clause| &clause.predicates);
        inline
            || predicates.into_iter().any(|predicate| match predicate {
                syn::WherePredicate::Type(predicate) => {
                    matches!(&predicate.bounded_ty, Type::Path(path) if path.path.is_ident(ident))
                        && is_static(&predicate.bounds)
                }
                _ => false,
            })
    };
    if !generics.type_params().all(|param| bound_by_static(&param.ident)) {
        return false;
    }
    let mut borrows = Borrows(false);
    params.iter().for_each(|param| borrows.visit_type(&param.ty));
    if let Some(receiver) = function.receiver() {
        borrows.visit_receiver(receiver);
    }
    !borrows.0
}

/// Whether a type contains a reference, a lifetime or an `impl Trait`.
pub(crate) struct Borrows(pub(crate) bool);

impl<'ast> Visit<'ast> for Borrows {
    fn visit_receiver(&mut self, receiver: &'ast Receiver) {
        self.0 |= receiver.reference.is_some();
        syn::visit::visit_receiver(self, receiver);
    }
    fn visit_type_reference(&mut self, _: &'ast syn::TypeReference) {
        self.0 = true;
    }
    fn visit_type_impl_trait(&mut self, _: &'ast syn::TypeImplTrait) {
        self.0 = true;
    }
    fn visit_lifetime(&mut self, lifetime: &'ast syn::Lifetime) {
        self.0 |= lifetime.ident != "static";
    }
}

/// Returns whether `tokens` use one of `names` other than as a field, a method or the start of a
/// path.
pub(crate) fn mentions<'a>(tokens: &TokenStream, names: impl IntoIterator<Item = &'a Ident> + Clone) -> bool {
    let (mut after_dot, mut after_colon, mut in_path) = (false, false, false);
    let mut tokens = tokens.clone().into_iter().peekable();
    while let Some(token) = tokens.next() {
        match &token {
            TokenTree::Ident(ident)
                if !after_dot && !in_path && names.clone().into_iter().any(|name| name == ident) =>
            {
                let is_path = matches!(tokens.peek(), Some(TokenTree::Punct(punct))
                    if punct.as_char() == ':' && punct.spacing() == Spacing::Joint);
                if !is_path {
                    return true;
                }
            }
            TokenTree::Group(group) if mentions(&group.stream(), names.clone()) => return true,
            _ => {}
        }
        let is_colon = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == ':');
        in_path = is_colon && after_colon;
        after_colon = is_colon && matches!(&token, TokenTree::Punct(punct) if punct.spacing() == Spacing::Joint);
        // `a..b` is a range: its second dot does not start a field access.
        after_dot = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '.' && !after_dot);
    }
    false
}

/// The error for `#[cached]` and `#[invalidates]` on the same function.
pub(crate) const BOTH: &str = "`#[cached]` and `#[invalidates]` on one function: a hit would not write; \
    put the write into a function of its own";

/// Returns the attribute of this name, under any path.
pub(crate) fn attribute<'a>(function: &'a Function, name: &str) -> Option<&'a Attribute> {
    let is_called = |attr: &&Attribute| attr.path().segments.last().is_some_and(|segment| segment.ident == name);
    function.attrs.iter().find(is_called)
}

/// Reports the parts of the signature that cannot be cached.
pub(crate) fn check(function: &Function, errors: &mut Errors) {
    let sig = &function.sig;
    if sig.asyncness.is_none() {
        if is_of_async_trait(sig) {
            errors.at(sig.fn_token, crate::errors::of_a_trait(&sig.ident));
            // The user did not write what `#[async_trait]` has made of the signature.
            return;
        }
        errors.at(sig.fn_token, "`#[cached]` needs an async function; write `async fn`");
    }
    if let Some(token) = &sig.constness {
        errors.at(token, "a `const fn` cannot be cached; remove `const`");
    }
    if let Some(token) = &sig.unsafety {
        errors.at(token, "an `unsafe fn` cannot be cached; put the unsafe code into a block of its body");
    }
    if let Some(abi) = &sig.abi {
        errors.at(abi, "an `extern` function cannot be cached; cache a function that calls it");
    }
    if let Some(variadic) = &sig.variadic {
        errors.at(variadic, "a variadic function cannot be cached; name its parameters");
    }
    if let TokenTree::Punct(semicolon) = &function.body {
        errors.at(semicolon, "`#[cached]` needs a body; put it on the function of the `impl`");
    }
    match function.returned() {
        None => errors.at(&sig.ident, "nothing to cache: the function returns nothing; give it a return type"),
        Some(returned) => check_returned(returned, errors),
    }
    for input in &sig.inputs {
        check_input(input, errors);
    }
}

/// Returns whether `#[async_trait]` has rewritten the signature. It is on the `impl` and expands
/// first.
fn is_of_async_trait(sig: &Signature) -> bool {
    sig.generics.lifetimes().any(|lifetime| lifetime.lifetime.ident == "async_trait")
}

fn check_returned(returned: &Type, errors: &mut Errors) {
    struct Returned<'e>(&'e mut Errors);
    impl<'ast> Visit<'ast> for Returned<'_> {
        fn visit_type_reference(&mut self, reference: &'ast syn::TypeReference) {
            self.0.at(
                reference,
                "a cached value is owned, so it cannot be returned by reference; return `String` for `&str`, `Arc<T>` for `&T`",
            );
        }
        fn visit_lifetime(&mut self, lifetime: &'ast syn::Lifetime) {
            if lifetime.ident != "static" {
                self.0.at(lifetime, "a cached value is owned, so it cannot borrow; return an owned type");
            }
        }
        fn visit_type_impl_trait(&mut self, ty: &'ast syn::TypeImplTrait) {
            self.0.at(ty, "a cached value needs a type with a name; return a named type or a `Vec<T>`");
        }
        fn visit_type_trait_object(&mut self, ty: &'ast syn::TypeTraitObject) {
            // The error type of a `Result` is not stored and may be a trait object.
            let _kept = ty;
        }
    }
    match returned {
        Type::Never(never) => errors.at(never, "nothing to cache: the function never returns"),
        Type::Tuple(unit) if unit.elems.is_empty() => errors.at(
            unit,
            "nothing to cache: the function returns `()`; remove `#[cached]`, or return what is to be cached",
        ),
        returned => Returned(errors).visit_type(returned),
    }
}

fn check_input(input: &FnArg, errors: &mut Errors) {
    struct Mutable<'e>(&'e mut Errors);
    impl<'ast> Visit<'ast> for Mutable<'_> {
        fn visit_type_reference(&mut self, reference: &'ast syn::TypeReference) {
            if let Some(token) = &reference.mutability {
                self.0.at(
                    token,
                    "a cached function cannot change its arguments: a hit would not; take `&` and return what changed",
                );
            }
            syn::visit::visit_type_reference(self, reference);
        }
        fn visit_parenthesized_generic_arguments(&mut self, _: &'ast syn::ParenthesizedGenericArguments) {}
        fn visit_type_bare_fn(&mut self, _: &'ast syn::TypeBareFn) {}
    }
    let attrs = match input {
        FnArg::Receiver(receiver) => {
            match (&receiver.reference, &receiver.mutability, &receiver.colon_token) {
                (Some(_), Some(token), None) => {
                    errors.at(token, "a cached function cannot change `self`: a hit would not; take `&self`")
                }
                _ => Mutable(errors).visit_type(&receiver.ty),
            }
            &receiver.attrs
        }
        FnArg::Typed(typed) => {
            Mutable(errors).visit_type(&typed.ty);
            &typed.attrs
        }
    };
    for attr in attrs {
        if attr.path().is_ident("cfg") || attr.path().is_ident("cfg_attr") {
            errors.at(attr, "a parameter of a cached function cannot be conditional; put `#[cfg]` on two functions");
        }
    }
}

#[cfg(test)]
mod tests {
    use proc_macro2::{Span, TokenStream};
    use syn::{Ident, parse_quote};

    use super::{Function, mentions, owns_everything, params};

    #[test]
    fn mentions_are_of_values_not_of_fields_and_paths() {
        let state = Ident::new("state", Span::call_site());
        let mentions = |tokens: &str| mentions(&tokens.parse::<TokenStream>().unwrap(), [&state]);
        for yes in [
            "state",
            "&state.cache",
            "f(&state)",
            "0..state",
            "state..",
            "[state]",
            "state as u8",
            "a: state",
            "a::b(state)",
        ] {
            assert!(mentions(yes), "{yes}");
        }
        for no in ["self.state", "state::CACHE", "other", "x.state.y", "a::state()", "\"state\""] {
            assert!(!mentions(no), "{no}");
        }
    }

    #[test]
    fn a_function_that_borrows_runs_in_its_caller() {
        let owns = |function: Function| owns_everything(&function, &params(&function, &[]));
        for function in [
            parse_quote!(
                async fn f() -> u8 {}
            ),
            parse_quote!(
                async fn f(a: String, b: Vec<Arc<u8>>) -> u8 {}
            ),
            parse_quote!(
                async fn f(self: Arc<Self>, a: Cow<'static, str>) -> u8 {}
            ),
            parse_quote!(
                async fn f<T: Copy + 'static>(a: T) -> u8 {}
            ),
            parse_quote!(
                async fn f<T, const N: usize>(a: [T; N]) -> u8
                where
                    T: 'static,
                {
                }
            ),
        ] {
            assert!(owns(function));
        }
        for function in [
            parse_quote!(
                async fn f(&self) -> u8 {}
            ),
            parse_quote!(
                async fn f(self: &Arc<Self>) -> u8 {}
            ),
            parse_quote!(
                async fn f(a: &str) -> u8 {}
            ),
            parse_quote!(
                async fn f(a: Option<&str>) -> u8 {}
            ),
            parse_quote!(
                async fn f(a: Context<'_>) -> u8 {}
            ),
            parse_quote!(
                async fn f(a: impl Copy) -> u8 {}
            ),
            parse_quote!(
                async fn f<T: Copy>(a: T) -> u8 {}
            ),
            parse_quote!(
                async fn f<'a>(a: Context<'a>) -> u8 {}
            ),
        ] {
            assert!(!owns(function));
        }
    }
}
