use cache_core::cached;

struct Postgres;
struct Transaction<'t>(&'t Postgres);
struct PgConnection;
struct PgPool;
trait Executor<'e>: Send + Sync {}
trait Acquire<'e>: Send + Sync {}

// What is read in a transaction that is rolled back would be stored for everybody.
#[cached(skip(ex))]
async fn by_bound(ex: impl Executor<'_>, id: u64) -> u64 {
    let _ = ex;
    id
}

#[cached(skip(ex))]
async fn by_parameter<'e, E>(ex: E, id: u64) -> u64
where
    E: Executor<'e>,
{
    let _ = ex;
    id
}

#[cached(skip(tx))]
async fn by_type(tx: &Transaction<'_>, id: u64) -> u64 {
    let _ = tx.0;
    id
}

#[cached]
async fn by_connection(#[cached(skip)] connection: &tokio::sync::Mutex<PgConnection>, id: u64) -> u64 {
    let _ = connection;
    id
}

#[cached(skip(from))]
async fn by_acquire<'a, A: Acquire<'a>>(from: A, id: u64) -> u64 {
    let _ = from;
    id
}

// These are told of nothing.
#[cached(skip(pool))]
async fn of_a_pool(pool: &PgPool, id: u64) -> u64 {
    let _ = pool;
    id
}

#[cached(skip(ex), bypass = in_transaction)]
async fn told(ex: impl Executor<'_>, #[cached(skip)] in_transaction: bool, id: u64) -> u64 {
    let _ = (ex, in_transaction);
    id
}

fn main() {}
