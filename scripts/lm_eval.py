"""The lm-evaluation-harness with our models: its own command line, `--model dllm` known to it.

python -m scripts.lm_eval --model dllm --model_args model=tiny-llada,sampler=localleap \\
    --tasks gsm8k --limit 8

Results go to the run's folder (results/runs/lm_eval/<fingerprint>) unless --output_path says
otherwise. Needs the optional package lm-eval (`pip install "dllm-decode[harness]"`).
"""

import sys
from importlib.util import find_spec

from dllm.errors import ConfigError
from scripts.command_line import COMMAND


def main(arguments: list[str] | None = None) -> int:
    """0: evaluated; 1: a failure on the way; 2: something in the command to mend."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if find_spec("lm_eval") is None:
        print('error: needs lm-eval: pip install "dllm-decode[harness]"', file=sys.stderr)
        return 2
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.utils import simple_parse_args_string

    from dllm.runs.harness import configuration_of, folder_of  # registers the model

    def evaluate() -> None:
        if "--model_args" in given and "--output_path" not in given:
            text = given[given.index("--model_args") + 1]
            folder = folder_of(configuration_of(simple_parse_args_string(text)))
            given.extend(("--output_path", str(folder)))
        sys.argv[1:] = given
        try:
            cli_evaluate()
        except ValueError as error:
            if not str(error).startswith(("Tasks not found", "No tasks specified")):
                raise
            raise ConfigError(f"--tasks: {error}") from None

    return COMMAND.plain(evaluate)


if __name__ == "__main__":
    sys.exit(main())
