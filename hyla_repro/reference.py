"""The authors' weights, under the name that builders import: see `hyla_repro.models.reference`."""

from hyla_repro.models.reference import load_release, release_config, to_state_dict

__all__ = ["load_release", "release_config", "to_state_dict"]
