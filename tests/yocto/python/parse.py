"""Parses the layer with BitBake's own engine, and fetches and unpacks what its recipes name.

    parse.py BUILD_DIRECTORY RECIPE...

The build directory has conf/bblayers.conf, whose DL_DIR has every archive of sources and every crate. No class of OE-Core
runs: this proves syntax, variables, checksums and files, and that nothing asks the network while recipes are parsed. Of
recipes in BUILD_DIRECTORY/readme, which show other people how to write one, the source does not exist: they are parsed only,
and so are prebuilt ones. A line for each recipe; the exit status is 1 when something is not as it says.
"""

import hashlib
import os
import sys
import types

# The wheel has the engine without its services. Parsing needs no more than their names; the first layer stands in for OE-Core.
for name in ("hashserv", "hashserv.client", "prserv", "prserv.serv"):
    sys.modules[name] = types.ModuleType(name)

import bb.cookerdata
import bb.fetch2
import tomllib


def licences(d):
    """Complains of licence files whose checksum is not what the recipe says."""
    for uri in (d.getVar("LIC_FILES_CHKSUM") or "").split():
        _, _, path, _, _, parameters = bb.fetch2.decodeurl(uri)
        with open(os.path.join(d.getVar("S"), path), "rb") as file:
            found = hashlib.md5(file.read()).hexdigest()
        if found != parameters["md5"]:
            yield f"LIC_FILES_CHKSUM says {parameters['md5']} of {path}, it is {found}"


def files(d):
    """Complains of files that the recipe names and its source does not have."""
    for variable in ("UPDATE_MODULE_SETTINGS", "UPDATE_MODULE_UNIT"):
        path = d.getVar(variable)
        if path and not os.path.isfile(os.path.join(d.getVar("S"), path)):
            yield f"{variable} = {path} is not in the source"


def crates(d, fetched):
    """Complains of a list of crates that is not that of the source's Cargo.lock."""
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
        yield f"{crate[0]} with the checksum {crate[1]} is in only one of Cargo.lock and the list of crates"


def revisions(d):
    """Complains of a source whose revision is found out by asking its server, which happens while recipes are parsed."""
    if not d.getVar("SRC_URI"):
        return
    try:
        bb.fetch2.get_hashvalue(d)
    except bb.fetch2.BBFetchException as error:
        yield f"parsing it asks the network: {error}"


def complaints(d):
    """Fetches and unpacks, and compares what the recipe says with what is there."""
    uris = (d.getVar("SRC_URI") or "").split()
    if not uris:
        return
    fetcher = bb.fetch2.Fetch(uris, d)
    fetcher.download()
    os.makedirs(d.getVar("UNPACKDIR"), exist_ok=True)
    fetcher.unpack(d.getVar("UNPACKDIR"))
    yield from licences(d)
    yield from files(d)
    if not d.getVar("SRCREV"):  # of a commit, its list may be older or newer than the layer
        yield from crates(d, uris)


def said(builder, recipe, only_parsed):
    """What is to be complained of in one recipe."""
    try:
        d = builder.parseRecipe(recipe, [], "rust-modules")
    except (bb.parse.ParseError, bb.fetch2.BBFetchException, bb.data_smart.ExpansionError) as error:
        return [str(error)]
    reason = d.getVar("__SKIPPED")
    if reason and "-bin_" in recipe and not d.getVar("RUST_MODULES_PREBUILT"):
        return []  # a state that is no release
    wrong = [f"it is left out: {reason}"] if reason else list(revisions(d))
    if wrong or only_parsed:
        return wrong
    try:
        return list(complaints(d))
    except (OSError, bb.fetch2.BBFetchException) as error:
        return [str(error)]


def main(build, *recipes):
    os.chdir(build)
    os.environ["BBPATH"] = build
    builder = bb.cookerdata.CookerDataBuilder(bb.cookerdata.CookerConfiguration())
    builder.parseBaseConfiguration()
    wrong = 0
    unpacked_git = False
    for recipe in recipes:
        name = os.path.basename(recipe).removesuffix(".bb")
        only_parsed = "-bin_" in name or os.path.dirname(recipe) == os.path.join(build, "readme")
        if name.endswith("_git"):
            # All of them have one source: the whole repository, and every crate of its workspace.
            only_parsed, unpacked_git = unpacked_git, True
        complained = said(builder, recipe, only_parsed)
        print(f"{name}: {'; '.join(complained) or ('parsed' if only_parsed else 'ok')}")
        wrong += len(complained)
    sys.exit(wrong > 0)


main(*sys.argv[1:])
