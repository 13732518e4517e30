async fn front_page() -> String {
    let __run = {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        match ::cache_core::__private::look_up(
            __companion_front_page::front_page::__cached,
            __cache,
            |_| {},
        ) {
            ::core::result::Result::Ok(__hit) => return __hit,
            ::core::result::Result::Err(__miss) => {
                __miss
                    .run_shared(
                        __companion_front_page::front_page::__rules(),
                        __companion_front_page::front_page::__body(),
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
mod __companion_front_page {
    pub struct front_page {}
}
/// The cache entries of [`front_page()`]: `front_page::entry(..)` is the entry of the arguments in its key.
#[allow(non_camel_case_types, dead_code, unreachable_pub, reason = "generated")]
type front_page = __companion_front_page::front_page;
const _: () = front_page::__the_name_is_taken__write_companion_eq_FrontPageCache;
#[allow(
    dead_code,
    unreachable_pub,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    reason = "generated"
)]
impl __companion_front_page::front_page {
    #[doc(hidden)]
    #[allow(non_upper_case_globals, reason = "a sentence")]
    const __the_name_is_taken__write_companion_eq_FrontPageCache: () = ();
    #[doc(hidden)]
    fn __cached() -> ::cache_core::__private::Cached<String> {
        use ::cache_core::__private::via::*;
        static FUNCTION: ::cache_core::__private::Function = ::cache_core::__private::Function::new(
            "front_page",
        );
        let __returns = (&&&::cache_core::__private::Probe::<String>::new()).returns();
        (&__returns.payload()).may_be_cached();
        ::cache_core::__private::Cached::function(
            &FUNCTION,
            ::core::any::type_name::<__companion_front_page::front_page>(),
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
            .ttl(::core::time::Duration::from_secs(5400));
        (&&&::cache_core::__private::Probe::<String>::new())
            .returns()
            .rules(__options)
            .erase()
    }
    /// Returns the entry of these arguments.
    fn entry() -> ::cache_core::CachedEntry<String> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_front_page::front_page::__cached()
            .entry(__cache, __companion_front_page::front_page::__rules(), |_| {})
    }
    /// Runs the function without the cache.
    async fn uncached() -> String {
        render().await
    }
    #[doc(hidden)]
    fn __body() -> impl ::core::future::Future<Output = String> + ::core::marker::Send {
        __companion_front_page::front_page::uncached()
    }
    /// Runs the function now and stores what it returns.
    async fn refresh() -> String {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_front_page::front_page::__cached()
            .entry(__cache, __companion_front_page::front_page::__rules(), |_| {})
            .__refresh(__companion_front_page::front_page::__body())
            .await
    }
    /// Makes every entry of the function a miss, in every process and build.
    ///
    /// One round trip, however many entries there are.
    async fn invalidate_all() -> ::cache_core::Result<()> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_front_page::front_page::__cached().invalidate_all(__cache).await
    }
}
