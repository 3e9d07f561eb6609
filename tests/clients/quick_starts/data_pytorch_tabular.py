"""Made data of the form of what the package's tests would fetch: prices of houses, kinds of forest, sensors."""

from pathlib import Path
from zipfile import ZipFile

import joblib
import numpy as np
import pandas as pd

random = np.random.default_rng(0)

n = 6000
households = random.integers(100, 1000, n)
income = random.uniform(1, 10, n)
houses = np.column_stack(
    [
        30_000 * income + random.normal(0, 20_000, n),
        income,
        random.integers(1, 52, n),
        households * random.uniform(3, 8, n),
        households * random.uniform(1, 2, n),
        households * random.uniform(2, 5, n),
        households,
        random.uniform(32, 42, n),
        random.uniform(-124, -114, n),
    ]
)
Path("data/covertype").mkdir(parents=True)
joblib.dump(houses, "data/cal_housing_py3.pkz")

places = random.normal(2000, 500, (12_000, 54)).round()
joblib.dump(places, "data/covertype/samples_py3")
joblib.dump(1 + (places[:, 0] > 2000) + 2 * (places[:, 1] > 2000), "data/covertype/targets_py3")

times = pd.date_range("2015-02-04 17:51", periods=2000, freq="min")
room = pd.DataFrame({"date": times.strftime("%Y-%m-%d %H:%M:%S")})
for name in ("Temperature", "Humidity", "Light", "CO2", "HumidityRatio"):
    room[name] = random.normal(20, 2, len(times))
room["Occupancy"] = (room["Light"] > 20).astype(int)
Path("tests/.datasets").mkdir()
with ZipFile("tests/.datasets/occupancy_data.zip", "w") as archive:
    for name in ("datatraining.txt", "datatest.txt", "datatest2.txt"):
        archive.writestr(name, room.to_csv())
