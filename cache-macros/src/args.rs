//! Parses the options of `#[cached(..)]`. Each option is checked on its own.

use std::time::Duration;

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::quote;
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream, Parser as _};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{Expr, Ident, Lit, LitInt, LitStr, Path, Token, UnOp, parenthesized};

use crate::duration;
use crate::errors::{Errors, did_you_mean};
use crate::template::{self, Piece};

/// The parsed options of `#[cached(..)]`.
#[derive(Default)]
pub(crate) struct Args {
    pub(crate) ttl: Option<Lifetime>,
    pub(crate) name: Option<LitStr>,
    pub(crate) key: Option<Template>,
    /// The whole key, shared with other programs.
    pub(crate) plain: Option<Template>,
    pub(crate) skip: Vec<Ident>,
    pub(crate) tags: Vec<Template>,
    pub(crate) version: Option<LitInt>,
    pub(crate) codec: Option<Codec>,
    pub(crate) cache: Option<Expr>,
    pub(crate) cache_if: Option<Expr>,
    pub(crate) bypass: Option<Expr>,
    pub(crate) negative_ttl: Option<Lifetime>,
    pub(crate) jitter: Option<Expr>,
    pub(crate) stale_while_revalidate: Option<Lifetime>,
    pub(crate) stale_if_error: Option<Lifetime>,
    pub(crate) refresh_in_caller: bool,
    pub(crate) soft_timeout: Option<Lifetime>,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) early: Option<Expr>,
    pub(crate) flight: Flight,
    pub(crate) local: Option<Local>,
    pub(crate) crate_path: Option<Path>,
    pub(crate) companion: Option<Ident>,
    /// `method`: marks an associated function without `self`, which looks like a free function.
    pub(crate) method: Option<Ident>,
    /// `batch`: the option's name, and the parameter that holds the ids if it is named.
    pub(crate) batch: Option<(Ident, Option<Ident>)>,
    /// The names of the given options, in the order of the source.
    pub(crate) written: Vec<Ident>,
}

/// The longest time a run may take.
pub(crate) enum Deadline {
    After(Lifetime),
    Off,
}

/// A time to live.
pub(crate) enum Lifetime {
    /// Known at expansion.
    Constant(Duration),
    /// An expression of type `Duration`.
    Expression(Expr),
    /// A closure from the value to a `Duration`.
    OfValue(Expr),
}

/// How long the local tier keeps a value.
pub(crate) enum Local {
    Off,
    For(Lifetime),
}

/// A template of a key or a tag, with its literal.
pub(crate) struct Template {
    pub(crate) literal: LitStr,
    pub(crate) pieces: Vec<Piece>,
}

/// The codec of the stored values.
pub(crate) enum Codec {
    /// One of the library's codecs, by its type's name.
    BuiltIn(&'static str),
    /// The user's codec.
    Own(Box<syn::Type>),
}

/// The scope in which callers share one run.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Flight {
    #[default]
    Cluster,
    Process,
    None,
}

/// All options, each with an example of its syntax.
const OPTIONS: [(&str, &str); 25] = [
    ("ttl", "ttl = \"1d\""),
    ("name", "name = \"user\""),
    ("key", "key = \"user:{id}\""),
    ("plain", "plain = \"user:{id}\""),
    ("skip", "skip(db)"),
    ("tags", "tags(\"posts\", \"author:{author}\")"),
    ("version", "version = 1"),
    ("codec", "codec = \"msgpack\""),
    ("cache", "cache = &CACHE"),
    ("cache_if", "cache_if = |value| value.is_final()"),
    ("bypass", "bypass = fresh"),
    ("negative_ttl", "negative_ttl = \"30s\""),
    ("jitter", "jitter = 0.2"),
    ("stale_while_revalidate", "stale_while_revalidate = \"1h\""),
    ("stale_if_error", "stale_if_error = \"1d\""),
    ("refresh", "refresh = \"caller\""),
    ("soft_timeout", "soft_timeout = \"100ms\""),
    ("deadline", "deadline = \"10s\""),
    ("early", "early = 2.0"),
    ("single_flight", "single_flight = \"process\""),
    ("local", "local = \"5s\""),
    ("crate", "crate = my_crate::cache_core"),
    ("companion", "companion = UserCache"),
    ("method", "method"),
    ("batch", "batch"),
];

/// Option names of other libraries, with the matching option of this one.
const SYNONYMS: [(&str, &str); 20] = [
    ("time", "ttl"),
    ("expire", "ttl"),
    ("expires", "ttl"),
    ("expiry", "ttl"),
    ("duration", "ttl"),
    ("prefix", "name"),
    ("namespace", "name"),
    ("ignore", "skip"),
    ("exclude", "skip"),
    ("condition", "cache_if"),
    ("when", "cache_if"),
    ("unless", "bypass"),
    ("convert", "key"),
    ("swr", "stale_while_revalidate"),
    ("grace", "stale_while_revalidate"),
    ("stale", "stale_while_revalidate"),
    ("result_fallback", "stale_if_error"),
    ("timeout", "deadline"),
    ("hard_timeout", "deadline"),
    ("beta", "early"),
];

const CODECS: [(&str, &str); 4] =
    [("bincode", "Bincode"), ("postcard", "Postcard"), ("msgpack", "MsgPack"), ("json", "Json")];

impl Args {
    /// Parses all options. Errors go to `errors`; the valid options are kept.
    pub(crate) fn parse(tokens: TokenStream, errors: &mut Errors) -> Self {
        let mut args = Self::default();
        let mut seen: Vec<String> = Vec::new();
        let read = |input: ParseStream<'_>| {
            while !input.is_empty() {
                if let Err(error) = args.option(input, &mut seen, errors) {
                    errors.push(error);
                    skip_to_comma(input)?;
                }
                if !input.is_empty() && !input.peek(Token![,]) {
                    errors.at_span(input.span(), "expected `,` before the next option");
                    skip_to_comma(input)?;
                }
                let _comma: Option<Token![,]> = input.parse()?;
            }
            Ok(())
        };
        if let Err(error) = read.parse2(tokens) {
            errors.push(error);
        }
        args
    }

    fn option(&mut self, input: ParseStream<'_>, seen: &mut Vec<String>, errors: &mut Errors) -> syn::Result<()> {
        if !input.peek(Ident::peek_any) {
            return Err(input.error("expected an option, such as `ttl = \"1d\"`"));
        }
        let ident = input.call(Ident::parse_any)?;
        let name = ident.to_string();
        let Some((_, usage)) = OPTIONS.iter().find(|(known, _)| *known == name) else {
            return Err(syn::Error::new(ident.span(), unknown_option(&name)));
        };
        if seen.contains(&name) {
            errors.at(&ident, format!("`{name}` is given twice; remove one of them"));
        }
        seen.push(name.clone());
        self.written.push(ident.clone());
        match name.as_str() {
            "skip" => {
                if !input.peek(syn::token::Paren) {
                    return Err(syn::Error::new(ident.span(), format!("write `{usage}`, with the parameters' names")));
                }
                let list;
                parenthesized!(list in input);
                let names = Punctuated::<Ident, Token![,]>::parse_terminated_with(&list, Ident::parse_any)?;
                if names.is_empty() {
                    errors.at(&ident, format!("`skip()` names no parameter; write `{usage}` or remove it"));
                }
                self.skip.extend(names);
                return Ok(());
            }
            "batch" => {
                let mut param = None;
                if input.peek(syn::token::Paren) {
                    let named;
                    parenthesized!(named in input);
                    let wrong = |_| {
                        syn::Error::new(ident.span(), "write `batch(ids)`, with the one parameter that holds the ids")
                    };
                    param = Some(named.call(Ident::parse_any).map_err(wrong)?);
                    if !named.is_empty() {
                        let rest: TokenStream = named.parse()?;
                        errors.at(rest, "one parameter holds the ids: `batch(ids)`");
                    }
                } else if input.peek(Token![=]) {
                    return Err(syn::Error::new(
                        ident.span(),
                        "write `batch`, or `batch(ids)` with the parameter that holds the ids",
                    ));
                }
                self.batch = Some((ident, param));
                return Ok(());
            }
            "tags" => {
                if !input.peek(syn::token::Paren) {
                    return Err(syn::Error::new(ident.span(), format!("write `{usage}`")));
                }
                let list;
                parenthesized!(list in input);
                let span = list.span();
                let Ok(tags) = Punctuated::<LitStr, Token![,]>::parse_terminated(&list) else {
                    // Consume the rest of the list, so that it causes no second error.
                    list.parse::<TokenStream>()?;
                    return Err(syn::Error::new(span, format!("write `{usage}`")));
                };
                if tags.is_empty() {
                    errors.at(&ident, format!("`tags()` names no tag; write `{usage}` or remove it"));
                }
                self.tags = tags.into_iter().filter_map(|literal| template(literal, "tag", errors)).collect();
                return Ok(());
            }
            "method" => {
                self.method = Some(ident);
                return Ok(());
            }
            _ => {}
        }
        if !input.peek(Token![=]) {
            return Err(syn::Error::new(ident.span(), format!("`{name}` needs a value: `{usage}`")));
        }
        input.parse::<Token![=]>()?;
        if input.is_empty() || input.peek(Token![,]) {
            return Err(syn::Error::new(ident.span(), format!("`{name}` needs a value: `{usage}`")));
        }
        self.value(&name, usage, input, errors)
    }

    fn value(&mut self, name: &str, usage: &str, input: ParseStream<'_>, errors: &mut Errors) -> syn::Result<()> {
        match name {
            "ttl" => self.ttl = lifetime(name, input.parse()?, errors),
            "negative_ttl" => {
                self.negative_ttl = lifetime(name, input.parse()?, errors);
                if let Some(Lifetime::OfValue(closure)) = &self.negative_ttl {
                    errors.at(closure, "`negative_ttl` has no value to look at; write a duration: `\"30s\"`");
                }
            }
            "jitter" => self.jitter = number(usage, input.parse()?, 0.0..=1.0, errors),
            "stale_while_revalidate" => self.stale_while_revalidate = duration_only(name, input.parse()?, errors),
            "stale_if_error" => self.stale_if_error = duration_only(name, input.parse()?, errors),
            "soft_timeout" => self.soft_timeout = duration_only(name, input.parse()?, errors),
            "refresh" => self.refresh_in_caller = refresh(input)?,
            "deadline" => {
                let value = input.parse()?;
                self.deadline = match is_bool(&value) {
                    Some(false) => Some(Deadline::Off),
                    _ => duration_only(name, value, errors).map(Deadline::After),
                };
            }
            "early" => {
                let value: Expr = input.parse()?;
                self.early = match is_bool(&value) {
                    Some(false) => Some(syn::parse_quote_spanned!(value.span()=> 0.0)),
                    Some(true) => Some(syn::parse_quote_spanned!(value.span()=> 1.0)),
                    None => number(usage, value, 0.0..=f64::INFINITY, errors),
                };
            }
            "name" => {
                let literal: LitStr = literal(usage, input)?;
                check_name(&literal, errors);
                self.name = Some(literal);
            }
            "key" => {
                let literal: LitStr = literal(usage, input)?;
                self.key = template(literal, "key", errors);
            }
            "plain" => {
                let literal: LitStr = literal(usage, input)?;
                self.plain = template(literal, "key", errors);
            }
            "version" => {
                let literal: LitInt = literal(usage, input)?;
                if literal.base10_parse::<u64>().is_err() || !literal.suffix().is_empty() {
                    errors.at(&literal, format!("a version is a plain number: `{usage}`"));
                }
                self.version = Some(literal);
            }
            "codec" => self.codec = codec(input)?,
            "single_flight" => self.flight = single_flight(input)?,
            "local" => self.local = local(input.parse()?, errors),
            "cache" => self.cache = Some(input.parse()?),
            "cache_if" => self.cache_if = Some(input.parse()?),
            "bypass" => self.bypass = Some(input.parse()?),
            "crate" => self.crate_path = Some(input.call(Path::parse_mod_style)?),
            "companion" => self.companion = Some(input.parse()?),
            _ => {}
        }
        Ok(())
    }
}

fn unknown_option(name: &str) -> String {
    let synonym = SYNONYMS.iter().find(|(word, _)| *word == name);
    let hint = match synonym {
        Some((_, option)) => format!("; did you mean `{option}`?"),
        None => did_you_mean(name, OPTIONS.iter().map(|(known, _)| *known)),
    };
    if hint.is_empty() {
        let all: Vec<String> = OPTIONS.iter().map(|(known, _)| format!("`{known}`")).collect();
        return format!("unknown option `{name}`; the options are {}", all.join(", "));
    }
    format!("unknown option `{name}`{hint}")
}

/// Skips to the next comma between options, or to the end.
pub(crate) fn skip_to_comma(input: ParseStream<'_>) -> syn::Result<()> {
    while !input.is_empty() && !input.peek(Token![,]) {
        let _skipped: TokenTree = input.parse()?;
    }
    Ok(())
}

/// Parses the template in a literal. Returns `None` if it has errors.
pub(crate) fn template(literal: LitStr, what: &str, errors: &mut Errors) -> Option<Template> {
    match template::parse(&literal.value(), what) {
        Ok(pieces) => Some(Template { literal, pieces }),
        Err(wrong) => {
            wrong.into_iter().for_each(|message| errors.at(&literal, message));
            None
        }
    }
}

/// Parses a literal of the expected kind. The error shows how the option is written.
pub(crate) fn literal<T: Parse>(usage: &str, input: ParseStream<'_>) -> syn::Result<T> {
    let at = input.span();
    input.parse().map_err(|_| syn::Error::new(at, format!("write `{usage}`")))
}

/// Parses a ttl in any of its forms.
pub(crate) fn lifetime(name: &str, value: Expr, errors: &mut Errors) -> Option<Lifetime> {
    // Expressions passed on by a `macro_rules!` come in an invisible group.
    let value = match value {
        Expr::Group(group) => *group.expr,
        other => other,
    };
    let span = value.span();
    let mut wrong = |message: String| {
        errors.at_span(span, message);
        None
    };
    let constant = match &value {
        Expr::Closure(_) => return Some(Lifetime::OfValue(value)),
        Expr::Lit(lit) => match &lit.lit {
            Lit::Int(seconds) if !seconds.suffix().is_empty() => {
                return wrong(format!("write seconds as a plain number, or text: `{name} = \"{seconds}\"`"));
            }
            Lit::Int(seconds) => match seconds.base10_parse() {
                Ok(seconds) => Duration::from_secs(seconds),
                Err(_) => return wrong(format!("`{seconds}` seconds are longer than can be counted")),
            },
            Lit::Str(text) => match duration::parse(&text.value()) {
                Ok(duration) => duration,
                Err(message) => return wrong(message),
            },
            Lit::Float(_) => return wrong(format!("whole seconds only; write `{name} = \"1500ms\"`")),
            _ => return wrong(format!("not a duration; write seconds or text: `{name} = \"1d\"`")),
        },
        Expr::Unary(unary) if matches!(unary.op, UnOp::Neg(_)) => {
            return wrong(format!("a duration cannot be negative; write `{name} = \"1d\"`"));
        }
        _ => return Some(Lifetime::Expression(value)),
    };
    if constant.is_zero() {
        let nothing = if name == "limit" { "no fence would ever be active" } else { "nothing would ever be served" };
        return wrong(format!("`{name}` is zero, so {nothing}; write `{name} = \"1m\"`, or remove it"));
    }
    if let Some(message) =
        duration::doubt(name, constant, matches!(&value, Expr::Lit(lit) if matches!(lit.lit, Lit::Int(_))))
    {
        return wrong(message);
    }
    Some(Lifetime::Constant(constant))
}

/// Checks a name, which is written into the key unchanged.
pub(crate) fn check_name(literal: &LitStr, errors: &mut Errors) {
    let name = literal.value();
    if name.is_empty() {
        errors.at(literal, "an empty name; write one, such as `name = \"user\"`");
    }
    let bad = |c: char| c.is_control() || c.is_whitespace() || matches!(c, ':' | '@' | '{' | '}' | '%' | '~');
    if let Some(c) = name.chars().find(|c| bad(*c)) {
        let plain: String = name.chars().map(|c| if bad(c) { '.' } else { c }).collect();
        let hint = if matches!(c, '{' | '}') { "; placeholders go into `key = \"..\"`" } else { "" };
        errors.at(literal, format!("`{}` is not allowed in a name; write `\"{plain}\"`{hint}", c.escape_default()));
    }
}

fn codec(input: ParseStream<'_>) -> syn::Result<Option<Codec>> {
    if !input.peek(LitStr) {
        let span = input.span();
        let own = input.parse().map_err(|_| syn::Error::new(span, "write `codec = \"msgpack\"` or a type's path"))?;
        return Ok(Some(Codec::Own(Box::new(own))));
    }
    let literal: LitStr = input.parse()?;
    built_in_codec(&literal).map(|codec| Some(Codec::BuiltIn(codec)))
}

/// Returns the type of a built-in codec.
pub(crate) fn built_in_codec(literal: &LitStr) -> syn::Result<&'static str> {
    let word = literal.value();
    if let Some((_, codec)) = CODECS.iter().find(|(known, _)| *known == word) {
        return Ok(codec);
    }
    let hint = did_you_mean(&word.to_lowercase(), CODECS.iter().map(|(known, _)| *known));
    let message = format!("unknown codec `{word}`{hint} (\"bincode\", \"postcard\", \"msgpack\", \"json\", or a type)");
    Err(syn::Error::new(literal.span(), message))
}

/// Parses `local`: `false`, or a duration.
fn local(value: Expr, errors: &mut Errors) -> Option<Local> {
    match &value {
        Expr::Lit(lit) => match &lit.lit {
            Lit::Bool(on) if !on.value() => return Some(Local::Off),
            Lit::Bool(_) => {
                errors.at(
                    &value,
                    "the local tier is on already; write how long it keeps a value, `local = \"5s\"`, or remove it",
                );
                return None;
            }
            _ => {}
        },
        Expr::Closure(_) => {
            errors.at(&value, "`local` cannot depend on the value; write `local = \"5s\"` or `local = false`");
            return None;
        }
        _ => {}
    }
    lifetime("local", value, errors).map(Local::For)
}

fn single_flight(input: ParseStream<'_>) -> syn::Result<Flight> {
    let literal: LitStr = literal("single_flight = \"process\"", input)?;
    let word = literal.value();
    match word.as_str() {
        "cluster" => Ok(Flight::Cluster),
        "process" => Ok(Flight::Process),
        "none" => Ok(Flight::None),
        other => {
            let hint = did_you_mean(other, ["cluster", "process", "none"]);
            let message = format!("unknown single_flight `{other}`{hint} (\"cluster\", \"process\" or \"none\")");
            Err(syn::Error::new(literal.span(), message))
        }
    }
}

/// Parses `refresh`. Returns whether the caller runs the refresh.
fn refresh(input: ParseStream<'_>) -> syn::Result<bool> {
    let literal: LitStr = literal("refresh = \"caller\"", input)?;
    let word = literal.value();
    match word.as_str() {
        "background" => Ok(false),
        "caller" => Ok(true),
        other => {
            let hint = did_you_mean(other, ["background", "caller"]);
            let message = format!("unknown refresh `{other}`{hint} (\"background\" or \"caller\")");
            Err(syn::Error::new(literal.span(), message))
        }
    }
}

fn is_bool(value: &Expr) -> Option<bool> {
    match value {
        Expr::Lit(lit) => match &lit.lit {
            Lit::Bool(value) => Some(value.value),
            _ => None,
        },
        _ => None,
    }
}

/// Parses a duration that cannot depend on the value.
pub(crate) fn duration_only(name: &str, value: Expr, errors: &mut Errors) -> Option<Lifetime> {
    match lifetime(name, value, errors)? {
        Lifetime::OfValue(closure) => {
            errors.at(&closure, format!("`{name}` has no value to look at; write a duration: `{name} = \"30s\"`"));
            None
        }
        known => Some(known),
    }
}

/// Parses a number within bounds, as a literal of `f64`, or an expression of that type.
fn number(usage: &str, value: Expr, bounds: std::ops::RangeInclusive<f64>, errors: &mut Errors) -> Option<Expr> {
    let value = match value {
        Expr::Group(group) => *group.expr,
        other => other,
    };
    let most = if bounds.end().is_finite() { format!(" to {}", bounds.end()) } else { " up".to_owned() };
    let wrong = format!("a number from {}{most}: write `{usage}`", bounds.start());
    let digits = match &value {
        Expr::Lit(lit) => match &lit.lit {
            Lit::Float(float) if matches!(float.suffix(), "" | "f64") => Some(float.base10_digits().to_owned()),
            Lit::Int(int) if int.suffix().is_empty() => Some(int.base10_digits().to_owned()),
            _ => None,
        },
        Expr::Unary(unary) if matches!(unary.op, UnOp::Neg(_)) => None,
        Expr::Closure(_) => None,
        _ => return Some(value),
    };
    let number = digits.and_then(|digits| digits.parse::<f64>().ok()).filter(|number| bounds.contains(number));
    let Some(number) = number else {
        errors.at(&value, wrong);
        return None;
    };
    let mut literal = proc_macro2::Literal::f64_unsuffixed(number);
    literal.set_span(value.span());
    Some(syn::parse_quote!(#literal))
}

impl Lifetime {
    /// Returns the expression of type `Duration`, unless it depends on the value.
    pub(crate) fn to_expression(&self, span: Span) -> Option<TokenStream> {
        match self {
            Self::Constant(duration) => Some(duration::constant(*duration, span)),
            Self::Expression(expression) => Some(quote!(#expression)),
            Self::OfValue(_) => None,
        }
    }
}
