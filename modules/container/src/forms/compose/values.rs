//! Values of compose files, which often have several forms.

use std::collections::BTreeSet;

use serde_json::Value;

/// The names in `value`: a string, a list, or the keys of a table.
pub fn names(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Array(list) => list.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect(),
        Value::Object(table) => table.keys().cloned().collect(),
        Value::String(name) => BTreeSet::from([name.clone()]),
        _ => BTreeSet::new(),
    }
}

/// The paths in `value`: one or a list, each a string or the `path` of a table.
pub fn paths(value: &Value) -> Vec<String> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(list) => list.iter().flat_map(paths).collect(),
        Value::Object(_) => vec![text(&value["path"])],
        _ => vec![text(value)],
    }
}

/// The keys and values of a table; none if `value` is something else.
pub fn table(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// `value` as a string; empty if it is missing.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
