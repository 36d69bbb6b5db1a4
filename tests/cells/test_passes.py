"""Which cells are computed together."""

from harness.cells.passes import passes


def lengths(found):
    return [[p.cell.ctx for p in one.cells] for one in found]


def test_cells_whose_numbers_are_those_of_a_longer_one_share_its_pass(place):
    cells = ["method=none ctx=16", "method=linear ctx=64", "method=none ctx=64", "method=none ctx=32"]
    found = passes(place.prepared(*cells, "method=none ctx=32"))
    assert lengths(found) == [[64, 32, 16], [64]]
    shared = found[0]
    assert shared.longest is shared.cells[0]
    assert shared.title == "tiny none ctx=16,32,64"
    assert shared.checkpoint == shared.longest.files.checkpoint


def test_windows_of_other_protocols_are_passes_of_their_own(place):
    cells = ["method=none ctx=16", "method=none ctx=32"]
    common = ("protocol=sliding", "protocol.stride=8")
    assert lengths(passes(place.prepared(*cells, common=common))) == [[16], [32]]
