"""Parses the layer with BitBake's own engine, and fetches and unpacks what its recipes name.

    parse.py BUILD_DIRECTORY RECIPE...

The build directory has conf/bblayers.conf, whose DL_DIR has every source archive and every crate. OE-Core's classes
are not used. The checks cover syntax, variables, checksums and files, and that parsing a recipe needs no network.
Prebuilt recipes, and recipes in BUILD_DIRECTORY/readme, which are examples without a source, are only parsed. Prints a
line for each recipe. The exit status is 1 if there are findings.
"""

import hashlib
import os
import sys
import types

# The wheel has BitBake's engine without its servers. Parsing only imports their modules.
for name in ("hashserv", "hashserv.client", "prserv", "prserv.serv"):
    sys.modules[name] = types.ModuleType(name)

import bb.cookerdata
import bb.fetch2
import tomllib


def licences(d):
    """Finds licence files whose checksum differs from the recipe."""
    for uri in (d.getVar("LIC_FILES_CHKSUM") or "").split():
        _, _, path, _, _, parameters = bb.fetch2.decodeurl(uri)
        with open(os.path.join(d.getVar("S"), path), "rb") as file:
            found = hashlib.md5(file.read()).hexdigest()
        if found != parameters["md5"]:
            yield f"wrong checksum in LIC_FILES_CHKSUM: {path}: {parameters['md5']} instead of {found}"


def files(d):
    """Finds files of the recipe that are missing in its source."""
    for variable in ("UPDATE_MODULE_SETTINGS", "UPDATE_MODULE_UNIT"):
        path = d.getVar(variable)
        if path and not os.path.isfile(os.path.join(d.getVar("S"), path)):
            yield f"no such file in the source: {variable} = {path}"


def crates(d, fetched):
    """Finds differences between the recipe's list of crates and the source's Cargo.lock."""
    lock = os.path.join(d.getVar("S"), "Cargo.lock")
    if not os.path.isfile(lock):
        return
    with open(lock, "rb") as file:
        packages = tomllib.load(file)["package"]
    needed = {f"{p['name']}/{p['version']}": p["checksum"] for p in packages if "source" in p}
    listed = {}
    for uri in fetched:
        if uri.startswith("crate://"):
            crate = "/".join(uri.split("/")[-2:])
            listed[crate] = d.getVarFlag("SRC_URI", crate.replace("/", "-") + ".sha256sum")
    for crate in sorted(set(needed.items()) ^ set(listed.items())):
        yield f"crate only in one of Cargo.lock and the list of crates: {crate[0]}, checksum {crate[1]}"


def revisions(d):
    """Finds a source whose revision is queried from its server while the recipe is parsed."""
    if not d.getVar("SRC_URI"):
        return
    try:
        bb.fetch2.get_hashvalue(d)
    except bb.fetch2.BBFetchException as error:
        yield f"parsing needs the network: {error}"


def findings_in_source(d):
    """Fetches and unpacks the source, and compares it with the recipe."""
    uris = (d.getVar("SRC_URI") or "").split()
    if not uris:
        return
    fetcher = bb.fetch2.Fetch(uris, d)
    fetcher.download()
    os.makedirs(d.getVar("UNPACKDIR"), exist_ok=True)
    fetcher.unpack(d.getVar("UNPACKDIR"))
    yield from licences(d)
    yield from files(d)
    if not d.getVar("SRCREV"):  # the crates of another commit may differ from the list
        yield from crates(d, uris)


def findings(builder, recipe, only_parsed):
    """All findings in one recipe."""
    try:
        d = builder.parseRecipe(recipe, [], "rust-modules")
    except (bb.parse.ParseError, bb.fetch2.BBFetchException, bb.data_smart.ExpansionError) as error:
        return [str(error)]
    reason = d.getVar("__SKIPPED")
    if reason and "-bin_" in recipe and not d.getVar("RUST_MODULES_PREBUILT"):
        return []  # there is no prebuilt package between two releases
    found = [f"BitBake skips the recipe: {reason}"] if reason else list(revisions(d))
    if found or only_parsed:
        return found
    try:
        return list(findings_in_source(d))
    except (OSError, bb.fetch2.BBFetchException) as error:
        return [str(error)]


def main(build, *recipes):
    os.chdir(build)
    os.environ["BBPATH"] = build
    builder = bb.cookerdata.CookerDataBuilder(bb.cookerdata.CookerConfiguration())
    builder.parseBaseConfiguration()
    count = 0
    unpacked_git = False
    for recipe in recipes:
        name = os.path.basename(recipe).removesuffix(".bb")
        only_parsed = "-bin_" in name or os.path.dirname(recipe) == os.path.join(build, "readme")
        if name.endswith("_git"):
            # All of them have the same source: the whole repository, and every crate of its workspace.
            only_parsed, unpacked_git = unpacked_git, True
        found = findings(builder, recipe, only_parsed)
        print(f"{name}: {'; '.join(found) or ('parsed' if only_parsed else 'ok')}")
        count += len(found)
    sys.exit(count > 0)


main(*sys.argv[1:])
