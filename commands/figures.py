"""The papers' figures, drawn from finished runs: confusion matrices, and what the methods register."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import declare, extra, matrix, plan, registry, store, weights
from bench.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from bench.figure import Faces
    from bench.method import Front, Method

LOOKED_AT = 32  # faces classified at a time in search of an example


def figures_of(declared: declare.Declarations, tables: Sequence[declare.Table]) -> list[declare.Figure]:
    """The figures drawn from protocols of the tables asked for."""
    asked = {(table.paper, claim.protocol) for table in tables for claim in table.claims() if claim.experiment}
    return [figure for figure in declared.figures.values() if (figure.paper, figure.protocol) in asked]


def unasked(
    declared: declare.Declarations, tables: Sequence[declare.Table], reports: Sequence[declare.Report] = ()
) -> list[declare.Figure]:
    """The figures that come with the tables and reports asked for."""
    names = {one.id for one in (*tables, *reports)}
    return [figure for figure in declared.figures.values() if not names.isdisjoint(figure.drawn_with)]


def chosen(
    declared: declare.Declarations, figure: declare.Figure, profile: declare.ProfileName, root: Path | None = None
) -> declare.Figure:
    """The figure, of its fallback's experiments where its own lack a file here, or its own stages what they need."""
    named = figure.experiments.values() if figure.fallback else ()
    if any(_lacking(declared, name, figure.protocol, profile, root) for name in named):
        return figure.model_copy(update={"experiments": figure.fallback})
    return figure


def _lacking(
    declared: declare.Declarations, name: str, protocol: str, profile: declare.ProfileName, root: Path | None
) -> bool:
    role = name.removeprefix(declare.STAGE)
    if role != name:
        return plan.Planner(root).stop(matrix.stage_run(declared, role, profile)) is not None
    return extra.lacks_file(declared, name, protocol, profile)


def figure_runs(
    declared: declare.Declarations, figures: Sequence[declare.Figure], profile: declare.ProfileName, seed: int,
    root: Path | None = None,
) -> list[matrix.Run]:  # fmt: skip
    """The runs whose weights or predictions the figures are drawn from: the first seed of each, and stages."""
    return [
        run
        for figure in figures
        for name in chosen(declared, figure, profile, root).experiments.values()
        for run in _runs(declared, name, figure.protocol, profile, seed)
    ]


def _runs(
    declared: declare.Declarations, name: str, protocol: str, profile: declare.ProfileName, seed: int
) -> list[matrix.Run]:
    role = name.removeprefix(declare.STAGE)
    if role != name:
        return [matrix.stage_run(declared, role, profile)]
    return matrix.runs_of(declared, matrix.running_entry(declared, name, protocol, profile), profile, [seed])


def draw_figures(
    declared: declare.Declarations, figures: Sequence[declare.Figure], profile: declare.ProfileName, results: Path,
    root: Path | None, seed: int, preprocessing: Mapping[str, str], device: str, if_ready: bool = False,
) -> None:  # fmt: skip
    """Draw what can be drawn into <results>/figures/; say for each figure where it is or why it is not.

    Args:
        if_ready: say nothing of figures whose networks are not all in the cache.
    """
    for figure in (chosen(declared, figure, profile, root) for figure in figures):
        runs = figure_runs(declared, [figure], profile, seed, root)
        read = {run.entry.protocol.dataset for run in runs}
        own = {dataset: name for dataset, name in preprocessing.items() if dataset in read}
        planned = plan.plan(matrix.with_preprocessing(runs, own), root, results)
        if if_ready and not all(p.key and store.find_network(p.key) for p in planned):
            continue
        missing = [p for p in planned if p.status != "cached"]
        if missing:
            reason = missing[0].reason if missing[0].status == "blocked" else "not run yet"
            print(f"{figure.id}: not drawn, {missing[0].run.name}: {reason}")
            continue
        try:
            path = _confusion(figure, planned, results) if figure.draw == "confusion" else _drawn_by_method(
                figure, planned, _tested(declared, figure, planned, profile), results, root, device
            )  # fmt: skip
            print(f"{figure.id}: {path}")
        except (UserError, FileNotFoundError) as error:
            print(f"{figure.id}: not drawn: {error}")


def _tested(
    declared: declare.Declarations, figure: declare.Figure, planned: Sequence[plan.Planned],
    profile: declare.ProfileName,
) -> declare.Protocol:  # fmt: skip
    """The protocol whose images are shown: that of the figure's runs; stages have been trained on others."""
    run = planned[0].run
    if any(name.startswith(declare.STAGE) for name in figure.experiments.values()):
        return matrix.running_entry(declared, run.entry.experiment.id, figure.protocol, profile).protocol
    return run.entry.protocol


def _path(figure: declare.Figure, protocol: declare.Protocol, results: Path) -> Path:
    return results / "figures" / f"{figure.id}{'-synthetic' if protocol.synthetic else ''}.png"


def _confusion(figure: declare.Figure, planned: Sequence[plan.Planned], results: Path) -> Path:
    """One confusion matrix, summed over the folds of the protocol."""
    from tables.render import confusion
    from tables.render.results import read_confusion

    files = [results / "confusion" / f"{p.key}-test-best.csv" for p in planned]
    pairs = [read_confusion(file) for file in files]
    protocol = planned[0].run.entry.protocol
    total = sum(pair[1] for pair in pairs)
    about = f"{protocol.id}, {int(total.sum()):,} test images, profile {planned[0].run.profile}, test-best"
    title = f"{next(iter(figure.experiments))} on {about}"
    path = _path(figure, protocol, results)
    store.write_bytes(path, confusion.png(pairs[0][0], total, title, protocol.synthetic))
    return path


def _drawn_by_method(
    figure: declare.Figure, planned: Sequence[plan.Planned], tested: declare.Protocol, results: Path,
    root: Path | None, device: str,
) -> Path:  # fmt: skip
    """A method's own figure over its trained networks, on the test images that the figure's declaration asks for."""
    draw = registry.find("figure", figure.draw).load()
    firsts = dict(zip(figure.experiments, _one_each(planned), strict=True))
    methods = {title: trained(p, device) for title, p in firsts.items()}
    nets = {title: method.net for title, method in methods.items()}
    fronts = {title: front_of(method, device) for title, method in methods.items()}
    faces = faces_of({title: p.run for title, p in firsts.items()}, root, fronts, tested)
    path = _path(figure, tested, results)
    judging = {title: net for title, net in nets.items() if methods[title].classifies}
    draw(nets, faces if figure.faces == "all-test" else _examples(judging, faces, figure.expression), path)
    return path


def faces_of(
    runs: Mapping[str, matrix.Run], root: Path | None, fronts: Mapping[str, Front | None] | None = None,
    tested: declare.Protocol | None = None,
) -> Faces:  # fmt: skip
    """The test images of a protocol (None: of the runs' own), each run's input made by its own front and recipe."""
    import numpy as np
    import torch

    from bench.data.pixel_file import Mapped
    from bench.data.source import locate, open_data, splits_of
    from bench.figure import Faces, Scale
    from bench.loop import prepare

    first = next(iter(runs.values()))
    protocol = tested or first.entry.protocol
    profiles = {title: run.recipe["preprocessing"].get(protocol.dataset, "") for title, run in runs.items()}
    shown_as = next(iter(profiles.values()))
    opened = {name: open_data(protocol, root, preprocessing=name) for name in set(profiles.values())}
    tests = {name: splits_of(data.index, protocol, first.fold)["test"] for name, data in opened.items()}
    names = {tuple(data.index["name"].iloc[tests[name]]) for name, data in opened.items()}
    if len(names) > 1:
        raise UserError(f"the preprocessings {', '.join(opened)} leave different test images of {protocol.id}")

    def pixels(preprocessing: str, at: np.ndarray) -> torch.Tensor:
        data = opened[preprocessing]
        assert isinstance(data.pixels, Mapped)
        return torch.from_numpy(data.pixels.file.read(data.rows[tests[preprocessing][at]]))

    def made(title: str, stored: torch.Tensor) -> torch.Tensor:
        return prepare(stored, runs[title].recipe, front=(fronts or {}).get(title))

    def twins(title: str, at: np.ndarray) -> torch.Tensor:
        name = profiles[title]
        adapter = locate(protocol, root, preprocessing=name)
        wanted = opened[name].index["name"].iloc[tests[name][at]].tolist()
        return made(title, torch.from_numpy(np.stack(list(adapter.twins(wanted)))))  # type: ignore[attr-defined]

    has_twins = hasattr(registry.find("dataset", protocol.dataset).load(), "twins")
    index = opened[shown_as].index.iloc[tests[shown_as]]
    shown = index["label"]
    return Faces(
        protocol.classes,
        shown.map({name: i for i, name in enumerate(protocol.classes)}).to_numpy(np.int64),
        pixels=lambda at: pixels(shown_as, at),
        inputs=lambda title, at: made(title, pixels(profiles[title], at)),
        caption=_caption(runs, protocol, len(shown)),
        synthetic=protocol.synthetic,
        scales={t: Scale(run.recipe["mean"], run.recipe["std"], run.recipe["colour"]) for t, run in runs.items()},
        twins=twins if has_twins else None,
        persons=index["identity"].to_numpy(np.int64) if "identity" in index else None,
        names=tuple(index["name"]),
    )


def _caption(runs: Mapping[str, matrix.Run], protocol: declare.Protocol, images: int) -> str:
    """What every picture says: experiments, where they were tested, under which profile, with which weights.

    Also whose pretraining the profile goes without.
    """
    first = next(iter(runs.values()))
    titles = ", ".join(
        f"{title}: {run.entry.experiment.id if run.entry.protocol == protocol else run.entry.id}"
        for title, run in runs.items()
    )
    fold = f", fold {first.fold + 1} of {protocol.folds}" if protocol.folds else ""
    about = f"{protocol.id}{fold}, {images:,} test images, profile {first.profile}, seed {first.seed}"
    dropped = {
        title: "".join(f", but for {role}" for role in (*run.weights, *run.stages))
        for title, run in runs.items() if run.pretraining == "none" != run.entry.experiment.pretraining
    }  # fmt: skip
    said = "".join(f" {title}: from random weights under this profile{rest}." for title, rest in dropped.items())
    return f"{titles}. {about}, weights of the last epoch.{said}"


def _examples(nets: Mapping[str, Any], faces: Faces, expression: str) -> Faces:
    """One test face of a class, or of every class where `expression` is empty.

    Args:
        nets: those that classify.

    Raises:
        UserError: no test image of some class.
    """
    import numpy as np

    wanted = [expression] if expression else list(faces.classes)
    found = [_example(nets, faces, name) for name in wanted]
    if not nets:
        return faces.only(np.asarray([position for position, _ in found]), "Faces: the first test image of each class.")
    wrong = [name for name, (_, right) in zip(wanted, found, strict=True) if not right]
    who = "the network" if len(nets) == 1 else "every network"
    said = f"Faces: the first test image of its class that {who} gets right"
    said += f"; none of {', '.join(wrong)} is, so its first." if wrong else "."
    return faces.only(np.asarray([position for position, _ in found]), said)


def _example(nets: Mapping[str, Any], faces: Faces, name: str) -> tuple[int, bool]:
    """The first face of a class that every network classifies correctly, else the first; and whether they all do."""
    import numpy as np
    import torch

    label = faces.classes.index(name)
    of_class = np.flatnonzero(faces.labels == label)
    if not len(of_class):
        raise UserError(f"no test image of class '{name}'")
    for start in range(0, len(of_class), LOOKED_AT):
        places = of_class[start : start + LOOKED_AT]
        right = np.ones(len(places), bool)
        for title, net in nets.items():
            with torch.inference_mode():
                logits = net(faces.inputs(title, places).to(next(net.parameters()).device))
            right &= (logits.argmax(1) == label).cpu().numpy()
        if right.any():
            return int(places[right.argmax()]), True
    return int(of_class[0]), False


def _one_each(planned: Sequence[plan.Planned]) -> list[plan.Planned]:
    """The first fold of each experiment."""
    return list({p.run.entry.id: p for p in reversed(planned)}.values())[::-1]


def trained(planned: plan.Planned, device: str) -> Method:
    """A run's method, its network with the weights of its last epoch, in evaluation mode on the device."""
    from bench.job import pick_device
    from bench.method import Context, Spec
    from bench.weight_files import load_strict, read_state

    file = store.run_folder(planned.key) / "model.safetensors"
    if not file.is_file():
        raise UserError(f"{file}: no weights", "run again with --force: kept reference runs carry predictions only")
    run = planned.run
    experiment = run.entry.experiment
    place = pick_device(device)
    size = int(run.recipe["input_size"])
    context = Context(run.entry.protocol.classes, size, 1, place, weights=_front_file(planned), restoring=True)
    spec = Spec(experiment.id, experiment.backbone, "none", run.options)
    method: Method = registry.find("method", experiment.method).load()(spec, run.recipe, context)
    load_strict(method.net, read_state(file), str(file))
    method.net.to(place).eval()
    return method


def _front_file(planned: plan.Planned) -> dict[str, Path]:
    """The weights of the run's front, which are not part of its network: a file of others, or a stage's product."""
    role = planned.run.front
    if role not in planned.stages:
        return weights.require([role] if role else [])
    folder = store.find_network(planned.stages[role].key)
    if folder is None:
        raise UserError(f"stage {role} has no network here", "run again with --force: it is trained then")
    return {role: folder / store.NETWORK}


def front_of(method: Method, device: str) -> Front | None:
    """The method's front for images on the CPU, which gives what training saw; a few images at a time."""
    from bench.data.derived import rounding
    from bench.job import pick_device

    if method.front is None:
        return None
    place = pick_device(device)
    front = rounding(method.front) if method.front.once else method.front
    return replace(front, apply=lambda images: front.apply(images.to(place)).cpu())
