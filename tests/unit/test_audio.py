"""Reading audio: every container a Kaldi folder may name, and every way to fail."""

import io

import kaldiio
import numpy as np
import pytest
import soundfile

from espnet_taste.data.audio import AudioError, command_folder, read_audio


def tone(seconds, rate, hz=440.0):
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def save(path, samples, rate, **options):
    soundfile.write(path, samples, rate, **options)
    return str(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.wav", {"subtype": "PCM_16"}),
        ("a.wav", {"subtype": "FLOAT"}),
        ("a.flac", {}),
        ("a.ogg", {}),
        ("a.sph", {"format": "NIST", "subtype": "PCM_16"}),
    ],
)
def test_formats_of_libsndfile_are_read(tmp_path, name, options):
    expected = tone(0.5, 16000)
    path = save(tmp_path / name, expected, 16000, **options)

    samples = read_audio(path)

    assert samples.dtype == np.float32 and samples.shape == expected.shape
    assert np.abs(samples - expected).max() < (0.1 if name == "a.ogg" else 1e-4)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_other_rates_become_the_same_tone(tmp_path, rate):
    path = save(tmp_path / "a.wav", tone(1.0, rate), rate, subtype="FLOAT")

    samples = read_audio(path)

    assert abs(len(samples) - 16000) <= 1
    middle = slice(2000, 14000)
    np.testing.assert_allclose(samples[middle], tone(1, 16000)[middle], atol=2e-3)
    np.testing.assert_array_equal(samples, read_audio(path))


def test_channels_are_averaged(tmp_path):
    left, right = tone(0.2, 16000), tone(0.2, 16000, 600)
    both = np.stack([left, right], axis=1)
    path = save(tmp_path / "a.wav", both, 16000, subtype="FLOAT")

    np.testing.assert_allclose(read_audio(path), (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("rate", [16000, 8000])
def test_a_span_is_cut_from_the_recording(tmp_path, rate):
    whole = np.arange(2 * rate, dtype=np.float32) / (4 * rate)
    path = save(tmp_path / "a.wav", whole, rate, subtype="FLOAT")

    part = read_audio(path, sample_rate_hz=rate, span_s=(0.5, 1.25))
    rest = read_audio(path, sample_rate_hz=rate, span_s=(1.75, -1))
    past = read_audio(path, sample_rate_hz=rate, span_s=(1.75, 2.4))

    np.testing.assert_array_equal(part, whole[rate // 2 : rate * 5 // 4])
    np.testing.assert_array_equal(rest, whole[rate * 7 // 4 :])
    np.testing.assert_array_equal(past, rest)


def test_a_segment_of_another_recording_is_not_cut_short(tmp_path):
    """Its transcript would be kept whole; Kaldi leaves it out too."""
    path = save(tmp_path / "a.wav", tone(2, 16000), 16000)

    with pytest.raises(AudioError, match="ends at 9 s, its recording has 2 s") as error:
        read_audio(path, span_s=(1.0, 9.0))
    assert error.value.reason == "unreadable"
    assert len(read_audio(path, span_s=(1.0, 2.5))) == 16000


@pytest.mark.parametrize("write_function", [None, "soundfile"])
def test_sound_in_an_ark_is_scaled(tmp_path, write_function):
    expected = tone(0.3, 16000)
    stored = (expected * 32768).astype(np.int16)
    with kaldiio.WriteHelper(
        f"ark,scp:{tmp_path}/x.ark,{tmp_path}/x.scp", write_function=write_function
    ) as writer:
        writer("other", (16000, stored[:50]))
        writer("a", (16000, stored))
    place = dict(line.split() for line in (tmp_path / "x.scp").read_text().splitlines())

    samples = read_audio(place["a"])
    relative = read_audio(place["a"].replace(f"{tmp_path}/", ""), folder=tmp_path)

    np.testing.assert_allclose(samples, expected, atol=1e-4)
    np.testing.assert_array_equal(relative, samples)
    cut = read_audio(place["a"], span_s=(0.1, 0.2))
    np.testing.assert_array_equal(cut, samples[1600:3200])


def test_a_path_is_found_beside_its_table(tmp_path):
    (tmp_path / "flac").mkdir()
    save(tmp_path / "flac" / "a.flac", tone(0.1, 16000), 16000)

    assert len(read_audio("flac/a.flac", folder=tmp_path)) == 1600


@pytest.mark.parametrize("table", ["data/train", "dump/raw/train"])
def test_a_path_is_found_from_the_recipe_that_made_the_table(tmp_path, table):
    (tmp_path / "downloads").mkdir()
    save(tmp_path / "downloads" / "a.flac", tone(0.1, 16000), 16000)
    folder = tmp_path / table
    folder.mkdir(parents=True)
    command = "cat 'downloads/a.flac' | cat |"

    assert len(read_audio("downloads/a.flac", folder=folder)) == 1600
    assert len(read_audio(command, folder=folder, allow_pipes=True)) == 1600
    assert (
        reason_of("downloads/a.flac", folder=tmp_path / "other/train") == "unreadable"
    )
    assert reason_of(command, folder=folder) == "pipe_refused"


def test_a_command_stays_where_it_finds_its_files(tmp_path, monkeypatch):
    for name in ("here", "recipe"):
        (tmp_path / name).mkdir()
        save(tmp_path / name / "a.wav", tone(0.1, 16000), 16000)
    monkeypatch.chdir(tmp_path / "here")

    assert command_folder("cat a.wav |", tmp_path / "recipe/data/x") is None
    (tmp_path / "here/a.wav").unlink()
    found = command_folder("cat a.wav |", tmp_path / "recipe/data/x")
    assert found == tmp_path / "recipe"


def test_three_samples_are_read(tmp_path):
    path = save(tmp_path / "a.wav", np.ones(3) / 2, 16000)

    assert len(read_audio(path)) == 3


def reason_of(value, **options):
    with pytest.raises(AudioError) as caught:
        read_audio(str(value), **options)
    return caught.value.reason


def test_a_missing_file_is_unreadable_and_named(tmp_path):
    with pytest.raises(AudioError, match="unreadable: no such file: .*gone.wav"):
        read_audio(f"{tmp_path}/gone.wav")


def test_what_is_no_sound_is_unreadable(tmp_path):
    path = tmp_path / "a.wav"
    path.write_text("these are words, not samples")
    (tmp_path / "b.ark").write_bytes(b"a \0BFV \4\1\0\0\0\0\0\0\0")

    assert reason_of(path) == "unreadable"
    assert reason_of(tmp_path) == "unreadable"
    assert reason_of(f"{tmp_path}/b.ark:2") == "unreadable"
    assert reason_of(f"{tmp_path}/b.ark:900") == "unreadable"
    assert reason_of(f"{tmp_path}/gone.ark:2") == "unreadable"


@pytest.mark.parametrize("name", ["a.flac", "a.wav"])
def test_a_file_that_was_cut_off_is_unreadable(tmp_path, name):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16000)
    path = save(tmp_path / name, noise, 16000)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])

    assert reason_of(path) == "unreadable"


def test_a_streamed_wav_that_promises_4_gb_is_read(tmp_path):
    path = save(tmp_path / "a.wav", tone(0.1, 16000), 16000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(data)

    assert len(read_audio(path)) == 1600


def test_nothing_to_hear_is_empty(tmp_path):
    (tmp_path / "zero.wav").touch()
    save(tmp_path / "none.wav", np.zeros(0), 16000)
    save(tmp_path / "a.wav", tone(1, 16000), 16000)

    assert reason_of(tmp_path / "zero.wav") == "empty"
    assert reason_of(tmp_path / "none.wav") == "empty"
    assert reason_of(tmp_path / "a.wav", span_s=(2.0, 3.0)) == "empty"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_bad_sample_is_nan(tmp_path, value):
    samples = tone(0.1, 8000)
    samples[17] = value
    path = save(tmp_path / "a.wav", samples, 8000, subtype="FLOAT")

    assert reason_of(path) == "nan"


def test_a_command_runs_only_when_allowed(tmp_path):
    path = save(tmp_path / "a.wav", tone(0.1, 16000), 16000)
    marker = tmp_path / "ran"

    assert reason_of(f"touch {marker}; cat {path} |") == "pipe_refused"
    assert not marker.exists()
    samples = read_audio(f"touch {marker}; cat {path} |", allow_pipes=True)
    np.testing.assert_array_equal(samples, read_audio(path))
    assert marker.exists()
    assert reason_of("false |", allow_pipes=True) == "unreadable"
    assert reason_of("echo no sound |", allow_pipes=True) == "unreadable"


def test_a_pickle_in_an_ark_is_not_loaded(tmp_path):
    buffer = io.BytesIO()
    buffer.write(b"a PKL" + b"cos\nsystem\n(S'exit 3'\ntR.")
    (tmp_path / "x.ark").write_bytes(buffer.getvalue())

    assert reason_of(f"{tmp_path}/x.ark:2") == "unreadable"


def in_ark(tmp_path, data):
    """Put the bytes of a sound file into an ark, as Kaldi does."""
    (tmp_path / "x.ark").write_bytes(b"a " + data + b"b " + data)
    return f"{tmp_path}/x.ark:2"


def test_mu_law_in_an_ark_is_decoded(tmp_path):
    """kaldiio takes its bytes for linear samples, which is noise."""
    wave = tone(0.2, 8000)
    encoded = io.BytesIO()
    soundfile.write(encoded, wave, 8000, format="WAV", subtype="ULAW")

    samples = read_audio(in_ark(tmp_path, encoded.getvalue()), sample_rate_hz=8000)

    assert samples.shape == wave.shape and np.abs(samples - wave).max() < 0.02


def test_a_wav_in_an_ark_that_was_cut_off_or_is_none_is_unreadable(tmp_path):
    encoded = io.BytesIO()
    soundfile.write(encoded, tone(0.2, 8000), 8000, format="WAV")
    place = in_ark(tmp_path, encoded.getvalue())
    whole = (tmp_path / "x.ark").read_bytes()
    last = f"{tmp_path}/x.ark:{4 + len(encoded.getvalue())}"
    assert len(read_audio(last, sample_rate_hz=8000)) == 1600

    (tmp_path / "x.ark").write_bytes(whole[:-1000])
    assert reason_of(last) == "unreadable" and len(read_audio(place))
    (tmp_path / "x.ark").write_bytes(b"a RIFF\x10\0\0\0WAVEabcdefghijkl")
    assert reason_of(place) == "unreadable"


def test_a_file_that_is_raw_by_its_name_is_unreadable(tmp_path):
    (tmp_path / "a.raw").write_bytes(bytes(3200))

    assert reason_of(tmp_path / "a.raw") == "unreadable"
