//! The attribute macros and derives of `cache-core`. Use them through that crate.
//!
//! ```text
//! tokens -> args ---------\
//!        -> signature -> plan (validates) -> expand -> tokens
//! ```
//!
//! Every stage adds to one list of errors. If the list is not empty, the output is the errors and
//! the unchanged function.

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
mod placeholders;
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

/// Caches the results of an async function by its arguments.
///
/// The function keeps its name, signature, attributes and errors. Only successful values are
/// stored: an `Err` is never stored, and `None` only with `negative_ttl`. A failure of the cache
/// never reaches the caller as an error; the function runs instead.
///
/// # Options
///
/// Key:
///
/// - `name = "user"`: the first part of the key after the namespace. Two functions with the same
///   name share their entries. Default: crate, module path, type and function name, so a function
///   that moves to another module starts cold.
/// - `key = "user:{id}"`: a template for the rest of the key, made of `{arg}`, `{arg.field}`,
///   `{self.field}`, `{arg.method()}`, and `{arg:display}` for the output of `Display`. It must
///   name every argument that is not skipped. Two placeholders must be separated by a character
///   that no value can contain: one of `: / = | + * & # $ ^ ; < > ' \` or a backtick. Default: all
///   arguments in order.
/// - `plain = "user:{id}"`: a template for the whole key of an entry that is shared with other
///   programs: JSON without a header. It excludes every option that needs the header: `key`,
///   `name`, `tags`, `version`, `codec`, `batch`, the stale windows and `early`. See `docs::plain`.
///   Default: an entry in this library's format.
/// - `skip(db, ..)`: arguments that are not part of the key. Equivalent to `#[cached(skip)]` on the
///   parameter. Default: none.
/// - `version = 1`: a number in the key. Raising it makes every stored entry unreachable. Default:
///   0.
/// - `batch`, `batch(ids)`: a function of many ids, `ids: &[Id]` or `ids: Vec<Id>`, that returns a
///   container of ids with their values. Each id is an entry of its own, and the function is called
///   with the missing ids only. See `docs::batch`. Default: a list is an argument like any other.
///
/// Value and lifetime:
///
/// - `ttl`: how long a value is served: seconds (`86400`), text (`"1d"`, `"1h30m"`, `"500ms"`;
///   units ms, s, m, h, d, w), an expression of type `Duration`, or a closure `|value| ..` that
///   returns one. Default: the cache's ttl, which is one hour unless set.
/// - `negative_ttl`: how long a `None` is served. Accepts the same forms as `ttl` except the
///   closure. Default: `None` is not stored.
/// - `jitter`: the largest fraction by which a ttl is randomly shortened; a ttl is never
///   lengthened. Default: the cache's jitter, which is off unless set.
/// - `cache_if`: a closure over the value, or a function `fn(&T) -> bool`. Values for which it
///   returns `false` are not stored. Default: all values are stored.
/// - `bypass`: an expression of the arguments. If it is true, the function runs and nothing is read
///   or stored. Default: never.
/// - `codec`: `"bincode"`, `"postcard"`, `"msgpack"`, `"json"`, or a type that implements `Codec`.
///   The self-describing formats take more bytes and time. Default: `"bincode"`.
/// - `local`: how long the local tier of this process keeps a value; `false` disables the tier.
///   Default: as long as the value is fresh.
/// - `tags("posts", "author:{author}", "group:{value.group}")`: names under which
///   `Cache::invalidate_tag` finds the entry, at most 16. Each is a template over arguments in the
///   key or over fields of the value. `"post:{value[].id}"` gives one tag for each element of a
///   list in the value, at most 128 tags in all. Each tag costs its name and 16 bytes in the
///   record, and one load on a hit. Tags of the value cost one more round trip after a run.
///   Default: none.
///
/// Stale values and refreshes:
///
/// - `stale_while_revalidate`: how long after its ttl a value is still served immediately while one
///   refresh computes the next value. Accepts the same forms as `negative_ttl`. Costs memory in the
///   store for that time. Default: off.
/// - `stale_if_error`: how long after its ttl a value is served if the function fails or takes too
///   long. Same forms and cost. Default: off.
/// - `refresh`: who computes while a stale value is served: `"background"`, or `"caller"`, which
///   also works with borrowed arguments. Default: `"background"`.
/// - `soft_timeout`: how long a caller waits if a stale value may be served. After that it gets the
///   stale value, and the run continues. Default: none.
/// - `deadline`: how long a run may take before it is dropped, or `false` for no limit. The
///   function's error is then built by `From<DeadlineExceeded>` or `From<std::io::Error>`. Default:
///   the cache's deadline, which is 30 s unless set.
/// - `early`: the beta of XFetch, or `false`. Values are refreshed in the background before they
///   expire; the more expensive a value is to compute, the earlier. Default: 1.0; off with borrowed
///   arguments.
///
/// Execution:
///
/// - `flight`: the scope in which callers of one key share a run: `"cluster"`, `"process"` or
///   `"none"`. Default: `"cluster"`, which costs one more round trip on a miss.
/// - `cache`: an expression of type `&Cache`. It may use the arguments and `self`. Default: the
///   installed cache.
/// - `companion = Name`: the name of the companion type. Set it if a module or type already has the
///   function's name. Default: the function's name.
/// - `method`: required on an associated function that mentions neither `self` nor `Self`.
/// - `crate = path`: the path of the library if it has another name. Default: `::cache_core`.
///
/// # Warning
///
/// Everything the function reads besides its key must be the same for all callers. `self` must
/// therefore be mentioned: either in the key, or in `skip(self)` if all values of the type give the
/// same results. If a parameter is a pattern, the names it binds are in the key; the body cannot
/// see the parts that the pattern leaves out.
///
/// # Companions
///
/// The macro defines a companion type with the function's name, or companion methods:
///
/// | free function | method | |
/// |---|---|---|
/// | `user::entry(id)` | `Repo::user_entry(id)` | the entry: `get`, `set`, `invalidate`, .. |
/// | `user::refresh(&db, id).await` | `repo.user_refresh(id).await` | runs the function, stores |
/// | `user::invalidate_all().await` | `Repo::user_invalidate_all().await` | ends all entries |
/// | `user::uncached(&db, id).await` | `repo.user_uncached(id).await` | bypasses the cache |
///
/// `entry` returns the entry of the arguments in the key. It has `get`, `set`, `invalidate`, `key`
/// and `ttl`. `refresh` runs the function now and stores the result. `invalidate_all` makes every
/// entry of the function a miss. `uncached` runs the function without the cache.
///
/// A method's `entry` takes `&self` if the key or the cache depends on it. If the cache depends on
/// an argument outside the key, pass the cache explicitly: `user::entry(id).on(&cache)`. If it
/// depends on any argument, `invalidate_all` takes the cache as a parameter; if it depends on
/// `self`, `invalidate_all` takes `&self`.
///
/// # Functions
///
/// Supported are `async fn`s that are free functions or methods of an inherent `impl`. An
/// `impl Trait for`, with or without `#[async_trait]`, cannot hold companions: cache a method of
/// the inherent `impl` and call it from the trait's method.
///
/// The return type is owned. It is `T`, `Option<T>`, `Result<T, E>` or `Result<Option<T>, E>`,
/// under any alias.
///
/// If all arguments are owned, callers share one run, which continues as long as any of them waits.
/// With a borrowed argument, a type parameter without `'static` or an `impl Trait`, the run belongs
/// to its caller. If that caller is dropped, another waiting caller starts its own run.
///
/// Each instance of a generic function has its own entries. Instances are distinguished by all type
/// parameters except those that occur only in arguments outside the key. The type of an
/// `impl Trait` argument is part of the key, unless a template defines the key.
///
/// The following are compile errors. Each error says what to write instead:
///
/// - an argument that the template leaves out and `skip` does not name;
/// - a skipped argument whose type or bound is called `..Executor`, `..Transaction`,
///   `..Connection`, `ConnectionTrait` or `Acquire`, unless `bypass` is given, because a read
///   inside an open transaction may be rolled back;
/// - a ttl that is zero, longer than 365 days, dependent on the arguments, or likely to be in
///   milliseconds;
/// - `negative_ttl` without an `Option`;
/// - `&mut` arguments, because a hit would not change them;
/// - return types that borrow, are `impl Trait`, or are empty;
/// - `const`, `unsafe`, `extern` and variadic functions, functions that are not `async`, and
///   functions without a body;
/// - an argument that cannot be part of a key and is not skipped;
/// - an error type that cannot be shared by several callers, unless `single_flight = "none"`;
/// - unknown, repeated and contradicting options.
///
/// A function that calls itself needs a boxed future with a named type somewhere in the cycle, such
/// as `fn boxed(n: u64) -> BoxFuture<'static, u64>`. A function that requests the key it is
/// computing panics, because it would wait for itself. Other attributes work above and below this
/// one.
#[proc_macro_attribute]
pub fn cached(args: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expand_cached(args.into(), item.into()).into()
}

/// Invalidates cached entries and tags after the write of an async function.
///
/// Before the body runs, a write fence is raised on everything that is named, so that no reader
/// stores a row from before the commit. The outcome of the function decides what happens next:
///
/// - `Ok`, or any value that is not a `Result`: the named entries and tags are invalidated in every
///   process and build. Once the function has returned, this process serves no value from before.
/// - `Err`: the write did not happen. Entries and tags are served as before, for the rest of their
///   ttl. With `always` they are invalidated.
/// - A panic, or the future is dropped: the outcome is unknown. The named entries and tags are
///   invalidated in the background.
///
/// A failure of the store never reaches the caller as an error and never prevents a write. It is
/// reported as an event; the page `fence` describes what may be served afterwards.
///
/// # What is invalidated
///
/// - `user(id)`: the entry `user::entry(id)` of a cached function; also `crate::users::user(id)`.
/// - `Self::user(id)`, `Repo::user(id)`, `self.user(id)`, `self.repo.user(id)`: the entry of a
///   cached method. Use the forms with a value if the method's entry takes `&self`.
/// - `tag = "author:{author}"`, `tags("posts", "author:{author}")`: tags, as templates over the
///   arguments: `{arg}`, `{arg.field}`, `{self.field}`.
/// - `all(user, Repo::post)`: all entries of cached functions. They are not fenced: until they are
///   invalidated, a reader may store a row from before the commit.
///
/// The arguments of entries are expressions over the function's own arguments. They are evaluated
/// before the body. An argument or a field of an argument is cloned for the entry; any other
/// expression is used unchanged, so `user(form.id)`, `user(&name)` and `user(id.0 + 1)` work. Write
/// `self::tags(..)` for a cached function named `tags`, and `self::all(..)` for one named `all`.
///
/// # Options
///
/// - `cache`: an expression of type `&Cache`. It may use the arguments and `self`. Default: the
///   caches of the entries; without entries, the installed cache.
/// - `always`: invalidates after an `Err` too, for functions that may return `Err` after the
///   commit. Default: an `Err` means that nothing was written.
/// - `limit = "2m"`: how long the fence lasts if the process dies. It must be longer than the write
///   takes. Accepts the same forms as `ttl` of `#[cached]`. Default: 30 s.
/// - `crate = path`: the path of the library if it has another name. Default: `::cache_core`.
///
/// # Functions
///
/// Supported are `async fn`s: free functions and methods, including those of an `impl Trait for`,
/// with any arguments and return types. Generics, lifetimes, patterns and other attributes are
/// kept. Values owned by the body are dropped before the fence ends, so a transaction that was not
/// committed is rolled back by then. The future is `Send` if the returned value is.
///
/// Costs one round trip before the body and one after it. Cannot be combined with `#[cached]`,
/// because a hit would not write.
#[proc_macro_attribute]
pub fn invalidates(args: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    invalidates::expand(args.into(), item.into()).into()
}

/// Derives `KeyPart`, so that the type can be an argument of a cached function.
///
/// A struct is written as a group of its fields, `(7,de)`; a tuple struct of one field as that
/// field, `7`; an enum as the variant's name and its fields, `Guest`, `Member(7,de)`. Adding or
/// reordering variants changes no existing key. Reordering fields does.
///
/// `#[key(skip)]` on a field leaves the field out of the key, so values that differ only in this
/// field share one key. `#[key(crate = path)]` on the type sets the path of the library. Unions,
/// and fields that do not implement `KeyPart`, are compile errors.
#[proc_macro_derive(KeyPart, attributes(key))]
pub fn derive_key_part(item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    key_part::derive(item.into()).into()
}

/// Derives `ShareError`, which copies an error for every caller that waited for one run.
///
/// A copy has the same variant as the original. Each field is copied by the first of these that its
/// type supports: `ShareError` (implemented by `std::io::Error`, and by `sqlx::Error` with the
/// feature `sqlx`), `Clone`, or `From<SharedError>` (as `anyhow::Error` and
/// `Box<dyn Error + Send + Sync>` have it), in which case the copy gives access to the original. A
/// field of any other type is a compile error. Wrap such a field in an `Arc`, or specify how it is
/// copied:
///
/// - `#[share(io)]`: by `From<std::io::Error>`, for types of other crates. The text and the
///   original are kept, the variant is not.
/// - `#[share(with = path)]`: by a function `fn(&Field) -> Field`.
///
/// `#[share(crate = path)]` on the type sets the path of the library.
#[proc_macro_derive(ShareError, attributes(share))]
pub fn derive_share_error(item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    share_error::derive(item.into()).into()
}

/// Marks a type whose values must never be stored. A cached function that returns it does not
/// compile.
///
/// Use it for rows with password hashes, credentials or keys. See the trait.
#[proc_macro_derive(NotCacheable)]
pub fn derive_not_cacheable(item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    not_cacheable(item.into()).into()
}

/// Makes a struct an object of the cache, for `cache.objects::<T>()`.
///
/// - `name = "cart"`: the first part of the key after the namespace. Required. The type may be
///   renamed later, the name must stay.
/// - `ttl = "7d"`: how long an object lives: seconds, text as in `#[cached]`, or a constant
///   `Duration`. Required.
/// - `id = field`: the field that identifies an object; its type implements `KeyPart`. `0` in a
///   tuple struct. Required.
/// - `sliding`: each use extends the life of the object. Default: off.
/// - `codec`: `"msgpack"`, `"json"`, or a type that reads by field name. Default: `"msgpack"`.
/// - `crate = path`: the path of the library if it has another name. Default: `::cache_core`.
///
/// `"bincode"` and `"postcard"` are refused: they store fields by position, and an object outlives
/// the build that wrote it.
#[proc_macro_derive(CacheObject, attributes(cache_object))]
pub fn derive_cache_object(item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    object::derive(item.into()).into()
}

/// Makes a struct a typed view of some values of a session, for `session.data::<T>()` and
/// `session.modify(|data: &mut T| ..)`.
///
/// Each field is a session value of its own, of any type that implements `Serialize`, `Deserialize`
/// and `Default`. `#[session(name = "lastSeen")]` on a field sets the name of the value, and
/// `#[session(crate = path)]` on the struct sets the path of the library. Names that Express
/// removes when it reads the session are compile errors.
#[proc_macro_derive(SessionData, attributes(session))]
pub fn derive_session_data(item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    session_data::derive(item.into()).into()
}

fn not_cacheable(item: TokenStream) -> TokenStream {
    match syn::parse2::<syn::DeriveInput>(item) {
        Ok(input) => {
            let (implementing, types, clause) = input.generics.split_for_impl();
            let ident = &input.ident;
            quote!(#[automatically_derived] impl #implementing ::cache_core::value::NotCacheable for #ident #types #clause {})
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
