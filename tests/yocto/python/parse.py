"""Parses the layer with BitBake's own engine, and fetches and unpacks what its recipes name.

    parse.py BUILD_FOLDER APPENDS_FOLDER RECIPE...

The build folder has conf/bblayers.conf and, in downloads/, every archive, package and crate. No class of OE-Core runs: this
proves syntax, variables, checksums and files. A line for each recipe; the exit status is 1 when something is not as it says.
"""

import fnmatch
import glob
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
    yield from crates(d, uris)


def main(build, appends, *recipes):
    os.chdir(build)
    os.environ["BBPATH"] = build
    builder = bb.cookerdata.CookerDataBuilder(bb.cookerdata.CookerConfiguration())
    builder.parseBaseConfiguration()
    wrong = 0
    for recipe in recipes:
        name = os.path.basename(recipe).removesuffix(".bb")
        fits = lambda path: fnmatch.fnmatch(name, os.path.basename(path).removesuffix(".bbappend").replace("%", "*"))
        chosen = [path for path in glob.glob(f"{appends}/*/*/*.bbappend") if fits(path)]
        d = builder.parseRecipe(recipe, chosen, "rust-modules")
        said = ["it is skipped"] if d.getVar("__SKIPPED") else list(complaints(d))
        print(f"{name}: {'; '.join(said) or 'ok'}")
        wrong += len(said)
    sys.exit(wrong > 0)


main(*sys.argv[1:])
