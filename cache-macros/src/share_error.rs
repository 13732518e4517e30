//! Implements `#[derive(ShareError)]`: each field is copied in the way that its type supports.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, format_ident, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Attribute, Data, DeriveInput, Field, Fields, Path};

use crate::errors::{Errors, did_you_mean};

/// Generates the `impl`, or all errors.
pub(crate) fn derive(item: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(item) {
        Ok(input) => input,
        Err(error) => return error.to_compile_error(),
    };
    let mut errors = Errors::default();
    let krate = krate(&input.attrs, &mut errors);
    if !input.generics.params.is_empty() {
        errors.at(
            &input.generics,
            "the copies of a generic error depend on its parameters; write `impl ShareError` by hand",
        );
    }
    let arms: Vec<TokenStream> = match &input.data {
        Data::Struct(data) => vec![arm(&quote!(Self), &data.fields, &krate, &mut errors)],
        Data::Enum(data) => {
            let arms = data.variants.iter().map(|variant| {
                refuse(&variant.attrs, &mut errors);
                let ident = &variant.ident;
                arm(&quote!(Self::#ident), &variant.fields, &krate, &mut errors)
            });
            arms.collect()
        }
        Data::Union(data) => {
            errors.at(
                data.union_token,
                "a union cannot say which of its fields it holds; derive `ShareError` for an enum",
            );
            Vec::new()
        }
    };
    if !errors.is_empty() {
        return errors.into_tokens();
    }
    let ident = &input.ident;
    let body = if arms.is_empty() {
        quote_spanned!(Span::mixed_site()=> match *self {})
    } else {
        quote_spanned!(Span::mixed_site()=> match self { #(#arms)* })
    };
    quote_spanned! {Span::mixed_site()=>
        #[automatically_derived]
        impl #krate::value::ShareError for #ident {
            fn share(&self) -> Self {
                #krate::value::ShareError::__share_with(self, ::core::option::Option::None)
            }

            #[allow(unused_variables, unreachable_patterns, deprecated, reason = "generated for any type")]
            fn __share_with(&self, __original: ::core::option::Option<&#krate::__private::Original<Self>>) -> Self {
                #[allow(unused_imports, reason = "not every way is needed")]
                use #krate::__private::via::*;
                #body
            }
        }
    }
}

/// Generates the match arm of a struct or a variant, field by field.
fn arm(path: &TokenStream, fields: &Fields, krate: &Path, errors: &mut Errors) -> TokenStream {
    let mixed = Span::mixed_site();
    let (mut bound, mut copies) = (Vec::new(), Vec::new());
    for (position, field) in fields.iter().enumerate() {
        let member = match &field.ident {
            Some(name) => name.to_token_stream(),
            None => syn::Index::from(position).to_token_stream(),
        };
        let binding = format_ident!("__field{position}", span = mixed);
        // Report a field that cannot be copied at its type.
        let at = mixed.located_at(field.ty.span());
        let ty = &field.ty;
        let copy = match way(field, errors) {
            Way::With(function) => quote_spanned!(at=> #function(#binding)),
            own_or_io => {
                let way = match own_or_io {
                    Way::Io => quote_spanned!(at=> #krate::__private::ByIoError),
                    _ => quote_spanned!(at=> (&&&&&#krate::__private::ErrorProbe::<#ty>::new()).sharing()),
                };
                quote_spanned! {at=>
                    #krate::__private::share_field(#way, #binding, __original, |__whole: &Self| match __whole {
                        #path { #member: __part, .. } => ::core::option::Option::Some(__part),
                        _ => ::core::option::Option::None,
                    })
                }
            }
        };
        bound.push(quote_spanned!(mixed=> #member: #binding));
        copies.push(quote_spanned!(mixed=> #member: #copy));
    }
    quote_spanned!(mixed=> #path { #(#bound),* } => #path { #(#copies),* },)
}

/// How a field is copied.
enum Way {
    /// In the way that its type supports.
    Own,
    /// By `From<std::io::Error>`.
    Io,
    /// By a function of the user.
    With(Path),
}

fn way(field: &Field, errors: &mut Errors) -> Way {
    let mut way = Way::Own;
    for attr in field.attrs.iter().filter(|attr| attr.path().is_ident("share")) {
        let read = attr.parse_nested_meta(|meta| {
            if !matches!(way, Way::Own) {
                return Err(meta.error("a field is copied in one way; remove the other"));
            }
            if meta.path.is_ident("io") {
                way = Way::Io;
            } else if meta.path.is_ident("with") {
                way = Way::With(meta.value()?.parse()?);
            } else {
                return Err(unknown(&meta.path, &["io", "with"], "`#[share(io)]` and `#[share(with = path)]`"));
            }
            Ok(())
        });
        if let Err(error) = read {
            errors.push(error);
        }
    }
    way
}

/// Reads `#[share(crate = path)]` on the type.
fn krate(attrs: &[Attribute], errors: &mut Errors) -> Path {
    let mut krate: Path = syn::parse_quote!(::cache_core);
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("share")) {
        let read = attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("io") || meta.path.is_ident("with") {
                return Err(meta.error("this goes on a field; on the type there is only `#[share(crate = path)]`"));
            }
            if !meta.path.is_ident("crate") {
                return Err(unknown(&meta.path, &["crate"], "`#[share(crate = path)]`"));
            }
            krate = meta.value()?.call(Path::parse_mod_style)?;
            Ok(())
        });
        if let Err(error) = read {
            errors.push(error);
        }
    }
    krate
}

fn refuse(attrs: &[Attribute], errors: &mut Errors) {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("share")) {
        errors.at(attr, "`#[share(..)]` goes on a field of the variant");
    }
}

fn unknown(path: &Path, known: &[&str], usage: &str) -> syn::Error {
    let word = path.get_ident().map(|ident| ident.unraw().to_string()).unwrap_or_default();
    let hint = did_you_mean(&word, known.iter().copied());
    syn::Error::new_spanned(path, format!("unknown option `{word}`{hint}; here there is {usage}"))
}
