"""What pages that can be played with are given is what was committed, and their scripts are all there."""

import base64
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from matplotlib.colors import to_hex
from test_book import PAGES, extension, prose

from hyla_repro import load
from hyla_repro.book import play
from hyla_repro.files import sha256
from hyla_repro.ledger.data_folder import model_name
from hyla_repro.results.store import Store
from hyla_repro.studies.style import COLORS
from hyla_repro.tasks.fuzzy_logic import FuzzyLogic
from hyla_repro.tasks.sraven import SRaven

PLAY = extension("play")
PLACE = re.compile(r"^```\{play\} (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "play"
    play.write(path)
    return path


@pytest.fixture(scope="module")
def facts(folder: Path) -> dict:
    _, _, text = (folder / "facts.js").read_text().partition("facts: ")
    return json.loads(text.removesuffix(" };\n"))


@pytest.mark.parametrize("name", play.MODELS)
def test_weights_are_the_committed_file_byte_for_byte(folder, name):
    key, content = re.fullmatch(
        r'hylaPlay\.weights\["(.+)"\] = "(.+)";\n', (folder / f"{name}.js").read_text()
    ).groups()
    assert key == name
    assert sha256(base64.b64decode(content)) == Store().manifest()[model_name(play.runs()[name])]


def test_weights_are_those_that_load_gives(facts):
    for name in play.MODELS:
        assert facts["models"][name]["config"] == load(name).config.model_dump()


def test_scores_are_those_of_the_runs(facts):
    rows = Store(committed_only=True).committed_runs()
    for name, run in play.runs().items():
        assert {key: facts["models"][name][key] for key in ("test", "heldout")} == {
            key: rows[run.id][key] for key in ("test", "heldout")
        }


def test_colours_are_those_of_the_figures(facts):
    assert {one["name"]: one["color"] for one in facts["methods"]} == {
        one["name"]: to_hex(COLORS[one["name"]]) for one in facts["methods"]
    }


def test_functions_are_those_of_the_models_split(facts):
    run = play.runs()["softmax-fuzzy-logic"]
    functions = FuzzyLogic(**run.task, seed=run.seed).functions
    assert facts["fuzzyLogic"]["functions"] == {pool: rows.tolist() for pool, rows in functions.items()}
    # The page tells of a term that no training function has.
    trained = {term for function in facts["fuzzyLogic"]["functions"]["train"] for term in function}
    assert set(range(12)) - trained == {7}
    assert facts["fuzzyLogic"]["terms"][7] == [0, 1, 1, 1]
    assert [5, 9] in facts["fuzzyLogic"]["functions"]["train"]


def test_problems_are_whole_and_their_own_answer_is_right(facts):
    levels = facts["sraven"]["levels"]
    for k, pools in levels.items():
        for problem in (problem for problems in pools.values() for problem in problems):
            assert len(problem["symbols"]) == 9 * int(k)
            assert problem["symbols"][-int(k) :] in problem["answers"]
            assert len(problem["rules"]) == len(problem["permutations"][0]) == int(k)
    counts = {k: {pool: len(problems) for pool, problems in pools.items()} for k, pools in levels.items()}
    assert counts == {str(k): pools for k, pools in play._PROBLEMS.items()}


def test_problems_are_of_the_tasks_that_the_models_were_trained_on_or_not(facts):
    task = SRaven(**play.runs()["hyla-sraven-k2"].task, seed=play.runs()["hyla-sraven-k2"].seed)
    for pool, problems in facts["sraven"]["levels"]["2"].items():
        assert all(problem["rules"] in task.multisets[pool].tolist() for problem in problems)


def test_positions_have_the_models_buckets(facts):
    for name in play.MODELS:
        model, n = load(name), facts["models"][name]["config"]["n_positions"]
        buckets = torch.tensor(facts["buckets"][str(n)])
        assert torch.equal(model.blocks[0].position.one_hot.argmax(-1), buckets)


def test_the_folder_has_all_that_a_page_loads_and_nothing_else(folder):
    weights = {f"{name}.js" for name in play.MODELS}
    assert {path.name for path in folder.iterdir()} == {*PLAY.SCRIPTS, "play.css", *weights}
    for source in play.SOURCES.iterdir():
        assert (folder / source.name).read_bytes() == source.read_bytes()


def test_scripts_reach_for_nothing_outside_the_book():
    for source in play.SOURCES.glob("*"):
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)\S+|fetch\(|import\(", source.read_text()) == []


def test_without_a_script_the_content_stands_in_the_place():
    translator = SimpleNamespace(body=[])
    node = PLAY.piece(name="network")
    PLAY.open_place(translator, node)
    translator.body.append("a picture")
    PLAY.close_place(translator, node)
    assert "".join(translator.body).replace("\n", "") == (
        '<div class="hyla-play" data-play="network"><div class="play-static">a picture</div></div>'
    )


def test_pieces_on_pages_exist_and_have_something_to_stand_there():
    places = [place for page in PAGES for place in PLACE.findall(prose(page))]
    assert {name for name, _ in places} == set(PLAY.PIECES)
    assert all(len(content.split()) > 8 for _, content in places)
