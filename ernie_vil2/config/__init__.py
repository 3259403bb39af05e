"""Typed configuration: one section per concern, YAML files and command-line overrides."""

from ernie_vil2.config.load import ConfigError, dump_config, load_config, read_yaml, validated
from ernie_vil2.config.schema import (
    Config,
    DataConfig,
    EvaluationConfig,
    HeadConfig,
    ImageTowerConfig,
    LoraConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    SourceConfig,
    TextTowerConfig,
    TrainingConfig,
    TuningConfig,
    ViewsConfig,
)

__all__ = [
    "Config",
    "ConfigError",
    "DataConfig",
    "EvaluationConfig",
    "HeadConfig",
    "ImageTowerConfig",
    "LoraConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "SourceConfig",
    "TextTowerConfig",
    "TrainingConfig",
    "TuningConfig",
    "ViewsConfig",
    "dump_config",
    "load_config",
    "read_yaml",
    "validated",
]
