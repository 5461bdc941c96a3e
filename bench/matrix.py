"""Tables x seeds x folds -> unique runs. A run that several tables need is one run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from bench import registry, store
from bench.declare import RECIPE_FIELDS, ROOT, Claim, Declarations, Entry, ProfileName, Table
from bench.errors import UserError

LOOP = ("loop.py", "method.py", "parallel.py", "splits.py")  # the files of bench/ that every run goes through


@dataclass(frozen=True)
class Run:
    """The unit that is queued, cached and resumed.

    Attributes:
        entry: experiment and protocol as run (profile quick: the synthetic stand-in).
        recipe: plain values under the profile.
        options: the method's options under the profile.
        pretraining, weights: the experiment's, unless the profile declares to go without; external files alone.
        stages: role -> the run whose network fills it.
        checkpoint: SHA-256 of a file of weights that is evaluated in place of training; else empty.
        outputs: the classes in the order of that file's outputs, where it is not the protocol's.
        asked_colour: the order of colour channels asked for with it in place of the recipe's; empty where none was.
        departures: why that file's numbers are not those of the row's own released file.
        asked_preprocessing: the profile asked for in place of the recipe's; empty where none was.
        front: the one of `weights` and `stages` whose network prepares images, outside the network that is trained or
            evaluated; empty where none does.
        other_augmentation: the profile's in place of the experiment's; empty where it declares none.
    """

    entry: Entry
    profile: ProfileName
    seed: int
    fold: int
    recipe: dict[str, Any]
    options: dict[str, Any]
    pretraining: str
    weights: tuple[str, ...]
    asked_preprocessing: str = ""
    stages: dict[str, Run] = field(default_factory=dict)
    checkpoint: str = ""
    outputs: tuple[str, ...] = ()
    asked_colour: str = ""
    departures: tuple[str, ...] = ()
    front: str = ""
    other_augmentation: str = ""

    @property
    def augmentation(self) -> str:
        """Name of the augmentation under the profile."""
        return self.other_augmentation or self.entry.experiment.augmentation

    @property
    def name(self) -> str:
        """How the run is called in messages."""
        fold = f" fold {self.fold + 1}/{self.entry.protocol.folds}" if self.entry.protocol.folds else ""
        return f"{self.entry.id} seed {self.seed}{fold} [{self.profile}]"

    @cached_property
    def identity(self) -> tuple[str, str, str, int, int]:
        """What makes it the same run to a reader: experiment, protocol, profile, seed, fold."""
        return (self.entry.experiment.id, self.entry.protocol.id, self.profile, self.seed, self.fold)

    @property
    def preprocessing(self) -> str:
        """The profile asked of this run's dataset; empty for the dataset's own."""
        chosen: dict[str, str] = self.recipe["preprocessing"]
        return chosen.get(self.entry.protocol.dataset, "")

    @property
    def columns(self) -> list[int]:
        """For each of the protocol's classes, the checkpoint's output that stands for it; empty: as they come."""
        return [self.outputs.index(name) for name in self.entry.protocol.classes] if self.outputs else []

    def data_part(self, data_hash: str, votes_hash: str) -> str:
        """What the key takes of the data: its hash, and that of the raters' votes where the run reads those.

        Raises:
            UserError: it reads votes, and there are none.
        """
        if not self.reads_votes:
            return data_hash
        if not votes_hash:
            protocol, recipe = self.entry.protocol, self.entry.experiment.recipe
            raise UserError(
                f"{protocol.dataset} has no raters' votes for {protocol.id}, which recipe '{recipe}' reads",
                "a recipe without `votes: true` needs none: `method.prior: uniform`, or a prior that the method brings",
            )
        return f"{data_hash}+{votes_hash}"

    @property
    def reads_votes(self) -> bool:
        """Whether its method learns from what raters said; none does where a file of weights is evaluated."""
        return bool(self.recipe.get("votes")) and not self.checkpoint

    def key(self, data_hash: str, weights: Mapping[str, str], stages: Mapping[str, str] | None = None) -> str:
        """Content key, 16 hex digits: everything that can change a number, nothing that cannot.

        Args:
            data_hash: of the protocol as it lies on disk (names, labels, splits, pixels): `data_part`.
            weights: SHA-256 of each external file, by role.
            stages: key of each stage, by role.
        """
        experiment, protocol = self.entry.experiment, self.entry.protocol
        parts = {
            "method": [experiment.method, registry.find("method", experiment.method).version],
            "augmentation": [self.augmentation, registry.find("augmentation", self.augmentation).version],
            "dataset": [protocol.dataset, registry.find("dataset", protocol.dataset).version],
            "loop": _loop_version(),
            "backbone": experiment.backbone,
            "pretraining": experiment.pretraining,  # as declared: experiments stay apart where a profile drops it
            "options": self.options,
            # a field at its neutral default is left out, so that a new recipe field does not orphan old results
            "recipe": {name: value for name, value in self.recipe.items() if RECIPE_FIELDS.get(name) != value},
            "protocol": [protocol.id, list(protocol.classes), protocol.folds],
            "data": data_hash,
            "weights": dict(weights),
            "profile": self.profile,
            "seed": self.seed,
            "fold": self.fold,
        }
        if protocol.test_transform:
            other = registry.find("augmentation", protocol.test_transform)
            parts["test_transform"] = [other.name, other.version]
        if stages:
            parts["stages"] = dict(stages)
        if self.checkpoint:
            parts["checkpoint"] = self.checkpoint
        if self.outputs:
            parts["outputs"] = list(self.outputs)
        if self.departures:  # they change no number but its verdict, which an older result would still allow
            parts["departures"] = list(self.departures)
        return hashlib.sha256(store.canonical(parts)).hexdigest()[:16]

    def source_hashes(self) -> dict[str, str]:
        """Hashes of the code behind the run's numbers, to tell changed code whose version is the same."""
        experiment, other = self.entry.experiment, self.entry.protocol.test_transform
        return {
            "method": registry.find("method", experiment.method).source_hash(),
            "augmentation": registry.find("augmentation", self.augmentation).source_hash(),
            "dataset": registry.find("dataset", self.entry.protocol.dataset).source_hash(),
            "loop": registry.hash_files([ROOT / "bench" / name for name in LOOP]),
            **({"test transform": registry.find("augmentation", other).source_hash()} if other else {}),
        }


def _loop_version() -> int:
    """LOOP_VERSION of bench/loop.py, read without importing torch."""
    source = (ROOT / "bench" / "loop.py").read_text(encoding="utf-8")
    line = next(line for line in source.splitlines() if line.startswith("LOOP_VERSION = "))
    return int(line.split("=")[1])


def expand(declared: Declarations, claims: Iterable[Claim], profile: ProfileName, seeds: Iterable[int]) -> list[Run]:
    """Unique runs behind `claims`, in declaration order.

    Cited claims and parameter counts need none. Nor does one whose files the profile goes without: its runs would not
    be what the row says.
    """
    found: dict[tuple[str, str, str, int, int], Run] = {}
    wanted = list(seeds)
    for claim in claims:
        if not claim.experiment or claim.metric.startswith("parameters") or not has_profile(declared, claim, profile):
            continue
        if goes_without(declared, claim.experiment, profile):
            continue
        entry = running_entry(declared, claim.experiment, claim.protocol, profile)
        for run in runs_of(declared, entry, profile, wanted):
            found.setdefault(run.identity, run)
    return list(found.values())


def has_profile(declared: Declarations, claim: Claim, profile: ProfileName) -> bool:
    """Whether the claim's recipe declares the profile."""
    return profile == "paper" or profile in declared.recipe(declared.experiment(claim.experiment).recipe).profiles


def goes_without(declared: Declarations, experiment: str, profile: ProfileName) -> tuple[str, ...]:
    """The files that an experiment names and the profile's recipe drops or replaces on real data.

    None under profile quick, which is synthetic and compared with nothing, nor where the recipe lacks the profile.
    """
    named = declared.experiment(experiment)
    recipe = declared.recipe(named.recipe)
    if profile == "quick" or profile not in ("paper", *recipe.profiles):
        return ()
    kept = recipe.override(profile).roles(named.weights)
    return tuple(role for role in named.weights if role not in kept)


def running_entry(declared: Declarations, experiment: str, protocol_id: str, profile: ProfileName) -> Entry:
    """The entry that is trained for a claim: on the synthetic stand-in under quick, on the whole set for a subset."""
    protocol = declared.protocol(protocol_id)
    if profile == "quick" and not protocol.synthetic:
        if not protocol.stand_in:
            raise UserError(
                f"protocol '{protocol.id}' declares no synthetic stand-in", "add stand_in to its declaration"
            )
        protocol = declared.protocol(protocol.stand_in)
    if protocol.subset_of:
        protocol = declared.protocol(protocol.subset_of)
    return Entry(experiment=declared.experiment(experiment), protocol=protocol)


def scored_protocol(declared: Declarations, claim: Claim, profile: ProfileName) -> str:
    """Id of the protocol whose scores answer a claim under a profile: the subset itself where it is one."""
    protocol = declared.protocol(claim.protocol)
    return protocol.stand_in if profile == "quick" and not protocol.synthetic else protocol.id


def runs_of(declared: Declarations, entry: Entry, profile: ProfileName, seeds: Iterable[int]) -> list[Run]:
    """Every seed and fold of one entry under a profile."""
    recipe = declared.recipe(entry.experiment.recipe)
    options = options_of(declared, entry, profile)
    plain = {name: value for name, value in recipe.values(profile).items() if not name.startswith("method.")}
    override = recipe.override(profile)
    pretraining = "none" if override.without_pretraining else entry.experiment.pretraining
    roles = override.roles(entry.experiment.weights)
    weights = tuple(role for role in roles if role not in declared.stages)
    stages = {role: stage_run(declared, role, profile) for role in roles if role in declared.stages}
    front = "".join(override.roles(tuple(filter(None, [entry.experiment.front]))))
    shared = (plain, options, pretraining, weights, "", stages)
    return [
        Run(entry, profile, seed, fold, *shared, front=front, other_augmentation=override.augmentation)
        for seed in seeds
        for fold in range(max(1, entry.protocol.folds))
    ]


@lru_cache(maxsize=256)
def stage_run(declared: Declarations, role: str, profile: ProfileName) -> Run:
    """The run whose network fills a role under a profile.

    There is one for all seeds and folds of the runs that need it, as there is one released file: its seed is 0. Under a
    profile that its recipe does not declare it is trained as declared.
    """
    experiment, _, protocol = declared.stages[role].partition(":")
    entry = running_entry(declared, experiment, protocol, profile)
    scaled = profile in declared.recipe(entry.experiment.recipe).profiles
    return runs_of(declared, entry, profile if scaled else "paper", [0])[0]


def with_preprocessing(runs: Iterable[Run], asked: Mapping[str, str]) -> list[Run]:
    """The runs with other preprocessing than their recipes'; those on other datasets stay as they are.

    Args:
        asked: dataset -> profile of preprocessing.yaml.

    Raises:
        UserError: no run is on one of the datasets.
    """
    found = []
    unused = dict(asked)
    for run in runs:
        dataset = run.entry.protocol.dataset
        unused.pop(dataset, None)
        if asked.get(dataset, run.preprocessing) != run.preprocessing:
            recipe = {**run.recipe, "preprocessing": {**run.recipe["preprocessing"], dataset: asked[dataset]}}
            run = replace(run, recipe=recipe, asked_preprocessing=asked[dataset])
        found.append(run)
    for dataset, name in unused.items():
        raise UserError(f"preprocessing '{name}' is of {dataset}, which no run here reads", "leave it out")
    return found


def of_checkpoint(
    run: Run, sha256: str, outputs: Sequence[str] = (), colour: str = "", departures: Sequence[str] = ()
) -> Run:
    """The run that evaluates a file of weights in place of training: it needs no other weights but its front's.

    Args:
        outputs: the classes in the order of the file's outputs; empty: the protocol's order.
        colour: rgb | bgr, the order of the channels its network gets; empty: the recipe's.
        departures: why the file's numbers get no verdict.
    """
    other = tuple(outputs) if tuple(outputs) != run.entry.protocol.classes else ()
    kept = {role: stage for role, stage in run.stages.items() if role == run.front}
    run = replace(
        run, checkpoint=sha256, outputs=other, departures=tuple(departures),
        weights=tuple(role for role in run.weights if role == run.front), stages=kept,
    )  # fmt: skip
    if colour in ("", run.recipe["colour"]):
        return run
    return replace(run, recipe={**run.recipe, "colour": colour}, asked_colour=colour)


def options_of(declared: Declarations, entry: Entry, profile: ProfileName) -> dict[str, Any]:
    """The method's options: the recipe's `method.*` fields, then the experiment's own, then the profile's."""
    recipe = declared.recipe(entry.experiment.recipe)
    shared = {
        name.removeprefix("method."): value
        for name, value in recipe.values(profile).items()
        if name.startswith("method.")
    }
    return {**shared, **entry.experiment.options, **recipe.override(profile).options}


def selected_tables(
    declared: Declarations, tables: Iterable[str], papers: Iterable[str], everything: bool
) -> list[Table]:
    """The tables a command line asks for, in declaration order, each once."""
    if everything:
        return list(declared.tables.values())
    wanted = [declared.table(name) for name in tables]
    wanted += [table for paper in papers for table in declared.tables_of(paper)]
    return list({table.id: table for table in wanted}.values())


def specification(
    run: Run, key: str, data_root: Path | None, device: str, checkpoint_seconds: float, skip_bad: bool = False,
    stages: Mapping[str, str] | None = None, checkpoint: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Everything a job process needs to find its run again.

    Args:
        stages: key of each stage, by role.
        checkpoint: the file of weights that is evaluated in place of training.
    """
    found: dict[str, Any] = {
        "key": key, "experiment": run.entry.experiment.id, "protocol": run.entry.protocol.id, "profile": run.profile,
        "seed": run.seed, "fold": run.fold, "data_root": str(data_root) if data_root else "", "device": device,
        "checkpoint_seconds": checkpoint_seconds, "skip_bad": skip_bad, "preprocessing": run.asked_preprocessing,
    }  # fmt: skip
    if stages:
        found["stages"] = dict(stages)
    if checkpoint is not None:
        found |= {"checkpoint": str(checkpoint.resolve()), "outputs": list(run.outputs), "colour": run.asked_colour}
        found["departures"] = list(run.departures)
    return found


def find_run(declared: Declarations, spec: dict[str, Any]) -> Run:
    """The declared run a specification names."""
    entry = declared.entry(f"{spec['experiment']}:{spec['protocol']}")
    run = runs_of(declared, entry, spec["profile"], [spec["seed"]])[int(spec["fold"])]
    asked = spec.get("preprocessing")
    if asked:
        (run,) = with_preprocessing([run], {entry.protocol.dataset: asked})
    if spec.get("checkpoint"):
        given = store.sha256_file(Path(spec["checkpoint"]))
        run = of_checkpoint(run, given, spec.get("outputs", ()), spec.get("colour", ""), spec.get("departures", ()))
    return run
