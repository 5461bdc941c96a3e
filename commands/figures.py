"""The papers' figures, drawn from finished runs: confusion matrices, and what the methods register."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import declare, matrix, plan, registry, store
from bench.errors import UserError


def figures_of(declared: declare.Declarations, tables: Sequence[declare.Table]) -> list[declare.Figure]:
    """The figures drawn from protocols of the tables asked for."""
    asked = {(table.paper, claim.protocol) for table in tables for claim in table.claims() if claim.experiment}
    return [figure for figure in declared.figures.values() if (figure.paper, figure.protocol) in asked]


def figure_runs(
    declared: declare.Declarations, figures: Sequence[declare.Figure], profile: declare.ProfileName, seed: int
) -> list[matrix.Run]:
    """The runs whose weights or predictions the figures are drawn from: the first seed of each."""
    return [
        run
        for figure in figures
        for experiment in figure.experiments.values()
        for run in matrix.runs_of(
            declared, matrix.running_entry(declared, experiment, figure.protocol, profile), profile, [seed]
        )
    ]


def draw_figures(
    declared: declare.Declarations, figures: Sequence[declare.Figure], profile: declare.ProfileName, results: Path,
    root: Path | None, seed: int, preprocessing: Mapping[str, str],
) -> None:  # fmt: skip
    """Draw what can be drawn into <results>/figures/; say for each figure where it is or why it is not."""
    for figure in figures:
        runs = figure_runs(declared, [figure], profile, seed)
        read = {run.entry.protocol.dataset for run in runs}
        own = {dataset: name for dataset, name in preprocessing.items() if dataset in read}
        planned = plan.plan(matrix.with_preprocessing(runs, own), root, results)
        missing = [p for p in planned if p.status != "cached"]
        if missing:
            reason = missing[0].reason or "not run yet"
            print(f"{figure.id}: not drawn, {missing[0].run.name}: {reason}")
            continue
        try:
            path = _confusion(figure, planned, results) if figure.draw == "confusion" else _drawn_by_method(
                figure, planned, results, root
            )  # fmt: skip
            print(f"{figure.id}: {path}")
        except (UserError, FileNotFoundError) as error:
            print(f"{figure.id}: not drawn: {error}")


def _path(figure: declare.Figure, planned: Sequence[plan.Planned], results: Path) -> Path:
    synthetic = planned[0].run.entry.protocol.synthetic
    return results / "figures" / f"{figure.id}{'-synthetic' if synthetic else ''}.png"


def _confusion(figure: declare.Figure, planned: Sequence[plan.Planned], results: Path) -> Path:
    """One confusion matrix, summed over the folds of the protocol."""
    from tables.render import confusion
    from tables.render.results import read_confusion

    files = [results / "confusion" / f"{p.key}-test-best.csv" for p in planned]
    pairs = [read_confusion(file) for file in files]
    protocol = planned[0].run.entry.protocol
    title = f"{next(iter(figure.experiments))} on {protocol.id}, test-best"
    total = sum(pair[1] for pair in pairs)
    path = _path(figure, planned, results)
    store.write_bytes(path, confusion.png(pairs[0][0], total, title, protocol.synthetic))
    return path


def _drawn_by_method(figure: declare.Figure, planned: Sequence[plan.Planned], results: Path, root: Path | None) -> Path:
    """A method's own figure over its trained networks, on the first test image of the figure's class."""
    import numpy as np
    import torch

    from bench.data.source import open_data
    from bench.loop import prepare

    draw = registry.find("figure", figure.draw).load()
    first = planned[0].run
    data = open_data(first.entry.protocol, root, preprocessing=first.preprocessing)
    index = data.index
    held_out = index["fold"] == 0 if first.entry.protocol.folds else index["split"] == "test"
    shown = np.flatnonzero((held_out & (index["label"] == figure.expression)).to_numpy())
    if not len(shown):
        raise UserError(f"no test image of class '{figure.expression}' in {first.entry.protocol.id}")
    pixels = torch.from_numpy(np.ascontiguousarray(data.pixels[data.rows[shown[:1]]]))
    mark = " (SYNTHETIC)" if first.entry.protocol.synthetic else ""
    nets = {title + mark: _trained(p) for title, p in zip(figure.experiments, _one_each(planned), strict=True)}
    path = _path(figure, planned, results)
    draw(nets, prepare(pixels, first.recipe), pixels, path)
    return path


def _one_each(planned: Sequence[plan.Planned]) -> list[plan.Planned]:
    """The first fold of each experiment."""
    return list({p.run.entry.experiment.id: p for p in reversed(planned)}.values())[::-1]


def _trained(planned: plan.Planned) -> Any:
    """A run's network with the weights of its last epoch, in evaluation mode on the CPU."""
    import torch
    from safetensors.torch import load_file

    from bench.method import Context, Spec

    file = store.run_folder(planned.key) / "model.safetensors"
    if not file.is_file():
        raise UserError(f"{file}: no weights", "run again with --force: kept reference runs carry predictions only")
    run = planned.run
    experiment = run.entry.experiment
    context = Context(run.entry.protocol.classes, int(run.recipe["input_size"]), 1, torch.device("cpu"))
    spec = Spec(experiment.id, experiment.backbone, "none", run.options)
    net = registry.find("method", experiment.method).load()(spec, run.recipe, context).net
    net.load_state_dict(load_file(file))
    return net.eval()
