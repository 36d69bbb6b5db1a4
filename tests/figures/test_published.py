import numpy as np

from harness import published
from harness.figures.published import paper


def test_legend_of_several_tables_is_in_the_order_of_names_with_numbers_as_numbers() -> None:
    texts = [text.get_text() for text in paper(published.select("pi")).legends[0].get_texts()]
    sizes = [int(text.removeprefix("LLaMA-").split("B")[0]) for text in texts]
    assert sizes == sorted(sizes)
    assert set(sizes) == {7, 13, 33, 65}
    seven = [text for text in texts if "7B PI" in text]
    assert [text.rsplit(" ", 1)[1] for text in seven] == ["4", "8", "16"]


def test_figures_draw_the_numbers_and_only_those() -> None:
    for name, panels in (("yarn", 1), ("pi", 2), ("longrope", 1)):
        rows = published.select(name)
        figure = paper(rows)
        figure.draw_without_rendering()
        assert len(figure.axes) == panels
        drawn = [line for ax in figure.axes for line in ax.get_lines() if line.get_label() != "_bound"]
        values = np.concatenate([np.asarray(line.get_ydata(), float) for line in drawn])
        np.testing.assert_array_equal(np.sort(values), np.sort(rows.loc[rows["qualifier"] == "eq", "value"]))
        assert name in figure.get_suptitle()


def test_bounds_are_hollow_triangles_inside_the_frame() -> None:
    rows = published.select("pi", table="Table 1")
    figure = paper(rows)
    bounds = [line for line in figure.axes[0].get_lines() if line.get_label() == "_bound"]
    assert sum(len(line.get_xdata()) for line in bounds) == (rows["qualifier"] == "gt").sum() == 4
    top = figure.axes[0].get_ylim()[1]
    assert all((np.asarray(line.get_ydata()) <= top).all() for line in bounds)
    assert "triangles" in figure.get_suptitle()
