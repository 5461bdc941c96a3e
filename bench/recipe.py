"""Recipes: how a model is trained, every field with its value and its source."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from bench.errors import UserError, unknown

Source = Literal["paper", "code", "choice"]
ProfileName = Literal["paper", "short", "quick"]
PROFILES: tuple[ProfileName, ...] = ("paper", "short", "quick")


class Declared(BaseModel):
    """Base of every declaration: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Sourced(Declared):
    """One recipe field: its value and where it comes from."""

    value: Any
    source: Source
    at: str = ""  # section, equation, file of the released code
    why: str = ""  # the reason, where source is choice


class Override(Declared):
    """What a profile changes in a recipe: declared scaling, with the reason."""

    why: str
    fields: dict[str, Any] = {}
    options: dict[str, Any] = {}
    augmentation: str = ""  # in place of the experiment's; empty: the experiment's
    without_pretraining: bool = False  # a scaled-down network cannot load full-size weights
    instead: dict[str, str] = {}  # role -> the stage whose product takes its place, or itself: it stays

    @field_validator("fields")
    @classmethod
    def _known_fields(cls, fields: dict[str, Any]) -> dict[str, Any]:
        for name, value in fields.items():
            check_field(name, value)
        return fields

    def roles(self, weights: tuple[str, ...]) -> tuple[str, ...]:
        """The roles needed under this profile in place of an experiment's `weights`."""
        if self.without_pretraining:
            return tuple(self.instead[role] for role in weights if role in self.instead)
        return tuple(self.instead.get(role, role) for role in weights)


class Recipe(Declared):
    """How a model is trained. `profiles.short` and `profiles.quick` are declared next to the paper's values."""

    id: str = ""
    fields: dict[str, Sourced]
    profiles: dict[Literal["short", "quick"], Override] = {}

    @field_validator("fields")
    @classmethod
    def _known_fields(cls, fields: dict[str, Sourced]) -> dict[str, Sourced]:
        for name, field in fields.items():
            check_field(name, field.value)
            if field.source == "choice" and not field.why:
                raise ValueError(f"recipe field '{name}' is a choice and needs a 'why'")
            if field.source != "choice" and not field.at:
                raise ValueError(f"recipe field '{name}' comes from the {field.source} and needs an 'at'")
        missing = [name for name, default in RECIPE_FIELDS.items() if default is REQUIRED and name not in fields]
        if missing:
            raise ValueError(f"recipe lacks {', '.join(missing)}")
        return fields

    def values(self, profile: ProfileName) -> dict[str, Any]:
        """Plain values under `profile`: defaults, then declared fields, then the profile's overrides."""
        values = {name: default for name, default in RECIPE_FIELDS.items() if default is not REQUIRED}
        values |= {name: field.value for name, field in self.fields.items() if not name.startswith("reading.")}
        if profile != "paper":
            values |= self.override(profile).fields
        if values["votes"] and "val" in values["train_splits"]:  # the key holds the votes on training images alone
            raise UserError(f"recipe '{self.id}' reads votes and trains on val", "leave out votes or train_splits")
        return values

    def override(self, profile: ProfileName) -> Override:
        """What `profile` changes; empty for the paper profile."""
        if profile == "paper":
            return Override(why="as declared")
        if profile not in self.profiles:
            raise UserError(
                f"recipe '{self.id}' declares no profile '{profile}'", "add it under 'profiles:' in its file"
            )
        return self.profiles[profile]


REQUIRED = object()
# Every field the loop, the augmentations and the ordinary supervised method read. Method-specific fields are
# declared as 'method.<name>' and reach the method as options; 'reading.<name>' records a decision built into the
# method's code (its version covers it). A default is a value that changes nothing (no decay, no smoothing).
RECIPE_FIELDS: dict[str, Any] = {
    "optimizer": REQUIRED,  # adam | adamw | sgd
    "learning_rate": REQUIRED,
    "batch_size": REQUIRED,
    "epochs": REQUIRED,
    "input_size": REQUIRED,  # pixels, height = width
    "schedule": "constant",  # constant | cosine | step | plateau | exponential
    "schedule_epochs": [],  # epochs at which 'step' multiplies by schedule_factor
    "schedule_factor": 0.1,
    "schedule_patience": 10,  # epochs without improvement for 'plateau'
    "warmup_epochs": 0,
    "weight_decay": 0.0,
    "momentum": 0.9,
    "betas": [0.9, 0.999],
    "loss": "cross-entropy",
    "label_smoothing": 0.0,
    "sampler": "shuffle",  # shuffle | balanced
    "train_splits": ["train"],  # or [train, val]: on both where a protocol has val, which is then not evaluated
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "preprocessing": {},  # dataset -> profile of bench/data/preprocessing.yaml; empty: the dataset's own
    "colour": "rgb",  # rgb | bgr, the order of the channels the network gets
    "resize": "bilinear",  # bilinear | bicubic, to input_size; support grown when shrinking
    "precision": "fp32",  # fp32 | bf16
    "channels_last": False,
    "last_k": 5,  # epochs behind the selection last-k
    "votes": False,  # whether the method reads the raters' votes on the training images; they are then part of the key
}
# What the fields with a fixed vocabulary may say. `loss` is the method's own.
VOCABULARY: dict[str, tuple[Any, ...]] = {
    "optimizer": ("adam", "adamw", "sgd"),
    "schedule": ("constant", "cosine", "step", "plateau", "exponential"),
    "sampler": ("shuffle", "balanced"),
    "train_splits": (["train"], ["train", "val"]),
    "colour": ("rgb", "bgr"),
    "resize": ("bilinear", "bicubic"),
    "precision": ("fp32", "bf16"),
}


def check_field(name: str, value: Any) -> None:
    """Refuse a recipe field or value that nothing reads, naming the nearest one."""
    if name not in RECIPE_FIELDS and not name.startswith(("method.", "reading.")):
        raise ValueError(str(unknown("recipe field", name, RECIPE_FIELDS)))
    if name in VOCABULARY and value not in VOCABULARY[name]:
        raise ValueError(str(unknown(name, str(value), map(str, VOCABULARY[name]))))
