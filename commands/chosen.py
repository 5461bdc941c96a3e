"""Which experiments --experiment, --method and --backbone name without a table; what had to be decided is printed."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator

from bench import backbones, declare, matrix, registry, weights
from bench.errors import UserError, unknown


def experiments(
    declared: declare.Declarations, args: argparse.Namespace, profile: declare.ProfileName
) -> dict[str, None]:
    """Ids of the experiments, in order, each once; prints a line for each that is not simply the one asked for.

    Raises:
        UserError: no such experiment or method, or a backbone that the method cannot take.
    """
    found: dict[str, None] = {}
    for asked, backbone in itertools.product(args.experiment or args.method, args.backbone or [""]):
        name = asked if args.experiment else _of_method(declared, asked, backbone, profile)
        if backbone:
            name = _on_backbone(declared, name, backbone, args.protocol[0], profile)
        elif "+" in name:
            name = _checked(declared, name, args.protocol[0], profile)
        chosen = declared.experiment(name).id
        if chosen != name:
            print(f"{name} is the same as {chosen}")
        found[chosen] = None
    return found


# --------------------------------------------------------------------------------------------------------------- method
def _of_method(declared: declare.Declarations, method: str, backbone: str, profile: declare.ProfileName) -> str:
    """The experiment of a method's name; where a file of it is missing, the first fallback row's that has its own."""
    known = {name: one for name, one in declared.experiments.items() if one.method == method}
    if not known:
        raise unknown("method", method, {one.method for one in declared.experiments.values()})
    if method not in known:
        raise UserError(f"no experiment is called '{method}'", f"give one with --experiment: {', '.join(known)}")
    lacking = _lacking(declared, method, backbone, profile)
    if not lacking:
        return method
    others = dict.fromkeys(_fallbacks(declared, method, profile))
    whole = [name for name in others if not _lacking(declared, name, backbone, profile)]
    if not whole:
        return method  # the plan says what it waits for
    # another backbone takes the place of theirs with its files, which then make no difference: the one with the fewest
    other = backbone not in ("", known[method].backbone)
    chosen = min(whole, key=lambda name: len(declared.experiment(name).weights)) if other else whole[0]
    print(f"{chosen} in place of {method}, {_why(declared, method, lacking, profile)}")
    return chosen


def _why(declared: declare.Declarations, name: str, lacking: list[str], profile: declare.ProfileName) -> str:
    """Why an experiment cannot run: the profile goes without its files, or they are not at hand and how to get them."""
    override = declared.recipe(declared.experiment(name).recipe).override(profile)
    without = [role for role in lacking if profile != "quick" and override.roles((role,)) != (role,)]
    files = [role for role in lacking if role not in without]
    ways = ", ".join(f"python run_all.py weights show {role}" for role in files)
    reasons = [f"as profile {profile} goes without {', '.join(without)}"] if without else []
    reasons += [f"which needs {', '.join(files)} ({ways})"] if files else []
    return ", ".join(reasons)


def _lacking(declared: declare.Declarations, name: str, backbone: str, profile: declare.ProfileName) -> list[str]:
    """The files that an experiment needs and that are not at hand, or that the profile goes without on real data."""
    experiment = declared.experiment(name)
    override = declared.recipe(experiment.recipe).override(profile)
    other_backbone = backbone not in ("", experiment.backbone)
    found = []
    for role in filter(None, [experiment.front]) if other_backbone else experiment.weights:
        used = override.roles((role,))
        files = [one for one in used if one not in declared.stages]
        if (profile != "quick" and used != (role,)) or any(not _at_hand(file) for file in files):
            found.append(role)
    return found


def _at_hand(role: str) -> bool:
    try:
        weights.require((role,))
    except UserError:
        return False
    return True


def _fallbacks(declared: declare.Declarations, name: str, profile: declare.ProfileName) -> Iterator[str]:
    """The experiments of fallback rows in the place of a row with this experiment, the first to be taken first."""
    for table in declared.tables.values():
        unasked = {row.id for row in table.extra if row.run == "fallback"}
        printed = {(claim.row, claim.column): claim.experiment for claim in table.claims()}
        for claim in table.extra_claims():
            stands_for = printed[claim.instead_of, claim.column]
            if claim.row in unasked and stands_for == name and matrix.has_profile(declared, claim, profile):
                yield claim.experiment


# ------------------------------------------------------------------------------------------------------------- backbone
def _on_backbone(
    declared: declare.Declarations, name: str, backbone: str, protocol: str, profile: declare.ProfileName
) -> str:
    """Id of an experiment with a backbone: pretrained by timm where the file is at hand, else from random weights."""
    experiment = declared.experiment(name)
    if "+" in name:
        raise UserError(f"'{name}' has a backbone already", "leave --backbone out, or name the experiment without '+'")
    if backbone == experiment.backbone:
        return name
    asked, role = backbones.name_of(name, backbone), weights.timm_role(backbone)
    tried = _tried(declared, asked, protocol, profile)
    scratch = backbones.name_of(name, tried.name) if tried else asked
    if tried is None or not (tried.takes_timm or tried.unfit):
        print(f"{scratch}: {backbone} from random weights")
        return scratch
    kept = declared.recipe(experiment.recipe).override(profile).roles((role,))
    if not kept:
        print(f"{scratch}: {backbone} from random weights, as profile {profile} goes without pretrained files")
        return scratch
    if tried.unfit:
        if weights.find(role) is not None:
            raise UserError(tried.unfit.message, f"{tried.unfit.hint}, or --experiment {scratch} for random weights")
        print(f"{scratch}: {backbone} from random weights: {tried.unfit.message}")
        return scratch
    if weights.find(role) is not None:
        print(f"{backbones.name_of(name, backbone, pretrained=True)}: {backbone} from {weights.find(role)}")
        return backbones.name_of(name, backbone, pretrained=True)
    way = f"weights fetch {role}` or `python run_all.py weights add {role} FILE` first"
    declared_so = _pretrained(declared, experiment, tried.name)
    way = f"--experiment {declared_so}`" if declared_so else way
    print(f"{scratch}: {backbone} from random weights; from pretrained ones: `python run_all.py {way}")
    return scratch


def _pretrained(declared: declare.Declarations, experiment: declare.Experiment, backbone: str) -> str:
    """The declared experiment of the same method with this backbone pretrained, the one most like it; empty: none."""

    def shared(one: declare.Experiment) -> int:
        return sum(one.options.get(name) == value for name, value in experiment.options.items())

    same = [one for one in declared.experiments.values() if (one.method, one.backbone) == (experiment.method, backbone)]
    found = [one for one in same if one.pretraining != "none"]
    return max(found, key=shared).id if found else ""


def _checked(declared: declare.Declarations, name: str, protocol: str, profile: declare.ProfileName) -> str:
    """An id with `+`; from random weights, under the tables' name of its backbone.

    Raises:
        UserError: its method cannot take the backbone, or not timm's file of it.
    """
    tried = _tried(declared, name, protocol, profile)
    if tried is None:
        return name
    if "@" not in name:
        return backbones.name_of(name.partition("+")[0], tried.name)
    experiment = declared.experiment(name)
    role = weights.timm_role(experiment.backbone)
    if tried.unfit and declared.recipe(experiment.recipe).override(profile).roles((role,)):
        raise tried.unfit
    return name


def _tried(
    declared: declare.Declarations, name: str, protocol: str, profile: declare.ProfileName
) -> backbones.Tried | None:
    """What the method makes of the backbone; None where the method is not built yet, or there are no classes.

    Raises:
        UserError: it cannot take the backbone.
    """
    entry = matrix.running_entry(declared, name, protocol, profile)
    if entry.experiment.method not in registry.available("method") or not entry.protocol.classes:
        return None
    found = backbones.tried(matrix.runs_of(declared, entry, profile, [0])[0])
    if found.remark:
        print(f"profile {profile} builds {found.remark}: {found.parameters:,} parameters")
    return found
