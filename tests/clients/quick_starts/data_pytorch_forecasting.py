"""A made table of the form of the package's own example data, which its tests would fetch: monthly sales of drinks."""

from pathlib import Path

import numpy as np
import pandas as pd

DAYS = (
    "easter_day good_friday new_year christmas labor_day independence_day revolution_day_memorial regional_games "
    "fifa_u_17_world_cup football_gold_cup beer_capital music_fest"
).split()

random = np.random.default_rng(0)
months = pd.date_range("2013-01-01", periods=60, freq="MS")
tables = []
for agency in range(1, 5):
    for sku in range(1, 4):
        n = len(months)
        table = pd.DataFrame({"agency": f"Agency_{agency:02}", "sku": f"SKU_{sku:02}", "date": months})
        season = 1 + 0.3 * np.sin(np.arange(n) * 2 * np.pi / 12)
        table["volume"] = 50 * agency * sku * season * random.uniform(0.8, 1.2, n)
        table["industry_volume"] = random.integers(400_000_000, 600_000_000, n)
        table["soda_volume"] = random.integers(700_000_000, 900_000_000, n)
        table["avg_max_temp"] = 25 + 5 * season + random.normal(0, 1, n)
        table["price_regular"] = 1200 + 10 * np.arange(n) + random.normal(0, 20, n)
        table["price_actual"] = table["price_regular"] - random.uniform(0, 200, n)
        table["discount"] = table["price_regular"] - table["price_actual"]
        table["discount_in_percent"] = 100 * table["discount"] / table["price_regular"]
        table["avg_population_2017"] = 100_000 * agency
        table["avg_yearly_household_income_2017"] = 100_000 + 5_000 * agency
        for place, day in enumerate(DAYS):
            table[day] = (table["date"].dt.month == place + 1).astype(int)
        table["timeseries"] = 3 * agency + sku
        tables.append(table)
pd.concat(tables, ignore_index=True).to_parquet(Path("pytorch_forecasting/data/stallion.parquet"))
