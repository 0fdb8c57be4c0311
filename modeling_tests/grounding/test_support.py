# SPDX-License-Identifier: Apache-2.0
"""How answers stand to their document."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from growth import check_growth

from transformers_hybridctx.evaluation.needles import make_example
from transformers_hybridctx.grounding.agreement import function_words
from transformers_hybridctx.grounding.asked_kinds import may_answer
from transformers_hybridctx.grounding.support import SupportChecker, strings_that_matter

DOCUMENT = """The special magic number for green-lemur is: 4821930. The access code of the vault is KX-4471-Q.
Emma Woodhouse lived in Highbury for “twenty-one” years. The fee was 1,250 EUR in 1998 and 1,350 EUR in 1999.
Their request has the identifier 550e8400-e29b-41d4-a716-446655440000. Die Straße nach Zürich. 图书馆在二楼。
"""


@pytest.fixture(scope="module")
def checker() -> SupportChecker:
    return SupportChecker(DOCUMENT)


@pytest.mark.parametrize(
    ("answer", "status", "found"),
    [
        ("4821930", "verbatim", "4821930"),
        ("4821930.", "verbatim", "4821930."),
        ("Emma Woodhouse", "verbatim", "Emma Woodhouse"),
        ("lived in\nHighbury", "verbatim", "lived in Highbury"),
        ('"twenty-one" years', "verbatim", "“twenty-one” years"),
        ("图书馆", "verbatim", "图书馆"),
        ("4821980", "near", "4821930"),
        ("KX-4471-O", "near", "KX-4471-Q"),
        ("550e8400-e29b-41d4-a716-44665544000", "near", "550e8400-e29b-41d4-a716-446655440000"),
        ("Emma Woodhousе", "near", "Emma Woodhouse"),
        ("Strase nach Zürich", "near", "Straße nach Zürich"),
        ("7777777", "absent", None),
        ("48", "absent", None),
        ("482193", "near", "4821930"),
        ("a dragon", "absent", None),
        ("", "absent", None),
    ],
)
def test_a_short_answer_is_verbatim_near_or_absent(
    checker: SupportChecker, answer: str, status: str, found: str | None
) -> None:
    support = checker.check(answer)
    assert support.status == status
    best = support.whole if support.whole.found else (support.strings or (support.whole,))[0]
    assert (best.found[0] if best.found else None) == found
    for start, end in best.places:
        assert DOCUMENT[start:end].split() == (found or "").split()


def test_each_string_that_matters_is_looked_up(checker: SupportChecker) -> None:
    support = checker.check("The fee in Highbury was 1,250 EUR, later 1,450 EUR, and 9,999,999 for KX-4471-Q.")
    assert [(one.text, one.status) for one in support.strings] == [
        ("Highbury", "verbatim"),
        ("1,250", "verbatim"),
        ("EUR", "verbatim"),
        ("1,450", "near"),
        ("EUR", "verbatim"),
        ("9,999,999", "absent"),
        ("KX-4471-Q", "verbatim"),
    ]
    assert support.status == "absent"
    near = support.strings[3]
    assert set(near.found) == {"1,250", "1,350"} and near.distance == 1


def test_a_string_of_the_question_needs_no_support(checker: SupportChecker) -> None:
    assert checker.check("In 2020 it was 4821930", "What was it in 2020?").status == "verbatim"
    assert checker.check("In 2020 it was 4821930").status == "absent"


def test_an_answer_is_repaired_where_exactly_one_string_is_near(checker: SupportChecker) -> None:
    for answer, repaired in [
        ("It is 4821980, not KX-4471-O.", "It is 4821930, not KX-4471-Q."),
        ("It was 1,450 EUR.", "It was 1,450 EUR."),  # two are near
        ("4821930", "4821930"),
        ("7777777", "7777777"),
        ("Strase nach Zürich", "Straße nach Zürich"),
    ]:
        assert checker.repaired(answer, checker.check(answer)) == repaired


def test_an_answer_that_was_cut_before_it_began_says_so(checker: SupportChecker) -> None:
    assert checker.check("", is_cut_off=True).status == "cut off"


def test_a_document_without_text_supports_nothing() -> None:
    with pytest.raises(ValueError, match="has no text"):
        SupportChecker(" \n")


@pytest.mark.parametrize(
    ("answer", "strings"),
    [
        ("It is 5 km to Vienna by the A1.", ["5", "Vienna", "A1"]),
        ("call run_all or useState at a@b.org", ["run_all", "useState", "a@b.org"]),
        ("No. She left.", []),
        ("在2024年", ["2024"]),
        ("", []),
    ],
)
def test_numbers_codes_identifiers_and_names_matter(answer: str, strings: list[str]) -> None:
    assert [answer[start:end] for start, end in strings_that_matter(answer)] == strings


def test_work_grows_with_the_document_and_not_with_its_square(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    for size in (200, 800):
        checker = SupportChecker("\n".join(f"The code of item {n} is {n * 7919 % 10**7:07d}." for n in range(size)))
        compared.append(len(checker._codes))
        assert checker.check("The code is 99999999999").status == "absent"
    assert compared[1] < 5 * compared[0]


@pytest.mark.parametrize("piece", ["-", "a ", "A. ", "a%$1"])
def test_a_long_answer_takes_time_that_grows_with_it(piece: str) -> None:
    checker = SupportChecker(DOCUMENT + "It is a - b. " * 200)
    check_growth(lambda answer: checker.check(answer, "What?"), lambda n: piece * (n // len(piece)) + "a", 1000)


def test_the_strings_of_an_answer_too_long_to_be_near_are_checked(checker: SupportChecker) -> None:
    support = checker.check("Nobody ever said so. " * 40 + "The number is 4821931.")
    assert support.status == "near"
    assert [(one.text, one.status, one.found) for one in support.strings][-1] == ("4821931", "near", ("4821930",))


def test_an_answer_agrees_with_its_question_where_the_document_speaks_of_what_is_asked() -> None:
    document = "The code for green-lemur is: 4821930. " + "It was late. " * 60 + "The code for blue-heron is: 7750112."
    checker = SupportChecker(document)
    lemur, heron = checker.places("4821930"), checker.places("7750112")
    asked = "What is the code for green-lemur mentioned in the text?"
    assert checker.agreement(asked, lemur) > checker.agreement(asked, heron) > 0
    assert checker.agreement(asked, [*heron, *lemur]) == checker.agreement(asked, lemur)
    assert checker.agreement("Codes for red-fox?", heron) < checker.agreement("Codes for blue-heron?", heron)
    assert checker.agreement("What is it for?", heron) == 0  # function words say nothing
    assert checker.agreement(asked, []) == checker.agreement("?!", lemur) == 0


RECORDS = (
    "name,room,desk\nMoen,C-8,A\nAbe,C-9,B\n\nModel: TR-450\nMaker: Dornbach\nSerial number: DM-87\n\n"
    "## 3. Notice\nThree months. Who pays?\nThe tenant does. At 9 a bell rings."
)
"""A short document, in which every word of a question is near every answer."""


@pytest.mark.parametrize(
    ("question", "answer", "agrees"),
    [
        ("What is the serial number?", "DM-87", True),
        ("What is the serial number?", "TR-450", False),  # of another label
        ("Who is the maker?", "DM-87", False),
        ("Who is the maker?", "Dornbach", True),
        ("How long is the notice?", "Three months", True),  # by its heading
        ("Who pays?", "The tenant", True),  # by the question before it
        ("Which bell rings?", "9", True),
        ("Who rings the bell?", "9", False),  # nobody's name
        ("What rings the bell?", "DM-87", False),
        ("In which room is Abe?", "C-9", True),
        ("In which room is Abe?", "C-8", False),  # under the same name of a column
    ],
)
def test_an_answer_agrees_with_what_is_said_in_its_own_sentence(question: str, answer: str, agrees: bool) -> None:
    checker = SupportChecker(RECORDS)
    found = checker.agreement(question, checker.places(answer))
    assert found == 1 if agrees else found < 0.38  # less likely right than wrong, however sure the model is


@pytest.mark.parametrize(
    ("answer", "beyond"),
    [
        ("4711", ""),
        ("4711.", ""),
        ("The code of the Aurora is 4711", ""),
        ("The code of the Aurora is 4711. The mast height of the Aurora is 38 metres.", ""),  # whole sentences
        ("4711. The mast height of the Aurora is 38 metres", "The mast height of the Aurora is 38 metres"),
        ("Aurora is 4711. The mast height of", "The mast height of"),
        ("The code of the Aurora is 4711. The mast height", "The mast height"),
        ("38 metres. It left St. Ives", "It left St. Ives"),
        ("St. Ives, approx. 9 miles away", ""),
        ("4712. The mast height of the Aurora is 38 metres", ""),  # which the document has not
    ],
)
def test_an_answer_that_goes_on_behind_a_sentence_says_what_was_not_asked(answer: str, beyond: str) -> None:
    document = (
        "The code of the Aurora is 4711. The mast height of the Aurora is 38 metres. It left St. Ives, approx. 9 "
    )
    assert SupportChecker(document + "miles away, at noon.").check(answer).beyond == beyond


@pytest.mark.parametrize(
    ("question", "answer", "beyond"),
    [
        ("What is the code of the Aurora?", "4711", ""),
        ("What is the code of the Aurora?", "4711, and the mast height is 38 metres", "the mast height is 38 metres"),
        ("Which code has it?", "4711, and the mast height is 38", "the mast height is 38"),
        ("What are the code and the mast height?", "4711, and the mast height is 38 metres", ""),
        ("How long is the keel?", "12 m; draught: 3 m", "draught: 3 m"),
        ("What are keel and draught?", "12 m; draught: 3 m", ""),
        ("Who is the captain?", "Ilse Brandt while the cook was Jon", "the cook was Jon"),
        ("Who sails her?", "Ilse Brandt while the cook was Jon, Ada and Bo", "the cook was Jon, Ada and Bo"),
        ("Who was on board?", "Jon, Ada and Bo", ""),
        ("When does she sail?", "10:30 and 11:45", ""),
        ("What is the code of the Aurora?", "The code of the Aurora is 4711, and the mast height is 38 metres", ""),
        ("Who was a guest?", "Jon, Ada and Bo were guests", ""),
        ("Who was a guest?", "Ada and Bo were guests", ""),
        ("Who owned her?", "Eva Lind and her sister were her owners", ""),
        ("What is the share of women?", "41%; note: of 2023", ""),
        ("What is her code?", "4712 (the mast height is 38 metres)", "the mast height is 38 metres"),
        ("What is her code?", "4712 [draught: 3 m]", "draught: 3 m"),
        ("What is her code?", "4712 – the mast will be 38 metres", "the mast will be 38 metres"),
        ("What is her code?", "4712, and the mast measures some 38 metres", "the mast measures some 38 metres"),
        ("What is her code?", "4712 but the hull weighed 90 t", "the hull weighed 90 t"),
        ("Which pages?", "12, and the next boxes of 38 pages", ""),
        ("Who owned 3 ships?", "Eva Lind and her sister owned 3 ships", ""),
        ("Who owned her?", "Eva Lind (she was her sister)", ""),
        ("", "4711, and the mast height is 38 metres", ""),  # nobody said what is asked
    ],
)
def test_a_value_with_a_clause_about_something_else_says_what_was_not_asked(
    question: str, answer: str, beyond: str
) -> None:
    document = (
        "The code of the Aurora is 4711, and the mast height is 38 metres. Keel: 12 m; draught: 3 m. She sails at 10:30 "
        "and 11:45. The captain was Ilse Brandt while the cook was Jon, Ada and Bo being guests. "
        "Jon, Ada and Bo were guests. Eva Lind and her sister were her owners. Women: 41%; note: of 2023. "
        "4712 (the mast height is 38 metres). 4712 [draught: 3 m]. 4712 – the mast will be 38 metres. "
        "4712, and the mast measures some 38 metres. 4712 but the hull weighed 90 t. 12, and the next boxes of 38 pages. "
        "Eva Lind and her sister owned 3 ships. Eva Lind (she was her sister)."
    )
    assert SupportChecker(document).check(answer, question).beyond == beyond


ROWS = """name,state,acres,year
Muir Woods,California,"1,293",1908
Zion\tUtah\t146,597\t1919
| Acadia | Maine | 49,075 | 1916 |
"""


@pytest.mark.parametrize(
    ("question", "answer", "beyond"),
    [
        ("In which state is Muir Woods?", "California", ""),
        ("In which state is Muir Woods?", "Muir Woods,California", ""),  # which value is plain
        ("In which state is Muir Woods?", 'Muir Woods,California,"1,293",1908', 'California,"1,293",1908'),
        ("What are the state and the acres of Muir Woods?", 'Muir Woods,California,"1,293"', ""),
        ("Where is Zion?", "Zion\tUtah\t146,597", "Utah\t146,597"),
        ("How many acres has Acadia?", "Acadia | Maine | 49,075", "Maine | 49,075"),
        ("How many acres has Acadia?", "49,075", ""),
        ("Which parks?", "Muir Woods,California", ""),
    ],
)
def test_a_row_of_a_table_is_more_than_the_value_that_was_asked_for(question: str, answer: str, beyond: str) -> None:
    assert SupportChecker(ROWS).check(answer, question).beyond == beyond


@pytest.mark.parametrize(
    ("question", "said", "may"),
    [
        ("How many days of leave are there?", "30 days", True),
        ("How many days of leave are there?", "twenty-one", True),
        ("How many days of leave are there?", "no limit", True),
        ("How many days of leave are there?", "holidays", False),
        ("How much is the fee?", "$40", True),
        ("How much is the fee?", "computers", False),
        ("In which year was it built?", "harbour", False),
        ("What is the policy number?", "NM/88", True),
        ("What is the policy number?", "Nordhavn Mutual", False),
        ("Which is the name of the number seven?", "Seven of Nine", True),
        ("What name and number are on the door?", "Abe", True),
        ("Who rang?", "Abe", True),
        ("Who rang?", "9", False),
        ("What is the e-mail address of the office?", "office", False),
        ("What is the email address of the office?", "abe@example.org", True),
        ("What is the email address of the office?", "abe(at)example.org", True),
        ("In which state is Tonto National Monument?", "National", False),  # the question's own words, again
        ("In which state is Tonto National Monument?", "Arizona", True),
        ("Is the hull of steel or of wood?", "steel", True),
        ("What happened in 1986?", "1986", True),
        ("What pays the tenant?", "the tenant", False),
        ("What is the length of the vessel?", "2. Vessel", False),  # a heading
        ("Which area is it?", "Area 51", True),
        ("Which release has it?", "11 (bullseye", False),  # a fragment
        ("Which release has it?", "11 (bullseye)", True),
        ("Which release has it?", "a) bullseye", True),
        ("Which team does the repairs?", "the", False),
        ("Which team does the repairs?", "that of the", False),
        ("Which team does the repairs?", "IT", True),
        ("Which parties may end it?", "both", True),
    ],
)
def test_words_that_cannot_be_an_answer_agree_with_nothing(question: str, said: str, may: bool) -> None:
    assert may_answer(question, said, function_words()) == may
    checker = SupportChecker(f"{question} {said}")
    assert (checker.agreement(question, checker.places(said)[-1:]) > 0) == may


def test_a_label_of_the_same_kind_is_not_the_one_that_was_asked_for() -> None:
    form = "Telephone (day): 960 417\nTelephone (evening): 960 998\nPolicy number: 88\nPermit number: MP-0388\n"
    checker = SupportChecker(form)
    asked = "What is the telephone number in the evening?"
    assert checker.agreement(asked, checker.places("960 998")) == 1
    assert checker.agreement(asked, checker.places("MP-0388")) < 0.38
    assert checker.agreement("What is the permit number?", checker.places("MP-0388")) == 1


@pytest.mark.parametrize("task", ["single_number", "single_uuid", "multikey", "multivalue", "multiquery"])
def test_right_answers_of_needles_never_go_beyond(task: Any) -> None:
    for seed in range(10):
        rng = Random(seed)
        example = make_example(rng, "It was the best of times. It was the worst of times. " * 20, task, held_out=True)
        checker = SupportChecker(example.document)
        for answer in (*example.answers, ", ".join(example.answers)):
            assert not checker.check(answer, example.question).beyond


def test_what_is_not_in_the_known_text_of_a_document_that_shows_more_is_unchecked() -> None:
    checker = SupportChecker("The harbour code is 4711.")
    found = checker.check("It is 9038 and 4711.", shows_more=True)
    assert (found.status, found.whole.status) == ("unchecked", "unchecked")
    assert [one.status for one in found.strings] == ["unchecked", "verbatim"]
    assert checker.check("4711", shows_more=True).status == "verbatim"
    assert checker.check("4712", shows_more=True).status == "near"
    assert checker.check("9038").status == "absent"
