"""Run in an Airflow home: reads an XCom as the UI does, and posts one as a user may. Prints JSON."""

import json
import sys

from airflow.api_fastapi.app import create_app
from fastapi.testclient import TestClient

dag, run = sys.argv[1:]
client = TestClient(create_app(apps="core"), base_url="http://testserver")
token = client.get("/auth/token").json()["access_token"]
client.headers["Authorization"] = f"Bearer {token}"
entries = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/total/xcomEntries"
shown = [
    client.get(f"{entries}/return_value", params=params).json()
    for params in ({}, {"deserialize": "true"}, {"stringify": "true"}, {"deserialize": "true", "stringify": "true"})
]
posted = client.post(entries, json={"key": "injected", "value": {"a": 1}, "map_index": -1})
print(json.dumps({"shown": [item["value"] for item in shown], "posted": posted.status_code}))
