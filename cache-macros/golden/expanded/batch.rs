pub async fn users(
    db: &Db,
    tenant: u32,
    ids: &[u64],
) -> Result<HashMap<u64, User>, Error> {
    let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
    let __run = match __companion_users::users::__cached()
        .look_up_all(
            __cache,
            &ids,
            |ids: &u64, __key: &mut ::cache_core::key::KeyWriter<'_>| {
                __key.member(&tenant);
                __key.member(&ids);
            },
        )
    {
        ::core::result::Result::Ok(__hits) => return __hits,
        ::core::result::Result::Err(__misses) => {
            __misses
                .run(
                    false,
                    |ids: &u64| {
                        __companion_users::users::__rules()
                            .tag(|__tag| {
                                __tag.literal("users");
                            })
                            .tag(|__tag| {
                                __tag.literal("user:");
                                __tag.placeholder(&ids);
                            })
                    },
                    |__ids: ::std::vec::Vec<u64>| {
                        let db = ::core::clone::Clone::clone(&db);
                        let tenant = ::core::clone::Clone::clone(&tenant);
                        ::std::boxed::Box::pin(async move {
                            __companion_users::users::__body(db, tenant, &__ids).await
                        })
                    },
                )
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
mod __companion_users {
    pub struct users {}
}
/// The cache entries of [`users()`]: `users::entry(..)` is the entry of the arguments in its key.
#[allow(non_camel_case_types, dead_code, unreachable_pub, reason = "generated")]
pub type users = __companion_users::users;
const _: () = users::__the_name_is_taken__write_companion_eq_UsersCache;
#[allow(
    dead_code,
    unreachable_pub,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    reason = "generated"
)]
impl __companion_users::users {
    #[doc(hidden)]
    #[allow(non_upper_case_globals, reason = "a sentence")]
    pub const __the_name_is_taken__write_companion_eq_UsersCache: () = ();
    #[doc(hidden)]
    pub fn __cached() -> ::cache_core::__private::Cached<
        <Result<HashMap<u64, User>, Error> as ::cache_core::__private::BatchReturn>::One,
    > {
        use ::cache_core::__private::via::*;
        static FUNCTION: ::cache_core::__private::Function = ::cache_core::__private::Function::new(
                "users",
            )
            .named("user");
        let __returns = (&::cache_core::__private::BatchProbe::<
            _,
            _,
        >::of::<Result<HashMap<u64, User>, Error>>())
            .returns();
        (&__returns.payload()).may_be_cached();
        ::cache_core::__private::Cached::function(
            &FUNCTION,
            ::core::any::type_name::<__companion_users::users>(),
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
            .ttl(::core::time::Duration::from_secs(3600));
        (&::cache_core::__private::BatchProbe::<
            _,
            _,
        >::of::<Result<HashMap<u64, User>, Error>>())
            .returns()
            .rules(__options)
            .erase()
    }
    /// Returns the entry of these arguments.
    pub fn entry(
        tenant: u32,
        ids: u64,
    ) -> ::cache_core::CachedEntry<
        <Result<HashMap<u64, User>, Error> as ::cache_core::__private::BatchReturn>::One,
    > {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_users::users::__cached()
            .entry(
                __cache,
                __companion_users::users::__rules()
                    .tag(|__tag| {
                        __tag.literal("users");
                    })
                    .tag(|__tag| {
                        __tag.literal("user:");
                        __tag.placeholder(&ids);
                    }),
                |__key| {
                    __key
                        .parts(
                            &[
                                ::cache_core::__private::part(&tenant),
                                ::cache_core::__private::part(&ids),
                            ],
                        )
                },
            )
    }
    /// Runs the function without the cache.
    pub async fn uncached(
        db: &Db,
        tenant: u32,
        ids: &[u64],
    ) -> Result<HashMap<u64, User>, Error> {
        db.users(tenant, ids).await
    }
    #[doc(hidden)]
    pub fn __body(
        db: &Db,
        tenant: u32,
        ids: &[u64],
    ) -> impl ::core::future::Future<
        Output = Result<HashMap<u64, User>, Error>,
    > + ::core::marker::Send {
        __companion_users::users::uncached(db, tenant, ids)
    }
    /// Runs the function now and stores what it returns.
    pub async fn refresh(
        db: &Db,
        tenant: u32,
        ids: &[u64],
    ) -> Result<HashMap<u64, User>, Error> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_users::users::__cached()
            .refresh_all(
                __cache,
                &ids,
                |ids: &u64, __key: &mut ::cache_core::key::KeyWriter<'_>| {
                    __key.member(&tenant);
                    __key.member(&ids);
                },
            )
            .run(
                false,
                |ids: &u64| {
                    __companion_users::users::__rules()
                        .tag(|__tag| {
                            __tag.literal("users");
                        })
                        .tag(|__tag| {
                            __tag.literal("user:");
                            __tag.placeholder(&ids);
                        })
                },
                |__ids: ::std::vec::Vec<u64>| {
                    let db = ::core::clone::Clone::clone(&db);
                    let tenant = ::core::clone::Clone::clone(&tenant);
                    ::std::boxed::Box::pin(async move {
                        __companion_users::users::__body(db, tenant, &__ids).await
                    })
                },
            )
            .await
    }
    /// Makes every entry of the function a miss, in every process and build.
    ///
    /// One round trip, however many entries there are.
    pub async fn invalidate_all() -> ::cache_core::Result<()> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_users::users::__cached().invalidate_all(__cache).await
    }
}
impl Repo {
    async fn names(&self, ids: Vec<u64>, labels: Vec<String>) -> BTreeMap<u64, String> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        let __run = match Self::__names_cached()
            .look_up_all(
                __cache,
                &ids,
                |ids: &u64, __key: &mut ::cache_core::key::KeyWriter<'_>| {
                    __key.placeholder(&ids);
                },
            )
        {
            ::core::result::Result::Ok(__hits) => return __hits,
            ::core::result::Result::Err(__misses) => {
                __misses
                    .run(
                        true,
                        |_: &u64| Self::__names_rules(),
                        |__ids: ::std::vec::Vec<u64>| {
                            let __this = ::core::clone::Clone::clone(&self);
                            let labels = ::core::clone::Clone::clone(&labels);
                            ::std::boxed::Box::pin(async move {
                                Self::__names_body(__this, __ids, labels).await
                            })
                        },
                    )
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
    fn __names_cached() -> ::cache_core::__private::Cached<
        <BTreeMap<u64, String> as ::cache_core::__private::BatchReturn>::One,
    > {
        use ::cache_core::__private::via::*;
        static FUNCTION: ::cache_core::__private::Function = ::cache_core::__private::Function::new(
            "names",
        );
        let __returns = (&::cache_core::__private::BatchProbe::<
            _,
            _,
        >::of::<BTreeMap<u64, String>>())
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
    fn __names_rules() -> ::cache_core::__private::Rules {
        use ::cache_core::__private::via::*;
        let __options = ::cache_core::EntryOptions::new();
        (&::cache_core::__private::BatchProbe::<_, _>::of::<BTreeMap<u64, String>>())
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
    fn names_entry(
        ids: u64,
    ) -> ::cache_core::CachedEntry<
        <BTreeMap<u64, String> as ::cache_core::__private::BatchReturn>::One,
    > {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        Self::__names_cached()
            .entry(
                __cache,
                Self::__names_rules(),
                |__key| {
                    __key.placeholder(&ids);
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
    async fn names_uncached(
        &self,
        ids: Vec<u64>,
        labels: Vec<String>,
    ) -> BTreeMap<u64, String> {
        self.load(ids, labels).await
    }
    #[allow(
        dead_code,
        unreachable_pub,
        clippy::missing_errors_doc,
        clippy::missing_panics_doc,
        reason = "generated"
    )]
    #[doc(hidden)]
    fn __names_body(
        &self,
        ids: Vec<u64>,
        labels: Vec<String>,
    ) -> impl ::core::future::Future<
        Output = BTreeMap<u64, String>,
    > + ::core::marker::Send {
        Self::names_uncached(self, ids, labels)
    }
    #[allow(
        dead_code,
        unreachable_pub,
        clippy::missing_errors_doc,
        clippy::missing_panics_doc,
        reason = "generated"
    )]
    /// Runs the function now and stores what it returns.
    async fn names_refresh(
        &self,
        ids: Vec<u64>,
        labels: Vec<String>,
    ) -> BTreeMap<u64, String> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        Self::__names_cached()
            .refresh_all(
                __cache,
                &ids,
                |ids: &u64, __key: &mut ::cache_core::key::KeyWriter<'_>| {
                    __key.placeholder(&ids);
                },
            )
            .run(
                true,
                |_: &u64| Self::__names_rules(),
                |__ids: ::std::vec::Vec<u64>| {
                    let __this = ::core::clone::Clone::clone(&self);
                    let labels = ::core::clone::Clone::clone(&labels);
                    ::std::boxed::Box::pin(async move {
                        Self::__names_body(__this, __ids, labels).await
                    })
                },
            )
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
    async fn names_invalidate_all() -> ::cache_core::Result<()> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        Self::__names_cached().invalidate_all(__cache).await
    }
}
