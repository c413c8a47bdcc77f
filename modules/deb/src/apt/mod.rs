//! apt: what it would do, what it does, and its marks.

pub mod get;
pub mod mark;

/// The options without which apt reads its sources, its package lists, and the caches that it made of them.
const WITHOUT_SOURCES: [&str; 4] = [
    "Dir::Etc::SourceList=/dev/null",
    "Dir::Etc::SourceParts=/dev/null",
    "Dir::Cache::pkgcache=",
    "Dir::Cache::srcpkgcache=",
];

/// The arguments that set `options`.
fn arguments<T: Into<String>>(options: impl IntoIterator<Item = T>) -> impl Iterator<Item = String> {
    options.into_iter().flat_map(|option| ["-o".to_owned(), option.into()])
}
