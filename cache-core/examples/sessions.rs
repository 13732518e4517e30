//! How does a web server keep sessions? `cargo run -p cache-core --features axum --example
//! sessions`
//!
//! Then, with a cookie jar: `curl -c jar -b jar http://127.0.0.1:3000/`, several times.

#![allow(clippy::print_stdout, clippy::arithmetic_side_effects, reason = "an example tells what it does")]

use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use cache_core::Cache;
use cache_core::session::{CookieOptions, Secret, Secure, Session, SessionError, SessionLayer};

async fn visit(session: Session) -> Result<String, SessionError> {
    // Exact, however many requests of the visitor run at once.
    let visits = session.increment("visits", 1).await?;
    let user = session.user().await?;
    Ok(format!("visit {visits} of {}\n", user.as_deref().unwrap_or("somebody")))
}

async fn login(session: Session) -> Result<&'static str, SessionError> {
    // The password was right. The session gets a new id: whoever knew the old one is not logged in.
    session.login("ada").await?;
    Ok("logged in\n")
}

async fn logout(session: Session) -> Result<&'static str, SessionError> {
    session.logout().await?;
    Ok("logged out\n")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sessions = SessionLayer::builder(&Cache::from_env().await?)
        // In production, load the secret from your secret store: a new one logs everyone out.
        .secret(Secret::generate())
        // This example has no TLS. Behind TLS, leave `secure` out.
        .cookie(CookieOptions::new().secure(Secure::Never).max_age(Duration::from_secs(14 * 86_400)))
        .build()?;
    let app = Router::new()
        .route("/", get(visit))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .layer(sessions);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("http://{}/", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
