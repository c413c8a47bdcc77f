//! The licences of linked code: the choice between the offered ones, and their texts.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use spdx::{Expression, Licensee, ParseMode};

use crate::target::Libc;

/// A licence that a crate may be used under.
#[derive(Debug, PartialEq, Eq)]
pub struct Licence {
    /// Its identifier in the SPDX list.
    pub spdx: &'static str,
    /// Its name in `debian/copyright`.
    pub debian: &'static str,
    /// Its text, or a reference to its text on a Debian system.
    pub text: &'static str,
}

/// The accepted licences. If a crate offers several, the first of them in this list is used.
const LICENCES: &[Licence] = &[
    Licence {
        spdx: "Apache-2.0",
        debian: "Apache-2.0",
        text: "On Debian systems the full text of the Apache License, version 2.0, can be\n\
               found in the file /usr/share/common-licenses/Apache-2.0.",
    },
    Licence { spdx: "MIT", debian: "Expat", text: include_str!("licences/MIT.txt") },
    Licence { spdx: "ISC", debian: "ISC", text: include_str!("licences/ISC.txt") },
    Licence { spdx: "BSD-3-Clause", debian: "BSD-3-clause", text: include_str!("licences/BSD-3-Clause.txt") },
    Licence { spdx: "Zlib", debian: "Zlib", text: include_str!("licences/Zlib.txt") },
    Licence { spdx: "BSL-1.0", debian: "BSL-1.0", text: include_str!("licences/BSL-1.0.txt") },
    Licence { spdx: "Unicode-3.0", debian: "Unicode-3.0", text: include_str!("licences/Unicode-3.0.txt") },
    Licence {
        spdx: "CC0-1.0",
        debian: "CC0-1.0",
        text: "On Debian systems the full text of the CC0 1.0 Universal license can be found\n\
               in the file /usr/share/common-licenses/CC0-1.0.",
    },
    Licence {
        spdx: "MPL-2.0",
        debian: "MPL-2.0",
        text: "On Debian systems the full text of the Mozilla Public License, version 2.0,\n\
               can be found in the file /usr/share/common-licenses/MPL-2.0.",
    },
];

/// The licence of Rust's standard library, which is offered under Apache-2.0 or MIT.
pub const STANDARD_LIBRARY: &Licence = &LICENCES[0];

/// The licence of `libc`, which is part of a static executable.
pub fn c_library(libc: Libc) -> &'static Licence {
    match libc {
        Libc::Musl => &LICENCES[1],
        Libc::Glibc => &GLIBC,
    }
}

const GLIBC: Licence = Licence {
    spdx: "LGPL-2.1-or-later",
    debian: "LGPL-2.1+",
    text: "On Debian systems the full text of the GNU Lesser General Public License,\n\
           version 2.1, can be found in the file /usr/share/common-licenses/LGPL-2.1.",
};

/// The licences of a crate: those offered, and those used.
#[derive(Debug, PartialEq, Eq)]
pub struct Choice {
    /// The expression of the crate, in the notation of SPDX.
    pub offered: String,
    /// The licences under which it is used. All of them apply.
    pub used: Vec<&'static Licence>,
}

/// The choice from `expression`, the licence in the manifest of a crate.
///
/// # Errors
/// `expression` is not an SPDX expression, or needs a licence that is not accepted.
pub fn choose(expression: &str) -> Result<Choice> {
    let offered = Expression::canonicalize(expression)
        .with_context(|| format!("invalid SPDX expression: {expression:?}"))?
        .unwrap_or_else(|| expression.to_owned());
    let parsed = Expression::parse_mode(&offered, ParseMode::STRICT)
        .with_context(|| format!("invalid SPDX expression: {expression:?}"))?;
    let accepted = LICENCES.iter().map(|licence| Licensee::parse(licence.spdx)).collect::<Result<Vec<_>, _>>()?;
    let required = parsed.minimized_requirements(&accepted).with_context(|| {
        format!("licence not accepted: {offered}: add it with its text to LICENCES in xtask/src/dist/licences.rs")
    })?;
    let names: BTreeSet<String> = required.iter().map(ToString::to_string).collect();
    let used = LICENCES.iter().filter(|licence| names.contains(licence.spdx)).collect();
    Ok(Choice { offered, used })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(expression: &str) -> Vec<&'static str> {
        choose(expression).unwrap().used.iter().map(|licence| licence.spdx).collect()
    }

    #[test]
    fn apache_is_used_if_it_is_offered() {
        assert_eq!(used("MIT OR Apache-2.0"), ["Apache-2.0"]);
        assert_eq!(used("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT"), ["Apache-2.0"]);
        assert_eq!(used("Unlicense OR MIT"), ["MIT"]);
        assert_eq!(used("(MIT OR Apache-2.0) AND Unicode-3.0"), ["Apache-2.0", "Unicode-3.0"]);
        assert_eq!(used("ISC"), ["ISC"]);
    }

    #[test]
    fn each_c_library_has_its_licence() {
        assert_eq!(c_library(Libc::Musl).spdx, "MIT");
        assert_eq!(c_library(Libc::Glibc).spdx, "LGPL-2.1-or-later");
    }

    #[test]
    fn an_old_notation_becomes_an_expression() {
        assert_eq!(choose("MIT/Apache-2.0").unwrap().offered, "MIT OR Apache-2.0");
    }

    #[test]
    fn an_unknown_licence_is_an_error_with_a_remedy() {
        let error = choose("GPL-3.0-only").unwrap_err().to_string();
        assert!(error.starts_with("licence not accepted: GPL-3.0-only: add it"), "{error}");
        assert!(choose("MIT AND GPL-3.0-only").is_err());
        assert!(choose("nothing").unwrap_err().to_string().contains("invalid SPDX expression"));
    }
}
