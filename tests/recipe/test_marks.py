"""By what a finished or begun step is known again, and what makes it another one."""

import pytest
from recipe_shell import needs_espnet, once

pytestmark = needs_espnet

FINISH = "once out/.done {} -- true\n"
BEGIN = "signature=$(signature_of {}); begin half found\n"


@pytest.mark.parametrize("step", [FINISH, BEGIN])
def test_copied_configurations_make_no_other_step(tmp_path, step):
    """As for a longer training of one of the models."""
    for name in ("conf", "my_conf"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "units.yaml").write_text("layer: 1\nfile: x.yaml\n")
    first = step.format("a --config conf/units.yaml --b")
    copied = first.replace("conf/", "my_conf/")
    assert once(tmp_path, first).returncode == 0

    result = once(tmp_path, copied)

    assert result.returncode == 0, result.stderr
    for text in ("layer: 2\nfile: x.yaml\n", "layer: 1\nfile: y.yaml\n"):
        (tmp_path / "my_conf" / "units.yaml").write_text(text)
        result = once(tmp_path, copied)
        assert result.returncode == 2
        assert "my_conf" not in result.stderr  # where they differ, not where they are
