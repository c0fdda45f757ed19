"""Counts tokens of text files for sampler=pc_sampler.

python -m scripts.background corpus.txt --output background.json --model tiny-llada
python -m scripts.run sampler=pc_sampler sampler.background=background.json
"""

import argparse
import json
import sys
from pathlib import Path

from dllm.errors import ConfigError
from scripts.command_line import COMMAND, Parser, user_path, writing


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m scripts.background",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=user_path, metavar="FILE", help="UTF-8 text")
    parser.add_argument("--output", type=user_path, required=True)
    parser.add_argument(
        "--model", default="tiny-llada", help="whose tokenizer: a name in conf/model"
    )
    options = parser.parse_args(arguments)
    return COMMAND.plain(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from dllm.config import build, compose
    from dllm.models.hub import checkpoint_folder, open_spec, open_tokenizer
    from samplers.parts import background  # torch, not needed for --help

    model = build(compose([f"model={options.model}"]).model, "model")
    tokenizer = open_tokenizer(model, open_spec(model), checkpoint_folder(model))
    texts = [_text(path) for path in options.files]
    table = background.count(tokenizer.encode(text) for text in texts)
    with writing("--output", options.output):
        options.output.write_text(json.dumps(table) + "\n")
    print(f"{options.output}: {table['num_token']} tokens")
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no UTF-8 text") from None


if __name__ == "__main__":
    sys.exit(main())
