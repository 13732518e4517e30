impl Repo {
    pub async fn user(&self, id: u64) -> Res<User> {
        let __run = {
            #[allow(
                clippy::shadow_reuse,
                non_snake_case,
                reason = "arguments under their own names"
            )]
            let (id,) = (id,);
            let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
            match ::cache_core::__private::look_up_part(
                Self::__user_cached,
                __cache,
                &id,
            ) {
                ::core::result::Result::Ok(__hit) => return __hit,
                ::core::result::Result::Err(__miss) => {
                    __miss.run_here(Self::__user_rules(), Self::__user_body(self, id))
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
    pub fn __user_cached() -> ::cache_core::__private::Cached<Res<User>> {
        use ::cache_core::__private::via::*;
        static FUNCTION: ::cache_core::__private::Function = ::cache_core::__private::Function::new(
            "user",
        );
        let __returns = (&&&::cache_core::__private::Probe::<Res<User>>::new())
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
    fn __user_rules() -> ::cache_core::__private::Rules {
        use ::cache_core::__private::via::*;
        let __options = ::cache_core::EntryOptions::new().ttl(TTL);
        (&&&::cache_core::__private::Probe::<Res<User>>::new())
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
    pub fn user_entry(id: u64) -> ::cache_core::CachedEntry<Res<User>> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        Self::__user_cached()
            .entry(
                __cache,
                Self::__user_rules(),
                |__key| {
                    __key.member(&id);
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
    pub async fn user_uncached(&self, id: u64) -> Res<User> {
        self.db.find(id).await
    }
    #[allow(
        dead_code,
        unreachable_pub,
        clippy::missing_errors_doc,
        clippy::missing_panics_doc,
        reason = "generated"
    )]
    #[doc(hidden)]
    pub fn __user_body(
        &self,
        id: u64,
    ) -> impl ::core::future::Future<Output = Res<User>> + ::core::marker::Send {
        Self::user_uncached(self, id)
    }
    #[allow(
        dead_code,
        unreachable_pub,
        clippy::missing_errors_doc,
        clippy::missing_panics_doc,
        reason = "generated"
    )]
    /// Runs the function now and stores what it returns.
    pub async fn user_refresh(&self, id: u64) -> Res<User> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        Self::__user_cached()
            .entry(
                __cache,
                Self::__user_rules(),
                |__key| {
                    __key.member(&id);
                },
            )
            .__refresh(Self::__user_body(self, id))
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
    pub async fn user_invalidate_all() -> ::cache_core::Result<()> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        Self::__user_cached().invalidate_all(__cache).await
    }
}
