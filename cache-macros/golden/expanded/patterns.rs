async fn user(__arg0: Path<u64>, __arg1: (bool, u32), __arg2: Marker) -> User {
    let __bypass: bool = {
        #[allow(unused_variables, reason = "a pattern may bind more than the key needs")]
        let (fresh, tenant) = &__arg1;
        *fresh
    };
    if __bypass {
        return ::std::boxed::Box::pin(
                __companion_user::user::__body(__arg0, __arg1, __arg2),
            )
            .await;
    }
    let __run = {
        #[allow(
            clippy::shadow_reuse,
            non_snake_case,
            reason = "arguments under their own names"
        )]
        let (__arg0, __arg1, __arg2) = (__arg0, __arg1, __arg2);
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        match ::cache_core::__private::look_up(
            __companion_user::user::__cached,
            __cache,
            |__key| {
                #[allow(
                    unused_variables,
                    reason = "a pattern may bind more than the key needs"
                )]
                let Path(id) = &__arg0;
                #[allow(
                    unused_variables,
                    reason = "a pattern may bind more than the key needs"
                )]
                let (fresh, tenant) = &__arg1;
                __key.member(&id);
                __key.member(&fresh);
                __key.member(&tenant);
            },
        ) {
            ::core::result::Result::Ok(__hit) => return __hit,
            ::core::result::Result::Err(__miss) => {
                __miss
                    .run_shared(
                        __companion_user::user::__rules(),
                        __companion_user::user::__body(__arg0, __arg1, __arg2),
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
type user = __companion_user::user;
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
    const __the_name_is_taken__write_companion_eq_UserCache: () = ();
    #[doc(hidden)]
    fn __cached() -> ::cache_core::__private::Cached<User> {
        use ::cache_core::__private::via::*;
        static FUNCTION: ::cache_core::__private::Function = ::cache_core::__private::Function::new(
            "user",
        );
        let __returns = (&&&::cache_core::__private::Probe::<User>::new()).returns();
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
        let __options = ::cache_core::EntryOptions::new();
        (&&&::cache_core::__private::Probe::<User>::new())
            .returns()
            .rules(__options)
            .erase()
    }
    /// Returns the entry of these arguments.
    fn entry(__arg0: Path<u64>, __arg1: (bool, u32)) -> ::cache_core::CachedEntry<User> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_user::user::__cached()
            .entry(
                __cache,
                __companion_user::user::__rules(),
                |__key| {
                    #[allow(
                        unused_variables,
                        reason = "a pattern may bind more than the key needs"
                    )]
                    let Path(id) = &__arg0;
                    #[allow(
                        unused_variables,
                        reason = "a pattern may bind more than the key needs"
                    )]
                    let (fresh, tenant) = &__arg1;
                    __key.member(&id);
                    __key.member(&fresh);
                    __key.member(&tenant);
                },
            )
    }
    /// Runs the function without the cache.
    async fn uncached(
        Path(id): Path<u64>,
        #[allow(unused_variables, reason = "an option mentions it")]
        (fresh, mut tenant): (bool, u32),
        _: Marker,
    ) -> User {
        tenant += 1;
        find(tenant, id).await
    }
    #[doc(hidden)]
    fn __body(
        __arg0: Path<u64>,
        __arg1: (bool, u32),
        __arg2: Marker,
    ) -> impl ::core::future::Future<Output = User> + ::core::marker::Send {
        __companion_user::user::uncached(__arg0, __arg1, __arg2)
    }
    /// Runs the function now and stores what it returns.
    async fn refresh(__arg0: Path<u64>, __arg1: (bool, u32), __arg2: Marker) -> User {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_user::user::__cached()
            .entry(
                __cache,
                __companion_user::user::__rules(),
                |__key| {
                    #[allow(
                        unused_variables,
                        reason = "a pattern may bind more than the key needs"
                    )]
                    let Path(id) = &__arg0;
                    #[allow(
                        unused_variables,
                        reason = "a pattern may bind more than the key needs"
                    )]
                    let (fresh, tenant) = &__arg1;
                    __key.member(&id);
                    __key.member(&fresh);
                    __key.member(&tenant);
                },
            )
            .__refresh(__companion_user::user::__body(__arg0, __arg1, __arg2))
            .await
    }
    /// Makes every entry of the function a miss, in every process and build.
    ///
    /// One round trip, however many entries there are.
    async fn invalidate_all() -> ::cache_core::Result<()> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_user::user::__cached().invalidate_all(__cache).await
    }
}
