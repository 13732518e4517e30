//! Implements `#[derive(KeyPart)]`.
//!
//! A struct is written as a group of its fields, `(7,de)`; a tuple struct of one field as that
//! field, `7`; an enum as the variant's name and, unless it is a unit variant, its fields: `Guest`,
//! `Member(7,de)`. So distinct values have distinct text, and adding or reordering variants does
//! not change the text of the others.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Attribute, Data, DeriveInput, Field, Fields, GenericParam, Ident, Path};

use crate::errors::{Errors, did_you_mean};
use crate::generics;

/// Generates the `impl`, or all errors.
pub(crate) fn derive(item: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(item) {
        Ok(input) => input,
        Err(error) => return error.to_compile_error(),
    };
    let mut errors = Errors::default();
    let krate = krate(&input.attrs, &mut errors);
    let mut written = TokenStream::new();
    let body = match &input.data {
        Data::Struct(data) => {
            let (pattern, write) = fields(&data.fields, &mut written, &mut errors);
            let all_skipped = !data.fields.is_empty() && write.kept == 0;
            if all_skipped {
                errors.at(&input.ident, "every field is skipped, so all values would be one key; keep one of them");
            }
            let write = write.of_struct(&data.fields);
            quote_spanned!(Span::mixed_site()=> let Self #pattern = self; #write)
        }
        Data::Enum(data) => {
            let arms = data.variants.iter().map(|variant| {
                refuse_key(
                    &variant.attrs,
                    "a variant cannot be skipped; put `#[key(skip)]` on its fields",
                    &mut errors,
                );
                let (pattern, write) = fields(&variant.fields, &mut written, &mut errors);
                let write = write.of_variant(&variant.ident, &variant.fields);
                let ident = &variant.ident;
                quote_spanned!(Span::mixed_site()=> Self::#ident #pattern => { #write })
            });
            let arms: Vec<TokenStream> = arms.collect();
            if arms.is_empty() {
                errors.at(&input.ident, "an enum without variants has no values to be a key; remove the derive");
            }
            quote_spanned!(Span::mixed_site()=> match self { #(#arms)* })
        }
        Data::Union(data) => {
            errors
                .at(data.union_token, "a union cannot say which of its fields it holds; derive `KeyPart` for an enum");
            TokenStream::new()
        }
    };
    if !errors.is_empty() {
        return errors.into_tokens();
    }
    implementation(&input, &krate, &written, &body)
}

fn implementation(input: &DeriveInput, krate: &Path, written: &TokenStream, body: &TokenStream) -> TokenStream {
    let ident = &input.ident;
    // Skipped fields need no bound.
    let bounds = input.generics.params.iter().filter(|param| matches!(param, GenericParam::Type(_)));
    let bounds = bounds.filter(|param| generics::mentions(written, param)).map(generics::ident);
    let bounds: Vec<&Ident> = bounds.collect();
    let mut with_bounds = input.generics.clone();
    if !bounds.is_empty() {
        let clause = with_bounds.make_where_clause();
        clause
            .predicates
            .extend(bounds.iter().map(|param| -> syn::WherePredicate { syn::parse_quote!(#param: #krate::KeyPart) }));
    }
    let (implementing, types, clause) = with_bounds.split_for_impl();
    quote_spanned! {Span::mixed_site()=>
        #[automatically_derived]
        impl #implementing #krate::KeyPart for #ident #types #clause {
            fn write_key(&self, __key: &mut #krate::key::KeyWriter<'_>) {
                #body
            }
        }
    }
}

/// The calls that write the fields of a struct or a variant.
struct Write {
    members: TokenStream,
    kept: usize,
    /// The only field, if there is exactly one.
    alone: Option<TokenStream>,
}

impl Write {
    fn of_struct(self, fields: &Fields) -> TokenStream {
        let members = self.members;
        match (fields, self.alone) {
            (Fields::Unnamed(_), Some(alone)) if fields.len() == 1 => alone,
            _ if self.kept == 0 => quote_spanned!(Span::mixed_site()=> __key.group(|_| {});),
            _ => quote_spanned!(Span::mixed_site()=> __key.group(|__key| { #members });),
        }
    }

    fn of_variant(self, ident: &Ident, fields: &Fields) -> TokenStream {
        let name = ident.unraw().to_string();
        let members = self.members;
        let group = match fields {
            Fields::Unit => None,
            _ if self.kept == 0 => Some(quote_spanned!(Span::mixed_site()=> __key.group(|_| {});)),
            _ => Some(quote_spanned!(Span::mixed_site()=> __key.group(|__key| { #members });)),
        };
        quote_spanned!(Span::mixed_site()=> __key.literal(#name); #group)
    }
}

/// Returns a pattern that binds the fields in the key, and the calls that write them.
fn fields(fields: &Fields, written: &mut TokenStream, errors: &mut Errors) -> (TokenStream, Write) {
    let mut write = Write { members: TokenStream::new(), kept: 0, alone: None };
    let mut patterns = Vec::new();
    for (position, field) in fields.iter().enumerate() {
        // Report a field that is not a `KeyPart` at its type.
        let at = Span::mixed_site().located_at(field.ty.span());
        let binding = format_ident!("__field{position}", span = at);
        let name = &field.ident;
        if skipped(field, errors) {
            patterns.push(match name {
                Some(name) => quote!(#name: _),
                None => quote!(_),
            });
            continue;
        }
        patterns.push(match name {
            Some(name) => quote!(#name: #binding),
            None => quote!(#binding),
        });
        field.ty.to_tokens(written);
        write.kept = write.kept.saturating_add(1);
        write.members.extend(quote_spanned!(at=> __key.member(#binding);));
        write.alone = Some(quote_spanned!(at=> __key.member(#binding);));
    }
    let pattern = match fields {
        Fields::Named(_) => quote!({ #(#patterns),* }),
        Fields::Unnamed(_) => quote!(( #(#patterns),* )),
        Fields::Unit => TokenStream::new(),
    };
    (pattern, write)
}

fn skipped(field: &Field, errors: &mut Errors) -> bool {
    let mut skip = false;
    for attr in field.attrs.iter().filter(|attr| attr.path().is_ident("key")) {
        let read = attr.parse_nested_meta(|meta| {
            if !meta.path.is_ident("skip") {
                return Err(unknown(&meta.path, "skip", "#[key(skip)]"));
            }
            if std::mem::replace(&mut skip, true) {
                return Err(meta.error("`skip` is given twice; remove one of them"));
            }
            Ok(())
        });
        if let Err(error) = read {
            errors.push(error);
        }
    }
    skip
}

/// Reads `#[key(crate = path)]` on the type.
fn krate(attrs: &[Attribute], errors: &mut Errors) -> Path {
    let mut krate: Path = syn::parse_quote!(::cache_core);
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("key")) {
        let read = attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("skip") {
                return Err(meta.error("`skip` goes on a field; on the type there is only `#[key(crate = path)]`"));
            }
            if !meta.path.is_ident("crate") {
                return Err(unknown(&meta.path, "crate", "#[key(crate = path)]"));
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

fn unknown(path: &Path, known: &str, usage: &str) -> syn::Error {
    let word = path.to_token_stream().to_string();
    let hint = did_you_mean(&word, [known]);
    syn::Error::new_spanned(path, format!("unknown option `{word}`{hint}; here there is only `{usage}`"))
}

fn refuse_key(attrs: &[Attribute], message: &str, errors: &mut Errors) {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("key")) {
        errors.at(attr, message);
    }
}
