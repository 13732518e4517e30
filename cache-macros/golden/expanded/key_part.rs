#[automatically_derived]
impl ::cache_core::KeyPart for Page {
    fn write_key(&self, __key: &mut ::cache_core::key::KeyWriter<'_>) {
        let Self { number: __field0, size: __field1, trace: _ } = self;
        __key
            .group(|__key| {
                __key.member(__field0);
                __key.member(__field1);
            });
    }
}
#[automatically_derived]
impl<T> ::cache_core::KeyPart for Id<T>
where
    T: ::cache_core::KeyPart,
{
    fn write_key(&self, __key: &mut ::cache_core::key::KeyWriter<'_>) {
        let Self(__field0) = self;
        __key.member(__field0);
    }
}
#[automatically_derived]
impl<T, U> ::cache_core::KeyPart for Scope<T, U>
where
    T: ::cache_core::KeyPart,
{
    fn write_key(&self, __key: &mut ::cache_core::key::KeyWriter<'_>) {
        match self {
            Self::All => {
                __key.literal("All");
            }
            Self::One(__field0) => {
                __key.literal("One");
                __key
                    .group(|__key| {
                        __key.member(__field0);
                    });
            }
            Self::Range { from: __field0, to: __field1, hint: _ } => {
                __key.literal("Range");
                __key
                    .group(|__key| {
                        __key.member(__field0);
                        __key.member(__field1);
                    });
            }
        }
    }
}
