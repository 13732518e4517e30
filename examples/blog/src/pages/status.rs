//! What the cache is doing.

use axum::extract::State;
use axum::response::Response;
use maud::html;

use super::layout;
use crate::app::App;
use crate::visit::Visit;

pub(super) async fn show(State(app): State<App>, visit: Visit) -> Response {
    let content = html! {
        h1 { "Cache" }
        table {
            tbody { tr { th scope="row" { "Store" } td { (app.store()) } } }
        }
    };
    layout::page(&visit, "Cache", &content)
}
