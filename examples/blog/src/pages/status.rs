//! The state of the cache.

use axum::extract::State;
use axum::response::Response;
use cache_core::events::FunctionStats;
use cache_core::events::Stats;
use maud::{Markup, html};

use super::layout;
use crate::app::App;
use crate::problem::Problem;
use crate::visit::Visit;

pub(super) async fn show(State(app): State<App>, visit: Visit) -> Result<Response, Problem> {
    let cache = app.cache();
    let content = html! {
        h1 { "Cache" }
        p.meta {
            @if cache.is_available() { span.lamp.on { "available" } } @else { span.lamp.off { "not reachable" } }
            span { "Store: " (app.store()) }
            span { "Database: " (app.database()) }
        }
        h2 { "By function" }
        (by_function(&cache.function_stats()))
        h2 { "In all" }
        (in_all(&cache.stats()))
        p.hint { "Counted in this process since it started. A hit in this process does not ask the store, and no hit \
            asks the database." }
    };
    layout::page(&visit, "Cache", &content).await
}

fn by_function(functions: &[FunctionStats]) -> Markup {
    html! {
        @if functions.is_empty() {
            p.empty { "Nothing has been asked for yet. Open " a href="/" { "a page" } " and come back." }
        } @else {
            div.scroll { table.functions {
                thead { tr {
                    th scope="col" { "Function" }
                    @for (name, meaning) in [
                        ("L1 hits", "answered from decoded values in this process"),
                        ("L2 hits", "answered from the store"),
                        ("Misses", "nothing usable was there"),
                        ("Computes", "the function was computed"),
                    ] { th.number scope="col" { abbr title=(meaning) { (name) } } }
                    th scope="col" { abbr title="the share of calls that did not wait for a compute" { "Hit ratio" } }
                } }
                tbody { @for function in functions { tr {
                    th scope="row" { code { (breakable(&function.name)) } }
                    @for count in [function.local_hits, function.hits, function.misses, function.computes] {
                        td.number { (count) }
                    }
                    td.ratio { @if let Some(ratio) = function.hit_ratio() {
                        @let percent = format!("{:.1}", ratio * 100.0);
                        meter min="0" max="100" value=(percent) { (percent) " %" }
                        " " (percent) " %"
                    } }
                } } }
            } }
        }
    }
}

/// Lets a narrow window break the name between module and function.
fn breakable(name: &str) -> Markup {
    html! {
        @if let Some((module, function)) = name.rsplit_once('.') { (module) "." wbr; (function) } @else { (name) }
    }
}

fn in_all(stats: &Stats) -> Markup {
    let counters = [
        ("Hits in this process", stats.local_hits),
        ("Hits in the store", stats.hits),
        ("Misses", stats.misses),
        ("Computes", stats.computes),
        ("Computes that failed", stats.compute_errors),
        ("Old values served", stats.stale),
        ("Refreshes in the background", stats.refreshes),
        ("Values stored", stats.fills),
        ("Outdated before they were stored", stats.refused_fills),
        ("Waited for a compute in this process", stats.joined),
        ("Waited for a compute in another process", stats.waited),
        ("Store failures", stats.store_failures),
        ("Connections made", stats.connects),
    ];
    html! { dl.counters { @for (name, count) in counters { div { dt { (name) } dd { (count) } } } } }
}
