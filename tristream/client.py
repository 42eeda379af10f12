"""Client of a fusion service: the methods and results of `Decision`, on files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tristream.errors import MachineError, TristreamError
from tristream.results import Choice, Detection, Prediction, Results

BLOCK = 1 << 16


class Client:
    """Predictions and anomaly scores of a fusion service.

        with Client("http://127.0.0.1:8000") as service:
            service.predict(["clip.mp4"])

    Args:
        url: of the service.
        token: that it asks for; None: none.
        deadline_seconds: of each file.
    """

    def __init__(
        self, url: str, *, token: str | None = None, deadline_seconds: float = 30.0
    ) -> None:
        try:
            import httpx
        except ImportError as error:
            raise TristreamError("a client needs pip install 'tristream[serve]'") from error
        headers = {"x-deadline-seconds": f"{deadline_seconds:g}"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        self.url = url.rstrip("/")
        self._client = httpx.Client(
            base_url=self.url, headers=headers, timeout=deadline_seconds + 5, trust_env=False
        )

    def predict(
        self, paths: Sequence[str | Path], *, top: int = 5, max_error: float | None = None
    ) -> Results[Prediction]:
        """Return the action in each file; files that cannot be used are in `.failures`.

        Raises:
            MachineError: the service is not reached or has failed.
            TristreamError: it refuses the request.
        """
        wanted = {"top": top} | ({} if max_error is None else {"max_error": max_error})
        found, failures = [], {}
        for path in paths:
            body = self._post("/v1/predict", Path(path), wanted)
            if isinstance(body, str):
                failures[str(path)] = body
                continue
            choices = tuple(
                Choice(each["label"], each["score"], each.get("probability"))
                for each in body["top"]
            )
            found.append(
                Prediction(
                    str(path),
                    body["label"],
                    body["not_sure"],
                    choices,
                    tuple(body["streams"]),
                    tuple(body["masked"]),
                    calibrated_for=body["calibrated_for"],
                )
            )
        return Results(found, failures)

    def detect(self, paths: Sequence[str | Path]) -> Results[Detection]:
        """Return the anomaly score of each file; as `predict` otherwise."""
        found, failures = [], {}
        for path in paths:
            body = self._post("/v1/detect", Path(path), {})
            if isinstance(body, str):
                failures[str(path)] = body
                continue
            found.append(
                Detection(
                    path=str(path),
                    anomaly_score=body["anomaly_score"],
                    threshold=body["threshold"],
                    abnormal=body["abnormal"],
                    shares=body["shares"],
                    masked=tuple(body["masked"]),
                    nearest=tuple(body["nearest"]),
                )
            )
        return Results(found, failures)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _post(self, address: str, path: Path, params: dict[str, Any]) -> dict[str, Any] | str:
        """Return the answer, or the reason code of a file that cannot be used."""
        import httpx

        try:
            response = self._client.post(
                address,
                params=params,
                content=_blocks(path),
                headers={"content-type": "application/octet-stream"},
            )
        except httpx.HTTPError as error:
            raise MachineError(f"{self.url} does not answer ({error})") from error
        try:
            body = response.json()
        except ValueError:
            body = {"detail": response.text[:200]}
        if response.status_code == 200:
            return dict(body)
        detail = str(body.get("detail", ""))
        if response.status_code == 422 and detail.startswith("the upload cannot be used: "):
            return detail.rpartition(": ")[2]
        if response.status_code >= 500 or response.status_code == 429:
            raise MachineError(f"{self.url}: {detail}")
        raise TristreamError(f"{self.url}: {detail}")


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(BLOCK):
            yield data
