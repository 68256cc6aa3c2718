# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Package description for ament_python (colcon) and pip."""

from collections import defaultdict
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = 'residual_rl_ros'
ROS = {
    'ros-rclpy[fastrtps]': '7.1.6',
    'ros-builtin-interfaces': '2.0.3',
    'ros-diagnostic-msgs': '5.3.6',
    'ros-geometry-msgs': '5.3.6',
    'ros-nav-msgs': '5.3.6',
    'ros-rosgraph-msgs': '2.0.3',
    'ros-sensor-msgs': '5.3.6',
    'ros-std-msgs': '5.3.6',
    'ros-std-srvs': '5.3.6',
    'ros-trajectory-msgs': '5.3.6',
}


def shared_files() -> list[tuple[str, list[str]]]:
    """List the files that go to share/residual_rl_ros, folder by folder."""
    folders = defaultdict(list)
    for top in ('launch', 'config', 'models', 'sim'):
        for path in sorted(Path(top).rglob('*')):
            if path.is_file() and '__pycache__' not in path.parts:
                folders[f'share/{PACKAGE}/{path.parent}'].append(str(path))
    return sorted(folders.items())


setup(
    name=PACKAGE,
    version='0.1.0',
    description='Residual reinforcement learning on top of a frozen robot policy, over ROS 2',
    license='Apache-2.0',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={PACKAGE: ['py.typed']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
        *shared_files(),
    ],
    python_requires='>=3.10',
    install_requires=[
        'gymnasium>=1.0',
        'matplotlib>=3.7',
        'mujoco>=3.3',
        'numpy>=1.26',
        'onnx>=1.16',
        'onnxruntime>=1.18',
        'pillow>=9.0',
        'pyyaml>=6.0',
        'rich>=13.0',
        'rosbags>=0.11,<0.12',
        'safetensors>=0.4',
        'tensorboard>=2.14',
        'torch>=2.4',
        'typer>=0.12',
    ],
    extras_require={
        'ros': [f'{name}=={version}' for name, version in ROS.items()],
        'dev': [
            *('colcon-ros', 'hypothesis', 'mcap', 'mcap-ros2-support', 'mypy', 'pre-commit'),
            *('pyarrow', 'pytest', 'pytest-timeout', 'ruff'),
            'types-PyYAML',
        ],
        # rliable needs arch, and arch fails at import with pandas 3.
        'bench': [
            *('gymnasium-robotics', 'joblib', 'pandas<3', 'rliable', 'sbx-rl'),
            'stable-baselines3',
        ],
        'lerobot': ['pyarrow'],
        'ray': ['ray'],
    },
    zip_safe=False,
    entry_points={
        'console_scripts': [
            f'residual-rl = {PACKAGE}.cli.main:main',
            f'policy_node = {PACKAGE}.ros.nodes.policy_node:main',
            f'learner_node = {PACKAGE}.ros.nodes.learner_node:main',
            f'reward_node = {PACKAGE}.ros.nodes.reward_node:main',
            f'mujoco_sim_node = {PACKAGE}.ros.nodes.mujoco_sim_node:main',
            f'recorder_node = {PACKAGE}.ros.nodes.recorder_node:main',
        ],
    },
)
