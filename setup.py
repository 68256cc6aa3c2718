# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Package description for ament_python (colcon) and pip."""

from collections import defaultdict
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = 'residual_rl_ros'
ROS = {
    # A distribution's wheels, here Jazzy's, fit only each other.
    'ros-rclpy[fastrtps]': '7.1.6',
    'ros-builtin-interfaces': '2.0.3',
    'ros-diagnostic-msgs': '5.3.6',
    'ros-geometry-msgs': '5.3.6',
    'ros-lifecycle-msgs': '2.0.3',
    'ros-nav-msgs': '5.3.6',
    'ros-rcl-interfaces': '2.0.3',
    'ros-rosgraph-msgs': '2.0.3',
    'ros-sensor-msgs': '5.3.6',
    'ros-std-msgs': '5.3.6',
    'ros-std-srvs': '5.3.6',
    'ros-trajectory-msgs': '5.3.6',
    'ros-visualization-msgs': '5.3.6',
}
# Figures depend on its dynamics.
HIGHWAY = 'highway-env==1.12.1'
TEST = ['hypothesis', 'mcap', 'mcap-ros2-support', 'pytest>=8', 'pytest-timeout', 'pytest-xdist']


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
    version='0.2.0',
    description='Residual reinforcement learning on top of a frozen robot policy, over ROS 2',
    long_description=Path('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The residual_rl_ros authors',
    maintainer='The residual_rl_ros authors',
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords=['robotics', 'reinforcement learning', 'residual policy', 'ROS 2', 'ONNX'],
    # The papers that the method follows; a home page is added by whoever publishes the package.
    project_urls={
        'DAWN': 'https://arxiv.org/abs/2602.10539',
        'Residual policy learning': 'https://arxiv.org/abs/1812.06298',
    },
    classifiers=[
        'Development Status :: 4 - Beta',
        'Environment :: Console',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3 :: Only',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Typing :: Typed',
    ],
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={PACKAGE: ['py.typed']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
        *shared_files(),
    ],
    python_requires='>=3.11',
    install_requires=[
        # From Python 3.14 on, `compression.zstd` is part of Python.
        "backports.zstd>=1.0; python_version < '3.14'",
        'gymnasium>=1.0',
        'lz4>=4.0',
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
        'scipy>=1.11',
        'tensorboard>=2.14',
        'torch>=2.4',
        'typer>=0.12',
    ],
    extras_require={
        'ros': [f'{name}=={version}' for name, version in ROS.items()],
        # `colcon test` runs pytest because of this extra's name.
        'test': TEST,
        'dev': [*TEST, 'colcon-ros'],
        'lint': [
            *('codespell', 'import-linter', 'mdformat', 'mdformat-gfm', 'mypy', 'ruff'),
            'types-PyYAML',
        ],
        # The optional parts that have tests: LeRobot, robomimic, Ray, URDF, other environments.
        'optional': [
            *('gymnasium-robotics', 'h5py', HIGHWAY, 'nicegui>=3.0', 'pandas', 'pyarrow', 'ray'),
            *('coal', 'pin>=3.6', 'ruckig'),
        ],
        'bench': ['sbx-rl', 'stable-baselines3'],
        'customisation': [HIGHWAY],
        'dashboard': ['fastapi', 'nicegui>=3.0', 'uvicorn'],
        'lerobot': ['pyarrow'],
        'ray': ['ray'],
        'robomimic': ['h5py'],
        'smoothing': ['ruckig'],
        'urdf': ['coal', 'pin>=3.6'],
    },
    zip_safe=False,
    entry_points={
        'console_scripts': [
            f'residual-rl = {PACKAGE}.cli.__main__:main',
            f'policy_node = {PACKAGE}.ros.nodes.policy_node:main',
            f'learner_node = {PACKAGE}.ros.nodes.learner_node:main',
            f'reward_node = {PACKAGE}.ros.nodes.reward_node:main',
            f'takeover_node = {PACKAGE}.ros.nodes.takeover_node:main',
            f'mujoco_sim_node = {PACKAGE}.ros.nodes.mujoco_sim_node:main',
            f'recorder_node = {PACKAGE}.ros.nodes.recorder_node:main',
        ],
    },
)
