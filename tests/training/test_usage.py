"""What is said of settings that count for nothing."""

from typing import Any, get_args

import pytest

from webui.training.config import Method, TrainingConfig
from webui.training.usage import RULES, unused


def config(method: Method = "lora", **sections: Any) -> TrainingConfig:
    network = {"method": method, **sections.pop("network", {})}
    data = {"photos": "photos", "trigger": "sks", **sections.pop("data", {})}
    return TrainingConfig.model_validate({"name": "test", "network": network, "data": data, **sections})


@pytest.mark.parametrize(
    ("method", "counts", "does_not"),
    [
        ("lora", "network.rank", "network.conv_rank"),
        ("locon", "network.conv_rank", "network.lokr_factor"),
        ("lokr", "network.lokr_factor", "network.oft_block"),
        ("oft", "network.oft_block", "network.rank"),
        ("full", "network.text_encoder", "validation.weights"),
        ("embedding", "network.num_vectors", "optimizer.rate"),
        ("pivotal", "network.pivotal_share", "network.conv_alpha"),
    ],
)
def test_each_method_has_settings_of_its_own(method: Method, counts: str, does_not: str) -> None:
    found = unused(config(method))
    assert counts not in found
    assert found[does_not].endswith(".")


def test_what_another_setting_switches_on_counts_then() -> None:
    plain = unused(config())
    for name, chosen in (
        ("loss.huber_c", {"loss": {"kind": "huber"}}),
        ("data.unmasked_weight", {"data": {"masks": True}}),
        ("data.keep_tags", {"data": {"shuffle_tags": True}}),
        ("optimizer.num_restarts", {"optimizer": {"schedule": "cosine with restarts"}}),
        ("loss.multires_discount", {"loss": {"multires_iterations": 3}}),
    ):
        assert name in plain
        assert name not in unused(config(**chosen))
    assert "network.conv_rank" not in unused(config("dora", network={"layers": "all"}))
    assert "no text" not in str(unused(config()))
    assert "optimizer.text_rate" in unused(config(network={"text_encoder": False}))
    assert "validation.prompts" in unused(config(validation={"samples": False}))


def test_every_rule_names_settings_that_there_are_and_speaks_for_some_method() -> None:
    values = config().model_dump()
    assert all(name.partition(".")[2] in values[name.partition(".")[0]] for rule in RULES for name in rule.settings)
    every = [unused(config(method)) for method in get_args(Method)]
    assert set().union(*every) <= {name for rule in RULES for name in rule.settings}
