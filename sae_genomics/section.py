"""What every section of the config is: a pydantic model that refuses keys it does not know."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """One section. A field may have further names (`also`); what is written out has the field's own name."""

    model_config = ConfigDict(
        extra="forbid", validate_default=True, allow_inf_nan=False, protected_namespaces=(), serialize_by_alias=True
    )

    @model_validator(mode="before")
    @classmethod
    def _one_name_each(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for names in cls.names().values():
                given = [name for name in names if name in values]
                if len(given) > 1:
                    raise ValueError(f"{' and '.join(given)} are names of one setting; give one of them")
        return values

    @classmethod
    def names(cls) -> dict[str, list[str]]:
        """Field -> all names that it can be given by, its own first."""
        return {name: [name, *_others(name, field)] for name, field in cls.model_fields.items()}

    @classmethod
    def shown_names(cls) -> list[str]:
        """Each setting's name as people write it, which a word of Python's cannot be in code (`from`)."""
        return [field.serialization_alias or name for name, field in cls.model_fields.items()]

    @classmethod
    def all_names(cls) -> set[str]:
        """Every name that a setting of this section can be given by."""
        return {name for names in cls.names().values() for name in names}


def _others(name: str, field: FieldInfo) -> list[str]:
    choices = field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else []
    return [str(choice) for choice in choices if choice != name]


def also(name: str, *others: str) -> AliasChoices:
    """For `Field(validation_alias=...)`: the field's own name and others that a config may use."""
    return AliasChoices(name, *others)
