pub(crate) async fn user(
    state: &State,
    tenant: Tenant,
    id: u64,
    fresh: bool,
) -> Result<Option<User>, Error> {
    let __bypass: bool = fresh;
    if __bypass {
        return ::std::boxed::Box::pin(
                __companion_UserCache::UserCache::__body(state, tenant, id, fresh),
            )
            .await;
    }
    let __run = {
        #[allow(
            clippy::shadow_reuse,
            non_snake_case,
            reason = "arguments under their own names"
        )]
        let (state, tenant, id, fresh) = (state, tenant, id, fresh);
        let __cache: &our::cache::Cache = &state.cache;
        match our::cache::__private::look_up(
            __companion_UserCache::UserCache::__cached,
            __cache,
            |__key| {
                __key.placeholder(&tenant.id);
                __key.literal(":");
                __key.placeholder(&id);
            },
        ) {
            ::core::result::Result::Ok(__hit) => return __hit,
            ::core::result::Result::Err(__miss) => {
                __miss
                    .run_here(
                        __companion_UserCache::UserCache::__rules()
                            .tag(|__tag| {
                                __tag.literal("users");
                            })
                            .tag(|__tag| {
                                __tag.literal("tenant:");
                                __tag.placeholder(&tenant.id);
                            }),
                        __companion_UserCache::UserCache::__body(
                            state,
                            tenant,
                            id,
                            fresh,
                        ),
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
mod __companion_UserCache {
    pub struct UserCache {}
}
/// The cache entries of [`user()`]: `UserCache::entry(..)` is the entry of the arguments in its key.
#[allow(non_camel_case_types, dead_code, unreachable_pub, reason = "generated")]
pub(crate) type UserCache = __companion_UserCache::UserCache;
const _: () = UserCache::__the_name_is_taken__write_companion_eq_UserCacheCache;
#[allow(
    dead_code,
    unreachable_pub,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    reason = "generated"
)]
impl __companion_UserCache::UserCache {
    #[doc(hidden)]
    #[allow(non_upper_case_globals, reason = "a sentence")]
    pub(crate) const __the_name_is_taken__write_companion_eq_UserCacheCache: () = ();
    #[doc(hidden)]
    pub(crate) fn __cached() -> our::cache::__private::Cached<
        Result<Option<User>, Error>,
    > {
        use our::cache::__private::via::*;
        static FUNCTION: our::cache::__private::Function = our::cache::__private::Function::new(
                "user",
            )
            .named("user")
            .version(3);
        let __returns = (&&&our::cache::__private::Probe::<
            Result<Option<User>, Error>,
        >::new())
            .returns();
        (&__returns.payload()).may_be_cached();
        our::cache::__private::Cached::function(
            &FUNCTION,
            ::core::any::type_name::<__companion_UserCache::UserCache>(),
            __returns
                .unshared::<
                    our::cache::codec::MsgPack,
                    _,
                >((&&__returns.payload()).seen())
                .overdue((&&__returns.error()).overdue_told()),
        )
    }
    #[cold]
    #[inline(never)]
    fn __rules() -> our::cache::__private::Rules {
        use our::cache::__private::via::*;
        let __options = our::cache::EntryOptions::new()
            .negative_ttl(::core::time::Duration::from_millis(500))
            .jitter(0.25)
            .stale_while_revalidate(::core::time::Duration::from_secs(60))
            .stale_if_error(::core::time::Duration::from_secs(86400))
            .refresh(our::cache::options::RefreshBy::Caller)
            .deadline(
                our::cache::options::Deadline::After(
                    ::core::time::Duration::from_secs(5),
                ),
            )
            .early(2.0)
            .single_flight(our::cache::options::SingleFlightScope::None);
        (&&&our::cache::__private::Probe::<Result<Option<User>, Error>>::new())
            .returns()
            .may_be_absent()
            .rules(__options)
            .ttl_of(|user| user.ttl())
            .cache_if(|user| user.is_active)
            .tags_of(
                &["group", "mail", "role"],
                |value, __tags| {
                    __tags
                        .add(|__tag| {
                            __tag.literal("group:");
                            __tag.placeholder(&value.group);
                        });
                    __tags
                        .add(|__tag| {
                            __tag.literal("mail:");
                            __tag.placeholder(&value.mail);
                        });
                    for __element in value.roles.iter() {
                        __tags
                            .add(|__tag| {
                                __tag.literal("role:");
                                __tag.placeholder(&__element.name);
                            });
                    }
                },
            )
            .erase()
    }
    /// Returns the entry of these arguments. Select its cache with `.on(&cache)`.
    pub(crate) fn entry(
        tenant: Tenant,
        id: u64,
    ) -> our::cache::entry::UnboundEntry<Result<Option<User>, Error>> {
        __companion_UserCache::UserCache::__cached()
            .unbound_entry(
                __companion_UserCache::UserCache::__rules()
                    .tag(|__tag| {
                        __tag.literal("users");
                    })
                    .tag(|__tag| {
                        __tag.literal("tenant:");
                        __tag.placeholder(&tenant.id);
                    }),
                |__key| {
                    __key.placeholder(&tenant.id);
                    __key.literal(":");
                    __key.placeholder(&id);
                },
            )
    }
    /// Runs the function without the cache.
    pub(crate) async fn uncached(
        #[allow(unused_variables, reason = "an option mentions it")]
        state: &State,
        tenant: Tenant,
        id: u64,
        #[allow(unused_variables, reason = "an option mentions it")]
        fresh: bool,
    ) -> Result<Option<User>, Error> {
        state.find(tenant, id).await
    }
    #[doc(hidden)]
    pub(crate) fn __body(
        state: &State,
        tenant: Tenant,
        id: u64,
        fresh: bool,
    ) -> impl ::core::future::Future<
        Output = Result<Option<User>, Error>,
    > + ::core::marker::Send {
        __companion_UserCache::UserCache::uncached(state, tenant, id, fresh)
    }
    /// Runs the function now and stores what it returns.
    pub(crate) async fn refresh(
        state: &State,
        tenant: Tenant,
        id: u64,
        fresh: bool,
    ) -> Result<Option<User>, Error> {
        let __cache: &our::cache::Cache = &state.cache;
        __companion_UserCache::UserCache::__cached()
            .entry(
                __cache,
                __companion_UserCache::UserCache::__rules()
                    .tag(|__tag| {
                        __tag.literal("users");
                    })
                    .tag(|__tag| {
                        __tag.literal("tenant:");
                        __tag.placeholder(&tenant.id);
                    }),
                |__key| {
                    __key.placeholder(&tenant.id);
                    __key.literal(":");
                    __key.placeholder(&id);
                },
            )
            .__refresh(
                __companion_UserCache::UserCache::__body(state, tenant, id, fresh),
            )
            .await
    }
    /// Makes every entry of the function a miss, in every process and build.
    ///
    /// One round trip, however many entries there are.
    pub(crate) async fn invalidate_all(
        __cache: &our::cache::Cache,
    ) -> our::cache::Result<()> {
        let __cache: &our::cache::Cache = __cache;
        __companion_UserCache::UserCache::__cached().invalidate_all(__cache).await
    }
}
