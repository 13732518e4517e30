#[automatically_derived]
impl ::cache_core::object::CacheObject for Cart {
    const NAME: &'static str = "cart";
    const TTL: ::core::time::Duration = ::core::time::Duration::from_secs(604800);
    const SLIDING: bool = true;
    type Id = u64;
    type Codec = ::cache_core::codec::MsgPack;
    fn id(&self) -> &Self::Id {
        &self.id
    }
}
