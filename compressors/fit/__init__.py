"""Closed-form fitting: new operators by regression, and everything behind them refitted to the original."""

from compressors.fit.regression import RegressionConfig
from compressors.fit.sweep import FitConfig, FitResult, Refit, fit

__all__ = ["FitConfig", "FitResult", "Refit", "RegressionConfig", "fit"]
