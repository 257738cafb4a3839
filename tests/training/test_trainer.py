"""Models trained from scratch: the same bits again, ordinary checkpoints, and pairs that can be compared."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from outlier_features.config.entries import Recipe
from outlier_features.errors import ConfigError, SourceError
from outlier_features.training.tokenizer import train_tokenizer
from outlier_features.training.trainer import _order, cut_windows, train
from synthetic_text import synthetic_documents
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
DENSE = {"model_type": "qwen3", "intermediate_size": 64, **SHAPE}
MOE = {
    "model_type": "qwen3_moe",
    "intermediate_size": 64,
    "moe_intermediate_size": 32,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "router_aux_loss_coef": 0.01,
    **SHAPE,
}


def recipe(architecture: dict, **changes: object) -> Recipe:
    tiny = {"vocabulary": 320, "steps": 40, "batch": 4, "length": 32, "learning_rate": 0.01, "seed": 3}
    return Recipe(corpus="synthetic", architecture=architecture, **{**tiny, **changes})


def synthetic_windows() -> torch.Tensor:
    """Return all that the recipes of this file read, as token ids (windows, 32)."""
    documents = synthetic_documents()
    return cut_windows(documents, train_tokenizer(documents, 320), 32)


@dataclass
class Trained:
    directory: Path
    facts: dict[str, int | float]
    logits: torch.Tensor
    """Of the model in memory, just before it was saved."""
    read: list[torch.Tensor]
    """The token ids of every step."""

    @property
    def files(self) -> dict[str, bytes]:
        return {name: (self.directory / name).read_bytes() for name in ("model.safetensors", "tokenizer.json")}

    def model(self) -> PreTrainedModel:
        return AutoModelForCausalLM.from_pretrained(self.directory).eval()


PROBE = torch.arange(24).view(1, 24)


def trained(directory: Path, architecture: dict, **changes: object) -> Trained:
    """Train, and keep what the model read and what it answered when it was saved."""
    read: list[torch.Tensor] = []
    logits: list[torch.Tensor] = []

    def keep_input(module: nn.Module, args: tuple) -> None:
        if isinstance(module, nn.Embedding):
            read.append(args[0])

    def answer_and_save(model: PreTrainedModel, *args: object, **kwargs: object) -> None:
        with torch.no_grad():
            logits.append(model.eval()(PROBE).logits)
        save(model, *args, **kwargs)

    save = PreTrainedModel.save_pretrained
    hook = nn.modules.module.register_module_forward_pre_hook(keep_input)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PreTrainedModel, "save_pretrained", answer_and_save)
        facts = train(recipe(architecture, **changes), synthetic_documents(), directory)
    hook.remove()
    return Trained(directory, facts, logits[0], read[:-1])


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("dense"), DENSE)


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("moe"), MOE)


def unigram_entropy() -> float:
    """Return the loss (nats) of the best model that knows only how often each token occurs."""
    ids = synthetic_windows().flatten().tolist()
    return -sum(count / len(ids) * math.log(count / len(ids)) for count in Counter(ids).values())


def active_parameters(model: PreTrainedModel) -> int:
    """Return the parameters that one token meets, routers left out."""
    config = model.config
    active = 0
    for name, parameter in model.named_parameters():
        if ".experts." in name:
            active += parameter.numel() * config.num_experts_per_tok // config.num_experts
        elif ".gate." not in name:
            active += parameter.numel()
    return active


def routers(model: PreTrainedModel) -> tuple[list[Counter], float]:
    """Return how often each expert of every block is chosen on the synthetic text, and the balancing loss."""
    with torch.no_grad():
        output = model(synthetic_windows(), output_router_logits=True)
    chosen = [logits.topk(model.config.num_experts_per_tok).indices for logits in output.router_logits]
    return [Counter(indices.flatten().tolist()) for indices in chosen], output.aux_loss.item()


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_same_recipe_gives_same_weights_and_tokenizer_to_the_bit(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    first = request.getfixturevalue(kind)
    torch.rand(7)  # the state of the global generator must not matter
    again = trained(tmp_path, {"dense": DENSE, "moe": MOE}[kind])
    assert again.files == first.files
    assert again.facts == first.facts


def test_another_seed_gives_other_weights_and_the_same_tokenizer(dense: Trained, tmp_path: Path) -> None:
    other = trained(tmp_path, DENSE, seed=4)
    assert other.files["model.safetensors"] != dense.files["model.safetensors"]
    assert other.files["tokenizer.json"] == dense.files["tokenizer.json"]
    assert not torch.equal(other.read[0], dense.read[0])


def test_dense_and_moe_read_the_same_tokens_in_the_same_order(dense: Trained, moe: Trained) -> None:
    assert len(dense.read) == 40
    assert torch.equal(torch.stack(dense.read), torch.stack(moe.read))
    assert dense.files["tokenizer.json"] == moe.files["tokenizer.json"]


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_checkpoint_loads_and_answers_as_the_model_did(kind: str, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue(kind)
    with torch.no_grad():
        assert torch.equal(found.model()(PROBE).logits, found.logits)


def test_tokenizer_of_the_checkpoint_loads_unchanged(dense: Trained) -> None:
    loaded = AutoTokenizer.from_pretrained(dense.directory)
    fresh = train_tokenizer(synthetic_documents(), 320)
    assert loaded.backend_tokenizer.to_str() == fresh.backend_tokenizer.to_str()
    assert loaded.model_max_length == 64
    model = dense.model()
    assert model.config.vocab_size == len(loaded) == dense.facts["vocabulary"]
    assert model.config.eos_token_id == loaded.eos_token_id


def test_weights_are_float32_and_tied(dense: Trained) -> None:
    model = dense.model()
    assert model.dtype == torch.float32
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_training_learns_more_than_how_often_tokens_occur(kind: str, request: pytest.FixtureRequest) -> None:
    facts = request.getfixturevalue(kind).facts
    assert facts["final_loss"] < 0.6 * unigram_entropy()


@pytest.mark.parametrize("architecture", [DENSE, MOE])
def test_reported_loss_is_the_loss_of_the_next_token(architecture: dict, tmp_path: Path) -> None:
    windows = synthetic_windows()
    # one step over all windows that moves no weight: the saved model is the one whose loss is reported
    found = trained(tmp_path, architecture, batch=len(windows), steps=1, learning_rate=1e-30)
    with torch.no_grad():
        expected = found.model()(windows, labels=windows).loss.item()
    assert found.facts["final_loss"] == pytest.approx(expected, rel=1e-5)


def test_facts_count_what_was_done(moe: Trained) -> None:
    assert {key: moe.facts[key] for key in ("steps", "tokens_seen", "seed", "threads")} == {
        "steps": 40,
        "tokens_seen": 40 * 4 * 32,
        "seed": 3,
        "threads": torch.get_num_threads(),
    }


def test_moe_uses_every_expert_of_every_block(moe: Trained) -> None:
    counts, _ = routers(moe.model())
    assert [sorted(count) for count in counts] == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_balancing_loss_evens_out_the_experts_and_is_not_reported(tmp_path: Path) -> None:
    free = trained(tmp_path / "free", {**MOE, "router_aux_loss_coef": 0.0})
    even = trained(tmp_path / "even", {**MOE, "router_aux_loss_coef": 10.0})
    assert routers(even.model())[1] < routers(free.model())[1]
    # the balancing loss is at least top_k = 2 and would count ten times
    assert even.facts["final_loss"] < 10


def test_dense_and_moe_have_equal_active_parameters(dense: Trained, moe: Trained) -> None:
    dense_count, moe_count = active_parameters(dense.model()), active_parameters(moe.model())
    assert moe_count == pytest.approx(dense_count, rel=0.01)
    assert moe.model().num_parameters() > 1.2 * dense_count


def test_too_little_text_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    windows = len(synthetic_windows())
    with pytest.raises(SourceError, match=f"gives {windows} windows of 32 tokens, but at least {windows + 1} are"):
        train(recipe(DENSE, batch=windows + 1), synthetic_documents(), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="gives 0 windows"):
        train(recipe(DENSE), [], tmp_path / "model")


def test_unknown_architecture_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'qwen3-moe' is no model type"):
        train(recipe({**MOE, "model_type": "qwen3-moe"}), synthetic_documents(), tmp_path / "model")


def test_diverging_training_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"training diverged: .* lower learning_rate"):
        train(recipe(DENSE, learning_rate=1e30, steps=10), synthetic_documents(), tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("learning_rate", [0.01, 1e30])
def test_global_state_of_torch_is_untouched_also_after_an_error(learning_rate: float, tmp_path: Path) -> None:
    def state() -> tuple:
        return (
            torch.get_rng_state().tolist(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
        )

    # another state than an earlier training would have left
    torch.manual_seed(12345)
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True
    before = state()
    try:
        train(recipe(DENSE, learning_rate=learning_rate, steps=5), synthetic_documents(), tmp_path / "model")
    except SourceError:
        assert learning_rate == 1e30
    assert state() == before


def test_progress_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(recipe(DENSE, steps=2), synthetic_documents(), tmp_path / "model")
    out, err = capsys.readouterr()
    assert all(part in err for part in ("train qwen3", "loss=", "tokens/s"))
    assert out == ""


def test_every_window_is_read_once_before_any_is_read_again() -> None:
    order = _order(windows=50, wanted=120, seed=0).tolist()
    assert sorted(order[:50]) == sorted(order[50:100]) == list(range(50))
    assert order[:50] != order[50:100]
    assert len(order) == 120


def test_windows_join_documents_with_the_end_of_text_and_drop_the_rest() -> None:
    tokenizer = train_tokenizer(["ab"], 300)
    (token,) = tokenizer("ab")["input_ids"]
    end = tokenizer.eos_token_id
    assert cut_windows(["ab", "abab", "ab"], tokenizer, 3).tolist() == [[token, end, token], [token, end, token]]
