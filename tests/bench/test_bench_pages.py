"""Every bench by its command, at sizes that take no time: lines, page, refusals."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forked import forked

from dllm.bench import (
    batch,
    caches,
    constraints,
    forward,
    imports,
    loop,
    machine,
    memory,
    naive,
    refresh,
    samplers,
    selection,
    startup,
)
from dllm.bench.ratio import Ratio
from dllm.bench.sheet import Line, Sheet, faster
from dllm.errors import RunError
from dllm.models.loading import dummy_model
from dllm.models.transformer import Transformer
from dllm.report import benches
from dllm.report.benches import write
from dllm.step.canvas import Prompt
from scripts import bench


SMALL = replace(
    caches.SPEC,
    vocab_size=9_000,
    d_model=32,
    n_layers=2,
    n_heads=2,
    n_kv_heads=2,
    head_dim=16,
    d_ff=64,
)
GIVEN = {"loop": ["sampler=threshold"], "samplers": ["threshold"], "naive": ["small"]}
GIVEN |= {"batch": ["small"], "startup": ["limit=1"]}


def small_model() -> Transformer:
    model = dummy_model(SMALL)
    assert model.head is not None
    model.head.weight[2:].mul_(300)  # most predictions are sure
    return model


def small(*_: int) -> tuple[Transformer, list[Prompt]]:
    return small_model(), [Prompt("a", tuple(range(2, 40)), 32)]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in [
        (machine, "WIDTH", {"cpu": 8}),
        (machine, "COPIED", {"cpu": 1024}),
        (selection, "VOCABULARY", 9_000),
        (samplers, "VOCABULARY", 64),
        (samplers, "MASK", 60),
        (samplers, "EOS", 61),
        (samplers, "FAVOURITES", (10, 50)),
        (caches, "SPEC", SMALL),
        (caches, "LENGTHS", (32, 64)),
        (refresh, "large", small),
        (refresh, "LENGTHS", (32, 64)),
        (naive, "MODELS", {"small": naive.Task(small, 1)}),
        (naive, "LOOPS", {"Fast-dLLM dual": naive.LOOPS["Fast-dLLM dual"]}),
        (loop, "MODELS", {"small": small}),
        (forward, "SPEC", SMALL),
        (forward, "ROWS", (3,)),
        (batch, "MODELS", {"small": batch.Load(small_model, ("dual",), 1, False)}),
        (batch, "COUNT", 3),
        (batch, "SIZES", (1, 2)),
        (batch, "BLOCKS", (1, 2)),
        (memory, "VOCABULARIES", (9_000,)),
        (memory, "large", small),
        (memory, "llada_8b", lambda: SMALL),
        (constraints, "VOCABULARY", 2_000),
        (constraints, "CANVASES", 1),
        (imports, "MODULES", ("dllm",)),
        (imports, "REPEATS", 1),
        (startup, "REPEATS", 1),
        (startup, "VARIANTS", {"alone, s": ("tracker=none", "baseline=true")}),
    ]:
        monkeypatch.setattr(module, name, value)


Command = Callable[..., int]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["bench", *arguments])
        return bench.main()

    return run


@pytest.mark.parametrize("name", bench.BENCHES)
def test_every_bench_writes_its_page(
    name: str,
    quick: None,
    command: Command,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "pages"
    assert command(name, *GIVEN.get(name, []), "--out", str(folder)) == 0
    *told, reached, _, _, _, _ = capsys.readouterr().out.splitlines()
    data = json.loads((folder / f"{name}.json").read_text())
    assert len(told) == len(data["lines"]) > 0
    assert all(line.startswith(f"{name}: ") for line in told)
    assert reached.startswith("machine: commit ") and "copy GB/s" in reached
    assert data["machine"].keys() >= {"commit", "device", "threads", "load before"}
    assert data["machine"]["product GFLOP/s"].keys() == {"float32", "bfloat16"}
    page = (folder / f"{name}.md").read_text()
    assert f"`{data['command']}`" in page and f"({name}.png)" in page
    assert page.count("\n| ") == len(told) + 1  # the table's head
    assert (folder / f"{name}.png").stat().st_size > 1000
    if name == "startup":  # every part is reached, in their order
        parts = [line["name"] for line in data["lines"] if "alone, s" in line]
        assert parts == [part for part in startup.PARTS if part != "W&B started"]
        seconds = [line["alone, s"] for line in data["lines"] if "alone, s" in line]
        assert seconds == sorted(seconds)


def test_a_closed_terminal_leaves_the_page(
    quick: None, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def closed(lines: Iterable[Line]) -> Iterator[Line]:
        yield next(iter(lines))
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
        signal.raise_signal(signal.SIGHUP)

    def measured() -> int:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nobody's nohup
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] - as a terminal's
        whole = samplers.sheet
        monkeypatch.setattr(
            samplers, "sheet", lambda names: replace(s := whole(names), lines=closed(s.lines))
        )
        return command("samplers", "threshold", "--out", str(tmp_path))

    code, said = forked(measured, tmp_path / "said").ended()
    assert "Traceback" not in said
    assert code == 1  # nobody was told
    assert json.loads((tmp_path / "samplers.json").read_text())["lines"]


def test_batches_are_compared_only_where_they_decode_the_same(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = machine.Machine("cpu", {torch.float64: 1e9}, 1e9, None)
    model = small_model().double()  # nothing is decided by rounding
    load = batch.Load(lambda: model, ("none", "dual"), 1, False)
    found = list(batch.measure("small", load, reached))
    assert [line.name for line in found] == [
        f"small, cache={cache}, batch {size}" for cache in ("none", "dual") for size in (1, 2)
    ]
    for line in found:
        assert line.values["same tokens, %"] == 100
        assert line.values["first token, s"] > 0
        assert line.values["forwards"] > 0
    assert found[0].values["cost of a token, batch 1 = 1"] == 1
    for alone in (found[0], found[2]):  # one sequence after the other: the same forwards
        assert alone.values["forwards"] == alone.values["lock-step forwards"]
    decode = batch.lockstep.decode

    def otherwise(*arguments) -> list[list[int]]:
        (first, *rest), *others = decode(*arguments)
        return [[first + 1, *rest], *others]

    monkeypatch.setattr(batch.lockstep, "decode", otherwise)
    monkeypatch.setattr(batch, "LEAST_SAME", 1)
    with pytest.raises(batch.RunError, match=r"cache=none, batch 1: only 9\d\.\d% of the tokens"):
        next(batch.measure("small", load, reached))


def test_one_block_is_decoded_and_no_more() -> None:
    model, (prompt,) = small()
    found = dict(refresh.measure(model, prompt.tokens, (32, 64), repeats=1))
    assert {"none", "prefix", "dual", "window"} <= found.keys()
    for length in (32, 96):
        setting = refresh.setting(model, "dual", length)
        steps = refresh.block(setting, replace(prompt, gen_length=length))
        assert steps == refresh.BLOCK // refresh.TOKENS


def test_work_is_counted_by_rows(quick: None) -> None:
    model = small_model()
    layers = 2 * (4 * 32 * 32 + 3 * 32 * 64)
    with batch.counted(model) as work:
        model.logits(model.hidden(torch.zeros(2, 5, dtype=torch.int64))[:, :3])
    assert work.flops == 2 * (10 * layers + 6 * 9_000 * 32)
    assert work.bytes == 4 * (layers + 9_000 * 32)
    tokens, wanted = torch.zeros(2, 5, dtype=torch.int64), torch.tensor([[3], [4]])
    real = torch.ones(2, 5, dtype=torch.bool)
    real[1, 4] = False
    with batch.counted(model) as less:
        model.hidden(tokens, rows=wanted, real=real.nonzero().unbind(1))
    attention, rest = 4 * 32 * 32, 3 * 32 * 64
    first, last = 10 * attention + 9 * rest, 10 * attention / 2 + 2 * (attention / 2 + rest)
    assert less.flops == 2 * (first + last)
    with batch.counted(model) as nothing:
        pass
    assert nothing.flops == 0 and "hidden" not in vars(model)


def test_scores_that_are_not_exact_are_not_timed(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {"entropy": lambda logits: {"entropy": selection.entropy(logits)["entropy"] + 1e-5}}
    monkeypatch.setattr(selection, "KINDS", wrong)
    with pytest.raises(selection.RunError, match="entropy: the entropy is not that of"):
        next(selection.measure(1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["naive", "9x512"], "9x512 is not one of tiny-llada, 8x512"),
        (["batch", "big"], "big is not one of tiny-llada, 8x512"),
        (["memory", "x"], "x: memory takes no options"),
        (["naive", "--device", "cuda"], "--device=cuda: naive runs on the CPU"),
        (["imports", "--out", "/proc/none/x"], "--out /proc/none/x can't be written"),
        (["loop", "sampler=random", "model=tiny-sdar"], "model: loop measures models and prompts"),
        (["loop", "nosuch=3"], "nosuch is no option"),
        (["startup", "tracker=none"], "tracker: startup measures with and without it"),
        (["startup", "tracker=wandb"], "tracker: startup measures with and without it"),
        (["startup", "hydra.run.dir=x"], "hydra: startup measures with and without it"),
        (["loop", "model=tiny-llada"], "model: loop measures models and prompts"),
        (["startup", "nosuch=3"], "nosuch is no option"),
        ([], "the following arguments are required: BENCH\n"),
        (["samplers", "deer"], "deer is not measured: sampler=deer "),
    ],
)
def test_what_can_not_be_measured_is_one_line(
    arguments: list[str], words: str, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = command(*arguments)
    except SystemExit as ended:  # argparse's way
        code = ended.code
    assert code == 2
    assert capsys.readouterr().err.startswith(f"error: {words}")


@pytest.mark.parametrize("name", [name for name, one in bench.BENCHES.items() if one.gpu])
def test_a_gpu_that_is_not_there_is_one_line(
    name: str,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command(name, "--device", "cuda") == 2
    out, error = capsys.readouterr()
    assert (out, error) == (
        "",
        "error: --device=cuda: no such device here; cpu, or cuda with a GPU\n",
    )


def test_a_batch_on_a_gpu_has_llada_8bs_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def dummy(spec, dtype: torch.dtype, device: str) -> Transformer:
        made.append((spec.n_layers, spec.d_model, spec.vocab_size, dtype, device))
        return small_model().to(torch.bfloat16)

    monkeypatch.setattr(naive, "dummy_model", dummy)
    monkeypatch.setattr(
        batch, "GPU", [replace(load, sizes=(2,), graphs=False) for load in batch.GPU]
    )
    monkeypatch.setattr(batch, "forget_peak", lambda device: None)
    monkeypatch.setattr(batch, "peak", lambda device: 2.0**20)
    monkeypatch.setattr(batch, "COUNT", 2)
    limits = {torch.float32: 1e9, torch.bfloat16: 1e9}
    monkeypatch.setattr(batch, "settle", lambda device: None)
    sheet = batch.sheet([], machine.Machine("cuda", limits, 1e9, None))
    found = list(sheet.lines)
    assert made == 5 * [(32, 4096, 126_464, torch.bfloat16, "cuda")]
    assert [line.name for line in found] == [
        f"LLaDA-8B's shape, {told}, batch 2"
        for told in (
            "cache=dual",
            "cache=none",
            "cache=prefix",
            "low_confidence, cache=dual",
            "cache=dual",
            "low_confidence, cache=dual",
        )
    ]
    for line in found:
        assert line.values.keys() == sheet.columns.keys() - {"cost of a token, batch 1 = 1"}


def lines() -> Iterator[Line]:
    yield faster("one | two", Ratio(1.0, 2.0, 0.5, 0.4, 0.6), "times", ms=3.0)
    yield Line("three", {"ms": 4.0})


def test_a_line_shows_what_it_has_and_a_page_holds_no_markup(tmp_path: Path) -> None:
    sheet = Sheet("T", ["text"], {"times": "{:.2f}", "ms": "{:.0f}"}, "times", lines())
    kept = list(sheet.lines)
    assert [sheet.told(line) for line in kept] == [
        "one | two: times 0.50, ms 3 (from 0.40 to 0.60)",
        "three: ms 4",
    ]
    facts = {"commit": "abc", "product GFLOP/s": {"float32": 2.0}}
    write(tmp_path, "t", "a command", sheet, kept, True, facts)
    page = (tmp_path / "t.md").read_text()
    assert "| one &#124; two | 0.50 | 3 | 0.40 to 0.60 |\n| three |  | 4 |  |" in page
    assert "Measured: commit abc; product GFLOP/s float32 2.0." in page
    assert "Stopped" not in page
    # A whole page stays.
    made = write(tmp_path, "t", "a command", sheet, kept[:1], False, facts)
    assert (tmp_path / "t.md").read_text() == page
    assert [path.name for path in made] == [
        f"t.stopped.{ending}" for ending in ("md", "json", "png", "svg")
    ]
    assert "Stopped before its end, after 1 lines." in made[0].read_text()
    assert "(t.stopped.png)" in made[0].read_text()
    assert json.loads(made[1].read_text())["complete"] is False
    write(tmp_path, "u", "a command", sheet, kept, False, facts)
    assert "Stopped before its end, after 2 lines." in (tmp_path / "u.md").read_text()
    found = json.loads((tmp_path / "t.json").read_text())["lines"]
    assert found == [
        {"name": "one | two", "times": 0.5, "ms": 3.0, "smallest and largest": [0.4, 0.6]},
        {"name": "three", "ms": 4.0},
    ]


def test_what_ends_a_bench_leaves_what_it_has_measured(
    quick: None, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measured(*_: object) -> Iterator[tuple[str, Ratio]]:
        yield "one", Ratio(1.0, 2.0, 0.5, 0.4, 0.6)
        raise selection.RunError("no more")

    monkeypatch.setattr(selection, "measure", measured)
    assert command("selection", "--out", str(tmp_path)) == 1
    data = json.loads((tmp_path / "selection.json").read_text())
    assert [line["name"] for line in data["lines"]] == ["one"]


def test_a_picture_that_fails_costs_no_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def failing(*_: object) -> None:
        raise ValueError("no such backend\nand more")

    monkeypatch.setattr(benches, "_drawn", failing)
    sheet = Sheet("T", ["text"], {"times": "{:.2f}", "ms": "{:.0f}"}, "times", lines())
    with pytest.raises(RunError, match=r"t.md has no picture: ValueError: no such backend$"):
        write(tmp_path, "t", "a command", sheet, list(sheet.lines), True, {"commit": "abc"})
    assert "| one &#124; two |" in (tmp_path / "t.md").read_text()
    assert json.loads((tmp_path / "t.json").read_text())["complete"] is True


def test_a_page_that_can_not_be_written_is_told_before_anything_is_measured(
    quick: None, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "selection.md").mkdir()
    assert command("selection", "--out", str(tmp_path)) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith(f"error: --out {tmp_path} can't be written: ")


@pytest.mark.parametrize("page", ["docs/benches.md", "README.md"])
def test_pages_name_benches_that_there_are(page: str) -> None:
    root = Path(__file__).parents[2]
    named = re.findall(r"scripts\.bench ([a-z]+)", (root / page).read_text())
    assert set(named) <= bench.BENCHES.keys()
    if page == "docs/benches.md":
        assert set(named) == bench.BENCHES.keys()
        assert {kept.stem for kept in (root / "results/bench").glob("*.md")} <= set(named)
