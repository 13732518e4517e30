//! Detects mistakes that compile, as far as tokens can show: arguments missing from a key, handles
//! of open transactions, and values that cannot be sent to another thread.

use quote::ToTokens as _;
use syn::spanned::Spanned as _;
use syn::visit::Visit;
use syn::{Ident, Path, Type, TypeParamBound, TypeTraitObject, WherePredicate};

use crate::args::{Args, Template};
use crate::errors::Errors;
use crate::placeholders::placeholders;
use crate::signature::{Function, Param};

/// Checks that every name the body sees is in the key or in `skip`. The ids of a batch are checked
/// in [`batch`](crate::batch).
pub(crate) fn left_out(key: &Template, params: &[Param], ids: Option<&Ident>, errors: &mut Errors) {
    let in_key = |name: &Ident| ids == Some(name) || placeholders(key).any(|place| place.mentions(name));
    let missing: Vec<&Ident> = params.iter().flat_map(|param| &param.kept).filter(|name| !in_key(name)).collect();
    if missing.is_empty() {
        return;
    }
    let listed = |each: &dyn Fn(&Ident) -> String, between: &str| {
        missing.iter().map(|name| each(name)).collect::<Vec<String>>().join(between)
    };
    let names = listed(&|name| format!("`{name}`"), " and ");
    let (is, differ) = if missing.len() == 1 { ("is", "it") } else { ("are", "them") };
    let template = listed(&|name| format!("{{{name}}}"), ":");
    let skip = listed(&Ident::to_string, ", ");
    errors.at(
        &key.literal,
        format!(
            "{names} {is} not in the key, so calls that differ in {differ} would share one entry; add `{template}` to the key, \
             or write `skip({skip})` if the result does not depend on {differ}"
        ),
    );
}

/// Refuses handles of open transactions: data read in a transaction may never be committed.
pub(crate) fn transactions(args: &Args, function: &Function, params: &[Param], errors: &mut Errors) {
    if args.bypass.is_some() {
        return;
    }
    let generics = &function.sig.generics;
    for param in params.iter().filter(|param| param.kept.len() < param.names.len()) {
        let mut handles = Handles(None);
        handles.visit_type(&param.ty);
        // A type parameter counts as the traits that bound it.
        for of in generics.type_params() {
            let is_of = crate::generics::mentions(&param.ty.to_token_stream(), &of.clone().into());
            let clauses = generics.where_clause.iter().flat_map(|clause| &clause.predicates);
            let clauses = clauses.filter_map(|clause| match clause {
                WherePredicate::Type(clause) if of.ident == clause.bounded_ty.to_token_stream().to_string() => {
                    Some(&clause.bounds)
                }
                _ => None,
            });
            let bounds = std::iter::once(&of.bounds).chain(clauses).flatten();
            bounds.filter(|_| is_of).for_each(|bound: &TypeParamBound| handles.visit_type_param_bound(bound));
        }
        if let (Some(handle), Some(name)) = (handles.0, param.names.first()) {
            errors.at(
                &param.ty,
                format!(
                    "`{handle}` can be an open transaction, and a value that is read in it would be cached although \
                     it may be rolled back; take the pool, or write `bypass = ..` with an expression that is true \
                     inside a transaction; if `{name}` is never one, write `bypass = false`"
                ),
            );
        }
    }
}

/// The first type or trait whose name suggests an open transaction.
struct Handles(Option<Ident>);

impl<'ast> Visit<'ast> for Handles {
    fn visit_path(&mut self, path: &'ast Path) {
        let Some(last) = path.segments.last() else { return };
        let name = last.ident.to_string();
        if name.ends_with("Pool") || name == "Pool" {
            return;
        }
        // SeaORM calls its pool a connection.
        let is_handle = name != "DatabaseConnection"
            && (["Executor", "Transaction", "Connection"].iter().any(|end| name.ends_with(end))
                || ["ConnectionTrait", "Acquire"].contains(&&*name));
        if is_handle && self.0.is_none() {
            self.0 = Some(last.ident.clone());
        }
        syn::visit::visit_path(self, path);
    }
}

/// Reports values that cannot be shared between threads once, instead of a dozen compiler errors.
pub(crate) fn returned(function: &Function, errors: &mut Errors) {
    let Some(returned) = function.returned() else { return };
    Local(errors).visit_type(returned);
}

struct Local<'e>(&'e mut Errors);

impl<'ast> Visit<'ast> for Local<'_> {
    fn visit_path(&mut self, path: &'ast Path) {
        if let Some(last) = path.segments.last().filter(|last| last.ident == "Rc" && !last.arguments.is_none()) {
            self.0.at_span(
                last.ident.span(),
                "an `Rc` cannot leave its thread, but a cached value is shared between threads and must be \
                `Send + Sync`; return an `Arc`",
            );
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_type(&mut self, ty: &'ast Type) {
        match ty {
            Type::TraitObject(object) if is_local_error(object) => self.0.at_span(
                object.span(),
                "this error cannot leave its thread, but callers in other threads may wait for it, so it must be \
                `Send + Sync`; write `Box<dyn Error + Send + Sync>`",
            ),
            other => syn::visit::visit_type(self, other),
        }
    }
}

/// Returns whether the type is `dyn Error` without `Send + Sync`.
fn is_local_error(object: &TypeTraitObject) -> bool {
    let has = |name: &str| {
        object.bounds.iter().any(|bound| {
            matches!(bound, TypeParamBound::Trait(bound) if bound.path.segments.last().is_some_and(|last| last.ident == name))
        })
    };
    has("Error") && !(has("Send") && has("Sync"))
}
