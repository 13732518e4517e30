//! Implements `#[derive(CacheObject)]`.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned as _;
use syn::{Data, DeriveInput, Expr, Field, Fields, Ident, LitStr, Member, Path, Type};

use crate::args::{self, Codec, Lifetime};
use crate::errors::{Errors, did_you_mean};

const OPTIONS: [(&str, &str); 6] = [
    ("name", "name = \"cart\""),
    ("ttl", "ttl = \"7d\""),
    ("sliding", "sliding"),
    ("id", "id = id"),
    ("codec", "codec = \"json\""),
    ("crate", "crate = my_crate::cache_core"),
];

/// The parsed options of `#[cache_object(..)]`.
#[derive(Default)]
struct Options {
    name: Option<LitStr>,
    ttl: Option<TokenStream>,
    sliding: bool,
    id: Option<Member>,
    codec: Option<Codec>,
    krate: Option<Path>,
    seen: Vec<String>,
}

/// Generates the `impl`, or all errors.
pub(crate) fn derive(item: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(item) {
        Ok(input) => input,
        Err(error) => return error.to_compile_error(),
    };
    let mut errors = Errors::default();
    let options = options(&input, &mut errors);
    if !input.generics.params.is_empty() {
        errors.at(&input.generics, "an object's name stands for one stored form, so its type cannot be generic");
    }
    let fields = match &input.data {
        Data::Struct(data) => Some(&data.fields),
        Data::Enum(data) => {
            errors
                .at(data.enum_token, "an object of the cache is a struct with an id; put the enum into a field of it");
            None
        }
        Data::Union(data) => {
            errors.at(data.union_token, "an object of the cache is a struct with an id; a union cannot be stored");
            None
        }
    };
    let id = options.id.as_ref().and_then(|id| find(id, fields?, &mut errors));
    match (&options.name, &options.ttl, id, &options.id) {
        (Some(name), Some(ttl), Some(field), Some(id)) if errors.is_empty() => {
            implementation(&input, &options, name, ttl, id, &field.ty)
        }
        _ => errors.into_tokens(),
    }
}

fn options(input: &DeriveInput, errors: &mut Errors) -> Options {
    let mut options = Options::default();
    let mut attrs = input.attrs.iter().filter(|attr| attr.path().is_ident("cache_object")).peekable();
    if attrs.peek().is_none() {
        errors.at(&input.ident, "say how it is stored: `#[cache_object(name = \"cart\", ttl = \"7d\", id = id)]`");
        return options;
    }
    let mut last = input.ident.span();
    for attr in attrs {
        last = attr.path().span();
        if let Err(error) = attr.parse_nested_meta(|meta| options.read(&meta, errors)) {
            errors.push(error);
        }
    }
    for (name, usage) in OPTIONS.iter().filter(|(name, _)| matches!(*name, "name" | "ttl" | "id")) {
        if !options.seen.iter().any(|seen| seen == name) {
            errors.at_span(last, format!("`{name}` is missing; write `{usage}`"));
        }
    }
    options
}

impl Options {
    fn read(&mut self, meta: &ParseNestedMeta<'_>, errors: &mut Errors) -> syn::Result<()> {
        let word = meta.path.to_token_stream().to_string();
        let Some((_, usage)) = OPTIONS.iter().find(|(known, _)| *known == word) else {
            let hint = did_you_mean(&word, OPTIONS.iter().map(|(known, _)| *known));
            errors.at(&meta.path, format!("unknown option `{word}`{hint}"));
            return self.pass_over(meta);
        };
        if self.seen.contains(&word) {
            errors.at(&meta.path, format!("`{word}` is given twice; remove one of them"));
        }
        self.seen.push(word.clone());
        if word == "sliding" {
            self.sliding = true;
            return Ok(());
        }
        let value = meta.value().map_err(|_| meta.error(format!("`{word}` needs a value: `{usage}`")))?;
        match word.as_str() {
            "name" => {
                let name: LitStr = value.parse().map_err(|_| meta.error(format!("write `{usage}`")))?;
                args::check_name(&name, errors);
                self.name = Some(name);
            }
            "ttl" => {
                let lifetime = args::lifetime("ttl", value.parse()?, errors);
                if let Some(Lifetime::OfValue(closure)) = &lifetime {
                    errors.at(closure, "an object's ttl is the same for all; write a duration: `ttl = \"7d\"`");
                }
                self.ttl = lifetime.and_then(|lifetime| lifetime.to_expression(Span::mixed_site()));
            }
            "id" => self.id = Some(value.parse().map_err(|_| meta.error("name the field: `id = id`"))?),
            "codec" => self.codec(value.parse()?, errors),
            _ => self.krate = Some(value.call(Path::parse_mod_style)?),
        }
        Ok(())
    }

    fn codec(&mut self, value: Expr, errors: &mut Errors) {
        let literal = match &value {
            Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(literal), .. }) => literal,
            Expr::Path(own) => {
                self.codec = Some(Codec::Own(Box::new(Type::Path(syn::TypePath {
                    qself: own.qself.clone(),
                    path: own.path.clone(),
                }))));
                return;
            }
            other => return errors.at(other, "write `codec = \"msgpack\"`, `codec = \"json\"` or a type's path"),
        };
        match args::built_in_codec(literal) {
            Ok("Bincode" | "Postcard") => errors.at(
                literal,
                format!(
                    "`{}` stores fields by position, but an object outlives the build that wrote it and must be read \
                     by field name; write `codec = \"msgpack\"` or `codec = \"json\"`",
                    literal.value()
                ),
            ),
            Ok(name) => self.codec = Some(Codec::BuiltIn(name)),
            Err(_) => errors.at(
                literal,
                format!(
                    "unknown codec `{}`{} (\"msgpack\", \"json\", or a type)",
                    literal.value(),
                    did_you_mean(&literal.value(), ["msgpack", "json"])
                ),
            ),
        }
    }

    fn krate(&self) -> Path {
        self.krate.clone().unwrap_or_else(|| syn::parse_quote!(::cache_core))
    }

    /// Skips the value of an unknown option.
    fn pass_over(&self, meta: &ParseNestedMeta<'_>) -> syn::Result<()> {
        if let Ok(value) = meta.value() {
            let _value: Expr = value.parse()?;
        } else if meta.input.peek(syn::token::Paren) {
            let _value: proc_macro2::Group = meta.input.parse()?;
        }
        Ok(())
    }
}

/// Finds the field of the id.
fn find<'a>(id: &Member, fields: &'a Fields, errors: &mut Errors) -> Option<&'a Field> {
    let found = fields.members().zip(fields).find(|(member, _)| member == id);
    if found.is_none() {
        let word = id.to_token_stream().to_string();
        let known: Vec<String> =
            fields.iter().filter_map(|field| Some(field.ident.as_ref()?.unraw().to_string())).collect();
        let hint = did_you_mean(&word, known.iter().map(String::as_str));
        errors.at(id, format!("no field is called `{word}`{hint}"));
    }
    found.map(|(_, field)| field)
}

fn built_in(name: &str, krate: &Path) -> TokenStream {
    let name = Ident::new(name, Span::mixed_site());
    quote!(#krate::codec::#name)
}

fn implementation(
    input: &DeriveInput,
    options: &Options,
    name: &LitStr,
    ttl: &TokenStream,
    id: &Member,
    id_type: &Type,
) -> TokenStream {
    let ident = &input.ident;
    let krate = options.krate();
    let sliding = options.sliding;
    let codec = match &options.codec {
        Some(Codec::Own(own)) => own.to_token_stream(),
        Some(Codec::BuiltIn(name)) => built_in(name, &krate),
        None => built_in("MsgPack", &krate),
    };
    // Report a type that cannot be stored at its name.
    quote_spanned! {Span::mixed_site().located_at(ident.span())=>
        #[automatically_derived]
        impl #krate::object::CacheObject for #ident {
            const NAME: &'static str = #name;
            const TTL: ::core::time::Duration = #ttl;
            const SLIDING: bool = #sliding;
            type Id = #id_type;
            type Codec = #codec;

            fn id(&self) -> &Self::Id {
                &self.#id
            }
        }
    }
}
