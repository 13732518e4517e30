//! The attribute and the derives of `cache-core`. Use them through that crate, which reexports them under its feature
//! `macros`; what they generate names it.
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

/// Caches what an async function returns, by its arguments. On a free function or a method.
///
/// ```text
/// #[cached(ttl = "10m", skip(db))]
/// async fn user(db: &Db, id: u64) -> Result<Option<User>, sqlx::Error> { .. }
///
/// user(&db, 7).await?;
/// user::entry(7).invalidate().await?;
/// ```
///
/// | option | meaning | default |
/// |---|---|---|
/// | `ttl` | seconds (`86400`), text (`"1d"`), a `Duration` expression, a closure of the value | the cache's |
/// | `name` | the key's name; functions with one name share entries | module path and function |
/// | `key = "{tenant.id}:{id}"` | a template over arguments and their fields | all arguments in order |
/// | `skip(db, ..)`, `#[cached(skip)]` on a parameter | not part of the key | none |
/// | `negative_ttl` | how long `None` is stored | the cache's: not stored |
/// | `cache_if` | a closure or function of the value: `false` is not stored | all is stored |
/// | `bypass` | an expression of the arguments: `true` neither reads nor stores | never |
/// | `codec` | `"bincode"`, `"postcard"`, `"msgpack"`, `"json"` or a type | `"bincode"` |
/// | `flight` | how far callers share a run: `"cluster"`, `"process"`, `"none"` | `"cluster"` |
/// | `cache` | an expression that gives a `&Cache`, of the arguments and `self` | the installed one |
/// | `version` | a number that makes another key | 0 |
/// | `companion` | the name of the companion type | the function's |
/// | `method` | for an associated function without `self` that does not name `Self` | |
/// | `crate` | the path of `cache_core` | `::cache_core` |
///
/// The value is `T` of `T`, `Option<T>`, `Result<T, E>` or `Result<Option<T>, E>`, through any alias. `Err` is never stored.
///
/// Beside a free function stands a type of its name with `entry(..)` (typed by the arguments of the key), `uncached(..)` and
/// `refresh(..)`; beside a method `user` stand `user_entry(..)`, `user_uncached(..)` and `user_refresh(..)`.
///
/// # Refused, with what to write instead
///
/// - an argument that cannot be part of a key and is not skipped
/// - `&self` about which nothing is said: `skip(self)`, or a template that names fields of it
/// - `&mut` arguments: a hit would not change them
/// - a return type that borrows, is `impl Trait`, or is nothing
/// - `const`, `unsafe`, `extern`, variadic functions, those that are not `async`, those without a body
/// - an error type that cannot reach several callers, unless `flight = "none"`
/// - a `ttl` of zero or of the arguments; unknown, repeated and contradicting options
///
/// # Panics
/// The function panics if its body asks for the same key: it would wait for itself for ever.
#[proc_macro_attribute]
pub fn cached(args: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expand_cached(args.into(), item.into()).into()
}

/// Makes a type a part of cache keys, so that it can be an argument of a cached function.
///
/// A struct is written as a group, `(7,de)`; a tuple struct of one field as that field, `7`; an enum as its variant, `Guest` or
/// `Member(7,de)`. `#[key(skip)]` leaves out a field.
#[proc_macro_derive(KeyPart, attributes(key))]
pub fn derive_key_part(item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    key_part::derive(item.into()).into()
}

/// Makes a struct an object of the cache, for `cache.objects::<T>()`.
///
/// | `#[cache_object(..)]` | meaning | default |
/// |---|---|---|
/// | `name = "cart"` | the key's name | required |
/// | `ttl = "7d"` | how long an object lives without a write; sliding, without a use | required |
/// | `id = id` | the field that tells one from another; its type is a key part | required |
/// | `sliding` | using an object prolongs its life | off |
/// | `codec = "json"` | `"msgpack"`, `"json"` or a type that reads by field name | `"msgpack"` |
/// | `crate = ..` | the path of `cache_core` | `::cache_core` |
///
/// Refused: enums, unions and generic structs; `"bincode"` and `"postcard"`, which read by position.
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
