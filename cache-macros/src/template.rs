//! Templates of keys and tags: `"user:{id}"`, `"page:{url.as_str()}"`.
//!
//! Invariant of a parsed template: two placeholders are separated by a character that no
//! placeholder can render, so different arguments give different text. `KeyWriter::placeholder`
//! does the other half: it escapes all [`SEPARATORS`].

use proc_macro2::TokenStream;
use syn::ext::IdentExt as _;
use syn::parse::Parser as _;
use syn::{Expr, Ident};

use crate::signature;

/// The characters that may separate placeholders. They never occur in a rendered placeholder.
const SEPARATORS: &str = ":/=|+*&#$^;<>'\\`";

/// One piece of a template.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Literal text.
    Literal(String),
    /// An argument, or a field of one.
    Placeholder(Placeholder),
}

/// `{arg}`, `{arg.field.path}`, `{arg.method()}`, or `{value.field[].field}` for each element of a
/// list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Placeholder {
    pub(crate) root: String,
    /// The fields of the root; of an element if there is a list.
    pub(crate) fields: Vec<String>,
    /// The fields that lead to the list.
    pub(crate) list: Option<Vec<String>>,
    /// An expression that replaces root and fields.
    pub(crate) computed: Option<String>,
    /// Whether it is written by `Display`: `{arg:display}`.
    pub(crate) display: bool,
}

impl Placeholder {
    /// Returns whether it uses this name.
    pub(crate) fn mentions(&self, name: &Ident) -> bool {
        match self.tokens() {
            Some(tokens) => signature::mentions(&tokens, [name]),
            None => name.unraw() == self.root.strip_prefix("r#").unwrap_or(&self.root),
        }
    }

    /// Returns whether it uses this name, for `self` and `value`.
    pub(crate) fn is_of(&self, name: &str) -> bool {
        self.mentions(&Ident::new(name, proc_macro2::Span::call_site()))
    }

    /// Returns the tokens of the expression.
    pub(crate) fn tokens(&self) -> Option<TokenStream> {
        self.computed.as_ref()?.parse().ok()
    }
}

impl std::fmt::Display for Placeholder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.computed.as_ref().unwrap_or(&self.root))?;
        if let Some(list) = &self.list {
            list.iter().try_for_each(|field| write!(f, ".{field}"))?;
            f.write_str("[]")?;
        }
        self.fields.iter().try_for_each(|field| write!(f, ".{field}"))?;
        f.write_str(if self.display { ":display" } else { "" })
    }
}

/// Parses `text` into pieces. Returns all errors if there are any.
pub(crate) fn parse(text: &str, what: &str) -> Result<Vec<Piece>, Vec<String>> {
    let mut wrong = Vec::new();
    if text.is_empty() {
        wrong.push(format!("an empty {what}; write a template such as `\"user:{{id}}\"`"));
    }
    let pieces = split(text, &mut wrong);
    check_literals(&pieces, what, &mut wrong);
    check_separation(&pieces, what, &mut wrong);
    if wrong.is_empty() { Ok(pieces) } else { Err(wrong) }
}

fn split(text: &str, wrong: &mut Vec<String>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' | '}' if chars.peek() == Some(&c) => {
                chars.next();
                literal.push(c);
            }
            '{' => {
                let mut inner = String::new();
                let closed = loop {
                    match chars.next() {
                        Some('}') => break true,
                        Some(c) => inner.push(c),
                        None => break false,
                    }
                };
                if !closed {
                    wrong.push(format!("`{{{inner}` is never closed; write `{{{inner}}}`"));
                    return pieces;
                }
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                match placeholder(&inner) {
                    Ok(placeholder) => pieces.push(Piece::Placeholder(placeholder)),
                    Err(message) => wrong.push(message),
                }
            }
            '}' => wrong.push("a `}` without its `{`; a placeholder is written `{id}`".to_owned()),
            c => literal.push(c),
        }
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    pieces
}

fn placeholder(inner: &str) -> Result<Placeholder, String> {
    if inner.is_empty() {
        return Err("an empty placeholder; name an argument in it, such as `{id}`".to_owned());
    }
    let whole = inner;
    let (inner, display) = inner.strip_suffix(":display").map_or((inner, false), |inner| (inner, true));
    if let Some((name, _)) = inner.replace("::", "  ").split_once(':') {
        let name = inner.get(..name.len()).unwrap_or_default();
        return Err(format!(
            "`{{{whole}}}`: a placeholder has no format; write `{{{name}}}`, or `{{{name}:display}}` for what its `Display` writes"
        ));
    }
    let (path, of_element) = match inner.split_once("[]") {
        Some((list, rest)) if rest.contains("[]") => {
            return Err(format!("`{{{inner}}}` uses two lists; write `{{{list}[]}}` with fields of its elements"));
        }
        Some((list, "")) => (list, Some("")),
        // Text after the list that is not a field is an error.
        Some((list, rest)) => (list, Some(rest.strip_prefix('.').filter(|rest| !rest.is_empty()).unwrap_or("?"))),
        None => (inner, None),
    };
    let mut parts = path.split('.');
    let root = parts.next().unwrap_or_default().to_owned();
    let fields: Vec<String> = parts.map(str::to_owned).collect();
    let of_element: Option<Vec<String>> =
        of_element.map(|rest| rest.split('.').filter(|_| !rest.is_empty()).map(str::to_owned).collect());
    let is_field = |field: &String| is_ident(field) || field.parse::<u32>().is_ok();
    if !is_ident(&root) || !fields.iter().chain(of_element.iter().flatten()).all(is_field) {
        if of_element.is_none() && is_computed(inner) {
            return Ok(Placeholder { computed: Some(inner.to_owned()), display, ..Placeholder::default() });
        }
        return Err(format!(
            "`{{{inner}}}` is not a placeholder; it takes an argument, fields of one, or a call: \
             `{{id}}`, `{{user.id}}`, `{{url.as_str()}}`"
        ));
    }
    Ok(match of_element {
        Some(of_element) => Placeholder { root, fields: of_element, list: Some(fields), display, computed: None },
        None => Placeholder { root, fields, list: None, display, computed: None },
    })
}

/// Returns whether an expression may be used in a template. Sums and the like may not, because many
/// arguments give the same result.
fn is_computed(text: &str) -> bool {
    let Ok(expression) = syn::parse_str::<Expr>(text) else { return false };
    matches!(
        expression,
        Expr::MethodCall(_)
            | Expr::Call(_)
            | Expr::Field(_)
            | Expr::Index(_)
            | Expr::Paren(_)
            | Expr::Reference(_)
            | Expr::Unary(_)
    )
}

fn is_ident(text: &str) -> bool {
    Ident::parse_any.parse_str(text).is_ok_and(|ident| ident != "_")
}

/// Returns whether the library escapes the character in a key (`needs_escape` in its `key.rs`).
fn needs_escape(c: char) -> bool {
    matches!(c, '%' | ',' | '(' | ')' | '[' | ']' | '{' | '}' | '"' | '~') || c.is_control() || c.is_whitespace()
}

fn check_literals(pieces: &[Piece], what: &str, wrong: &mut Vec<String>) {
    let mut seen = Vec::new();
    for piece in pieces {
        let Piece::Literal(text) = piece else { continue };
        for c in text.chars().filter(|c| needs_escape(*c)) {
            if !seen.contains(&c) {
                seen.push(c);
                wrong.push(format!(
                    "`{}` is not allowed in a {what}; write `:`, `/`, `-` or `_` instead",
                    c.escape_default()
                ));
            }
        }
    }
}

fn check_separation(pieces: &[Piece], what: &str, wrong: &mut Vec<String>) {
    let mut last: Option<&Placeholder> = None;
    let mut between: Option<&str> = None;
    for piece in pieces {
        match piece {
            Piece::Literal(text) => between = Some(text),
            Piece::Placeholder(next) => {
                if let Some(last) = last {
                    let text = between.unwrap_or_default();
                    if text.is_empty() {
                        wrong.push(format!(
                            "there is nothing between `{{{last}}}` and `{{{next}}}`, so different arguments could \
                            give one {what}; write `{{{last}}}:{{{next}}}`"
                        ));
                    } else if !text.contains(|c| SEPARATORS.contains(c)) {
                        wrong.push(format!(
                            "`{text}` can also be part of a value, so `{{{last}}}` and `{{{next}}}` could run together; \
                             put a `:` or `/` between them"
                        ));
                    }
                }
                last = Some(next);
                between = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Piece, Placeholder};

    fn parse(text: &str) -> Result<Vec<Piece>, Vec<String>> {
        super::parse(text, "key")
    }

    fn literal(text: &str) -> Piece {
        Piece::Literal(text.to_owned())
    }

    fn placeholder(text: &str) -> Piece {
        let mut parts = text.split('.').map(str::to_owned);
        let root = parts.next().unwrap();
        Piece::Placeholder(Placeholder { root, fields: parts.collect(), ..Placeholder::default() })
    }

    #[test]
    fn literals_and_placeholders() {
        assert_eq!(parse("user:{id}"), Ok(vec![literal("user:"), placeholder("id")]));
        assert_eq!(parse("{a.b.0}/{r#type}"), Ok(vec![placeholder("a.b.0"), literal("/"), placeholder("r#type")]));
        assert_eq!(parse("all"), Ok(vec![literal("all")]));
    }

    #[test]
    fn elements_of_lists() {
        let of = |list: &[&str], fields: &[&str]| {
            let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
            let root = "value".to_owned();
            Piece::Placeholder(Placeholder {
                root,
                fields: texts(fields),
                list: Some(texts(list)),
                ..Placeholder::default()
            })
        };
        for (text, piece) in [
            ("{value[]}", of(&[], &[])),
            ("{value[].id}", of(&[], &["id"])),
            ("{value.posts[].author.0}", of(&["posts"], &["author", "0"])),
        ] {
            assert_eq!(parse(text), Ok(vec![piece]), "{text}");
            let pieces = parse(text).unwrap();
            let [Piece::Placeholder(placeholder)] = pieces.as_slice() else { panic!("{text}") };
            assert_eq!(format!("{{{placeholder}}}"), text);
        }
    }

    #[test]
    fn computed_parts() {
        let of = |text: &str, display| {
            let computed = Some(text.to_owned());
            Piece::Placeholder(Placeholder { computed, display, ..Placeholder::default() })
        };
        assert_eq!(parse("{url.as_str()}"), Ok(vec![of("url.as_str()", false)]));
        assert_eq!(
            parse("{crate::slug(&a)}:{b.0[1]}"),
            Ok(vec![of("crate::slug(&a)", false), literal(":"), of("b.0[1]", false)])
        );
        assert_eq!(parse("{version.major():display}"), Ok(vec![of("version.major()", true)]));
        let root = "version".to_owned();
        let shown = Placeholder { root, display: true, ..Placeholder::default() };
        assert_eq!(shown.to_string(), "version:display");
        assert_eq!(parse("{version:display}"), Ok(vec![Piece::Placeholder(shown)]));
    }

    #[test]
    fn mistakes_name_the_fix() {
        for (text, part) in [
            ("", "an empty key"),
            ("{", "never closed"),
            ("{id", "`{id` is never closed"),
            ("}", "a `}` without its `{`"),
            ("{}", "an empty placeholder"),
            ("{id:?}", "write `{id}`"),
            ("{a + b}", "not a placeholder"),
            ("{a::b:?}", "write `{a::b}`, or `{a::b:display}`"),
            ("{a b}", "not a placeholder"),
            ("{a[]b}", "not a placeholder"),
            ("{a[].}", "not a placeholder"),
            ("{a[].b[]}", "uses two lists"),
            ("{0}", "not a placeholder"),
            ("a b", "` ` is not allowed in a key"),
            ("{{x", "`{` is not allowed in a key"),
            ("{a}{b}", "there is nothing between `{a}` and `{b}`"),
            ("{a}-{b.c}", "`-` can also be part of a value"),
            ("{a},{b}", "`,` is not allowed in a key"),
        ] {
            let wrong = parse(text).unwrap_err().join("\n");
            assert!(wrong.contains(part), "{text}: {wrong}");
        }
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        assert_eq!(parse("a b{}{x}{y}").unwrap_err().len(), 3);
    }
}
