impl Settings {
    pub async fn load(tenant: u32) -> Result<Self, Error> {
        let __run = {
            #[allow(
                clippy::shadow_reuse,
                non_snake_case,
                reason = "arguments under their own names"
            )]
            let (tenant,) = (tenant,);
            let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
            match ::cache_core::__private::look_up_part(
                Self::__load_cached,
                __cache,
                &tenant,
            ) {
                ::core::result::Result::Ok(__hit) => return __hit,
                ::core::result::Result::Err(__miss) => {
                    __miss.run_shared(Self::__load_rules(), Self::__load_body(tenant))
                }
            }
        };
        __run.await
    }
    #[allow(
        dead_code,
        unreachable_pub,
        clippy::missing_errors_doc,
        clippy::missing_panics_doc,
        reason = "generated"
    )]
    #[doc(hidden)]
    pub fn __load_cached() -> ::cache_core::__private::Cached<Result<Self, Error>> {
        use ::cache_core::__private::via::*;
        static FUNCTION: ::cache_core::__private::Function = ::cache_core::__private::Function::new(
            "load",
        );
        let __returns = (&&&::cache_core::__private::Probe::<Result<Self, Error>>::new())
            .returns();
        (&__returns.payload()).may_be_cached();
        ::cache_core::__private::Cached::method(
            &FUNCTION,
            ::core::any::type_name::<Self>(),
            __returns
                .with::<
                    ::cache_core::__private::DefaultCodec,
                    _,
                    _,
                >((&&__returns.payload()).seen(), (&&&&&__returns.error()).sharing())
                .overdue((&&__returns.error()).overdue()),
        )
    }
    #[allow(
        dead_code,
        unreachable_pub,
        clippy::missing_errors_doc,
        clippy::missing_panics_doc,
        reason = "generated"
    )]
    #[doc(hidden)]
    #[cold]
    #[inline(never)]
    fn __load_rules() -> ::cache_core::__private::Rules {
        use ::cache_core::__private::via::*;
        let __options = ::cache_core::EntryOptions::new()
            .ttl(::core::time::Duration::from_secs(300));
        (&&&::cache_core::__private::Probe::<Result<Self, Error>>::new())
            .returns()
            .rules(__options)
            .erase()
    }
    #[allow(
        dead_code,
        unreachable_pub,
        clippy::missing_errors_doc,
        clippy::missing_panics_doc,
        reason = "generated"
    )]
    /// Returns the entry of these arguments.
    pub fn load_entry(tenant: u32) -> ::cache_core::CachedEntry<Result<Self, Error>> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        Self::__load_cached()
            .entry(
                __cache,
                Self::__load_rules(),
                |__key| {
                    __key.member(&tenant);
                },
            )
    }
    #[allow(
        dead_code,
        unreachable_pub,
        clippy::missing_errors_doc,
        clippy::missing_panics_doc,
        reason = "generated"
    )]
    /// Runs the function without the cache.
    pub async fn load_uncached(tenant: u32) -> Result<Self, Error> {
        read(tenant).await
    }
    #[allow(
        dead_code,
        unreachable_pub,
        clippy::missing_errors_doc,
        clippy::missing_panics_doc,
        reason = "generated"
    )]
    #[doc(hidden)]
    pub fn __load_body(
        tenant: u32,
    ) -> impl ::core::future::Future<
        Output = Result<Self, Error>,
    > + ::core::marker::Send {
        Self::load_uncached(tenant)
    }
    #[allow(
        dead_code,
        unreachable_pub,
        clippy::missing_errors_doc,
        clippy::missing_panics_doc,
        reason = "generated"
    )]
    /// Runs the function now and stores what it returns.
    pub async fn load_refresh(tenant: u32) -> Result<Self, Error> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        Self::__load_cached()
            .entry(
                __cache,
                Self::__load_rules(),
                |__key| {
                    __key.member(&tenant);
                },
            )
            .__refresh(Self::__load_body(tenant))
            .await
    }
    #[allow(
        dead_code,
        unreachable_pub,
        clippy::missing_errors_doc,
        clippy::missing_panics_doc,
        reason = "generated"
    )]
    /// Makes every entry of the function a miss, in every process and build.
    ///
    /// One round trip, however many entries there are.
    pub async fn load_invalidate_all() -> ::cache_core::Result<()> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        Self::__load_cached().invalidate_all(__cache).await
    }
}
