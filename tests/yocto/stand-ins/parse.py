"""Parses the layer with the real BitBake engine, and fetches and unpacks what recipes name.

    parse.py BUILD_FOLDER LAYER...

The build folder has conf/bblayers.conf, and in downloads/ every archive and crate. No class of OE-Core runs: this proves
syntax, variables, checksums and files. One line of JSON for each recipe.
"""

import hashlib
import json
import os
import sys
import types

# The wheel has the engine without the services for builds; parsing needs their names only.
for name in ("hashserv", "hashserv.client", "prserv", "prserv.serv"):
    sys.modules[name] = types.ModuleType(name)

import bb.cookerdata
import bb.fetch2
import bb.parse


def licences_differ(d):
    """The licence files whose checksum is not what the recipe says."""
    for uri in (d.getVar("LIC_FILES_CHKSUM") or "").split():
        _, _, path, _, _, parameters = bb.fetch2.decodeurl(uri)
        with open(os.path.join(d.getVar("S"), path), "rb") as file:
            if hashlib.md5(file.read()).hexdigest() != parameters["md5"]:
                yield path


def missing(d):
    """The files of the source that the recipe names and that are not there."""
    for variable in ("UPDATE_MODULE_SETTINGS", "UPDATE_MODULE_UNIT", "CARGO_LOCK"):
        path = d.getVar(variable)
        if path and not os.path.isfile(os.path.join(d.getVar("S"), path)):
            yield f"{variable} = {path}"


def tried(d):
    """Fetches and unpacks; what the recipe says of its source has to be true of it."""
    fetcher = bb.fetch2.Fetch((d.getVar("SRC_URI") or "").split(), d)
    fetcher.download()
    os.makedirs(d.getVar("UNPACKDIR"), exist_ok=True)
    fetcher.unpack(d.getVar("UNPACKDIR"))
    return {"licences_differ": list(licences_differ(d)), "missing": list(missing(d))}


def main(build, *recipes):
    os.chdir(build)
    os.environ["BBPATH"] = build
    configuration = bb.cookerdata.CookerConfiguration()
    builder = bb.cookerdata.CookerDataBuilder(configuration)
    builder.parseBaseConfiguration()
    for path in recipes:
        d = builder.parseRecipe(path, [], "rust-modules")
        told = {name: d.getVar(name) for name in ("PN", "PV", "SUMMARY", "LICENSE", "SRC_URI")}
        told["skipped"] = d.getVar("__SKIPPED")
        told.update(tried(d))
        print(json.dumps(told))


main(*sys.argv[1:])
