/// Finds a user.
pub async fn user(db: &Pool, id: u64) -> Res<User> {
    let __run = {
        #[allow(
            clippy::shadow_reuse,
            non_snake_case,
            reason = "arguments under their own names"
        )]
        let (db, id) = (db, id);
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        match ::cache_core::__private::look_up_part(
            __companion_user::user::__cached,
            __cache,
            &id,
        ) {
            ::core::result::Result::Ok(__hit) => return __hit,
            ::core::result::Result::Err(__miss) => {
                __miss
                    .run_here(
                        __companion_user::user::__rules(),
                        __companion_user::user::__body(db, id),
                    )
            }
        }
    };
    __run.await
}
#[doc(hidden)]
#[allow(
    non_camel_case_types,
    non_snake_case,
    dead_code,
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    missing_copy_implementations,
    reason = "a companion is only a place for functions",
)]
mod __companion_user {
    pub struct user {}
}
/// The cache entries of [`user()`]: `user::entry(..)` is the entry of the arguments in its key.
#[allow(non_camel_case_types, dead_code, unreachable_pub, reason = "generated")]
pub type user = __companion_user::user;
const _: () = user::__the_name_is_taken__write_companion_eq_UserCache;
#[allow(
    dead_code,
    unreachable_pub,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    reason = "generated"
)]
impl __companion_user::user {
    #[doc(hidden)]
    #[allow(non_upper_case_globals, reason = "a sentence")]
    pub const __the_name_is_taken__write_companion_eq_UserCache: () = ();
    #[doc(hidden)]
    pub fn __cached() -> ::cache_core::__private::Cached<Res<User>> {
        use ::cache_core::__private::via::*;
        static FUNCTION: ::cache_core::__private::Function = ::cache_core::__private::Function::new(
            "user",
        );
        let __returns = (&&&::cache_core::__private::Probe::<Res<User>>::new())
            .returns();
        (&__returns.payload()).may_be_cached();
        ::cache_core::__private::Cached::function(
            &FUNCTION,
            ::core::any::type_name::<__companion_user::user>(),
            __returns
                .with::<
                    ::cache_core::__private::DefaultCodec,
                    _,
                    _,
                >((&&__returns.payload()).seen(), (&&&&&__returns.error()).sharing())
                .overdue((&&__returns.error()).overdue()),
        )
    }
    #[cold]
    #[inline(never)]
    fn __rules() -> ::cache_core::__private::Rules {
        use ::cache_core::__private::via::*;
        let __options = ::cache_core::EntryOptions::new()
            .ttl(::core::time::Duration::from_secs(60));
        (&&&::cache_core::__private::Probe::<Res<User>>::new())
            .returns()
            .rules(__options)
            .erase()
    }
    /// Returns the entry of these arguments.
    pub fn entry(id: u64) -> ::cache_core::CachedEntry<Res<User>> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_user::user::__cached()
            .entry(
                __cache,
                __companion_user::user::__rules(),
                |__key| {
                    __key.member(&id);
                },
            )
    }
    /// Runs the function without the cache.
    pub async fn uncached(db: &Pool, id: u64) -> Res<User> {
        db.find(id).await
    }
    #[doc(hidden)]
    pub fn __body(
        db: &Pool,
        id: u64,
    ) -> impl ::core::future::Future<Output = Res<User>> + ::core::marker::Send {
        __companion_user::user::uncached(db, id)
    }
    /// Runs the function now and stores what it returns.
    pub async fn refresh(db: &Pool, id: u64) -> Res<User> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_user::user::__cached()
            .entry(
                __cache,
                __companion_user::user::__rules(),
                |__key| {
                    __key.member(&id);
                },
            )
            .__refresh(__companion_user::user::__body(db, id))
            .await
    }
    /// Makes every entry of the function a miss, in every process and build.
    ///
    /// One round trip, however many entries there are.
    pub async fn invalidate_all() -> ::cache_core::Result<()> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_user::user::__cached().invalidate_all(__cache).await
    }
}
