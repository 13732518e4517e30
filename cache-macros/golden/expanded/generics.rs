async fn load<'a, D, T, const N: usize>(
    db: &'a D,
    ids: [u64; N],
) -> Result<Vec<T>, Error>
where
    D: Database + Sync,
    T: Row<'a> + CacheValue,
{
    let __run = {
        #[allow(
            clippy::shadow_reuse,
            non_snake_case,
            reason = "arguments under their own names"
        )]
        let (db, ids) = (db, ids);
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        match ::cache_core::__private::look_up_part(
            __companion_load::load::__cached::<T, N>,
            __cache,
            &ids,
        ) {
            ::core::result::Result::Ok(__hit) => return __hit,
            ::core::result::Result::Err(__miss) => {
                __miss
                    .run_here(
                        __companion_load::load::__rules::<T, N>(),
                        __companion_load::load::__body::<D, T, N>(db, ids),
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
mod __companion_load {
    pub struct load {}
}
/// The cache entries of [`load()`]: `load::entry(..)` is the entry of the arguments in its key.
#[allow(non_camel_case_types, dead_code, unreachable_pub, reason = "generated")]
type load = __companion_load::load;
const _: () = load::__the_name_is_taken__write_companion_eq_LoadCache;
#[allow(
    dead_code,
    unreachable_pub,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    reason = "generated"
)]
impl __companion_load::load {
    #[doc(hidden)]
    #[allow(non_upper_case_globals, reason = "a sentence")]
    const __the_name_is_taken__write_companion_eq_LoadCache: () = ();
    #[doc(hidden)]
    fn __cached<'a, T, const N: usize>() -> ::cache_core::__private::Cached<
        Result<Vec<T>, Error>,
    >
    where
        T: Row<'a> + CacheValue,
    {
        use ::cache_core::__private::via::*;
        static FUNCTION: ::cache_core::__private::Function = ::cache_core::__private::Function::new(
            "load",
        );
        let __returns = (&&&::cache_core::__private::Probe::<
            Result<Vec<T>, Error>,
        >::new())
            .returns();
        (&__returns.payload()).may_be_cached();
        ::cache_core::__private::Cached::function(
                &FUNCTION,
                ::core::any::type_name::<__companion_load::load>(),
                __returns
                    .with::<
                        ::cache_core::__private::DefaultCodec,
                        _,
                        _,
                    >((&&__returns.payload()).seen(), (&&&&&__returns.error()).sharing())
                    .overdue((&&__returns.error()).overdue()),
            )
            .instance(::core::any::type_name::<fn(T, [(); N])>())
    }
    #[cold]
    #[inline(never)]
    fn __rules<'a, T, const N: usize>() -> ::cache_core::__private::Rules
    where
        T: Row<'a> + CacheValue,
    {
        use ::cache_core::__private::via::*;
        let __options = ::cache_core::EntryOptions::new();
        (&&&::cache_core::__private::Probe::<Result<Vec<T>, Error>>::new())
            .returns()
            .rules(__options)
            .erase()
    }
    /// Returns the entry of these arguments.
    fn entry<'a, T, const N: usize>(
        ids: [u64; N],
    ) -> ::cache_core::CachedEntry<Result<Vec<T>, Error>>
    where
        T: Row<'a> + CacheValue,
    {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_load::load::__cached::<T, N>()
            .entry(
                __cache,
                __companion_load::load::__rules::<T, N>(),
                |__key| {
                    __key.member(&ids);
                },
            )
    }
    /// Runs the function without the cache.
    async fn uncached<'a, D, T, const N: usize>(
        db: &'a D,
        ids: [u64; N],
    ) -> Result<Vec<T>, Error>
    where
        D: Database + Sync,
        T: Row<'a> + CacheValue,
    {
        db.load(ids).await
    }
    #[doc(hidden)]
    fn __body<'a, D, T, const N: usize>(
        db: &'a D,
        ids: [u64; N],
    ) -> impl ::core::future::Future<
        Output = Result<Vec<T>, Error>,
    > + ::core::marker::Send
    where
        D: Database + Sync,
        T: Row<'a> + CacheValue,
    {
        __companion_load::load::uncached::<D, T, N>(db, ids)
    }
    /// Runs the function now and stores what it returns.
    async fn refresh<'a, D, T, const N: usize>(
        db: &'a D,
        ids: [u64; N],
    ) -> Result<Vec<T>, Error>
    where
        D: Database + Sync,
        T: Row<'a> + CacheValue,
    {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_load::load::__cached::<T, N>()
            .entry(
                __cache,
                __companion_load::load::__rules::<T, N>(),
                |__key| {
                    __key.member(&ids);
                },
            )
            .__refresh(__companion_load::load::__body::<D, T, N>(db, ids))
            .await
    }
    /// Makes every entry of the function a miss, in every process and build.
    ///
    /// One round trip, however many entries there are.
    async fn invalidate_all<'a, T, const N: usize>() -> ::cache_core::Result<()>
    where
        T: Row<'a> + CacheValue,
    {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_load::load::__cached::<T, N>().invalidate_all(__cache).await
    }
}
