import base64
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

# One thread a process, also in those that tests start: tiny models gain nothing from more, and on busy cores threads
# that wait for each other cost twenty times as much. Set before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

TOKEN = "hf_stand_in"
LARGE = (".safetensors", ".png", ".mp4")


@pytest.fixture(autouse=True)
def no_accelerate_left() -> Iterator[None]:
    """What accelerate remembers of a test's training must not bind the next one's."""
    yield
    if "accelerate.state" in sys.modules:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)


class Hub(ThreadingHTTPServer):
    """What of the Hugging Face hub a push and a download need: repositories of commits, in memory."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.repositories: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.private: dict[str, bool] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.token = TOKEN

    def files(self, repo_id: str) -> dict[str, bytes]:
        """The newest commit's files."""
        return self.repositories[repo_id][-1][1]

    def commit(self, repo_id: str, changes: list[dict[str, Any]]) -> str:
        """Apply a commit's operations, as the client sends them; returns its hash."""
        files = dict(self.files(repo_id))
        for change in changes:
            key, value = change["key"], change["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
            else:
                assert key == "header", key
        sha = hashlib.sha1(f"{repo_id} {len(self.repositories[repo_id])}".encode()).hexdigest()
        self.repositories[repo_id].append((sha, files))
        return sha


class Handler(BaseHTTPRequestHandler):
    """The hub's routes, as its Python client calls them."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        parts = unquote(url.path).strip("/").split("/")
        self.server.requests.append(f"{self.command} {url.path}")
        repo_id = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if repo_id not in self.server.repositories:
            return self.refuse(404, "RepoNotFound")
        commits = dict(self.server.repositories[repo_id])
        newest = list(commits)[-1]
        asked = parts[5] if parts[0] == "api" and len(parts) > 5 else parts[3] if parts[0] != "api" else "main"
        sha = newest if asked == "main" else asked
        if sha not in commits:
            return self.refuse(404, "RevisionNotFound")
        if parts[0] != "api":
            return self.send_file(sha, commits[sha].get("/".join(parts[4:])))
        if len(parts) > 4 and parts[4] == "tree":
            assert parse_qs(url.query)["recursive"] == ["true"]
            return self.send_json(200, [describe(name, content) for name, content in commits[sha].items()])
        siblings = [{"rfilename": name} for name in commits[sha]]
        return self.send_json(200, {"id": repo_id, "sha": sha, "siblings": siblings, "tags": []})

    def do_PUT(self) -> None:
        content = self.body()
        oid = self.path.rsplit("/", 1)[1]
        assert hashlib.sha256(content).hexdigest() == oid
        self.server.blobs[oid] = content
        self.send_json(200, {})

    def do_POST(self) -> None:
        body = self.body()
        parts = self.path.split("?")[0].strip("/").split("/")
        self.server.requests.append(f"POST {self.path}")
        if self.headers["authorization"] != f"Bearer {TOKEN}":
            return self.refuse(401, None, "Invalid username or password.")
        if parts == ["api", "repos", "create"]:
            return self.create(json.loads(body))
        if parts == ["api", "validate-yaml"]:
            return self.validate(json.loads(body)["content"])
        if parts[-1] == "batch":
            return self.offer_uploads(json.loads(body)["objects"])
        repo_id = "/".join(parts[2:4])
        if parts[4] == "preupload":
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "shouldIgnore": False, "uploadMode": mode(f["path"])} for f in files]
            return self.send_json(200, {"files": modes})
        assert parts[4:] == ["commit", "main"]
        sha = self.server.commit(repo_id, [json.loads(line) for line in body.splitlines()])
        url = f"{self.server.endpoint}/{repo_id}/commit/{sha}"
        return self.send_json(200, {"commitUrl": url, "commitOid": sha, "success": True})

    def create(self, body: dict[str, Any]) -> None:
        if body["organization"] == "somebody-else":
            return self.refuse(403, None, "You don't have the rights to create a model under this namespace.")
        repo_id = f"{body['organization']}/{body['name']}"
        exists = repo_id in self.server.repositories
        if not exists:
            self.server.repositories[repo_id] = [("0" * 40, {".gitattributes": b""})]
            self.server.private[repo_id] = body.get("visibility") == "private" or bool(body.get("private"))
        return self.send_json(409 if exists else 200, {"url": f"{self.server.endpoint}/{repo_id}"})

    def validate(self, card: str) -> None:
        metadata = yaml.safe_load(card.split("---")[1])
        good = isinstance(metadata, dict) and metadata.get("license") != "nonsense"
        errors = [] if good else [{"message": '"license" must be one of the hub\'s licences'}]
        self.send_json(200 if good else 400, {"errors": errors, "warnings": []})

    def offer_uploads(self, objects: list[dict[str, Any]]) -> None:
        for entry in objects:
            if entry["oid"] not in self.server.blobs:
                entry["actions"] = {"upload": {"href": f"{self.server.endpoint}/lfs/{entry['oid']}"}}
        self.send_json(200, {"objects": objects, "transfer": "basic"})

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["content-length"]))

    def refuse(self, status: int, code: str | None, message: str | None = None) -> None:
        self.send_json(status, {"error": message or code}, {"X-Error-Code": code} if code else {})

    def send_json(self, status: int, values: Any, headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(values).encode(), {"Content-Type": "application/json", **(headers or {})})

    def send_file(self, sha: str, content: bytes | None) -> None:
        if content is None:
            return self.refuse(404, "EntryNotFound")
        etag = hashlib.sha256(content).hexdigest()
        return self.send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": sha, "X-Linked-Size": str(len(content))})

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def mode(path: str) -> str:
    return "lfs" if path.endswith(LARGE) else "regular"


def describe(name: str, content: bytes) -> dict[str, Any]:
    """An entry of the tree listing."""
    sha256 = hashlib.sha256(content).hexdigest()
    lfs = {"oid": sha256, "size": len(content), "pointerSize": 134} if name.endswith(LARGE) else None
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return {"type": "file", "path": name, "size": len(content), "oid": oid} | ({"lfs": lfs} if lfs else {})


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread of torch, whatever the machine, until the test ends."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def forked() -> Iterator[Callable[..., str]]:
    """Calls a function in a process of its own, whose limits end with it; gives the error that it raised, or ''."""

    def call(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> str:
        receiver, sender = os.pipe()
        pid = os.fork()
        if pid == 0:
            told = b""
            try:
                function(*arguments, **keywords)
            except BaseException as error:
                told = f"{type(error).__name__}: {error}".encode()
            finally:
                os.write(sender, told)
                os._exit(0)
        os.close(sender)
        with open(receiver) as pipe:
            told = pipe.read()
        os.waitpid(pid, 0)
        return told

    with warnings.catch_warnings():
        # Python 3.12 warns of threads, of which a forked process has none; nothing here waits for them.
        warnings.simplefilter("ignore", DeprecationWarning)
        yield call


@pytest.fixture
def filling() -> Callable[[Callable[..., Any], int], Callable[..., Any]]:
    """`filling(function, calls)`: the function, before whose call number `calls` the disk becomes full for good.

    To be called in a process of its own: no file of it can grow beyond 500 bytes from then on.
    """

    def make(function: Callable[..., Any], calls: int) -> Callable[..., Any]:
        left = calls

        def called(*arguments: Any, **keywords: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
            return function(*arguments, **keywords)

        return called

    return make


@pytest.fixture
def server() -> Iterator[Hub]:
    """A running stand-in of the Hugging Face hub; its token is `server.token`."""
    stand_in = Hub()
    thread = threading.Thread(target=stand_in.serve_forever, args=(0.01,))
    thread.start()
    yield stand_in
    stand_in.shutdown()
    thread.join()
    stand_in.server_close()


@pytest.fixture(scope="session")
def pendulum_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint folder of a tiny untrained model of Pendulum-v1; copy it before changing it."""
    import gymnasium
    import numpy as np
    import torch

    from trajplan.data.info import DatasetInfo
    from trajplan.data.scores import ReferenceScores
    from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig
    from trajplan.planners.beam_search import BeamSearchConfig
    from trajplan.planners.settings import save_planner
    from trajplan.tokenizers.fit import fit_tokenizer
    from trajplan.training.checkpoint import save_model_folder
    from trajplan.training.config import TrainConfig

    env = gymnasium.make("Pendulum-v1")
    info = DatasetInfo(
        id="toy/pendulum-v0",
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=env.spec,
        reference=ReferenceScores(-1500.0, 0.0, "made up"),
        num_transitions=500,
        num_episodes=5,
        mean_return=-1200.5,
    )
    joined = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    tokenizer = fit_tokenizer("quantile", joined, 10)
    torch.manual_seed(0)
    config = TrajectoryTransformerConfig(
        observation_dim=3,
        action_dim=1,
        bins=10,
        window=4,
        n_layer=1,
        n_head=2,
        n_embd=16,
        bin_counts=tokenizer.sizes.tolist(),
    )
    planner = BeamSearchConfig(horizon=2, beam_width=3, context=1)
    training = TrainConfig(bins=10, window=4, n_layer=1, n_head=2, n_embd=16)
    folder = tmp_path_factory.mktemp("checkpoint") / "pendulum"
    save_model_folder(folder, TrajectoryTransformer(config), tokenizer, info, training)
    save_planner(folder, planner)
    return folder


@pytest.fixture
def checkpoint(pendulum_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of `pendulum_checkpoint`, with what a training run leaves beside the model."""
    folder = tmp_path / "run"
    shutil.copytree(pendulum_checkpoint, folder)
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 2.0}) + "\n")
    state = folder / "training_state/step-00000010"
    state.mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        (state / name).write_text("private")
    return folder


@pytest.fixture
def goal_maze(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The id of `assets/goal_maze.py`, whose single tasks are `openmaze-tiny-singletask-taskK-v0`."""
    import gymnasium

    monkeypatch.syspath_prepend(Path(__file__).parent / "assets")
    name, entry = "openmaze-tiny-v0", "goal_maze:GoalMaze"
    gymnasium.register(name, entry, max_episode_steps=20)
    for task in (1, 2, 3):
        single = f"openmaze-tiny-singletask-task{task}-v0"
        gymnasium.register(single, entry, max_episode_steps=20, kwargs={"reward_task_id": task})
    yield name
    for id in [id for id in gymnasium.registry if id.startswith("openmaze-tiny-")]:
        del gymnasium.registry[id]
