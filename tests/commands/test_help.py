"""The help of every verb: complete, and with examples that its own parser accepts."""

import argparse
import importlib
import shlex

import pytest

from doubleunet_bs.__main__ import VERBS, main, parse_arguments


def module(verb):
    return importlib.import_module(f"doubleunet_bs.commands.{verb.replace('-', '_')}")


def examples(verb) -> list[str]:
    lines = module(verb).__doc__.splitlines()
    return [line.strip() for line in lines if line.startswith("  doubleunet-bs ")]


def test_the_overview_names_every_verb(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert all(f"\n    {verb}" in text for verb in VERBS) and "Exit codes: 0 done" in text


@pytest.mark.parametrize("verb", VERBS)
def test_the_long_help_says_what_is_written_and_returned(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for heading in ("Examples:\n", "\nWrites", "\nExit codes: 0 "):
        assert heading in text, heading
    assert examples(verb)[0].startswith(f"doubleunet-bs {verb}")


@pytest.mark.parametrize("line", [line for verb in VERBS for line in examples(verb)])
def test_examples_are_understood(line):
    words = shlex.split(line.partition(" | ")[0])[1:]
    assert parse_arguments(words).verb == words[0]


@pytest.mark.parametrize("verb", VERBS)
def test_options_are_explained_with_their_default(verb):
    parser = argparse.ArgumentParser(add_help=False)
    module(verb).add_arguments(parser)
    for action in parser._actions:
        assert action.help and not action.help.startswith(("of ", "for ")), action.dest
        if action.default not in (None, False, []):
            assert "default" in action.help, action.dest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["predict", "scan.dcm", "--model", "m", "--out", ""],
            "the argument behind --out is empty: give a value, a variable may not be set",
        ),
        (["predict", "", "--model", "m", "--out", "o"], "the argument behind predict is empty"),
        (["train", "--run=", "--resume"], "--run is empty"),
    ],
)
def test_an_empty_argument_is_not_the_folder_one_stands_in(words, said, capsys):
    """As a script leaves it whose variable is not set: results would be written wherever it runs."""
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_an_empty_setting_reaches_its_own_error(tmp_path, capsys):
    words = ["train", "--data", str(tmp_path), "--experiment", "dice", "--run", str(tmp_path / "run"), "--fold", "1"]
    assert main([*words, "--set", "encoder_weights="]) != 0
    assert capsys.readouterr().err.endswith(": give --encoder-weights imagenet, none, or another file\n")
