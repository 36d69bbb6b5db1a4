"""Needle documents: what they hold, where, and what is the same in all of a repeat."""

import re
from collections import defaultdict

import numpy as np
import pytest

from harness.data import needles
from harness.data.documents import Document, DocumentSet
from harness.data.needle_spec import Asked, NeedleSpec
from harness.data.needle_templates import FILLER, KEYS, TEMPLATES, parity
from harness.data.sources import DataSpec
from harness.data.tokens import tokens_of
from harness.errors import UserError
from tests.byte_tokenizer import byte_tokenizer

TEXT = " ".join(f"Sentence number {word} of märchen stands here." for word in "abcdefghijklmnopqrstuvwxyz" * 4)
DEPTHS = [0.0, 0.3, 0.5, 1.0]
TOKENIZER = byte_tokenizer()


def grid(length=900, *, texts=(TEXT,), source="files", seed=0, part="evaluation", **spec):
    found = [Document(f"d{i}", *tokens_of(text, TOKENIZER)) for i, text in enumerate(texts)]
    path = "x" if source == "files" else None
    wanted = NeedleSpec(**({"depths": DEPTHS, "repeats": 6} | spec))
    data = DataSpec(name="n", source=source, path=path, needles=wanted)
    return needles.planted(DocumentSet("n", found, "f", "s"), data, TOKENIZER, length, seed, part).documents


def text_of(document):
    return TOKENIZER.decode(document.ids)


def split(document):
    """Haystack with facts, answer."""
    text = text_of(document)
    answer = TOKENIZER.decode(document.ids[-document.num_targets :])
    assert re.fullmatch(r" \d+", answer)
    return text.removesuffix(answer), answer.strip()


def test_every_depth_and_repeat_has_a_right_and_a_wrong_document_of_the_length():
    found = grid()
    assert [d.needle for d in found] == [Asked(d, r, x) for r in range(6) for d in DEPTHS for x in (True, False)]
    assert {d.num_tokens for d in found} == {900}
    assert len({d.name for d in found}) == len(found)
    for document in found:
        assert np.abs(document.byte_ends - np.arange(901)).max() <= 1  # a byte is a token here, an ä two of one end


def test_the_right_document_says_the_answer_and_the_wrong_one_differs_in_the_digits_of_that_number_alone():
    for right, wrong in zip(*[iter(grid())] * 2, strict=True):
        before, answer = split(right)
        assert answer in before
        other, same = split(wrong)
        assert same == answer
        assert answer not in other
        differ = [i for i, (a, b) in enumerate(zip(before, other, strict=True)) if a != b]
        assert len(differ) in (5, 10)  # once or twice in the fact
        assert "".join(before[i] for i in differ) in (answer, 2 * answer)


def test_the_question_asks_for_the_key_of_the_fact():
    for document in grid(repeats=9):
        before, _ = split(document)
        name = list(TEMPLATES["evaluation"])[document.needle.repeat % 3]
        template = TEMPLATES["evaluation"][name]
        (key,) = [k for k in KEYS["evaluation"] if before.endswith("\n" + template.question.format(key=k))]
        assert re.search(
            re.escape(" " + template.fact.format(key=key, number="#####")).replace(r"\#" * 5, r"\d{5}"), before
        )


def test_depth_is_the_share_of_the_haystack_before_the_fact_at_the_end_of_a_sentence():
    places = defaultdict(list)
    for document in grid(length=2500, templates=["passkey"]):
        before, _ = split(document)
        begin = before.index(" The pass key of")
        fact = re.search(r" The pass key of the \w+ is \d+\. Remember it\. \d+ is the pass key of the \w+\.", before)
        haystack = len(before) - len(fact[0]) - (len(before) - before.index("\nWhat is the pass key"))
        places[document.needle.depth].append(begin / haystack)
        if document.needle.depth in (0.3, 0.5):
            assert before[begin - 1] == "."
    assert max(places[0.0]) < 0.001  # behind the first token, whose place a BOS may take
    assert min(places[1.0]) == 1.0
    for depth in (0.3, 0.5):
        np.testing.assert_allclose(places[depth], depth, atol=0.02)


def test_all_documents_of_a_repeat_share_their_haystack_and_repeats_do_not():
    bare = defaultdict(set)
    for document in grid(length=700, templates=["passkey"]):
        bare[document.needle.repeat].add(
            re.sub(r" The pass key of the \w+ is \d+\. Rem.*?\.( \d+ is .*?\.)?", "", text_of(document))
        )
    assert {len(texts) for texts in bare.values()} == {1}
    assert len(set.union(*bare.values())) == 6


def test_distractors_have_other_keys_and_other_numbers():
    for document in grid(length=1500, distractors=3, templates=["passkey"]):
        before, answer = split(document)
        facts = re.findall(r"The pass key of the (\w+) is (\d+)\. Remember", before)
        keys, numbers = zip(*facts, strict=True)
        assert len(set(keys)) == len(set(numbers)) == len(facts) == 4
        asked = re.search(r"What is the pass key of the (\w+)\?", before)[1]
        assert (dict(facts)[asked] == answer) is document.needle.right
        assert [n for k, n in facts if k != asked and n == answer] == []


def test_the_seed_draws_and_the_length_does_not():
    def facts(**options):
        return [re.findall(r"\d{5}", text_of(d)) for d in grid(**options)]

    assert facts() == facts()
    assert facts() != facts(seed=1)
    assert facts() == facts(length=1200)


def test_search_and_evaluation_share_no_number_no_word_and_no_key():
    numbers = {
        part: {n for d in grid(part=part, repeats=40) for n in re.findall(r"\d{5}", text_of(d))} for part in TEMPLATES
    }
    for part, found in numbers.items():
        assert {sum(map(int, number)) % 2 for number in found} == {parity(part)}
    assert parity("evaluation") != parity("search")
    assert not set(KEYS["evaluation"]) & set(KEYS["search"])
    facts = {part: {t.fact.format(key="", number="") for t in TEMPLATES[part].values()} for part in TEMPLATES}
    assert not facts["evaluation"] & facts["search"]


def test_the_filler_is_repeated_and_a_text_is_not():
    for document in grid(length=3000, texts=(FILLER,), source="filler", templates=["passkey"]):
        before, _ = split(document)
        bare = re.sub(r" The pass key of the \w+ is \d+\. Remember it\. \d+ is .*?\.", "", before)
        assert bare.split("\nWhat")[0] in FILLER * 60
    with pytest.raises(UserError, match=r"a haystack of \d+ tokens \(ctx=9000\) is wanted, and the text has \d+"):
        grid(length=9000)


def test_the_least_length_holds_the_fact_behind_one_token_and_the_message_names_it():
    with pytest.raises(UserError, match=r"ctx must be at least \d+ tokens to hold the needle, got 60") as refused:
        grid(length=60, repeats=1)
    least = int(re.search(r"at least (\d+)", str(refused.value))[1])
    with pytest.raises(UserError, match=f"at least {least} tokens to hold the needle, got {least - 1}"):
        grid(length=least - 1, repeats=1)
    for document in grid(length=least, repeats=1):
        before, answer = split(document)
        assert document.num_tokens == least
        fact = before.split("\n")[0]
        at = 2 if document.needle.depth == 1.0 else 1  # tokens of the haystack, which has two
        assert fact[at:].startswith(" The pass key of")
        assert (answer in fact) is document.needle.right


def test_texts_of_a_haystack_follow_each_other():
    (first, *_) = grid(length=len(TEXT) + 150, texts=(TEXT, "Another text. " * 30), depths=[0.5], repeats=1)
    assert f"here.{needles.BETWEEN}Another" in text_of(first)


def test_a_text_without_sentences_takes_a_fact_where_it_is_asked_for():
    for document in grid(texts=("x" * 3000,), depths=[0.25], templates=["passkey"]):
        haystack = re.sub(r"[^x]", "", text_of(document).replace("next", ""))
        assert text_of(document).index(" The pass") == pytest.approx(0.25 * len(haystack), abs=3)
