//! YAML as a tree of bounded size.
//!
//! The parser emits events, and this file builds the tree from them. Each use of an alias counts as many nodes as its
//! anchor has, and a long text counts as several nodes, so that a small document that expands to a huge one is refused
//! instead of filling the memory.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail, ensure};
use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Value};

/// The most nodes; those of an anchor count again for each alias.
const NODES: usize = 20_000;

/// The number of bytes for which a text counts as one more node.
const BYTES_OF_NODE: usize = 64;

/// The deepest nesting.
const DEPTH: usize = 64;

/// Parses the one document in `text`. Keys of other types become strings, `<<` merges the keys of the tables that it
/// refers to, and a tag that the compose providers do not share is refused.
///
/// # Errors
/// When it is not valid YAML, has several documents or a key twice, or exceeds a limit.
pub fn parse(text: &str) -> Result<Value> {
    let mut builder = Builder { stack: Vec::new(), anchors: BTreeMap::new(), nodes: 0, document: None };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| anyhow!("invalid YAML: {error}"))?;
        builder.take(event).map_err(|error| error.context(format!("invalid YAML: line {}", span.start.line())))?;
    }
    Ok(builder.document.unwrap_or_default())
}

struct Builder {
    stack: Vec<Open>,
    /// The values of anchors, and their numbers of nodes.
    anchors: BTreeMap<usize, (Value, usize)>,
    nodes: usize,
    document: Option<Value>,
}

/// A collection whose end has not been read.
struct Open {
    collection: Collection,
    anchor: usize,
    /// The number of nodes before it.
    nodes: usize,
}

enum Collection {
    List(Vec<Value>),
    Table { table: Map<String, Value>, merged: Vec<Value>, key: Option<String> },
}

impl Builder {
    fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let nodes = 1 + text.len() / BYTES_OF_NODE;
                self.count(nodes)?;
                let value = scalar(&text, style, tag.as_deref())?;
                self.add(value, anchor, nodes)
            }
            Event::Alias(anchor) => {
                let Some((value, nodes)) = self.anchors.get(&anchor).cloned() else { bail!("an alias has no anchor") };
                self.count(nodes)?;
                self.add(value, 0, nodes)
            }
            Event::SequenceStart(anchor, tag) => self.open(Collection::List(Vec::new()), anchor, tag.as_deref()),
            Event::MappingStart(anchor, tag) => {
                let table = Collection::Table { table: Map::new(), merged: Vec::new(), key: None };
                self.open(table, anchor, tag.as_deref())
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            _ => Ok(()),
        }
    }

    fn count(&mut self, nodes: usize) -> Result<()> {
        self.nodes = self.nodes.saturating_add(nodes);
        ensure!(
            self.nodes <= NODES,
            "more than {NODES} nodes, those of aliases and one for every {BYTES_OF_NODE} bytes of a text included"
        );
        Ok(())
    }

    fn open(&mut self, collection: Collection, anchor: usize, tag: Option<&Tag>) -> Result<()> {
        check_tag(tag)?;
        self.count(1)?;
        ensure!(self.stack.len() < DEPTH, "nested deeper than {DEPTH} levels");
        self.stack.push(Open { collection, anchor, nodes: self.nodes - 1 });
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let Some(Open { collection, anchor, nodes }) = self.stack.pop() else { return Ok(()) };
        let value = match collection {
            Collection::List(list) => Value::Array(list),
            Collection::Table { mut table, merged, .. } => {
                for other in merged {
                    merge(&mut table, other)?;
                }
                Value::Object(table)
            }
        };
        self.add(value, anchor, self.nodes - nodes)
    }

    fn add(&mut self, value: Value, anchor: usize, nodes: usize) -> Result<()> {
        if anchor != 0 {
            // The copy takes memory, too.
            self.count(nodes)?;
            self.anchors.insert(anchor, (value.clone(), nodes));
        }
        match self.stack.last_mut().map(|open| &mut open.collection) {
            None => {
                ensure!(self.document.is_none(), "more than one document");
                self.document = Some(value);
            }
            Some(Collection::List(list)) => list.push(value),
            Some(Collection::Table { table, merged, key }) => match key.take() {
                None => *key = Some(as_key(value)?),
                Some(key) if key == "<<" => merged.push(value),
                Some(name) => {
                    ensure!(!table.contains_key(&name), "duplicate key: {name:?}");
                    table.insert(name, value);
                }
            },
        }
        Ok(())
    }
}

fn as_key(value: Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        _ => bail!("a key is a list or a table"),
    }
}

/// Adds the keys of `other` that `table` does not have.
fn merge(table: &mut Map<String, Value>, other: Value) -> Result<()> {
    match other {
        Value::Object(other) => {
            for (key, value) in other {
                table.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(others) => others.into_iter().try_for_each(|other| merge(table, other)),
        _ => bail!("<< refers neither to a table nor to a list of tables"),
    }
}

/// Refuses every tag that is not a YAML type: `!reset` and `!override` in one file would undo what was checked in
/// another.
fn check_tag(tag: Option<&Tag>) -> Result<()> {
    match tag {
        Some(tag) if tag.handle != "tag:yaml.org,2002:" => {
            bail!("unsupported tag: {}{}: write the value without it", tag.handle, tag.suffix)
        }
        _ => Ok(()),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value> {
    check_tag(tag)?;
    if style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix == "str") {
        return Ok(Value::String(text.to_owned()));
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        // podman-compose reads YAML 1.1, where more words are booleans; no key that is checked here is affected.
        _ => match text.parse::<i64>() {
            Ok(number) => number.into(),
            Err(_) => Value::String(text.to_owned()),
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fails(text: &str) -> String {
        format!("{:#}", parse(text).unwrap_err())
    }

    #[test]
    fn a_document_becomes_a_tree() {
        let text = "# a comment\na: &x {b: 1, c: 'true'}\nd:\n  <<: *x\n  b: ~\nlist: [*x, \"y\", yes]\n\
                    80: |\n  text\n";
        let expected = json!({
            "a": {"b": 1, "c": "true"},
            "d": {"b": null, "c": "true"},
            "list": [{"b": 1, "c": "true"}, "y", "yes"],
            "80": "text\n",
        });
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(parse("").unwrap(), Value::Null);
    }

    #[test]
    fn hostile_documents_are_refused_in_bounded_time_and_memory() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..20 {
            let names = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb += &format!("a{level}: &a{level} [{names}]\n");
        }
        assert!(fails(&bomb).contains("more than"));
        assert!(fails(&"- ".repeat(DEPTH + 1)).contains("nested deeper"), "{}", fails(&"- ".repeat(DEPTH + 1)));
        assert!(fails(&"[".repeat(100_000)).contains("invalid YAML"), "{}", fails(&"[".repeat(100_000)));
        assert!(fails(&"- x\n".repeat(NODES + 1)).contains("more than"));
        let is_too_large = |text: &str| parse(text).is_err_and(|error| format!("{error:#}").contains("more than"));
        let long = "x".repeat(200_000);
        for anchored in [format!("&a {long}"), format!("&a [{long}]"), format!("&a {{{long}: 1}}")] {
            let copies = format!("x-a: {anchored}\nx-b: [{}]\n", vec!["*a"; 1000].join(", "));
            assert!(is_too_large(&copies), "the bytes of copies are not limited");
        }
        let anchors = |number: usize| (0..number).map(|n| format!("- &a{n} {}\n", &long[..1000])).collect::<String>();
        assert!(is_too_large(&anchors(1000)), "the bytes of anchors are not limited");
        parse(&anchors(500)).unwrap();
        assert!(fails("a: 1\na: 2\n").contains("duplicate key"));
        assert!(fails("a: 1\n---\nb: 1\n").contains("more than one document"));
        assert!(fails("a: !reset []\n").contains("!reset"));
        assert!(fails("a: !override {b: 1}\n").contains("!override"));
        assert!(fails("a: *missing\n").contains("invalid YAML") || fails("a: *missing\n").contains("anchor"));
        assert!(fails("a: [\n").contains("invalid YAML"));
        assert!(fails("<<: 1\n").contains("neither"));
    }
    #[test]
    fn plain_scalars_have_types_and_others_are_texts() {
        for (text, expected) in [
            ("~", json!(null)),
            ("null", json!(null)),
            ("NULL", json!(null)),
            ("true", json!(true)),
            ("FALSE", json!(false)),
            ("-7", json!(-7)),
            ("1.5", json!("1.5")),
            ("'true'", json!("true")),
            ("\"1\"", json!("1")),
            ("!!str true", json!("true")),
            ("!!str ''", json!("")),
            ("!!int 3", json!(3)),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn keys_become_texts_and_merged_tables_do_not_replace_keys() {
        let text = "true: a\n~: b\n1: c\nx: &x {p: 1, q: 1}\ny: &y {q: 2, r: 2}\nz:\n  <<: [*x, *y]\n  p: 3\n";
        let expected = json!({
            "true": "a", "null": "b", "1": "c",
            "x": {"p": 1, "q": 1}, "y": {"q": 2, "r": 2}, "z": {"p": 3, "q": 1, "r": 2},
        });
        assert_eq!(parse(text).unwrap(), expected);
        assert!(fails("[a]: 1\n").contains("a key is a list or a table"));
        assert!(fails("<<: [{a: 1}, 2]\n").contains("neither"));
    }
}
