"""Validates kas files with the schema of kas.

    kas_schema.py FILE...
"""

import sys

import jsonschema
import yaml
from kas.configschema import CONFIGSCHEMA

for path in sys.argv[1:]:
    with open(path) as file:
        jsonschema.validate(yaml.safe_load(file), CONFIGSCHEMA)
    print(f"{path}: ok")
