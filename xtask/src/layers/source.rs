//! A source file, down to what the rules ask about it. It knows no rule.

use std::{collections::BTreeSet, path::Path};

use anyhow::Result;
use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use syn::{
    Attribute, Expr, ExprLit, Item, ItemMod, ItemUse, Lit, LitStr, Macro, Meta, UseTree,
    spanned::Spanned as _,
    visit::{self, Visit},
};

/// Something at a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At<T> {
    /// Counted from 1.
    pub(super) line: usize,
    /// The thing.
    pub(super) what: T,
}

/// What the rules ask about a file.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// As findings show it.
    pub(super) path: String,
    /// The modules it is in, outermost first: `["gobin", "pclntab"]`; `["main"]`, `["lib"]` for those files.
    pub(super) module: Vec<String>,
    /// Its module documentation.
    pub(super) documentation: String,
    /// The modules that it declares for tests only.
    pub(super) test_modules: Vec<Vec<String>>,
    /// Lines that are not in `#[cfg(test)]` modules.
    pub(super) lines_without_tests: usize,
    /// It has `#![forbid(unsafe_code)]`.
    pub(super) forbids_unsafe: bool,
    /// Paths that lead to another place of this crate, from the crate's root.
    pub(super) inner: Vec<At<Vec<String>>>,
    /// First segments of the other paths: outside crates, mostly.
    pub(super) outer: Vec<At<String>>,
    /// Macros called, by their last segment.
    pub(super) macros: Vec<At<String>>,
    /// Identifiers and the words of string literals in attributes.
    pub(super) words: Vec<At<String>>,
}

impl Source {
    /// Parses a file; `module_path` is its path under the crate's `src`.
    pub(super) fn parse(path: &str, module_path: &Path, text: &str) -> Result<Self> {
        let file = syn::parse_file(text)?;
        let mut module: Vec<String> =
            module_path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if module.len() > 1 && module.last().is_some_and(|last| last == "mod") {
            module.pop();
        }
        let mut source = Self { path: path.to_owned(), module, ..Self::default() };
        for attribute in &file.attrs {
            if let Some(line) = documentation(attribute) {
                source.documentation.push_str(&line);
                source.documentation.push('\n');
            }
            if let Meta::List(list) = &attribute.meta {
                source.forbids_unsafe |=
                    list.path.is_ident("forbid") && list.tokens.to_string() == "unsafe_code";
            }
        }
        let mut tests = 0;
        for module in file.items.iter().filter_map(test_module) {
            let span = module.span();
            tests += span.end().line.saturating_sub(span.start().line).saturating_add(1);
            let mut path = source.module.clone();
            path.retain(|name| name != "lib" && name != "main");
            path.push(module.ident.to_string());
            source.test_modules.push(path);
        }
        source.lines_without_tests = text.lines().count().saturating_sub(tests);

        let mut visitor = Visitor { nesting: Vec::new(), local: BTreeSet::new(), source };
        visitor.visit_file(&file);
        let Visitor { local, mut source, .. } = visitor;
        // A module of ours that is in scope under a crate's name is not that crate.
        source.outer.retain(|outer| !local.contains(&outer.what));
        Ok(source)
    }
}

fn documentation(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(pair) = &attribute.meta else { return None };
    let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &pair.value else { return None };
    pair.path.is_ident("doc").then(|| text.value())
}

/// A module that is there for tests only.
fn test_module(item: &Item) -> Option<&ItemMod> {
    let Item::Mod(module) = item else { return None };
    let is_test = module.attrs.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    });
    is_test.then_some(module)
}

struct Visitor {
    /// Names of the inline modules around the present place.
    nesting: Vec<String>,
    /// Names in this file that stand for something of this crate.
    local: BTreeSet<String>,
    source: Source,
}

impl Visitor {
    /// Sorts one path into `inner` and `outer`.
    fn path(&mut self, segments: &[Ident], imported_as: Option<&Ident>) {
        let Some(first) = segments.first() else { return };
        let line = first.span().start().line;
        let names: Vec<String> = segments.iter().map(Ident::to_string).collect();
        let supers = names.iter().take_while(|name| *name == "super").count();
        let inner = match names.first().map(String::as_str) {
            Some("crate" | "netpoll_probe") => names.get(1..).unwrap_or_default().to_vec(),
            Some("super" | "self") => {
                let mut here = self.source.module.clone();
                here.extend(self.nesting.iter().cloned());
                here.truncate(here.len().saturating_sub(supers));
                // What is beside lib.rs and main.rs lies at the crate's root.
                here.retain(|name| name != "lib" && name != "main");
                here.extend(names.iter().filter(|name| *name != "super" && *name != "self").cloned());
                here
            }
            Some(name) => {
                self.source.outer.push(At { line, what: name.to_owned() });
                return;
            }
            None => return,
        };
        if let Some(name) = imported_as {
            self.local.insert(name.to_string());
        }
        self.source.inner.push(At { line, what: inner });
    }

    fn use_tree(&mut self, prefix: &mut Vec<Ident>, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.clone());
                self.use_tree(prefix, &path.tree);
                prefix.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.use_tree(prefix, tree);
                }
            }
            UseTree::Name(name) => {
                let imported_as = if name.ident == "self" { prefix.last() } else { Some(&name.ident) };
                let mut path = prefix.clone();
                path.push(name.ident.clone());
                self.path(&path, imported_as.cloned().as_ref());
            }
            UseTree::Rename(rename) => {
                let mut path = prefix.clone();
                path.push(rename.ident.clone());
                self.path(&path, Some(&rename.rename));
            }
            UseTree::Glob(_) => self.path(&prefix.clone(), None),
        }
    }

    /// Paths and words in the tokens of a macro call or an attribute, which syn does not parse.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<Ident> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    self.word(&ident.to_string(), ident.span());
                    if colons != 2 {
                        self.end_of_path(&mut path);
                    }
                    path.push(ident);
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.end_of_path(&mut path);
                    colons = 0;
                    match other {
                        TokenTree::Group(group) => self.tokens(group.stream()),
                        TokenTree::Literal(literal) => self.word(&literal.to_string(), literal.span()),
                        TokenTree::Punct(_) | TokenTree::Ident(_) => {}
                    }
                }
            }
        }
        self.end_of_path(&mut path);
    }

    /// A single word in a macro may be anything; with a second one after `::` it is a path.
    fn end_of_path(&mut self, path: &mut Vec<Ident>) {
        if path.len() > 1 {
            self.path(path, None);
        }
        path.clear();
    }

    fn word(&mut self, word: &str, span: Span) {
        self.source.words.push(At { line: span.start().line, what: word.to_owned() });
    }
}

impl<'ast> Visit<'ast> for Visitor {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.use_tree(&mut Vec::new(), &item.tree);
        visit::visit_item_use(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.local.insert(item.ident.to_string());
        self.nesting.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.nesting.pop();
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<Ident> = path.segments.iter().map(|segment| segment.ident.clone()).collect();
        if segments.len() > 1 {
            self.path(&segments, None);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        if let Some(last) = call.path.segments.last() {
            let line = last.ident.span().start().line;
            self.source.macros.push(At { line, what: last.ident.to_string() });
        }
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
        if documentation(attribute).is_none() {
            visit::visit_attribute(self, attribute);
        }
    }

    fn visit_ident(&mut self, ident: &'ast Ident) {
        self.word(&ident.to_string(), ident.span());
    }

    fn visit_lit_str(&mut self, text: &'ast LitStr) {
        self.word(&text.value(), text.span());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inner(module: &str, text: &str) -> Vec<String> {
        let source = Source::parse("x.rs", Path::new(module), text).unwrap();
        source.inner.iter().map(|at| format!("{}:{}", at.line, at.what.join("::"))).collect()
    }

    fn outer(text: &str) -> Vec<String> {
        let source = Source::parse("x.rs", Path::new("bpf/load.rs"), text).unwrap();
        source.outer.into_iter().map(|at| at.what).collect()
    }

    #[test]
    fn follows_use_trees() {
        let text = "use crate::{model::{Wait, wait::Kind as K}, gobin};\nuse super::object;\nuse self::a::*;";
        assert_eq!(
            inner("bpf/load.rs", text),
            ["1:model::Wait", "1:model::wait::Kind", "1:gobin", "2:bpf::object", "3:bpf::load::a"]
        );
        assert_eq!(inner("bpf/mod.rs", "use super::model::Wait;"), ["1:model::Wait"]);
        assert_eq!(inner("main.rs", "use netpoll_probe::commands;"), ["1:commands"]);
    }

    #[test]
    fn finds_paths_in_bodies_macros_and_attributes() {
        let text = "fn f() {\n    crate::report::text();\n    vec![g(crate::gobin::X)];\n}\n#[derive(clap::Args)]\nstruct S;\n\
            mod tests {\n    fn g() { super::super::event::decode(); }\n}";
        assert_eq!(inner("bpf/load.rs", text), ["2:report::text", "3:gobin::X", "8:bpf::event::decode"]);
        assert_eq!(outer(text), ["clap"]);
    }

    #[test]
    fn tells_a_module_from_a_crate_of_the_same_name() {
        assert_eq!(outer("use super::object;\nfn f() { object::BYTES; }"), [""; 0]);
        assert_eq!(outer("fn f() { object::File::parse(); }"), ["object"]);
        assert_eq!(outer("use object::File;"), ["object"]);
    }

    #[test]
    fn counts_lines_and_reads_attributes() {
        let text = "//! Long because.\n#![forbid(unsafe_code)]\nfn f() {}\n#[cfg(test)]\nmod tests {\n}\n";
        let source = Source::parse("x.rs", Path::new("exit.rs"), text).unwrap();
        assert_eq!(source.lines_without_tests, 3);
        assert!(source.forbids_unsafe);
        assert_eq!(source.documentation, " Long because.\n");
        assert_eq!(source.module, ["exit"]);
        assert_eq!(source.test_modules, [["exit", "tests"]]);
    }
}
