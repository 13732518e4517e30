pub async fn rename(db: &Db, id: u64, form: Form<'_>) -> Result<(), Error> {
    let __write = {
        ::cache_core::__private::Write::new()
            .entry(user::entry(::cache_core::__private::argument(&id)))
            .entry(
                crate::posts::by_author::entry::<
                    Draft,
                >(::cache_core::__private::argument(&form.author)),
            )
            .tag(|__tag| {
                __tag.literal("author:");
                __tag.placeholder(&form.author);
            })
            .all(names::__cached())
    };
    let __begun = __write.begin().await;
    let __returned = async move {
        #[allow(
            unknown_lints,
            unreachable_code,
            clippy::diverging_sub_expression,
            clippy::empty_loop,
            clippy::let_unit_value,
            clippy::needless_return,
            reason = "never run: it says the type",
        )]
        if false {
            let __returned: Result<(), Error> = loop {};
            return __returned;
        }
        {
            sqlx::query("update users ..").execute(db).await?;
            Ok(())
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
impl Repo {
    #[instrument]
    async fn rename(&self, id: u64, name: String) {
        let __write = {
            let __cache: &::cache_core::Cache = &self.cache;
            ::cache_core::__private::Write::on(__cache)
                .entry(
                    self.user_entry(::cache_core::__private::argument(&id)).on(__cache),
                )
                .entry(Repo::name_entry(&name).on(__cache))
                .tag(|__tag| {
                    __tag.literal("users");
                })
                .tag(|__tag| {
                    __tag.literal("tenant:");
                    __tag.placeholder(&self.tenant);
                })
                .all(Self::__user_cached())
                .limit(::core::time::Duration::from_secs(120))
                .always()
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
