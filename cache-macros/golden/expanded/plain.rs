pub async fn user(db: &Db, id: u64) -> Result<User, Error> {
    let __run = {
        #[allow(
            clippy::shadow_reuse,
            non_snake_case,
            reason = "arguments under their own names"
        )]
        let (db, id) = (db, id);
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        match ::cache_core::__private::look_up_plain(
            __companion_user::user::__cached,
            __cache,
            |__key| {
                __key.literal("user:");
                __key.only_placeholder(&id);
            },
        ) {
            ::core::result::Result::Ok(__hit) => return __hit,
            ::core::result::Result::Err(__miss) => {
                __miss
                    .run(
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
    pub fn __cached() -> ::cache_core::__private::PlainCached<Result<User, Error>> {
        use ::cache_core::__private::via::*;
        static FUNCTION: ::cache_core::__private::Function = ::cache_core::__private::Function::new(
            "user",
        );
        let __returns = (&&&::cache_core::__private::Probe::<Result<User, Error>>::new())
            .returns();
        (&__returns.payload()).may_be_cached();
        ::cache_core::__private::PlainCached::new(
            ::cache_core::__private::Cached::function(
                &FUNCTION,
                ::core::any::type_name::<__companion_user::user>(),
                __returns
                    .with::<
                        ::cache_core::codec::Json,
                        _,
                        _,
                    >((&&__returns.payload()).seen(), (&&&&&__returns.error()).sharing())
                    .overdue((&&__returns.error()).overdue()),
            ),
        )
    }
    #[cold]
    #[inline(never)]
    fn __rules() -> ::cache_core::__private::Rules {
        use ::cache_core::__private::via::*;
        let __options = ::cache_core::EntryOptions::new()
            .ttl(::core::time::Duration::from_secs(60));
        (&&&::cache_core::__private::Probe::<Result<User, Error>>::new())
            .returns()
            .rules(__options)
            .erase()
    }
    /// Returns the entry of these arguments.
    pub fn entry(id: u64) -> ::cache_core::plain::PlainEntry<Result<User, Error>> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_user::user::__cached()
            .entry(
                __cache,
                __companion_user::user::__rules(),
                |__key| {
                    __key.literal("user:");
                    __key.only_placeholder(&id);
                },
            )
    }
    /// Runs the function without the cache.
    pub async fn uncached(db: &Db, id: u64) -> Result<User, Error> {
        db.user(id).await
    }
    #[doc(hidden)]
    pub fn __body(
        db: &Db,
        id: u64,
    ) -> impl ::core::future::Future<
        Output = Result<User, Error>,
    > + ::core::marker::Send {
        __companion_user::user::uncached(db, id)
    }
    /// Runs the function now and stores what it returns.
    pub async fn refresh(db: &Db, id: u64) -> Result<User, Error> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_user::user::__cached()
            .entry(
                __cache,
                __companion_user::user::__rules(),
                |__key| {
                    __key.literal("user:");
                    __key.only_placeholder(&id);
                },
            )
            .__refresh(__companion_user::user::__body(db, id))
            .await
    }
}
async fn nick(cache: &Cache, name: &str) -> Option<Nick> {
    let __run = {
        #[allow(
            clippy::shadow_reuse,
            non_snake_case,
            reason = "arguments under their own names"
        )]
        let (cache, name) = (cache, name);
        let __cache: &::cache_core::Cache = cache;
        match ::cache_core::__private::look_up_plain(
            __companion_nick::nick::__cached,
            __cache,
            |__key| {
                __key.only_placeholder(&name);
            },
        ) {
            ::core::result::Result::Ok(__hit) => return __hit,
            ::core::result::Result::Err(__miss) => {
                __miss
                    .run(
                        __companion_nick::nick::__rules(),
                        __companion_nick::nick::__body(cache, name),
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
mod __companion_nick {
    pub struct nick {}
}
/// The cache entries of [`nick()`]: `nick::entry(..)` is the entry of the arguments in its key.
#[allow(non_camel_case_types, dead_code, unreachable_pub, reason = "generated")]
type nick = __companion_nick::nick;
const _: () = nick::__the_name_is_taken__write_companion_eq_NickCache;
#[allow(
    dead_code,
    unreachable_pub,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    reason = "generated"
)]
impl __companion_nick::nick {
    #[doc(hidden)]
    #[allow(non_upper_case_globals, reason = "a sentence")]
    const __the_name_is_taken__write_companion_eq_NickCache: () = ();
    #[doc(hidden)]
    fn __cached() -> ::cache_core::__private::PlainCached<Option<Nick>> {
        use ::cache_core::__private::via::*;
        static FUNCTION: ::cache_core::__private::Function = ::cache_core::__private::Function::new(
            "nick",
        );
        let __returns = (&&&::cache_core::__private::Probe::<Option<Nick>>::new())
            .returns();
        (&__returns.payload()).may_be_cached();
        ::cache_core::__private::PlainCached::new(
            ::cache_core::__private::Cached::function(
                &FUNCTION,
                ::core::any::type_name::<__companion_nick::nick>(),
                __returns
                    .with::<
                        ::cache_core::codec::Json,
                        _,
                        _,
                    >((&&__returns.payload()).seen(), (&&&&&__returns.error()).sharing())
                    .overdue((&&__returns.error()).overdue()),
            ),
        )
    }
    #[cold]
    #[inline(never)]
    fn __rules() -> ::cache_core::__private::Rules {
        use ::cache_core::__private::via::*;
        let __options = ::cache_core::EntryOptions::new()
            .negative_ttl(::core::time::Duration::from_secs(30));
        (&&&::cache_core::__private::Probe::<Option<Nick>>::new())
            .returns()
            .may_be_absent()
            .rules(__options)
            .ttl_of(|value| value.lasts())
            .cache_if(|nick| nick.is_known())
            .erase()
    }
    /// Returns the entry of these arguments. Select its cache with `.on(&cache)`.
    fn entry(name: &str) -> ::cache_core::plain::UnboundPlainEntry<Option<Nick>> {
        __companion_nick::nick::__cached()
            .unbound_entry(
                __companion_nick::nick::__rules(),
                |__key| {
                    __key.only_placeholder(&name);
                },
            )
    }
    /// Runs the function without the cache.
    async fn uncached(
        #[allow(unused_variables, reason = "an option mentions it")]
        cache: &Cache,
        name: &str,
    ) -> Option<Nick> {
        find(name).await
    }
    #[doc(hidden)]
    fn __body(
        cache: &Cache,
        name: &str,
    ) -> impl ::core::future::Future<Output = Option<Nick>> + ::core::marker::Send {
        __companion_nick::nick::uncached(cache, name)
    }
    /// Runs the function now and stores what it returns.
    async fn refresh(cache: &Cache, name: &str) -> Option<Nick> {
        let __cache: &::cache_core::Cache = cache;
        __companion_nick::nick::__cached()
            .entry(
                __cache,
                __companion_nick::nick::__rules(),
                |__key| {
                    __key.only_placeholder(&name);
                },
            )
            .__refresh(__companion_nick::nick::__body(cache, name))
            .await
    }
}
async fn front() -> Page {
    let __run = {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        match ::cache_core::__private::look_up_plain(
            __companion_front::front::__cached,
            __cache,
            |__key| {
                __key.literal("front");
            },
        ) {
            ::core::result::Result::Ok(__hit) => return __hit,
            ::core::result::Result::Err(__miss) => {
                __miss
                    .run(
                        __companion_front::front::__rules(),
                        __companion_front::front::__body(),
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
mod __companion_front {
    pub struct front {}
}
/// The cache entries of [`front()`]: `front::entry(..)` is the entry of the arguments in its key.
#[allow(non_camel_case_types, dead_code, unreachable_pub, reason = "generated")]
type front = __companion_front::front;
const _: () = front::__the_name_is_taken__write_companion_eq_FrontCache;
#[allow(
    dead_code,
    unreachable_pub,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    reason = "generated"
)]
impl __companion_front::front {
    #[doc(hidden)]
    #[allow(non_upper_case_globals, reason = "a sentence")]
    const __the_name_is_taken__write_companion_eq_FrontCache: () = ();
    #[doc(hidden)]
    fn __cached() -> ::cache_core::__private::PlainCached<Page> {
        use ::cache_core::__private::via::*;
        static FUNCTION: ::cache_core::__private::Function = ::cache_core::__private::Function::new(
            "front",
        );
        let __returns = (&&&::cache_core::__private::Probe::<Page>::new()).returns();
        (&__returns.payload()).may_be_cached();
        ::cache_core::__private::PlainCached::new(
            ::cache_core::__private::Cached::function(
                    &FUNCTION,
                    ::core::any::type_name::<__companion_front::front>(),
                    __returns
                        .with::<
                            ::cache_core::codec::Json,
                            _,
                            _,
                        >(
                            (&&__returns.payload()).seen(),
                            (&&&&&__returns.error()).sharing(),
                        )
                        .overdue((&&__returns.error()).overdue()),
                )
                .local(::cache_core::options::LocalTier::Off),
        )
    }
    #[cold]
    #[inline(never)]
    fn __rules() -> ::cache_core::__private::Rules {
        use ::cache_core::__private::via::*;
        let __options = ::cache_core::EntryOptions::new()
            .ttl(::core::time::Duration::from_secs(60));
        (&&&::cache_core::__private::Probe::<Page>::new())
            .returns()
            .rules(__options)
            .erase()
    }
    /// Returns the entry of these arguments.
    fn entry() -> ::cache_core::plain::PlainEntry<Page> {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_front::front::__cached()
            .entry(
                __cache,
                __companion_front::front::__rules(),
                |__key| {
                    __key.literal("front");
                },
            )
    }
    /// Runs the function without the cache.
    async fn uncached() -> Page {
        render().await
    }
    #[doc(hidden)]
    fn __body() -> impl ::core::future::Future<Output = Page> + ::core::marker::Send {
        __companion_front::front::uncached()
    }
    /// Runs the function now and stores what it returns.
    async fn refresh() -> Page {
        let __cache: &::cache_core::Cache = ::cache_core::__private::installed();
        __companion_front::front::__cached()
            .entry(
                __cache,
                __companion_front::front::__rules(),
                |__key| {
                    __key.literal("front");
                },
            )
            .__refresh(__companion_front::front::__body())
            .await
    }
}
impl Repo {
    async fn user(&self, id: u64) -> User {
        let __run = {
            #[allow(
                clippy::shadow_reuse,
                non_snake_case,
                reason = "arguments under their own names"
            )]
            let (id,) = (id,);
            let __cache: &::cache_core::Cache = &self.cache;
            match ::cache_core::__private::look_up_plain(
                Self::__user_cached,
                __cache,
                |__key| {
                    __key.placeholder(&self.tenant);
                    __key.literal(":user:");
                    __key.placeholder(&id);
                },
            ) {
                ::core::result::Result::Ok(__hit) => return __hit,
                ::core::result::Result::Err(__miss) => {
                    __miss.run(Self::__user_rules(), Self::__user_body(self, id))
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
    fn __user_cached() -> ::cache_core::__private::PlainCached<User> {
        use ::cache_core::__private::via::*;
        static FUNCTION: ::cache_core::__private::Function = ::cache_core::__private::Function::new(
            "user",
        );
        let __returns = (&&&::cache_core::__private::Probe::<User>::new()).returns();
        (&__returns.payload()).may_be_cached();
        ::cache_core::__private::PlainCached::new(
            ::cache_core::__private::Cached::method(
                &FUNCTION,
                ::core::any::type_name::<Self>(),
                __returns
                    .with::<
                        ::cache_core::codec::Json,
                        _,
                        _,
                    >((&&__returns.payload()).seen(), (&&&&&__returns.error()).sharing())
                    .overdue((&&__returns.error()).overdue()),
            ),
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
        let __options = ::cache_core::EntryOptions::new()
            .ttl(::core::time::Duration::from_secs(60));
        (&&&::cache_core::__private::Probe::<User>::new())
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
    fn user_entry(&self, id: u64) -> ::cache_core::plain::PlainEntry<User> {
        let __cache: &::cache_core::Cache = &self.cache;
        Self::__user_cached()
            .entry(
                __cache,
                Self::__user_rules(),
                |__key| {
                    __key.placeholder(&self.tenant);
                    __key.literal(":user:");
                    __key.placeholder(&id);
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
    async fn user_uncached(&self, id: u64) -> User {
        self.db.user(id).await
    }
    #[allow(
        dead_code,
        unreachable_pub,
        clippy::missing_errors_doc,
        clippy::missing_panics_doc,
        reason = "generated"
    )]
    #[doc(hidden)]
    fn __user_body(
        &self,
        id: u64,
    ) -> impl ::core::future::Future<Output = User> + ::core::marker::Send {
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
    async fn user_refresh(&self, id: u64) -> User {
        let __cache: &::cache_core::Cache = &self.cache;
        Self::__user_cached()
            .entry(
                __cache,
                Self::__user_rules(),
                |__key| {
                    __key.placeholder(&self.tenant);
                    __key.literal(":user:");
                    __key.placeholder(&id);
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
    async fn rename(&self, id: u64, name: String) {
        let __write = {
            let __cache: &::cache_core::Cache = &self.cache;
            ::cache_core::__private::Write::on(__cache)
                .entry(
                    self.user_entry(::cache_core::__private::argument(&id)).on(__cache),
                )
                .tag(|__tag| {
                    __tag.literal("users");
                })
        };
        let __begun = __write.begin().await;
        let __returned = async move {
            {
                self.db.rename(id, name).await;
            }
        }
            .await;
        let __happened = {
            use ::cache_core::__private::via::*;
            (&::cache_core::__private::Returned(&__returned)).happened()
        };
        __begun.end(__happened).await;
        __returned
    }
}
