from __future__ import annotations

import hashlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from tristream import settings, streams
from tristream.commands import options
from tristream.errors import UsageError
from tristream.pretrained import Pretrained
from tristream.streams.config import SamplerConfig

PRESETS = sorted(path.stem for path in settings.PRESETS.glob("*.toml"))
STREAM = streams.names()[0]


@pytest.fixture
def toml(tmp_path):
    def write(text):
        (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        return tmp_path / "mine.toml"

    return write


def test_the_help_names_every_shipped_preset():
    named = str(options.Preset.__metadata__[0].help)
    assert [name for name in PRESETS if name not in named] == []


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_for_every_stream(preset):
    chosen = settings.load(
        preset, stream_names=streams.names(), pretrained=Pretrained(random_weights=0)
    )
    assert chosen.streams.keys() == set(streams.names())
    again = settings.load(
        preset, stream_names=streams.names(), pretrained=Pretrained(random_weights=0)
    )
    assert again.to_json() == chosen.to_json()


@pytest.mark.parametrize("preset", sorted({*PRESETS} - {"paper", "standard"}))
def test_no_other_preset_needs_a_download(preset):
    chosen = settings.load(preset, stream_names=streams.names()).to_json()
    for name, config in chosen["streams"].items():
        assert not [
            key for key, value in config.items() if "weights" in key and value is not None
        ], name


def test_a_flag_goes_over_the_file_over_the_preset_over_the_default(toml):
    default = SamplerConfig().n_segments
    preset = settings.load("light").sampler
    assert preset.n_segments != default
    assert preset.method == SamplerConfig().method
    file = toml("[sampler]\nn_segments = 5\nn_samples = 50\n")
    with_file = settings.load("light", file).sampler
    assert (with_file.n_segments, with_file.n_samples) == (5, 50)
    with_flag = settings.load("light", file, ["sampler.n_segments=6"]).sampler
    assert (with_flag.n_segments, with_flag.n_samples) == (6, 50)
    assert (
        settings.load(
            "light", file, ["sampler.n_segments=6", "sampler.n_segments=7"]
        ).sampler.n_segments
        == 7
    )


def test_a_file_overrides_a_preset_key_by_key(toml):
    file = toml(f"[streams.{STREAM}.aggregator]\nn_layers = 1\n")
    before = settings.load("light", stream_names=[STREAM]).streams[STREAM]
    after = settings.load("light", file, stream_names=[STREAM]).streams[STREAM]
    assert after.aggregator.n_layers == 1 != before.aggregator.n_layers
    assert after.aggregator.hidden_dim == before.aggregator.hidden_dim
    assert after.encoder_training == before.encoder_training


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("sampler.n_samples=60", 60),
        ("sampler.n_samples = 60", 60),
        ("sampler.max_seconds=1.5", 1.5),
        ("sampler.method=uniform", "uniform"),  # a word needs no quotes
        ('sampler.method="uniform"', "uniform"),
        ("sampler.estimator=dis_medium", "dis_medium"),
    ],
)
def test_an_assignment_is_toml_and_words_need_no_quotes(text, value):
    key = text.split("=")[0].strip().split(".")[1]
    assert getattr(settings.load("light", None, [text]).sampler, key) == value


def test_none_is_understood_where_no_preset_has_been(toml):
    assert settings._merge({}, {"a": {"b": {"c": "none"}, "d": "none"}}) == {
        "a": {"b": {"c": None}, "d": None}
    }


def test_the_word_none_switches_off_what_can_be_switched_off(toml):
    key = f"streams.{STREAM}.encoder_training"
    assert settings.load("light", None, [f"{key}.stop_patience=none"], stream_names=[STREAM]).streams[
        STREAM
    ].encoder_training.stop_patience is None  # fmt: skip
    file = toml(f'[{key}]\nstop_patience = "none"\n')
    assert (
        settings.load("light", file, stream_names=[STREAM])
        .streams[STREAM]
        .encoder_training.stop_patience
        is None
    )
    with pytest.raises(UsageError, match=r"epochs = None: .*integer"):
        settings.load("light", None, [f"{key}.epochs=none"], stream_names=[STREAM])


def test_where_settings_came_from_is_kept_with_them(toml):
    file = toml("")
    chosen = settings.load("workshop", file, ["sampler.n_samples=60"])
    assert chosen.source == f"preset workshop, {file}, sampler.n_samples=60"
    assert chosen.to_json()["source"] == chosen.source
    assert chosen.to_json()["sampler"]["n_samples"] == 60


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        (
            "sampler.n_sample=6",
            r"unknown key 'n_sample' in \[sampler\]; valid: method, n_samples, n_segments, ",
        ),
        ("data.size=6", r"unknown key 'size' in \[data\]; valid: max_side_px"),
        (
            "data.crop=[0.5, 0, 0.4, 1]",
            r"\[data\] crop = \[0.5, 0, 0.4, 1\]: .*0 <= top < bottom <= 1",
        ),
        (
            "data.crop=[0, 0.5, 1, 1.2]",
            r"\[data\] crop = \[0, 0.5, 1, 1.2\]: .*0 <= left < right <= 1",
        ),
        ("fusion.C=6", r"unknown key 'C' in \[fusion\]; valid: l2"),
        ("detector.x=6", r"unknown key 'x' in \[detector\]; valid: kind, bottleneck"),
        (
            f"streams.{STREAM}.widht=6",
            rf"unknown key 'widht' in \[streams\.{STREAM}\]; valid: .*aggregator_training",
        ),
        (
            f"streams.{STREAM}.aggregator.layers=6",
            rf"unknown key 'layers' in \[streams\.{STREAM}\.aggregator\]; valid: kind, hidden_dim, n_layers",
        ),
        (
            f"streams.{STREAM}.encoder_training.lr=6",
            rf"unknown key 'lr' in \[streams\.{STREAM}\.encoder_training\]; valid: epochs, .*segments_per_video",
        ),
        (
            "nonsense.x=6",
            r"unknown section \[nonsense\]; valid: data, sampler, .*limits, streams\.<name>",
        ),
        ("n_samples=6", r"unknown section \[n_samples\]; valid: data"),
        (
            "streams.smell.x=6",
            rf"unknown section \[streams\.smell\]; available: {', '.join(streams.names())}",
        ),
        ("sampler.n_samples=0", r"\[sampler\] n_samples = 0: .*greater than or equal to 1"),
        ("sampler.n_samples=many", r"\[sampler\] n_samples = 'many': .*integer"),
        ("sampler.method=random", r"\[sampler\] method = 'random': .*'adaptive' or 'uniform'"),
        (
            f"streams.{STREAM}.encoder_training.optimizer=lion",
            rf"\[streams\.{STREAM}\.encoder_training\] optimizer = 'lion': .*'sgd', 'adam' or 'adamw'",
        ),
        (
            f"streams.{STREAM}.encode_batch_size=7",
            rf"\[streams\.{STREAM}\] encode_batch_size = 7: .*8",
        ),
        ("data=3", r"\[data\] is 3; it must be a section of keys"),
        ("streams=3", r"\[streams\] is 3; it must be a section of keys"),
        (f"streams.{STREAM}=3", rf"\[streams\.{STREAM}\] is 3; it must be a section of keys"),
        (f"streams.{STREAM}.aggregator=3", rf"\[streams\.{STREAM}\] aggregator = 3"),
        ("sampler.n_samples", r"--set sampler\.n_samples is not KEY=VALUE"),
        ("=3", r"--set =3 is not KEY=VALUE"),
        ("a b=3", r"--set a b=3: "),
    ],
)
def test_a_setting_that_is_none_is_refused_and_the_valid_ones_are_named(assignment, sentence):
    with pytest.raises(UsageError, match=sentence):
        settings.load("light", None, [assignment], stream_names=[STREAM])


def test_all_mistakes_of_a_section_are_told_at_once(toml):
    file = toml("[sampler]\nn_sample = 6\nmethod = 'x'\nmax_seconds = -1\n")
    with pytest.raises(UsageError, match=r"n_sample.*|method = 'x'.*|max_seconds = -1") as caught:
        settings.load("light", file)
    assert all(
        key in str(caught.value) for key in ("'n_sample'", "method = 'x'", "max_seconds = -1")
    )


def test_a_section_of_an_absent_stream_is_skipped_in_a_preset_and_refused_in_a_file(
    toml, monkeypatch
):
    monkeypatch.setattr(streams, "names", lambda: [STREAM])
    settings.load("light", stream_names=[STREAM])
    with pytest.raises(
        UsageError, match=rf"unknown section \[streams\.gone\]; available: {STREAM}$"
    ):
        settings.load("light", toml("[streams.gone]\nwidth = 1\n"))


def test_a_file_that_is_not_there_or_not_toml_is_refused_by_name(toml, tmp_path):
    with pytest.raises(UsageError, match=r"none\.toml does not exist"):
        settings.load("light", tmp_path / "none.toml")
    with pytest.raises(UsageError, match=r"mine\.toml is not TOML: Invalid value"):
        settings.load("light", toml("sampler = ["))
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"mine\.toml is not TOML"):
        settings.load("light", tmp_path / "mine.toml")


def test_an_unknown_preset_is_refused_with_those_there_are():
    with pytest.raises(
        UsageError, match=rf"^unknown preset 'heavy'; available: {', '.join(PRESETS)}$"
    ):
        settings.load("heavy")


def having_weights():
    return [
        name
        for name in streams.names()
        if "encoder_weights" in streams.stream_class(name).Config.model_fields
    ]


def load_with_weights(name, value, where, **kwargs):
    from tristream.store import weights

    chosen = [f"streams.{name}.encoder_weights={value}"]
    return settings.load(
        "light",
        None,
        chosen,
        stream_names=[name],
        pretrained=Pretrained(weights.Places(where, where), **kwargs),
    )


def test_a_file_of_weights_with_a_relative_path_is_looked_for_in_the_weights_folder(tmp_path):
    save_file({"a": np.zeros(1)}, tmp_path / "net.safetensors")
    (tmp_path / "elsewhere").mkdir()
    save_file({"b": np.zeros(1)}, tmp_path / "elsewhere" / "net.safetensors")
    (tmp_path / "net.pth").touch()
    for name in having_weights():
        found = load_with_weights(name, "net.safetensors", tmp_path)
        assert found.streams[name].encoder_weights == tmp_path / "net.safetensors"
        elsewhere = tmp_path / "elsewhere" / "net.safetensors"
        found = load_with_weights(name, elsewhere, tmp_path)
        assert found.streams[name].encoder_weights == elsewhere
        sha256 = hashlib.sha256(elsewhere.read_bytes()).hexdigest()
        described = found.to_json()["streams"][name]["encoder_weights"]
        assert described == {"sha256": sha256}, "where it lies does not matter"
        with pytest.raises(
            UsageError, match=r"encoder_weights: .*missing\.safetensors does not exist"
        ):
            load_with_weights(name, "missing.safetensors", tmp_path)
        with pytest.raises(
            UsageError,
            match=r"net\.pth is not a safetensors file; .*weights add .*net\.pth --as NAME",
        ):
            load_with_weights(name, "net.pth", tmp_path)
        assert load_with_weights(name, "none", tmp_path).streams[name].encoder_weights is None


def test_weights_that_no_place_has_are_a_mistake_that_names_the_section_and_the_ways_out(
    tmp_path, no_network
):
    for name in having_weights():
        with pytest.raises(
            UsageError, match=rf"^\[streams\.{name}\] encoder_weights: weights 'vggish' "
        ) as caught:
            load_with_weights(name, "vggish", tmp_path)
        for words in (f"--weights-dir {tmp_path}: holds no vggish-10086976.pth", "https://github.com/harritaylor",
                      "weights add FILE --as vggish", "--preset light"):  # fmt: skip
            assert words in str(caught.value)


def test_random_weights_take_the_place_of_pretrained_ones_and_it_is_said_everywhere(tmp_path):
    for name in having_weights():
        chosen = load_with_weights(name, "vggish", tmp_path, random_weights=7)
        assert (chosen.streams[name].encoder_weights, chosen.streams[name].weights_seed) == (
            None,
            7,
        )
        assert chosen.to_json()["streams"][name]["weights_seed"] == 7
        plain = load_with_weights(name, "none", tmp_path, random_weights=7)
        assert plain.streams[name].weights_seed is None, "nothing pretrained was to be replaced"


def test_settings_without_streams_do_not_import_torch():
    import subprocess
    import sys

    code = "import sys\nfrom tristream import settings\nsettings.load('light')\nprint('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=settings.PRESETS.parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"


def test_keys_that_do_not_go_together_are_a_sentence_too():
    if "audio" not in streams.names():
        pytest.skip("needs a stream whose configuration has such a rule")
    with pytest.raises(
        UsageError, match=r"^\[streams\.audio\] postprocess = true is VGGish's, and the "
    ):
        settings.load("light", None, ["streams.audio.postprocess=true"], stream_names=["audio"])
