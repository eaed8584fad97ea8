from kalends_shared.contracts import ids


def test_ids_sort_by_time_and_have_their_form():
    made = [ids.new_id("bkg") for _ in range(3)]
    assert all(ids.valid(one, "bkg") and len(one) == 30 for one in made)
    assert len(set(made)) == 3
    assert ids.encode(0) == "0" * 26
    assert ids.encode(2**128 - 1) == "7" + "z" * 25


def test_what_is_no_id():
    for text in (
        "",
        "bkg_",
        "bkg_0",
        "evt_01jv0000000000000000000000",
        "bkg_81jv0000000000000000000000",
        "bkg_01jv000000000000000000000u",
    ):
        assert not ids.valid(text, "bkg")


def test_a_derived_id_is_the_same_each_time_and_differs_by_its_parts():
    assert ids.derived("msg", "a", "b") == ids.derived("msg", "a", "b")
    assert ids.valid(ids.derived("msg", "a", "b"), "msg")
    assert ids.derived("msg", "a", "b") != ids.derived("msg", "ab", "")
