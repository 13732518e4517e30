//! Detects a method inside an `impl Trait for`, which cannot hold companions, and an associated
//! function that looks like a free function.
//!
//! A macro on a method does not see the `impl` around it. So this module reads the source file, if
//! the compiler says which one it is. Its only purpose is to report one error instead of a dozen:
//! if the file cannot be read, the compiler's own errors remain.

use proc_macro2::Span;
use syn::spanned::Spanned as _;
use syn::{Attribute, Ident, ImplItem, Item, Visibility};

use crate::errors::{Errors, of_a_trait};
use crate::signature::Function;

/// Reports an error if every cached method of this name in the file belongs to a trait.
pub(crate) fn refuse_trait_impl(function: &Function, errors: &mut Errors) {
    let ident = &function.sig.ident;
    // A trait's methods have the visibility of the trait.
    if !matches!(function.vis, Visibility::Inherited) || function.sig.asyncness.is_none() {
        return;
    }
    let Some(text) = text_of_file(ident.span()).filter(|text| text.contains(" for ")) else { return };
    let Ok(file) = syn::parse_file(&text) else { return };
    let places = Places::of(&file.items, ident);
    if places.of_traits > 0 && places.others == 0 {
        errors.at(ident, of_a_trait(ident));
    }
}

/// Reports an error if every cached function of this name in the file belongs to a type. Without a
/// `self` it looks like a free function.
pub(crate) fn refuse_associated_function(function: &Function, errors: &mut Errors) {
    let ident = &function.sig.ident;
    let first = match (&function.vis, &function.sig.asyncness) {
        (Visibility::Inherited, Some(token)) => token.span,
        (Visibility::Inherited, None) => function.sig.fn_token.span,
        (vis, _) => vis.span(),
    };
    // An item in the first column is not inside a block.
    if !proc_macro::is_available() || first.unwrap().column() == 1 {
        return;
    }
    let Some(text) = text_of_file(ident.span()).filter(|text| text.contains("impl")) else { return };
    let Ok(file) = syn::parse_file(&text) else { return };
    match Places::of(&file.items, ident) {
        Places { free: 0, of_traits: 0, others: 0 } => {}
        Places { free: 0, of_traits: 0, .. } => errors.at(
            ident,
            format!(
                "`{ident}` is in an `impl` and takes no `self`, so the macro cannot see that it is an associated \
                function; write `#[cached(method)]`"
            ),
        ),
        Places { free: 0, others: 0, .. } => errors.at(ident, of_a_trait(ident)),
        Places { .. } => {}
    }
}

fn text_of_file(span: Span) -> Option<String> {
    if !proc_macro::is_available() {
        return None;
    }
    std::fs::read_to_string(span.unwrap().local_file()?).ok()
}

/// Counts the cached functions of one name, by where they are.
struct Places {
    of_traits: usize,
    /// In other `impl` blocks.
    others: usize,
    free: usize,
}

fn is_cached(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| attr.path().segments.last().is_some_and(|last| last.ident == "cached"))
}

impl Places {
    fn of(items: &[Item], ident: &Ident) -> Self {
        let mut places = Self { of_traits: 0, others: 0, free: 0 };
        places.look(items, ident);
        places
    }

    fn look(&mut self, items: &[Item], ident: &Ident) {
        for item in items {
            match item {
                Item::Impl(block) => {
                    let is_it = |item: &&ImplItem| matches!(item, ImplItem::Fn(method) if method.sig.ident == *ident && is_cached(&method.attrs));
                    let found = block.items.iter().filter(is_it).count();
                    let counted = if block.trait_.is_some() { &mut self.of_traits } else { &mut self.others };
                    *counted = counted.saturating_add(found);
                }
                Item::Mod(module) => {
                    if let Some((_, items)) = &module.content {
                        self.look(items, ident);
                    }
                }
                Item::Fn(function) => {
                    let is_it = function.sig.ident == *ident && is_cached(&function.attrs);
                    self.free = self.free.saturating_add(usize::from(is_it));
                    let within = function.block.stmts.iter().filter_map(|statement| match statement {
                        syn::Stmt::Item(item) => Some(item.clone()),
                        _ => None,
                    });
                    self.look(&within.collect::<Vec<Item>>(), ident);
                }
                _ => {}
            }
        }
    }
}
