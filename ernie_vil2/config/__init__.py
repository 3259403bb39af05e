"""Typed configuration: one section per concern, YAML files and command-line overrides."""

from ernie_vil2.config.data import DataConfig, HoldoutConfig, ScoredConfig, SourceConfig, ViewsConfig
from ernie_vil2.config.load import MISSING, differences, dump_config, load_config, read_yaml, validated, with_overrides
from ernie_vil2.config.model import HeadConfig, ModelConfig
from ernie_vil2.config.schema import (
    ClassesConfig,
    Config,
    EvaluationConfig,
    LoraConfig,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    TeacherConfig,
    TrainingConfig,
    TuningConfig,
)
from ernie_vil2.io.terminal import ConfigError

__all__ = [
    "MISSING",
    "ClassesConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "EvaluationConfig",
    "HeadConfig",
    "HoldoutConfig",
    "LoraConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "ScoredConfig",
    "SourceConfig",
    "TeacherConfig",
    "TrainingConfig",
    "TuningConfig",
    "ViewsConfig",
    "differences",
    "dump_config",
    "load_config",
    "read_yaml",
    "validated",
    "with_overrides",
]
