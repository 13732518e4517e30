//! Parses the arguments of `#[invalidates(..)]`: entries, tags and options.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, format_ident, quote};
use syn::ext::IdentExt as _;
use syn::parse::{ParseStream, Parser as _};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{Expr, ExprPath, Ident, LitStr, Path, PathArguments, PathSegment, Token, parenthesized};

use crate::args::{Lifetime, Template, duration_only, literal, skip_to_comma, template};
use crate::errors::{Errors, did_you_mean};
use crate::placeholders::refuse_lists;

/// The parsed arguments of `#[invalidates(..)]`.
#[derive(Default)]
pub(super) struct Args {
    pub(super) entries: Vec<Entry>,
    pub(super) tags: Vec<Template>,
    /// The hidden companions that describe the functions in `all(..)`.
    pub(super) all: Vec<TokenStream>,
    pub(super) cache: Option<Expr>,
    pub(super) always: bool,
    pub(super) limit: Option<Lifetime>,
    pub(super) crate_path: Option<Path>,
}

/// An entry: the companion that makes it, and its arguments.
pub(super) struct Entry {
    pub(super) function: TokenStream,
    pub(super) arguments: Vec<Expr>,
}

impl Entry {
    pub(super) fn span(&self) -> Span {
        self.function.span()
    }
}

/// All options, each with an example of its syntax.
const OPTIONS: [(&str, &str); 7] = [
    ("tag", "tag = \"author:{author}\""),
    ("tags", "tags(\"posts\", \"author:{author}\")"),
    ("all", "all(user)"),
    ("cache", "cache = &state.cache"),
    ("always", "always"),
    ("limit", "limit = \"2m\""),
    ("crate", "crate = my_crate::cache_core"),
];

impl Args {
    /// Parses everything. Errors go to `errors`; the valid parts are kept.
    pub(super) fn parse(tokens: TokenStream, errors: &mut Errors) -> Self {
        let mut args = Self::default();
        let mut seen: Vec<String> = Vec::new();
        let is_empty = tokens.is_empty();
        let read = |input: ParseStream<'_>| {
            while !input.is_empty() {
                if let Err(error) = args.one(input, &mut seen, errors) {
                    errors.push(error);
                    skip_to_comma(input)?;
                }
                if !input.is_empty() && !input.peek(Token![,]) {
                    errors.at_span(input.span(), "expected `,` before what comes next");
                    skip_to_comma(input)?;
                }
                let _comma: Option<Token![,]> = input.parse()?;
            }
            Ok(())
        };
        if let Err(error) = read.parse2(tokens) {
            errors.push(error);
        }
        let says_nothing = args.entries.is_empty() && args.tags.is_empty() && args.all.is_empty();
        if is_empty || (errors.is_empty() && says_nothing) {
            let message = "this names nothing to invalidate; write the cached function with its key's arguments, `user(id)`, \
                 or a tag, `tag = \"author:{author}\"`";
            errors.at_span(Span::call_site(), message);
        }
        args
    }

    fn one(&mut self, input: ParseStream<'_>, seen: &mut Vec<String>, errors: &mut Errors) -> syn::Result<()> {
        let ahead = input.fork();
        let Ok(ident) = ahead.call(Ident::parse_any) else { return self.entry(input.parse()?) };
        let name = ident.to_string();
        let known = OPTIONS.iter().find(|(known, _)| *known == name);
        let (has_value, has_list) = (ahead.peek(Token![=]), ahead.peek(syn::token::Paren));
        let is_alone = ahead.is_empty() || ahead.peek(Token![,]);
        match known {
            Some(("tags" | "all", usage)) if !has_list && (has_value || is_alone) => {
                Err(syn::Error::new(ident.span(), format!("write `{usage}`")))
            }
            Some(("tag" | "cache" | "limit" | "crate", usage)) if is_alone => {
                Err(syn::Error::new(ident.span(), format!("`{name}` needs a value: `{usage}`")))
            }
            Some(("always", usage)) if has_value || has_list => {
                Err(syn::Error::new(ident.span(), format!("`always` takes no value; write `{usage}`")))
            }
            Some((name, usage))
                if has_value || (has_list && matches!(*name, "tags" | "all")) || (is_alone && *name == "always") =>
            {
                // Several tags or functions do not contradict each other.
                if seen.iter().any(|earlier| earlier == name) && !matches!(*name, "tag" | "tags" | "all") {
                    errors.at(&ident, format!("`{name}` is given twice; remove one of them"));
                }
                seen.push((*name).to_owned());
                input.call(Ident::parse_any)?;
                self.option(name, usage, &ident, input, errors)
            }
            None if has_value => Err(syn::Error::new(ident.span(), unknown_option(&name))),
            None if is_alone => {
                let hint = did_you_mean(&name, OPTIONS.iter().map(|(known, _)| *known));
                let message = if hint.is_empty() {
                    format!(
                        "`{name}` needs the arguments of its key: `{name}(id)`; all of its entries are `all({name})`"
                    )
                } else {
                    unknown_option(&name)
                };
                Err(syn::Error::new(ident.span(), message))
            }
            _ => self.entry(input.parse()?),
        }
    }

    fn option(
        &mut self,
        name: &str,
        usage: &str,
        ident: &Ident,
        input: ParseStream<'_>,
        errors: &mut Errors,
    ) -> syn::Result<()> {
        match name {
            "always" => {
                self.always = true;
                return Ok(());
            }
            "tags" | "all" => {
                let list;
                parenthesized!(list in input);
                return self.list(name, usage, ident, &list, errors);
            }
            _ => {}
        }
        input.parse::<Token![=]>()?;
        if input.is_empty() || input.peek(Token![,]) {
            return Err(syn::Error::new(ident.span(), format!("`{name}` needs a value: `{usage}`")));
        }
        match name {
            "tag" => {
                let literal = literal(usage, input)?;
                self.add_tag(literal, errors);
            }
            "cache" => {
                let cache: Expr = input.parse()?;
                if matches!(cache, Expr::Closure(_) | Expr::Lit(_)) {
                    errors.at(&cache, "`cache` is an expression that gives a `&Cache`: `cache = &state.cache`");
                }
                self.cache = Some(cache);
            }
            "limit" => self.limit = duration_only(name, input.parse()?, errors),
            _ => self.crate_path = Some(input.call(Path::parse_mod_style)?),
        }
        Ok(())
    }

    fn list(
        &mut self,
        name: &str,
        usage: &str,
        ident: &Ident,
        list: ParseStream<'_>,
        errors: &mut Errors,
    ) -> syn::Result<()> {
        let span = list.span();
        let is_empty = list.is_empty();
        let read = if name == "tags" {
            Punctuated::<LitStr, Token![,]>::parse_terminated(list)
                .map(|tags| tags.into_iter().for_each(|tag| self.add_tag(tag, errors)))
        } else {
            Punctuated::<ExprPath, Token![,]>::parse_terminated(list)
                .map(|paths| self.all.extend(paths.iter().filter_map(|path| companion(path, Companion::Cached))))
        };
        if read.is_err() {
            // Consume the rest of the list, so that it causes no second error.
            list.parse::<TokenStream>()?;
            let own = format!("a cached function that is called `{name}` is written `self::{name}(..)`");
            return Err(syn::Error::new(span, format!("write `{usage}`; {own}")));
        }
        if is_empty {
            errors.at(ident, format!("`{name}()` names nothing; write `{usage}` or remove it"));
        }
        Ok(())
    }

    fn add_tag(&mut self, literal: LitStr, errors: &mut Errors) {
        if self.tags.iter().any(|earlier| earlier.literal.value() == literal.value()) {
            errors.at(&literal, "this tag is given twice; remove one of them");
        }
        let tag = template(literal, "tag", errors);
        tag.iter().for_each(|tag| refuse_lists(tag, errors));
        self.tags.extend(tag);
    }

    /// Parses `user(id)`, `Self::user(id)` or `self.user(id)`.
    fn entry(&mut self, expression: Expr) -> syn::Result<()> {
        let span = expression.span();
        let entry = match expression {
            Expr::Call(call) => match &*call.func {
                Expr::Path(path) => companion(path, Companion::Entry)
                    .map(|function| Entry { function, arguments: call.args.into_iter().collect() }),
                _ => None,
            },
            Expr::MethodCall(call) => {
                let (receiver, turbofish) = (&call.receiver, &call.turbofish);
                let method = format_ident!("{}_entry", call.method, span = call.method.span());
                let function = quote!(#receiver.#method #turbofish);
                Some(Entry { function, arguments: call.args.into_iter().collect() })
            }
            _ => None,
        };
        let message = "expected a cached function with its key's arguments, such as `user(id)`, or an option, such as `tag = \"author:{author}\"`";
        self.entries.push(entry.ok_or_else(|| syn::Error::new(span, message))?);
        Ok(())
    }
}

fn unknown_option(name: &str) -> String {
    let hint = did_you_mean(name, OPTIONS.iter().map(|(known, _)| *known));
    if hint.is_empty() {
        let all: Vec<String> = OPTIONS.iter().map(|(known, _)| format!("`{known}`")).collect();
        return format!("unknown option `{name}`; the options are {}", all.join(", "));
    }
    format!("unknown option `{name}`{hint}")
}

#[derive(Clone, Copy)]
enum Companion {
    Entry,
    Cached,
}

/// Returns the path of a companion function: `user::entry` for `user`, `Repo::user_entry` for
/// `Repo::user`. Types are recognized by their capital letter.
fn companion(path: &ExprPath, companion: Companion) -> Option<TokenStream> {
    let mut path = path.clone();
    let of_type = path.path.segments.iter().rev().nth(1).map(|segment| segment.ident.unraw().to_string());
    let is_method = path.qself.is_some() || of_type.is_some_and(|name| name.starts_with(char::is_uppercase));
    let last = path.path.segments.last_mut()?;
    let span = last.ident.span();
    if is_method {
        last.ident = match companion {
            Companion::Entry => format_ident!("{}_entry", last.ident, span = span),
            Companion::Cached => format_ident!("__{}_cached", last.ident, span = span),
        };
    } else {
        let arguments = std::mem::replace(&mut last.arguments, PathArguments::None);
        let ident = match companion {
            Companion::Entry => Ident::new("entry", span),
            Companion::Cached => Ident::new("__cached", span),
        };
        path.path.segments.push(PathSegment { ident, arguments });
    }
    Some(path.to_token_stream())
}
