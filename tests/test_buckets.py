"""Workdirs on Google Cloud Storage. An emulator on this machine takes the place of the service."""

import fake_gcs
import pytest

from dualmcmc_jax.runtime import storage

pytestmark = pytest.mark.slow

TINY = [f"--config.{net}.widths=(16,)" for net in ("energy", "generator", "encoder")]
TINY += ["--config.x_chain.num_steps=2", "--config.z_chain.num_steps=2", "--config.train.batch_size=20"]
FLAGS = ["--config=digits", *TINY, "--config.checkpoint.every=2", "--config.evaluation.every=0"]


@pytest.fixture(scope="module")
def server():
    with fake_gcs.serve("bucket") as running:
        yield running


def emulator(url):
    """Return environment variables with which every library uses the emulator."""
    return {
        "EPATH_USE_TF": "0",  # TensorFlow cannot use an emulator
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "x",
        "NO_GCE_CHECK": "true",
    }


@pytest.fixture(scope="module")
def run(server, programs):
    url, _ = server
    return lambda *flags: programs.run(*FLAGS, *flags, env=emulator(url))


def test_run_in_a_bucket_is_stored_and_resumed(run, server):
    first = run("--workdir=gs://bucket/some/run", "--config.train.num_steps=4")
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-1] == "done: the trained model is in gs://bucket/some/run"
    bucket = server[1]["bucket"]
    for name in ("config.json", "metrics.jsonl", "samples/samples_00000004.png", "checkpoints/4/commit_success.txt"):
        assert f"some/run/{name}" in bucket
    again = run("--workdir=gs://bucket/some/run", "--config.train.num_steps=6")
    assert again.returncode == 0, again.stderr
    assert "resuming at step 4" in again.stderr
    other = run("--workdir=gs://bucket/some/run", "--config.train.seed=1")
    assert other.returncode == 1
    assert (
        "gs://bucket/some/run/config.json: found a run with another config: train.seed is 0 in the file and 1 now"
        in other.stderr.splitlines()[-1]
    )


def test_pictures_stay_local_if_the_bucket_is_unreachable(tmp_path, server, monkeypatch, caplog):
    """A failed upload is logged and raises no error. After a later successful upload, the local copy is removed."""
    url, _ = server
    for name, value in emulator(url).items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".home").write_text("gs://gone/run")
    (tmp_path / "samples.png").write_bytes(b"picture")
    assert not storage.push(tmp_path)
    assert "gs://gone/run unreachable" in caplog.text
    storage.close(tmp_path)
    assert (tmp_path / "samples.png").exists()
    (tmp_path / ".home").write_text("gs://bucket/other/")
    storage.close(tmp_path)
    assert server[1]["bucket"]["other/samples.png"][1] == b"picture"
    assert not tmp_path.exists()


def test_workdir_names_are_parsed():
    assert storage._path_in_bucket("gs://bucket") == storage._path_in_bucket("gs://bucket/") == "bucket"
    assert storage._path_in_bucket("gs://bucket/a/b/") == "bucket/a/b"
    with pytest.raises(ValueError, match=r"^workdir: found s3://bucket, expected a local folder or gs://"):
        storage.open_workdir("s3://bucket")
    with pytest.raises(ValueError, match=r"^out: found ~nosuchuser/x, expected a path"):
        storage.local_path("out", "~nosuchuser/x")


def test_missing_bucket_is_reported_in_one_line(run):
    done = run("--workdir=gs://elsewhere/run")
    assert done.returncode == 1
    assert done.stderr.startswith("error: --workdir: found gs://elsewhere/run unreachable (")
    assert len(done.stderr.splitlines()) == 1
