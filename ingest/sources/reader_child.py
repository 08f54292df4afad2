"""The process in which a LlamaIndex reader runs: what it loads goes to standard output, a JSON object a line."""

import importlib
import json
import resource
import sys
from typing import Any

MEMORY_BYTES = 4 * 2**30
CPU_GRACE_S = 5


def main() -> None:
    """Reads what to load from standard input; the argument is the time limit in seconds."""
    limit_s = int(sys.argv[1]) + CPU_GRACE_S
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    asked = json.load(sys.stdin)
    out, sys.stdout = sys.stdout, sys.stderr  # what a reader prints is no document
    module, _, name = asked["reader"].partition(":")
    reader = getattr(importlib.import_module(module), name)(**asked["init"])
    load = getattr(reader, "lazy_load_data", None) or reader.load_data
    try:
        documents = load(**asked["load"])
    except NotImplementedError:
        documents = reader.load_data(**asked["load"])
    for document in documents:
        out.write(json.dumps(_plain(document), ensure_ascii=False, sort_keys=True) + "\n")


def _plain(document: Any) -> dict[str, Any]:
    metadata = {str(key): value if isinstance(value, str | int | float | bool | list | None) else str(value)
                for key, value in document.metadata.items()}  # fmt: skip
    return {"text": document.text, "metadata": json.loads(json.dumps(metadata, default=str))}


if __name__ == "__main__":
    main()
