//! Implements `#[derive(SessionData)]`.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::{Data, DeriveInput, Field, Fields, LitStr, Path};

use crate::errors::{Errors, did_you_mean};

/// Generates the `impl`, or all errors.
pub(crate) fn derive(item: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(item) {
        Ok(input) => input,
        Err(error) => return error.to_compile_error(),
    };
    let mut errors = Errors::default();
    let krate = krate(&input, &mut errors);
    if !input.generics.params.is_empty() {
        errors.at(&input.generics, "a view of a session is one type with one set of names; it cannot be generic");
    }
    let fields = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => Some(&fields.named),
            Fields::Unnamed(_) | Fields::Unit => {
                errors.at(&input.ident, "a session's values have names; write a struct with named fields");
                None
            }
        },
        Data::Enum(data) => {
            errors.at(data.enum_token, "a view of a session is a struct; put the enum into a field of it");
            None
        }
        Data::Union(data) => {
            errors.at(data.union_token, "a view of a session is a struct with named fields");
            None
        }
    };
    let names: Vec<(&Field, LitStr)> =
        fields.into_iter().flatten().filter_map(|field| Some((field, name(field, &mut errors)?))).collect();
    for (index, (_, name)) in names.iter().enumerate() {
        if names.iter().take(index).any(|(_, other)| other.value() == name.value()) {
            errors.at(name, format!("`{}` is the name of two fields; rename one of them", name.value()));
        }
    }
    if errors.is_empty() { implementation(&input, &krate, &names) } else { errors.into_tokens() }
}

fn krate(input: &DeriveInput, errors: &mut Errors) -> TokenStream {
    let mut krate = quote!(::cache_core);
    for attr in input.attrs.iter().filter(|attr| attr.path().is_ident("session")) {
        let parsed = attr.parse_nested_meta(|meta| {
            if !meta.path.is_ident("crate") {
                return Err(meta.error("the type has only `crate = path`; `name` goes on a field"));
            }
            krate = meta.value()?.call(Path::parse_mod_style)?.into_token_stream();
            Ok(())
        });
        if let Err(error) = parsed {
            errors.push(error);
        }
    }
    krate
}

/// Returns the value's name: the field's name, unless an attribute sets another.
fn name(field: &Field, errors: &mut Errors) -> Option<LitStr> {
    let ident = field.ident.as_ref()?;
    let mut name = LitStr::new(&ident.unraw().to_string(), ident.span());
    for attr in field.attrs.iter().filter(|attr| attr.path().is_ident("session")) {
        let parsed = attr.parse_nested_meta(|meta| {
            if !meta.path.is_ident("name") {
                let word = meta.path.to_token_stream().to_string();
                let hint = did_you_mean(&word, ["name"]);
                return Err(meta.error(format!("unknown option `{word}`{hint}; a field has `name = \"..\"`")));
            }
            name = meta.value()?.parse()?;
            Ok(())
        });
        if let Err(error) = parsed {
            errors.push(error);
        }
    }
    Some(name)
}

fn implementation(input: &DeriveInput, krate: &TokenStream, names: &[(&Field, LitStr)]) -> TokenStream {
    let ident = &input.ident;
    let fields: Vec<_> = names.iter().map(|(field, _)| &field.ident).collect();
    let reads = names.iter().map(|(field, name)| {
        let (ident, krate) = (&field.ident, at(krate, name.span()));
        quote_spanned!(name.span()=> #ident: #krate::__private::session_field(values, #name)?)
    });
    let literals: Vec<_> = names.iter().map(|(_, name)| name).collect();
    let checks = literals.iter().map(|name| {
        let krate = at(krate, name.span());
        quote_spanned!(name.span()=> const _: () = #krate::__private::assert_session_name(#name);)
    });
    quote! {
        #(#checks)*
        #[automatically_derived]
        impl #krate::session::SessionData for #ident {
            fn read(
                values: &#krate::session::SessionValues<'_>,
            ) -> ::core::result::Result<Self, #krate::session::SessionError> {
                ::core::result::Result::Ok(Self { #(#reads),* })
            }
            fn write(
                &self,
                fields: &mut #krate::session::SessionFields,
            ) -> ::core::result::Result<(), #krate::session::SessionError> {
                #(fields.set(#literals, &self.#fields)?;)*
                ::core::result::Result::Ok(())
            }
        }
    }
}

/// Returns the path with another span, so that compiler errors point to the field.
fn at(path: &TokenStream, span: Span) -> TokenStream {
    let respanned = path.clone().into_iter().map(|mut token| {
        token.set_span(span);
        token
    });
    respanned.collect()
}
