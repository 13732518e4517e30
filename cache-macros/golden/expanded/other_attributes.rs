/// Finds a user.
#[tracing::instrument(skip_all)]
#[allow(clippy::too_many_arguments)]
#[cfg(feature = "users")]
#[must_use]
async fn user(
    a: u8,
    b: u8,
    c: u8,
    #[allow(unused)]
    d: u8,
    e: u8,
    f: u8,
    g: u8,
    h: u8,
) -> User {
    let __run = {
        #[allow(
            clippy::shadow_reuse,
            non_snake_case,
            reason = "arguments under their own names"
        )]
        let (a, b, c, d, e, f, g, h) = (a, b, c, d, e, f, g, h);
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        match ::cache_core::__private::look_up(
            __companion_user::user::__cached,
            __cache,
            |__key| {
                __key.member(&a);
                __key.member(&b);
                __key.member(&d);
                __key.member(&e);
                __key.member(&f);
                __key.member(&g);
                __key.member(&h);
            },
        ) {
            ::core::result::Result::Ok(__hit) => return __hit,
            ::core::result::Result::Err(__miss) => {
                __miss
                    .run_shared(
                        __companion_user::user::__rules(),
                        __companion_user::user::__body(a, b, c, d, e, f, g, h),
                    )
            }
        }
    };
    __run.await
}
#[cfg(feature = "users")]
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
#[cfg(feature = "users")]
/// The cache entries of [`user()`]: `user::entry(..)` is the entry of the arguments in its key.
#[allow(non_camel_case_types, dead_code, unreachable_pub, reason = "generated")]
type user = __companion_user::user;
#[cfg(feature = "users")]
const _: () = user::__the_name_is_taken__write_companion_eq_UserCache;
#[cfg(feature = "users")]
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
        let __options = ::cache_core::EntryOptions::new()
            .ttl(::core::time::Duration::from_secs(60));
        (&&&::cache_core::__private::Probe::<User>::new())
            .returns()
            .rules(__options)
            .erase()
    }
    /// Returns the entry of these arguments.
    #[allow(clippy::too_many_arguments)]
    fn entry(
        a: u8,
        b: u8,
        #[allow(unused)]
        d: u8,
        e: u8,
        f: u8,
        g: u8,
        h: u8,
    ) -> ::cache_core::CachedEntry<User> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_user::user::__cached()
            .entry(
                __cache,
                __companion_user::user::__rules(),
                |__key| {
                    __key.member(&a);
                    __key.member(&b);
                    __key.member(&d);
                    __key.member(&e);
                    __key.member(&f);
                    __key.member(&g);
                    __key.member(&h);
                },
            )
    }
    /// Runs the function without the cache.
    #[expect(clippy::too_many_arguments)]
    async fn uncached(
        a: u8,
        b: u8,
        c: u8,
        #[allow(unused)]
        d: u8,
        e: u8,
        f: u8,
        g: u8,
        h: u8,
    ) -> User {
        find(a).await
    }
    #[doc(hidden)]
    #[allow(clippy::too_many_arguments)]
    fn __body(
        a: u8,
        b: u8,
        c: u8,
        #[allow(unused)]
        d: u8,
        e: u8,
        f: u8,
        g: u8,
        h: u8,
    ) -> impl ::core::future::Future<Output = User> + ::core::marker::Send {
        __companion_user::user::uncached(a, b, c, d, e, f, g, h)
    }
    /// Runs the function now and stores what it returns.
    #[allow(clippy::too_many_arguments)]
    async fn refresh(
        a: u8,
        b: u8,
        c: u8,
        #[allow(unused)]
        d: u8,
        e: u8,
        f: u8,
        g: u8,
        h: u8,
    ) -> User {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_user::user::__cached()
            .entry(
                __cache,
                __companion_user::user::__rules(),
                |__key| {
                    __key.member(&a);
                    __key.member(&b);
                    __key.member(&d);
                    __key.member(&e);
                    __key.member(&f);
                    __key.member(&g);
                    __key.member(&h);
                },
            )
            .__refresh(__companion_user::user::__body(a, b, c, d, e, f, g, h))
            .await
    }
    /// Makes every entry of the function a miss, in every process and build.
    ///
    /// One round trip, however many entries there are.
    #[allow(clippy::too_many_arguments)]
    async fn invalidate_all() -> ::cache_core::Result<()> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_user::user::__cached().invalidate_all(__cache).await
    }
}
