"""`show`: everything about one cell (fervt-table11/resnet-gwa/ferplus) or entry (fervt-gwa:ferplus-8@majority)."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bench import collect, declare, extra, matrix, plan, registry, store, variants
from bench.data.source import data_root
from bench.errors import UserError
from commands.arguments import add_variant


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `show`."""
    parser.add_argument("name", metavar="CELL|ENTRY", help="table/row/column, or experiment:protocol")
    add_variant(parser)
    parser.add_argument("--profile", choices=declare.PROFILES, default="paper", help="recipe and key of this profile")
    parser.add_argument("--seed", type=int, default=0, help="seed of the key shown (default 0)")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.add_argument("--data-root", help="folder holding the datasets (else FERBENCH_DATA)")
    parser.add_argument("--results", default="results", help="folder of results (default: results)")


def main(args: argparse.Namespace) -> int:
    """Print one cell or entry."""
    declared = declare.load(data_root(args.data_root))
    claim = declared.claim(args.name) if "/" in args.name and ":" not in args.name else None
    facts: dict[str, Any] = {}
    if claim is not None:
        table = declared.table(claim.table)
        if args.variant:
            claim = variants.claim_on(declared, claim, args.variant, args.profile)
        facts["claim"] = {
            "cell": claim.cell, **_printed(table, claim), "metric": claim.metric,
            "paper": declared.papers[table.paper].title, "where": table.where,
            "compared with": f"{table.compare}. {table.compare_why}".strip(),
            **{name: text for name, text in (("cited from", claim.cited), ("differs", claim.differs)) if text},
        }  # fmt: skip
    if claim is None or claim.experiment:
        facts |= _entry_facts(declared, claim, args)
    size = next(column.batch_mean for column in table.columns if column.id == claim.column) if claim is not None else 0
    if claim is not None and size and claim.experiment and claim.metric == "accuracy":
        whole = not declared.protocol(facts["protocol"]["id"]).subset_of  # a subset has no batches of its own
        results = store.results_folder(args.results, args.profile)
        facts["batch means"] = _batch_means(table, size, facts["results"], results) if whole else []
    if args.json:
        print(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        _print(facts)
    return 0


def _printed(table: declare.Table, claim: declare.Claim) -> dict[str, str]:
    """The paper's number; for a row of ours, the one it stands for, and why it is there."""
    if not claim.instead_of:
        return {"printed": f"{claim.printed}{claim.unit}"}
    (row,) = (row for row in table.extra if row.id == claim.row)
    stood_for = f"{table.id}/{claim.instead_of}/{claim.column}"
    unasked = "where that row lacks a weights file and no row of ours before this fills in, or "
    unasked *= row.run == "fallback"
    return {
        "printed": f"not printed in the paper; instead of {stood_for} ({claim.printed}{claim.unit})",
        "why": row.why,
        "runs": f"{unasked}with --extra all",
    }


def _entry_facts(
    declared: declare.Declarations, claim: declare.Claim | None, args: argparse.Namespace
) -> dict[str, Any]:
    if claim is not None:
        entry = matrix.running_entry(declared, claim.experiment, claim.protocol, args.profile)
        scored = matrix.scored_protocol(declared, claim, args.profile)
    elif ":" in args.name:
        entry = declared.entry(args.name)
        scored = entry.protocol.id
    else:
        raise UserError(
            f"'{args.name}' is neither a cell nor an entry", "write table/row/column or experiment:protocol"
        )
    experiment, protocol = entry.experiment, declared.protocol(scored)
    recipe = declared.recipe(experiment.recipe)
    run = matrix.runs_of(declared, entry, args.profile, [args.seed])[0]
    planned = plan.plan([run], data_root(args.data_root), store.results_folder(args.results, args.profile))[-1]
    status = {"status": planned.status, "key": planned.key or "known once the data has been read"}
    if planned.reason:
        status |= {"why": planned.reason, "unblock": planned.unblock}
    unlike = claim and extra.unanswerable(declared, declared.table(claim.table.split("@")[0]), claim, args.profile)
    if unlike:
        status |= {"status": "blocked", "why": unlike.message, "unblock": unlike.hint}
    return {
        "entry": {
            "id": entry.id, "method": experiment.method, "backbone": experiment.backbone,
            "pretraining": run.pretraining, "augmentation": run.augmentation, "options": run.options,
            "weights": list(run.weights), "note": experiment.note,
        },
        **({"stages": _stages(run, planned)} if run.stages else {}),
        "protocol": {
            "id": protocol.id, "title": protocol.title, "classes": list(protocol.classes), "rule": protocol.rule,
            "counts": protocol.counts, "class counts": protocol.class_counts, "folds": protocol.folds,
            "notes": protocol.notes, "access": protocol.access, "test transform": protocol.test_transform,
        },
        "recipe": {"id": recipe.id, "profile": args.profile, "fields": _recipe_facts(recipe, args.profile)},
        "deviations": _deviations(recipe, run) + _not_printed(declared, experiment.id),
        "size": _size(run),
        "run": {
            **status, "profile": args.profile, "seed": args.seed, "folds": max(1, entry.protocol.folds),
            "trained on": _trained_on(run),
        },
        "results": _results(store.results_folder(args.results, args.profile), experiment.id, scored),
    }  # fmt: skip


def _trained_on(run: matrix.Run) -> str:
    """What a recipe that trains on val makes of the run's protocol; empty for any other."""
    counts = run.entry.protocol.counts
    if "val" not in run.recipe["train_splits"] or "val" not in counts:
        return ""
    images = f"{counts['train'] + counts['val']:,} images"
    return f"train and val, {images}: val is not evaluated, and there is no selection val-best"


def _stages(run: matrix.Run, planned: plan.Planned) -> dict[str, dict[str, str]]:
    """Role -> the entry whose network fills it, and the key under which that is at hand."""
    made = {role: stage.key for role, stage in planned.stages.items() if stage.status == "cached"}
    return {
        role: {"entry": stage.entry.id, "profile": stage.profile, "key": made.get(role, "not made yet")}
        for role, stage in run.stages.items()
    }


def _recipe_facts(recipe: declare.Recipe, profile: declare.ProfileName) -> dict[str, dict[str, Any]]:
    """Every field with value and source; what the profile changes says so."""
    override = recipe.override(profile)
    found: dict[str, dict[str, Any]] = {}
    for name, field in recipe.fields.items():
        found[name] = {"value": field.value, "source": field.source, "why": field.at or field.why}
    for name, value in recipe.values("paper").items():
        found.setdefault(name, {"value": value, "source": "default", "why": "changes nothing"})
    for name, value in {**override.fields, **{f"method.{k}": v for k, v in override.options.items()}}.items():
        was = found.get(name, {}).get("value", "the method's default")
        if value != was:
            found[name] = {
                "value": value,
                "source": f"profile {profile}",
                "why": f"declared scaling (paper profile: {was})",
            }
    return found


def _deviations(recipe: declare.Recipe, run: matrix.Run) -> list[str]:
    """What is not from the paper or its code: choices, and what the profile scales, drops and replaces."""
    found = [
        f"{name} = {field.value}: {field.why}" for name, field in recipe.fields.items() if field.source == "choice"
    ]
    override, profile, experiment = recipe.override(run.profile), run.profile, run.entry.experiment
    if profile != "paper":
        found.append(f"profile {profile}: {override.why}: {json.dumps({**override.fields, **override.options})}")
    if run.pretraining != experiment.pretraining:
        found.append(f"profile {profile}: no pretraining in place of {experiment.pretraining}")
    if run.augmentation != experiment.augmentation:
        found.append(f"profile {profile}: augmentation {run.augmentation} in place of {experiment.augmentation}")
    for role in experiment.weights:
        used = "".join(override.roles((role,)))
        if used != role:
            found.append(f"profile {profile}: {used or 'random weights'} in place of {role}")
    return found


def _not_printed(declared: declare.Declarations, experiment: str) -> list[str]:
    """Why there are rows of ours with an experiment that no paper's row has."""
    if any(claim.experiment == experiment for claim in declared.claims()):
        return []
    found: dict[str, None] = {}
    for table in declared.tables.values():
        rows = {claim.row for claim in table.extra_claims() if claim.experiment == experiment}
        found |= dict.fromkeys(row.why for row in table.extra if row.id in rows)
    return [f"our row, not printed in the paper: {why}" for why in found]


def _size(run: matrix.Run) -> dict[str, Any]:
    """Parameters and multiply-accumulates of the built model; needs torch, so only here."""
    experiment = run.entry.experiment
    if experiment.method not in registry.available("method"):
        return {"unknown": f"method '{experiment.method}' is not built yet"}
    import torch

    from bench.method import Context, Spec, macs, parameter_counts

    context = Context(run.entry.protocol.classes, int(run.recipe["input_size"]), 1, torch.device("cpu"), restoring=True)
    model = Spec(experiment.id, experiment.backbone, "none", run.options)
    method = registry.find("method", experiment.method).load()(model, {**run.recipe, "channels_last": False}, context)
    total, trainable = parameter_counts(method.net)
    return {"parameters": total, "trainable": trainable, "macs": macs(method.net, context.input_size)}


def _results(results: Path, experiment: str, protocol: str) -> list[dict[str, Any]]:
    wanted = ("profile", "seed", "fold", "selection", "n", "correct", "accuracy", "mean_class_accuracy", "epoch", "run")
    rows = collect.read_rows(results / "runs.csv")
    return [
        {name: row[name] for name in wanted}
        for row in rows
        if row["experiment"] == experiment and row["protocol"] == protocol
    ]


def _batch_means(table: declare.Table, size: int, rows: list[dict[str, Any]], results: Path) -> list[str]:
    """The compared accuracies as the authors' code averages them over batches of `size`, one line per run."""
    from bench.metrics import batch_mean, correctness

    found = []
    for row in rows:
        folder = store.find_result(row["run"], results)
        file = folder / f"predictions-{row['selection']}.parquet" if folder else None
        if row["selection"] != table.compare or file is None or not file.is_file():
            continue
        mean = batch_mean(list(correctness(file).values()), size)
        found.append(
            f"seed {row['seed']}, {row['selection']}: {100 * mean.value:.2f} as the authors' code averages (batches of "
            f"{size}, the last of {mean.last}); {100 * mean.least:.2f} to {100 * mean.most:.2f} with the "
            f"same number of right answers in another order; {100 * float(row['accuracy']):.2f} as correct / n"
        )
    return found


def _print(facts: dict[str, Any]) -> None:
    for section, content in facts.items():
        print(section)
        if isinstance(content, list):
            for line in content or ["none"]:
                print(f"  {line if isinstance(line, str) else '  '.join(f'{k}={v}' for k, v in line.items())}")
            continue
        for name, value in content.items():
            if section == "recipe" and name == "fields":
                for field, about in value.items():
                    print(f"  {field:24} {about['value']!s:24} {about['source']:14} {about['why']}")
            elif section == "stages":
                print(f"  {name:24} {value['entry']} [{value['profile']}]  {value['key']}")
            elif value not in ("", [], {}, None):
                print(f"  {name:16} {_text(value)}")


def _text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if value >= 10000 else str(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
