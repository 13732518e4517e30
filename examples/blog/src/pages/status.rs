//! What the cache is doing.

use axum::extract::State;
use axum::response::Response;
use maud::html;

use super::layout;
use crate::app::App;
use crate::visit::Visit;

pub(super) async fn show(State(app): State<App>, visit: Visit) -> Response {
    let cache = app.cache();
    let stats = cache.stats();
    let counters = [
        ("Hits here", "answered from decoded values in this process", stats.local_hits),
        ("Hits in the store", "answered from the store", stats.hits),
        ("Misses", "nothing usable was there", stats.misses),
        ("Computes", "the function ran", stats.computes),
        ("Failed computes", "the function returned an error", stats.compute_errors),
        ("Fills", "a result was stored", stats.fills),
        ("Refused fills", "a result was outdated before it was stored", stats.refused_fills),
        ("Joined", "waited for a run in this process", stats.joined),
        ("Waited", "waited for a run elsewhere", stats.waited),
        ("Undecodable", "stored bytes could not be read", stats.undecodable),
        ("Store failures", "the store did not answer or refused", stats.store_failures),
        ("Connects", "connections made to the store", stats.connects),
        ("Evicted", "given up for lack of room", stats.evicted),
    ];
    let content = html! {
        h1 { "Cache" }
        p.meta {
            span { "Store: " (app.store()) }
            span { @if cache.is_available() { "available" } @else { "not reachable" } }
        }
        table {
            thead { tr { th scope="col" { "What" } th.number scope="col" { "Count" } th.wide scope="col" { "Meaning" } } }
            tbody {
                @for (name, meaning, count) in counters {
                    tr { th scope="row" { (name) } td.number { (count) } td.wide { (meaning) } }
                }
            }
        }
        p.hint { "Counted in this process since it started." }
    };
    layout::page(&visit, "Cache", &content)
}
