//! The attribute and the derives of `cache-core`; use them through that crate.
//!
//! ```text
//! tokens -> args ---------\
//!        -> signature -> plan (validates) -> expand -> tokens
//! ```
//!
//! Every stage adds to one list of errors; with any in it, they are the output, beside the function as it was.

mod args;
mod duration;
mod errors;
mod expand;
mod generics;
#[cfg(test)]
mod golden;
mod key_part;
mod object;
mod plan;
mod signature;
mod template;
mod validate;

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};

use crate::args::Args;
use crate::errors::Errors;
use crate::signature::Function;

/// Caches what an async function returns, by its arguments.
#[proc_macro_attribute]
pub fn cached(args: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expand_cached(args.into(), item.into()).into()
}

/// Makes a type a part of cache keys, so that it can be an argument of a cached function.
#[proc_macro_derive(KeyPart, attributes(key))]
pub fn derive_key_part(item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    key_part::derive(item.into()).into()
}

/// Makes a struct an object of the cache, for `cache.objects::<T>()`.
#[proc_macro_derive(CacheObject, attributes(cache_object))]
pub fn derive_cache_object(item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    object::derive(item.into()).into()
}

fn expand_cached(args: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let args = Args::parse(args, &mut errors);
    let function: Function = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            let has_fn = item.clone().into_iter().any(|token| token.to_string() == "fn");
            if has_fn {
                errors.push(error);
            } else {
                errors.at(&item, "`#[cached]` goes on an `async fn`");
            }
            let errors = errors.into_tokens();
            return quote!(#errors #item);
        }
    };
    match validate::plan(args, &function, &mut errors) {
        Some(plan) if errors.is_empty() => expand::expand(&plan, &function),
        _ => {
            let mut tokens = errors.into_tokens();
            function.to_tokens(&mut tokens);
            tokens
        }
    }
}
