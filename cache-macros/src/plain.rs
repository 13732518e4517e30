//! Implements `plain = "user:{id}"`: exactly this key, JSON without a header, shared with other
//! programs.
//!
//! Options that need a header are refused. Each error says what to do instead.

use proc_macro2::TokenStream;
use quote::quote_spanned;

use crate::args::Args;
use crate::errors::Errors;
use crate::expand::Context;
use crate::plan::KeyStep;

/// Returns whether the function uses a plain key, and makes its template the key's template.
pub(crate) fn take(args: &mut Args, errors: &mut Errors) -> bool {
    let Some(written) = args.written.iter().position(|option| option == "plain") else { return false };
    for (at, option) in args.written.iter().enumerate().filter(|(at, _)| *at != written) {
        let _position = at;
        if let Some(message) = refusal(&option.to_string()) {
            errors.at(option, message);
        }
    }
    if args.key.is_none() {
        args.key = args.plain.take();
    }
    true
}

/// Returns why an option cannot be combined with `plain`.
fn refusal(option: &str) -> Option<String> {
    Some(match option {
        "key" => "`plain` is the whole key; remove `key`, or `plain` for an entry of this library's own".to_owned(),
        "name" => "a plain key has no name in front of it; remove `name`, and write it into the template".to_owned(),
        "tags" => {
            "a plain value has no header that could hold tags; remove `tags`, and end it by `f::entry(..).invalidate()`"
                .to_owned()
        }
        "version" => {
            "a plain value has no fingerprint: all builds and programs read one value; remove `version`, and give new \
             fields `#[serde(default)]`"
                .to_owned()
        }
        "codec" => "a plain value is JSON, which other programs read; remove `codec`".to_owned(),
        "batch" => "`plain` is for functions of one key; remove `batch`, or `plain`".to_owned(),
        "stale_while_revalidate" | "stale_if_error" | "soft_timeout" | "refresh" | "early" => format!(
            "a plain value has no header that tells its age, so it is served until its ttl ends and no longer; remove \
             `{option}`, or `plain`"
        ),
        _ => return None,
    })
}

impl Context<'_> {
    /// Generates the closure that writes a plain key. Text in a template's only placeholder is not
    /// escaped, because nothing else can be confused with it.
    pub(crate) fn plain_key(&self) -> TokenStream {
        let is_place = |step: &&KeyStep| matches!(step, KeyStep::Placeholder(..));
        let mut places = self.plan.key.iter().filter(is_place);
        let (Some(KeyStep::Placeholder(expression, span)), None) = (places.next(), places.next()) else {
            let steps = self.key_steps();
            return if self.plan.key.is_empty() {
                quote_spanned!(self.mixed=> |_| {})
            } else {
                quote_spanned!(self.mixed=> |__key| { #steps })
            };
        };
        let bindings = self.bindings(expression);
        let steps = self.plan.key.iter().map(|step| match step {
            KeyStep::Literal(text) => quote_spanned!(self.mixed=> __key.literal(#text);),
            _ => quote_spanned!(self.mixed.located_at(*span)=> __key.only_placeholder(&#expression);),
        });
        quote_spanned!(self.mixed=> |__key| { #bindings #(#steps)* })
    }
}
