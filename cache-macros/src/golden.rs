//! Compares expansions with golden files: `golden/*.rs` with `golden/expanded/*.rs`.
//! `UPDATE_GOLDEN=1` rewrites the latter.

use std::path::Path;

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Attribute, Item, Meta};

#[test]
fn expansions_are_as_written_down() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut changed = Vec::new();
    let mut seen = 0;
    for entry in std::fs::read_dir(&golden).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        seen += 1;
        let input = syn::parse_file(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let expanded: TokenStream = input.items.into_iter().map(expand).collect();
        let now = prettyplease::unparse(&syn::parse2(expanded).unwrap());
        let file = golden.join("expanded").join(path.file_name().unwrap());
        if update {
            std::fs::write(&file, now).unwrap();
        } else if std::fs::read_to_string(&file).unwrap_or_default() != now {
            changed.push(format!("{}:\n{now}", file.display()));
        }
    }
    assert!(seen > 0, "no golden files in {}", golden.display());
    assert!(changed.is_empty(), "these expansions changed; `UPDATE_GOLDEN=1` accepts them\n{}", changed.join("\n"));
}

/// Expands our macros on an item, also inside an `impl` block.
fn expand(mut item: Item) -> TokenStream {
    match &mut item {
        Item::Fn(function) => match take(&mut function.attrs) {
            Some((expand, args)) => expand(args, item.into_token_stream()),
            None => item.into_token_stream(),
        },
        Item::Impl(block) => {
            let items = std::mem::take(&mut block.items).into_iter().map(|mut item| match &mut item {
                syn::ImplItem::Fn(function) => match take(&mut function.attrs) {
                    Some((expand, args)) => expand(args, item.into_token_stream()),
                    None => item.into_token_stream(),
                },
                _ => item.into_token_stream(),
            });
            let items: TokenStream = items.collect();
            let (generics, _, clause) = block.generics.split_for_impl();
            let ty = &block.self_ty;
            quote!(impl #generics #ty #clause { #items })
        }
        Item::Struct(_) | Item::Enum(_) => {
            let tokens = item.to_token_stream();
            let derives = tokens.to_string();
            let mut expanded = TokenStream::new();
            if derives.contains("KeyPart") {
                expanded.extend(crate::key_part::derive(tokens.clone()));
            }
            if derives.contains("CacheObject") {
                expanded.extend(crate::object::derive(tokens));
            }
            expanded
        }
        _ => item.into_token_stream(),
    }
}

type Expand = fn(TokenStream, TokenStream) -> TokenStream;

/// Removes the first of our attributes. Returns it with its arguments.
fn take(attrs: &mut Vec<Attribute>) -> Option<(Expand, TokenStream)> {
    let ours: [(&str, Expand); 2] = [("cached", crate::expand_cached), ("invalidates", crate::invalidates::expand)];
    let of = |attr: &Attribute| ours.iter().find(|(name, _)| attr.path().is_ident(name)).map(|(_, expand)| *expand);
    let (at, expand) = attrs.iter().enumerate().find_map(|(at, attr)| Some((at, of(attr)?)))?;
    match attrs.remove(at).meta {
        Meta::List(list) => Some((expand, list.tokens)),
        _ => Some((expand, TokenStream::new())),
    }
}
