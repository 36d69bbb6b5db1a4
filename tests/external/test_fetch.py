"""What servers do wrong, and a fetch that ends in the middle."""

import json
import logging
import multiprocessing
import time

import pytest

import harness
from tests.external.server import serving

COMMON = ["protocol=sliding", "protocol.stride=8", "ctx=16", "method=none"]  # 5 windows in each of 2 documents
WINDOWS = 10


def losses(external, results="theirs"):
    rows = harness.load_results(external.folder / results).sort_values(["document_index", "window"])
    return rows["nll_sum"].tolist()


def spoiled(engine, change):
    """Every answer of vLLM's dialect with its list changed."""

    def spoil(answer):
        change(answer["choices"][0]["prompt_logprobs"])
        return answer

    engine.spoil = spoil


def test_what_may_pass_is_asked_again(external, engine, caplog):
    faults = ["busy", "broken", "dropped", "cut", "words", "deep"]
    engine.faults = [word for fault in faults for word in ("", fault)] + ["cut", "busy"]
    with serving(engine, "vllm") as url, caplog.at_level(logging.WARNING):
        assert external.fetch(url, "vllm", *COMMON) == 0
    assert len(engine.asked) == WINDOWS + 8
    said = [message for message in caplog.messages if "asked again" in message]
    reasons = ["HTTP 429, too many", "HTTP 500, out of memory", "closed connection", "was cut off after", "is no JSON"]
    assert len(said) == 8
    assert all(reason in message for reason, message in zip([*reasons, reasons[-1]], said[:6], strict=True)), said


def test_a_server_that_says_nothing_for_too_long_is_asked_again(external, engine):
    engine.faults = ["slow"]
    with serving(engine, "vllm") as url:
        assert external.fetch(url, "vllm", *COMMON, "timeout_s=0.3") == 0
    assert len(engine.asked) == WINDOWS + 1


def test_retries_end_and_what_is_there_is_kept(external, engine, capsys):
    engine.faults = ["", "", *["broken"] * 3]
    with serving(engine, "vllm") as url:
        assert external.fetch(url, "vllm", *COMMON, "retries=2") == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error == (f"error: {url}/v1/completions was asked 3 times and gave no answer: HTTP 500, out of memory.")
        asked = len(engine.asked)
        assert external.fetch(url, "vllm", *COMMON) == 0
    assert len(engine.asked) == asked + WINDOWS - 2


def test_a_refusal_is_not_repeated(external, engine, capsys):
    engine.faults = ["refused"]
    with serving(engine, "vllm") as url:
        assert external.fetch(url, "vllm", *COMMON) == 2
    assert len(engine.asked) == 1
    assert "refused the request: HTTP 400, maximum context length is 16 tokens" in capsys.readouterr().err
    engine.faults = ["refused deeply"]
    with serving(engine, "vllm") as url:
        assert external.fetch(url, "vllm", *COMMON) == 2
    assert "refused the request: HTTP 400, [[[" in capsys.readouterr().err


BAD = {
    "one too few": (lambda listed: listed.pop(), "16 tokens, and 15 prompt_logprobs were given"),
    "null inside": (lambda listed: listed.__setitem__(7, None), "no log-probability for token 7, in window 0 [0, 16)"),
    "minus infinity": (lambda listed: value(listed, 3).update(logprob=-9999.0), "-inf is no logarithm"),
    "no number": (lambda listed: value(listed, 3).update(logprob=float("nan")), "nan is no logarithm"),
    "beyond float32": (lambda listed: value(listed, 3).update(logprob=-1e39), "-1e+39 is no logarithm"),
    "400 digits": (lambda listed: value(listed, 3).update(logprob=-(10**400)), "is no logarithm of a probability"),
    "a probability": (lambda listed: value(listed, 3).update(logprob=0.25), "0.25 is no logarithm of a probability"),
    "other tokens": (lambda listed: listed.reverse(), "is not of this dialect"),
    "text": (lambda listed: value(listed, 3).update(logprob="low"), "'low' is no logarithm of a probability"),
}


def value(listed, at):
    return next(iter(listed[at].values()))


@pytest.mark.parametrize("case", BAD)
def test_a_bad_answer_is_one_line_that_names_the_window(external, engine, case, capsys):
    change, said = BAD[case]
    spoiled(engine, change)
    with serving(engine, "vllm") as url:
        assert external.fetch(url, "vllm", *COMMON) == 2
    shown = capsys.readouterr().err
    (error,) = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert said in error
    assert "of document " in error
    assert "Traceback" not in shown
    assert len(engine.asked) == 1
    assert not list(external.folder.rglob("*.parquet"))


def test_tokens_of_another_tokenizer_are_refused(external, engine, capsys):
    """SGLang says the ids that it scored, llama-cpp-python the text of each."""
    engine.spoil = lambda answer: answer["meta_info"]["input_token_logprobs"][4].__setitem__(1, 95) or answer
    with serving(engine, "sglang") as url:
        assert external.fetch(url, "sglang", *COMMON) == 2
    assert "the server's token 4 is 95, not " in capsys.readouterr().err
    engine.spoil = lambda answer: answer
    engine.tokenizer.backend_tokenizer.pre_tokenizer = None  # a text is one word, which is unknown
    with serving(engine, "llama_cpp_python") as url:
        assert external.fetch(url, "llama_cpp_python", *COMMON, "protocol.bos=every_window") == 2
    assert "has 16 tokens, and the server made 2 of its text" in capsys.readouterr().err


def test_echo_without_a_bos_is_refused(external, engine, capsys):
    with serving(engine, "llama_cpp_python") as url:
        assert external.fetch(url, "llama_cpp_python", *COMMON) == 2
    assert not engine.asked
    assert "dialect=llama_cpp_python needs protocol.bos=every_window" in capsys.readouterr().err


def test_the_first_token_of_a_server_that_adds_the_bos(external, engine, capsys):
    engine.adds_bos = True
    with serving(engine, "llama_cpp_python") as url:
        assert external.fetch(url, "llama_cpp_python", *COMMON, "protocol.bos=every_window") == 2
    assert "says nothing of the first token of window 0" in capsys.readouterr().err


def test_requests_are_limited_and_the_same_command_goes_on(external, engine, capsys):
    with serving(engine, "vllm") as url:
        assert external.fetch(url, "vllm", *COMMON, "max_requests=4") == 1
        assert "max_requests=4 were made, 4 windows are there" in capsys.readouterr().out
        assert external.fetch(url, "vllm", *COMMON, "max_requests=4", "parallel=3") == 1
        assert external.fetch(url, "vllm", *COMMON, "max_requests=4") == 0
        assert len(engine.asked) == WINDOWS
        assert external.fetch(url, "vllm", *COMMON, results="at_once") == 0
        assert losses(external) == losses(external, "at_once")
        assert external.fetch(url, "vllm", *COMMON) == 0
    assert len(engine.asked) == 2 * WINDOWS, "a finished cell is not asked for"
    assert not list(external.folder.rglob("answers.jsonl"))


def test_a_limit_below_the_requests_of_a_window_is_refused(external, engine, capsys):
    """llama-server takes one a token: less than a window's would be spent again by every command, for nothing."""
    with serving(engine, "llama_server") as url:
        assert external.fetch(url, "llama_server", *COMMON, "max_requests=14") == 2
        assert not engine.asked
        assert external.fetch(url, "llama_server", *COMMON, "max_requests=15") == 1
    assert "max_requests must be at least 15, the requests of one window with dialect=llama_server, got 14" in (
        capsys.readouterr().err
    )
    assert len(engine.asked) == 15


def test_a_finished_cell_needs_no_server(external, engine):
    with serving(engine, "vllm") as url:
        assert external.fetch(url, "vllm", *COMMON) == 0
    assert external.fetch(url, "vllm", *COMMON, "retries=0") == 0
    assert external.fetch(url, "vllm", *COMMON, "retries=0", "force=true") == 2


def test_a_killed_fetch_goes_on(external, engine):
    """Killed while it waits for the server, its last line cut off as a full disk or a lost machine would."""
    engine.delay_s = 0.2
    with serving(engine, "vllm") as url:
        process = multiprocessing.get_context("fork").Process(target=external.fetch, args=(url, "vllm", *COMMON))
        process.start()
        deadline = time.monotonic() + 60
        while len(engine.asked) < 6 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        process.join()
        (kept,) = external.folder.rglob("answers.jsonl")
        lines = kept.read_text().splitlines(keepends=True)
        assert len(lines) >= 4
        kept.write_text("".join(lines)[:-20])
        engine.delay_s, before = 0.0, len(engine.asked)
        assert external.fetch(url, "vllm", *COMMON) == 0
        assert len(engine.asked) == before + WINDOWS - (len(lines) - 1)
        assert external.fetch(url, "vllm", *COMMON, results="at_once") == 0
    assert losses(external) == losses(external, "at_once")


def test_answers_of_other_windows_are_not_taken(external, engine):
    """A line whose numbers do not fit its window is asked for again."""
    with serving(engine, "vllm") as url:
        external.fetch(url, "vllm", *COMMON, "max_requests=4")
        (kept,) = external.folder.rglob("answers.jsonl")
        first, *rest = [json.loads(line) for line in kept.read_text().splitlines()]
        kept.write_text("".join(json.dumps(one) + "\n" for one in [first | {"logprobs": [None]}, *rest]))
        assert external.fetch(url, "vllm", *COMMON) == 0
    assert len(engine.asked) == WINDOWS + 1


def test_a_key_goes_with_every_request_and_into_no_file(external, engine, monkeypatch):
    monkeypatch.setenv("OWN_KEY", "very-secret")
    with serving(engine, "vllm") as url:
        assert external.fetch(url, "vllm", *COMMON, "key_variable=OWN_KEY") == 0
    assert engine.headers["Authorization"] == "Bearer very-secret"
    files = [file for file in external.folder.rglob("*") if file.is_file()]
    assert not any(b"very-secret" in file.read_bytes() for file in files)


def test_provenance_says_which_engine(external, engine):
    with serving(engine, "vllm") as url:
        external.fetch(url, "vllm", *COMMON, "dtype=bfloat16")
    (file,) = external.folder.rglob("*.windows.parquet")
    made = harness.results.store.provenance(file)
    expected = {"engine": "engine 1.0", "dtype": "bfloat16", "dialect": "vllm", "served": "tiny-served"}
    assert made["external"] == expected
    assert engine.asked[0][1]["model"] == "tiny-served"
