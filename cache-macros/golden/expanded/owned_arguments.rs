async fn total(year: u32, country: String) -> u64 {
    let __run = {
        #[allow(
            clippy::shadow_reuse,
            non_snake_case,
            reason = "arguments under their own names"
        )]
        let (year, country) = (year, country);
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        match ::cache_core::__private::look_up_parts(
            __companion_total::total::__cached,
            __cache,
            [
                ::cache_core::__private::part(&year),
                ::cache_core::__private::part(&country),
            ],
        ) {
            ::core::result::Result::Ok(__hit) => return __hit,
            ::core::result::Result::Err(__miss) => {
                __miss
                    .run_shared(
                        __companion_total::total::__rules(),
                        __companion_total::total::__body(year, country),
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
mod __companion_total {
    pub struct total {}
}
/// The cache entries of [`total()`]: `total::entry(..)` is the entry of the arguments in its key.
#[allow(non_camel_case_types, dead_code, unreachable_pub, reason = "generated")]
type total = __companion_total::total;
const _: () = total::__the_name_is_taken__write_companion_eq_TotalCache;
#[allow(
    dead_code,
    unreachable_pub,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    reason = "generated"
)]
impl __companion_total::total {
    #[doc(hidden)]
    #[allow(non_upper_case_globals, reason = "a sentence")]
    const __the_name_is_taken__write_companion_eq_TotalCache: () = ();
    #[doc(hidden)]
    fn __cached() -> ::cache_core::__private::Cached<u64> {
        use ::cache_core::__private::via::*;
        static FUNCTION: ::cache_core::__private::Function = ::cache_core::__private::Function::new(
            "total",
        );
        let __returns = (&&&::cache_core::__private::Probe::<u64>::new()).returns();
        (&__returns.payload()).may_be_cached();
        ::cache_core::__private::Cached::function(
            &FUNCTION,
            ::core::any::type_name::<__companion_total::total>(),
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
        (&&&::cache_core::__private::Probe::<u64>::new())
            .returns()
            .rules(__options)
            .erase()
    }
    /// Returns the entry of these arguments.
    fn entry(year: u32, country: String) -> ::cache_core::CachedEntry<u64> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_total::total::__cached()
            .entry(
                __cache,
                __companion_total::total::__rules(),
                |__key| {
                    __key
                        .parts(
                            &[
                                ::cache_core::__private::part(&year),
                                ::cache_core::__private::part(&country),
                            ],
                        )
                },
            )
    }
    /// Runs the function without the cache.
    async fn uncached(year: u32, mut country: String) -> u64 {
        country.make_ascii_lowercase();
        sum(year, country).await
    }
    #[doc(hidden)]
    fn __body(
        year: u32,
        country: String,
    ) -> impl ::core::future::Future<Output = u64> + ::core::marker::Send {
        __companion_total::total::uncached(year, country)
    }
    /// Runs the function now and stores what it returns.
    async fn refresh(year: u32, country: String) -> u64 {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_total::total::__cached()
            .entry(
                __cache,
                __companion_total::total::__rules(),
                |__key| {
                    __key
                        .parts(
                            &[
                                ::cache_core::__private::part(&year),
                                ::cache_core::__private::part(&country),
                            ],
                        )
                },
            )
            .__refresh(__companion_total::total::__body(year, country))
            .await
    }
    /// Makes every entry of the function a miss, in every process and build.
    ///
    /// One round trip, however many entries there are.
    async fn invalidate_all() -> ::cache_core::Result<()> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_total::total::__cached().invalidate_all(__cache).await
    }
}
