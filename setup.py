"""Wheel and sdist carry a part of data/, which lies inside the installed package; all else is in pyproject.toml."""

import os
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
# Which files these are is read off the studies, in this very folder.
os.environ["HYLA_REPRO_ROOT"] = str(HERE)
sys.path.insert(0, str(HERE))

from hyla_repro.ledger.data_folder import MANIFEST, DataFolder  # noqa: E402
from hyla_repro.studies.trained import carried  # noqa: E402


class BuildWithData(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            data, carried_data = DataFolder(), DataFolder(Path(self.build_lib, "hyla_repro", "data"))
            carried_data.write({name: data.read(name) for name in carried(data)})

    def get_source_files(self) -> list[str]:
        """Return what the sdist needs."""
        return [*super().get_source_files(), *(f"data/{name}" for name in (MANIFEST, *carried(DataFolder())))]


setup(cmdclass={"build_py": BuildWithData})
