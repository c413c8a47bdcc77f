//! The order in which services are started.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

/// Refuses circular dependencies. `needs` has, for every service, those that are started before it.
///
/// # Errors
/// The services in the circle, and those that depend on them.
pub fn check(needs: &BTreeMap<&str, BTreeSet<&str>>) -> Result<()> {
    let mut open = needs.clone();
    loop {
        let ready: Vec<_> = open
            .iter()
            .filter(|(_, needs)| !needs.iter().any(|name| open.contains_key(name)))
            .map(|(name, _)| *name)
            .collect();
        if ready.is_empty() {
            break;
        }
        ready.iter().for_each(|name| drop(open.remove(name)));
    }
    if open.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = open.into_keys().collect();
    bail!("circular dependency between services: {}: remove one of the dependencies", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_circular_dependencies_are_refused() {
        let check = |needs: &[(&'static str, &[&'static str])]| {
            check(&needs.iter().map(|(name, needs)| (*name, needs.iter().copied().collect())).collect())
        };
        assert!(check(&[("a", &["b", "elsewhere"]), ("b", &["c"]), ("c", &[])]).is_ok());
        for cycle in [&[("a", &["a"][..])][..], &[("a", &["b"]), ("b", &["c"]), ("c", &["a"]), ("d", &[])]] {
            assert!(check(cycle).is_err(), "{cycle:?} was accepted");
        }
        let long: Vec<String> = (0..2000).map(|number| format!("{number:05}")).collect();
        let chain = long.windows(2).map(|pair| (pair[0].as_str(), BTreeSet::from([pair[1].as_str()])));
        assert!(super::check(&chain.collect()).is_ok());
    }
}
