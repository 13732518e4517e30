//! `plain = "user:{id}"`: exactly this key, JSON without a header, shared with other programs.
//!
//! What a header would be needed for is refused, each option with what to do instead.

use proc_macro2::TokenStream;
use quote::quote_spanned;

use crate::args::Args;
use crate::errors::Errors;
use crate::expand::Context;
use crate::plan::KeyStep;

/// Whether the function reads through a plain key. Its template is the key's from here on.
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

/// Why an option cannot stand beside `plain`.
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
    /// The closure that writes a plain key. Of an only placeholder a text needs no escapes: nothing
    /// could run into it.
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
