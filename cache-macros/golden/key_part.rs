#[derive(KeyPart)]
struct Page {
    number: u32,
    size: u32,
    #[key(skip)]
    trace: TraceId,
}

#[derive(KeyPart)]
struct Id<T>(T);

#[derive(KeyPart)]
enum Scope<T, U> {
    All,
    One(T),
    Range {
        from: u32,
        to: u32,
        #[key(skip)]
        hint: U,
    },
}
