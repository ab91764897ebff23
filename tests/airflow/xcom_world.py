"""XComs as the API server keeps them, without a server: rows that everybody can read and write."""

from __future__ import annotations

from typing import Any

Row = tuple[str, str, str, int, str]


class Rows:
    """Answers what a worker asks its supervisor about XComs.

    Attributes:
        rows: (DAG, run, task, map index, key) to what is stored.
    """

    def __init__(self) -> None:
        self.rows: dict[Row, Any] = {}

    def send(self, msg: Any) -> Any:
        from airflow.sdk.execution_time import comms

        if isinstance(msg, comms.SetXCom):
            self.rows[self._row(msg)] = msg.value
            return None
        if isinstance(msg, comms.DeleteXCom):
            del self.rows[self._row(msg)]
            return None
        if isinstance(msg, comms.GetXCom):
            runs = [msg.run_id] if not msg.include_prior_dates else sorted({row[1] for row in self.rows}, reverse=True)
            index = -1 if msg.map_index is None else msg.map_index
            found = [self.rows.get((msg.dag_id, run, msg.task_id, index, msg.key)) for run in runs]
            return comms.XComResult(key=msg.key, value=next((value for value in found if value is not None), None))
        values = self._values(msg)
        if isinstance(msg, comms.GetXComCount):
            return comms.XComCountResponse(len=len(values))
        if isinstance(msg, comms.GetXComSequenceSlice):
            return comms.XComSequenceSliceResult(root=values[msg.start : msg.stop : msg.step])
        if isinstance(msg, comms.GetXComSequenceItem):
            try:
                return comms.XComSequenceIndexResult(root=values[msg.offset])
            except IndexError:
                return comms.ErrorResponse()
        raise AssertionError(msg)

    async def asend(self, msg: Any) -> Any:
        return self.send(msg)

    @staticmethod
    def _row(msg: Any) -> Row:
        return (msg.dag_id, msg.run_id, msg.task_id, -1 if msg.map_index is None else msg.map_index, msg.key)

    def _values(self, msg: Any) -> list[Any]:
        every = getattr(msg, "include_prior_dates", False)
        return [
            self.rows[row]
            for row in sorted(self.rows, key=lambda row: row[3])
            if (row[0], row[2], row[4]) == (msg.dag_id, msg.task_id, msg.key) and (every or row[1] == msg.run_id)
        ]
