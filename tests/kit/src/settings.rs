//! The settings file in a module's package.

use std::fmt::Debug;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;

/// Checks the settings file `path` of a package against the module's settings `S`.
///
/// All keys are comments, so that the file as it is packaged gives the defaults. It shows every key of the module with
/// the value `shown`, which is the default where that does not depend on the device or the artifact: `#key = value`,
/// without a space after the `#`. The key `datastore` and those after it are for every module.
///
/// `S` refuses unknown keys (`#[serde(deny_unknown_fields)]`): that is where its keys are read.
///
/// # Errors
/// When the file cannot be read, or differs.
pub fn packaged_settings<S: DeserializeOwned + Default + Debug>(path: impl AsRef<Path>, shown: &S) -> Result<()> {
    let path = path.as_ref();
    let text = fs::read_to_string(path).with_context(|| format!("reading {} failed", path.display()))?;
    check(&text, shown).with_context(|| format!("invalid settings file {}", path.display()))
}

fn check<S: DeserializeOwned + Default + Debug>(text: &str, shown: &S) -> Result<()> {
    let packaged: S = toml::from_str(text)?;
    equal(&packaged, &S::default()).context("the packaged settings are not the defaults")?;
    let (own, _) = text.split_once("\n#datastore = ").context("no key datastore")?;
    let own = own.replace("\n#", "\n").replace("\n ", "\n# ");
    let table: toml::Table = toml::from_str(&own)?;
    let keys: Vec<_> = table.keys().cloned().collect();
    ensure!(keys == known_keys::<S>()?, "it shows the keys {keys:?} instead of {:?}", known_keys::<S>()?);
    let values: S = table.try_into()?;
    equal(&values, shown).context("it shows other values")
}

/// The keys of `S`, sorted, from the error for an unknown one: unknown field `x`, expected one of `…`, `…`.
fn known_keys<S: DeserializeOwned + Debug>() -> Result<Vec<String>> {
    let Err(error) = toml::from_str::<S>("x = 0") else { anyhow::bail!("the settings accept unknown keys") };
    let mut keys: Vec<_> = error.message().split('`').skip(3).step_by(2).map(str::to_owned).collect();
    keys.sort_unstable();
    Ok(keys)
}

fn equal<S: Debug>(found: &S, expected: &S) -> Result<()> {
    let [found, expected] = [found, expected].map(|settings| format!("{settings:?}"));
    ensure!(found == expected, "{found} instead of {expected}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Settings {
        limit: u32,
        name: String,
    }

    impl Default for Settings {
        fn default() -> Self {
            Self { limit: 7, name: "a".to_owned() }
        }
    }

    const FILE: &str =
        "# A limit.\n#limit = 7\n\n# A name.\n#name = \"a\"\n\n# For every module.\n#datastore = \"/data\"\n";

    #[test]
    fn a_file_with_all_keys_and_defaults_is_accepted() {
        check(FILE, &Settings::default()).unwrap();
    }

    #[test]
    fn other_values_and_missing_keys_are_found() {
        for (from, to, error) in [
            ("#limit = 7", "#limit = 8", "it shows other values"),
            ("#limit = 7", "limit = 8", "the packaged settings are not the defaults"),
            ("#name = \"a\"\n", "", "it shows the keys [\"limit\"] instead of [\"limit\", \"name\"]"),
            ("#datastore", "#store", "no key datastore"),
        ] {
            let found = check(&FILE.replace(from, to), &Settings::default()).unwrap_err();
            assert!(format!("{found:#}").contains(error), "{found:#}");
        }
    }
}
