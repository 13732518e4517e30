//! The attribute and the derives of `cache-core`; use them through that crate.
//!
//! ```text
//! tokens -> args ---------\
//!        -> signature -> plan (validates) -> expand -> tokens
//! ```
//!
//! Every stage adds to one list of errors; with any in it, they are the output, beside the function as it was.

mod args;
mod batch;
mod checks;
mod duration;
mod enclosing;
mod errors;
mod expand;
mod generics;
#[cfg(test)]
mod golden;
mod invalidates;
mod key_part;
mod object;
mod plain;
mod plan;
mod session_data;
mod share_error;
mod signature;
mod tags;
mod template;
mod validate;

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};

use crate::args::Args;
use crate::errors::Errors;
use crate::signature::Function;

/// Caches what an async function returns, by its arguments.
///
/// The function keeps its name, signature, attributes and errors. Only what it returns as a value is stored: no `Err` ever,
/// `None` only with `negative_ttl`. A fault of the cache is never the caller's error: then the function runs.
///
/// # Options
///
/// | option | meaning | default, cost |
/// |---|---|---|
/// | `ttl` | how long a value is served: seconds (`86400`), text (`"1d"`, `"1h30m"`, `"500ms"`; units ms, s, m, h, d, w), an expression of type `Duration`, or a closure `\|value\| ..` that returns one | the cache's, one hour unless set |
/// | `name = "user"` | the first part of the key. Two functions with one name share their entries | crate, module path, type and function name; a function that moves then starts cold |
/// | `key = "user:{id}"` | the rest of the key: a template of `{arg}`, `{arg.field}`, `{self.field}`, `{arg.method()}`, and `{arg:display}` for what `Display` writes. It names every argument that is not skipped. Between two placeholders stands a character that no value can hold: one of `: / = + * & # $ ^ ; < > ' \ `` ` `` or a bar | all arguments in order |
/// | `skip(db, ..)` | arguments that are no part of the key. Also `#[cached(skip)]` on the parameter | none |
/// | `tags("posts", "author:{author}", "group:{value.group}")` | names under which `Cache::invalidate_tag` finds the entry, at most 16: templates over arguments in the key, or over fields of the value; `"post:{value[].id}"` is one for each element of a list in it, at most 128 in all | none; each costs its name and 16 bytes in the record, and a load on a hit; those by the value one round trip after a run |
/// | `version = 1` | a number in the key: raise it, and all that is stored is out of sight | 0 |
/// | `negative_ttl` | how long a `None` is served; forms as `ttl`, without the closure | a `None` is not stored |
/// | `plain = "user:{id}"` | the whole key, shared with other programs: JSON without a header; a template. Not with what a header is needed for: `key`, `name`, `tags`, `version`, `codec`, `batch`, stale windows, `early`; see `docs::plain` | an entry of this library's own |
/// | `jitter` | the largest fraction by which a ttl is randomly shortened; never longer | the cache's, off unless set |
/// | `stale_while_revalidate` | how long after its ttl a value is still served at once, while one refresh computes the next; forms as `negative_ttl` | not at all; costs memory in the store for that long |
/// | `stale_if_error` | how long after its ttl a value is served if the function fails or takes too long | not at all; as above |
/// | `refresh` | who computes while an old value is served: `"background"`, or `"caller"`, which works with borrowed arguments too | `"background"` |
/// | `soft_timeout` | how long a caller waits where an old value may be served; then it gets that, and the run goes on | none |
/// | `deadline` | how long a run may take before it is dropped, or `false`. The function's error is made `From<DeadlineExceeded>` or `From<std::io::Error>` | the cache's, 30 s unless set |
/// | `early` | XFetch's beta, or `false`: values are refreshed in the background before they end, the earlier the more they cost | 1.0; off with borrowed arguments |
/// | `cache_if` | a closure of the value (or a function `fn(&T) -> bool`): `false` is not stored | all values are stored |
/// | `batch`, `batch(ids)` | a function of many ids, `ids: &[Id]` or `ids: Vec<Id>`, that returns a container of ids with their values: each id is an entry of its own, and the function is called with those that are missing; see `docs::batch` | a list is an argument like any other |
/// | `bypass` | an expression of the arguments: where it is true, the function runs and nothing is read or stored | never |
/// | `local` | how long the tier in this process keeps a value; `false`: not at all | as long as it is fresh |
/// | `flight` | how far callers of one key share one run: `"cluster"`, `"process"`, `"none"` | `"cluster"`, one more round trip on a miss |
/// | `codec` | `"bincode"`, `"postcard"`, `"msgpack"`, `"json"`, or a type that implements `Codec` | `"bincode"`; the self-describing ones take more bytes and time |
/// | `cache` | an expression that gives a `&Cache`; may use the arguments and `self` | the installed one |
/// | `crate = path` | where the library is, if it has another name | `::cache_core` |
/// | `companion = Name` | the name of the companion type, where the function's own is taken by a module or type | the function's name |
/// | `method` | for an associated function that mentions neither `self` nor `Self` | |
///
/// # Warning
///
/// What the function reads besides its key must be the same for all callers. So `self` has to be mentioned: in the key, or in
/// `skip(self)` if all values of the type give the same results. Of a parameter that is a pattern, the names it binds are in
/// the key: what it leaves out, the function cannot see.
///
/// # Companions
///
/// A type of the function's name stands beside the function:
///
/// | free function | method | |
/// |---|---|---|
/// | `user::entry(id)` | `Repo::user_entry(id)` | the entry of the arguments in the key: `get`, `set`, `invalidate`, `key`, `ttl` |
/// | `user::refresh(&db, id).await` | `repo.user_refresh(id).await` | runs the function now and stores what it returns |
/// | `user::invalidate_all().await` | `Repo::user_invalidate_all().await` | makes every entry of the function a miss |
/// | `user::uncached(&db, id).await` | `repo.user_uncached(id).await` | runs the function without the cache |
///
/// A method's `entry` takes `&self` if the key or the cache is taken from it. Where only an argument outside the key says which
/// cache it is, `entry` is to be told: `user::entry(id).on(&cache)`. Where only an argument says so, `invalidate_all` takes the cache;
/// where `self` does, it takes `&self`.
///
/// # Functions
///
/// `async fn`, free or a method of a type's own `impl`. An `impl Trait for`, with or without
/// `#[async_trait]`, admits no companions: cache a method of the type's own `impl`, and call it
/// from the trait's. The return type is owned;
/// it is `T`, `Option<T>`, `Result<T, E>` or `Result<Option<T>, E>`, by any alias. Where all arguments are owned, callers share
/// one run that goes on while any of them waits; with a borrowed argument, a type parameter without `'static` or an `impl Trait`,
/// the run belongs to its caller, and if that one is dropped, another of the callers starts its own.
///
/// Each instance of a generic function has its own entries, by all type parameters but those of arguments outside the key;
/// of an `impl Trait` argument the type is part of the key, unless a template says what is.
///
/// Refused, each with what to write instead: an argument that a template leaves out and `skip` does
/// not name; a skipped argument whose type or bound is called `..Executor`, `..Transaction`,
/// `..Connection`, `ConnectionTrait` or `Acquire`, unless `bypass` is given: what is read in an
/// open transaction may be rolled back; a ttl of more than 365 days, or one that looks like
/// milliseconds; `negative_ttl` without an `Option`; `&mut` arguments (a hit would not change
/// them); return types that borrow, are `impl
/// Trait` or nothing; `const`, `unsafe`, `extern` and variadic functions, those that are not `async`, those without a body; an
/// argument that cannot be part of a key and is not skipped; an error that cannot reach several callers, unless
/// `flight = "none"`; a `ttl` of zero or of the arguments; unknown, repeated and contradicting options.
///
/// A function that calls itself needs a box with a type that has a name somewhere in the circle, such as
/// `fn boxed(n: u64) -> BoxFuture<'static, u64>`. One that asks for the very key it is computing panics: it would wait for
/// itself. Other attributes work below and above this one.
#[proc_macro_attribute]
pub fn cached(args: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expand_cached(args.into(), item.into()).into()
}

/// Invalidates what an async function's write changes, once it has happened.
///
/// Before the body a write fence is raised on all that is named, so that no reader stores a row from before the commit. What the
/// function returns says what becomes of it:
///
/// | outcome | |
/// |---|---|
/// | `Ok`, or anything that is no `Result` | what is named ends, in every process and build: once the function has returned, no value from before is served by this process |
/// | `Err` | the write did not happen: entries and tags are served as before, with the ttl they have left; with `always` they end |
/// | a panic, or the future is dropped | nobody knows: what is named ends, in the background |
///
/// A fault of the store is never the caller's error and keeps no write from happening. It is an event; see the page `fence` for what can be
/// served then.
///
/// # What is invalidated
///
/// | | |
/// |---|---|
/// | `user(id)` | the entry `user::entry(id)` of a cached function; also `crate::users::user(id)` |
/// | `Self::user(id)`, `Repo::user(id)`, `self.user(id)`, `self.repo.user(id)` | the entry of a cached method; from a value where its entry takes `&self` |
/// | `tag = "author:{author}"`, `tags("posts", "author:{author}")` | tags: templates over the arguments, `{arg}`, `{arg.field}`, `{self.field}` |
/// | `all(user, Repo::post)` | all entries of cached functions. They are not fenced: a reader may store the row from before the commit until they end |
///
/// The arguments of entries are expressions over the function's own arguments, evaluated before the body. An argument or a field of one is
/// cloned for the entry; everything else stands as it is, so that `user(form.id)`, `user(&name)` and `user(id.0 + 1)` work. A cached
/// function that is called `tags` or `all` is written `self::tags(..)`.
///
/// # Options
///
/// | option | meaning | default |
/// |---|---|---|
/// | `cache` | an expression that gives a `&Cache`; may use the arguments and `self` | the caches of the entries; without entries, the installed one |
/// | `always` | after an `Err` too: for functions whose `Err` may come after the commit | an `Err` says that nothing was written |
/// | `limit = "2m"` | how long the fence stands if the process dies: longer than the write takes; forms as `ttl` of `#[cached]` | 30 s |
/// | `crate = path` | where the library is, if it has another name | `::cache_core` |
///
/// # Functions
///
/// `async fn`, free or methods, also of an `impl Trait for`, with any arguments and return types; generics, lifetimes, patterns and other
/// attributes stay as they are. What the body owns is dropped before the fence ends: a transaction that was not committed is rolled back by
/// then. The future is `Send` if what the function returns is.
///
/// One round trip before the body and one after it. Not on a function with `#[cached]`: a hit would not write.
#[proc_macro_attribute]
pub fn invalidates(args: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    invalidates::expand(args.into(), item.into()).into()
}

/// Makes a type a part of cache keys, so that it can be an argument of a cached function.
///
/// A struct is written as a group of its fields, `(7,de)`, a tuple struct of one field as that field, `7`, an enum as the
/// variant's name and its fields, `Guest`, `Member(7,de)`. New variants and another order of variants change no key; another
/// order of fields does.
///
/// `#[key(skip)]` on a field leaves it out: values that differ in nothing else are one key then. `#[key(crate = path)]` on
/// the type says where the library is. Not for unions; fields that are no key parts themselves are compile errors.
#[proc_macro_derive(KeyPart, attributes(key))]
pub fn derive_key_part(item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    key_part::derive(item.into()).into()
}

/// Makes copies of an error for every caller that waited for one run, so that each can tell what
/// the first one can.
///
/// A copy has the same variant. Each field is copied in the way that its type has: by `ShareError`
/// (which `std::io::Error` has, and `sqlx::Error` with the feature `sqlx`), else by `Clone`, else
/// by `From<SharedError>`, as `anyhow::Error` and `Box<dyn Error + Send + Sync>` have it: then the
/// copy gives access to the original. A field of a type that has none of these does not compile;
/// put it into an `Arc`, or say how it is copied:
///
/// | on a field | |
/// |---|---|
/// | `#[share(io)]` | by `From<std::io::Error>`, for types of other crates: the text and the original stay, the variant does not |
/// | `#[share(with = path)]` | by a function `fn(&Field) -> Field` |
///
/// `#[share(crate = path)]` on the type says where the library is.
#[proc_macro_derive(ShareError, attributes(share))]
pub fn derive_share_error(item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    share_error::derive(item.into()).into()
}

/// Marks a type whose values are never to be stored: a cached function that returns it does not
/// compile.
///
/// For rows with hashes of passwords, credentials, keys. See the trait.
#[proc_macro_derive(NotCacheable)]
pub fn derive_not_cacheable(item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    not_cacheable(item.into()).into()
}

/// Makes a struct an object of the cache, for `cache.objects::<T>()`.
///
/// | option | meaning | default |
/// |---|---|---|
/// | `name = "cart"` | the first part of the key; an object's type may be renamed, its name may not | required |
/// | `ttl = "7d"` | how long an object lives: seconds, text as in `#[cached]`, or a constant `Duration` | required |
/// | `id = field` | the field that tells objects apart, a `KeyPart`; `0` in a tuple struct | required |
/// | `sliding` | a use prolongs the object's life | only a write does |
/// | `codec` | `"msgpack"`, `"json"`, or a type that reads by field name | `"msgpack"` |
/// | `crate = path` | where the library is, if it has another name | `::cache_core` |
///
/// `"bincode"` and `"postcard"` are refused: they store fields by position, and an object outlives the build that wrote it.
#[proc_macro_derive(CacheObject, attributes(cache_object))]
pub fn derive_cache_object(item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    object::derive(item.into()).into()
}

/// Makes a struct a view of some of a session's values, for `session.data::<T>()` and `session.modify(|data: &mut T| ..)`.
///
/// Each field is a value of its own, of any type that is `Serialize`, `Deserialize` and `Default`. `#[session(name = "lastSeen")]` on a field gives it
/// another name, `#[session(crate = path)]` on the struct says where the library is. Names that an Express application would take away
/// are compile errors.
#[proc_macro_derive(SessionData, attributes(session))]
pub fn derive_session_data(item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    session_data::derive(item.into()).into()
}

fn not_cacheable(item: TokenStream) -> TokenStream {
    match syn::parse2::<syn::DeriveInput>(item) {
        Ok(input) => {
            let (implementing, types, clause) = input.generics.split_for_impl();
            let ident = &input.ident;
            quote!(#[automatically_derived] impl #implementing ::cache_core::NotCacheable for #ident #types #clause {})
        }
        Err(error) => error.to_compile_error(),
    }
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
